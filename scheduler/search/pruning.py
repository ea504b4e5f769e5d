"""Which trials are not worth going on with? The rules of pruning, as pure functions of what trials have reported.

A rule has *rungs*: a trial is looked at when it reports for the first time at or past a rung, and compared with the
trials that got there before it. It is stopped if it is worse than the rule's *cut-off* among them. Whoever judges need
not know all that others have reported: with less the cut-off is only less sharp, never unsound.

Nothing here knows where records come from (this worker, others, an earlier sitting), nor how a trial is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from typing import NamedTuple, Protocol

from umbel.scheduler.errors import UsageError

__all__ = ["Asha", "Hyperband", "Mark", "Median", "Record", "Rule"]

#: Rungs of different brackets have numbers this far apart.
BRACKET_STRIDE = 100
#: `Median` looks at every step up to this one, and this many times each time the steps double after it.
LOOKS = 16
#: Spreads trials over brackets: the golden ratio's fractional part.
_GOLDEN = 0.6180339887498949


class Record(NamedTuple):
    """What one trial reported at one rung, as it is told to others."""

    #: Index of the trial in its sweep.
    trial: int
    rung: int
    #: The step that was reported: that of the rung, or the first one after it.
    step: int
    #: The metric as reported.
    value: float
    #: Where this placed it in its group when it was reported, from 0 (best) to 1; None: not compared across groups.
    rank: float | None = None


class Mark(NamedTuple):
    """What one trial reported at one rung, and what that was compared with."""

    rung: int
    step: int
    value: float
    rank: float | None
    #: With how many other trials it was compared.
    of: int
    #: What it must not be worse than: a metric, or a rank where ranks are compared. None: it went on in any case.
    cutoff: float | None


class Rule(Protocol):
    """When trials are looked at, and what they must reach. Scores: the lower the better."""

    #: True: judged by the best of what a trial reported at its rungs so far; False: by what it reported last.
    by_best: bool

    def rung(self, position: int, step: int) -> int | None:
        """The highest rung that a trial has reached at a step; None: none yet.

        Args:
            position: the trial's number in its group, from 0.
            step: what it reports.
        """

    def cutoff(self, others: Sequence[float]) -> float | None:
        """The worst score with which a trial goes on; None: any.

        Args:
            others: scores of other trials at this rung, in ascending order.
        """


@dataclass(frozen=True, slots=True)
class Asha:
    """Asynchronous successive halving: at each rung only the best 1 in ``reduction_factor`` go on.

    Rungs are at the steps ``min_resource × reduction_factor ** k`` below ``max_resource``. Of the n trials that have
    got to a rung so far, itself included, a trial must be among the best ``n // reduction_factor``, or be the best;
    else it is stopped there, for good. After Li et al. (2020), "A System for Massively Parallel Hyperparameter Tuning",
    MLSys.

    Args:
        reduction_factor: at least 2.
        min_resource: the step of the first rung.
        max_resource: the step at which trials end by themselves; None: there are rungs as long as trials report.
        brackets: trials are dealt out over this many; bracket b begins at rung b, so that trials that start slowly have
            a chance there. A trial is compared with those of its bracket.

    Raises:
        UsageError: a value is out of range.
    """

    reduction_factor: float = 3
    min_resource: int = 1
    max_resource: int | None = None
    brackets: int = 1

    by_best = False

    def __post_init__(self) -> None:
        _check_number("reduction_factor", self.reduction_factor, 2)
        _check_whole("min_resource", self.min_resource, 1)
        _check_whole("brackets", self.brackets, 1)
        if self.max_resource is not None:
            _check_whole("max_resource", self.max_resource, self.min_resource + 1)
            if self.brackets > 1 and self._level(self.brackets - 1) > self.max_resource:
                raise UsageError(
                    "there are more brackets than rungs",
                    got=f"brackets={self.brackets}",
                    expected="at most as many as min_resource × reduction_factor ** k fit below max_resource",
                )

    def rung(self, position: int, step: int) -> int | None:
        """The highest rung that a trial has reached at a step; None: none yet."""
        bracket = self.bracket(position)
        top = step if self.max_resource is None else min(step, self.max_resource - 1)
        k = bracket
        while self._level(k) <= top:
            k += 1
        return None if k == bracket else bracket * BRACKET_STRIDE + k - 1

    def bracket(self, position: int) -> int:
        """The bracket of a trial: earlier brackets, which stop more, get more trials, as in Hyperband."""
        if self.brackets == 1:
            return 0
        total = self.brackets
        sizes = [total / (s + 1) * self.reduction_factor**s for s in range(total - 1, -1, -1)]
        at = (position * _GOLDEN) % 1.0 * sum(sizes)
        for bracket, size in enumerate(sizes):
            at -= size
            if at < 0:
                return bracket
        return total - 1

    def cutoff(self, others: Sequence[float]) -> float | None:
        """The worst score with which a trial goes on; None: any."""
        go_on = max(1, int((len(others) + 1) / self.reduction_factor))
        return others[go_on - 1] if go_on <= len(others) else None

    def _level(self, k: int) -> int:
        return int(self.min_resource * self.reduction_factor**k)


@dataclass(frozen=True, slots=True)
class Hyperband:
    """Asynchronous Hyperband: `Asha` with every bracket from the one that stops most to the one that stops nothing.

    After Li et al. (2018), "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18(185),
    with brackets that run side by side as in `Asha`.

    Args:
        reduction_factor: at least 2.
        min_resource: the step of the first bracket's first rung.
        max_resource: the step at which trials end by themselves.

    Raises:
        UsageError: a value is out of range.
    """

    reduction_factor: float = 3
    min_resource: int = 1
    max_resource: int = 81

    def __post_init__(self) -> None:
        _check_whole("max_resource", self.max_resource, 2)
        self.asha()

    def asha(self) -> Asha:
        """The same rule, said in brackets."""
        one = Asha(self.reduction_factor, self.min_resource, self.max_resource)
        brackets = 1
        while one._level(brackets) <= self.max_resource:
            brackets += 1
        return Asha(self.reduction_factor, self.min_resource, self.max_resource, brackets)


@dataclass(frozen=True, slots=True)
class Median:
    """The median rule: a trial is stopped if its best value so far is worse than the median of the others at its step.

    After Golovin et al. (2017), "Google Vizier", KDD, with values in place of running averages, as Optuna has it;
    others count whether they still run, ended or were stopped.

    Args:
        warmup: steps before which nothing is stopped.
        interval: steps between two looks; None: at every step for 16 steps, and 16 times each time the steps double, so
            that long trials don't leave a mark at every step.
        min_trials: other trials that must have come as far.

    Raises:
        UsageError: a value is out of range.
    """

    warmup: int = 1
    interval: int | None = None
    min_trials: int = 5

    by_best = True

    def __post_init__(self) -> None:
        _check_whole("warmup", self.warmup, 0)
        _check_whole("min_trials", self.min_trials, 1)
        if self.interval is not None:
            _check_whole("interval", self.interval, 1)

    def rung(self, position: int, step: int) -> int | None:
        """The highest rung that a trial has reached at a step; None: none yet."""
        past = step - self.warmup
        if past < 0:
            return None
        if self.interval is not None:
            return past // self.interval
        if past < LOOKS:
            return past
        doubled = past.bit_length() - LOOKS.bit_length()
        return LOOKS * doubled + (past >> doubled)

    def cutoff(self, others: Sequence[float]) -> float | None:
        """The worst score with which a trial goes on; None: any."""
        count = len(others)
        if count < self.min_trials:
            return None
        low, high = others[(count - 1) // 2], others[count // 2]
        return low if low == high else (low + high) / 2  # equal infinities have no mean


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} is out of range", got=f"{name}={value!r}", expected=f"a whole number ≥ {least}")


def _check_number(name: str, value: object, least: float) -> None:
    if not isinstance(value, Real) or isinstance(value, bool) or not least <= float(value) < inf:
        raise UsageError(f"{name} is out of range", got=f"{name}={value!r}", expected=f"a number ≥ {least:g}")
