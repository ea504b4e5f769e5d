"""What does ``prune=`` of a sweep mean? A rule of ours, by name or configured, or a pruner of Optuna's.

It makes what workers judge by; it must not know how records travel between workers and driver.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.pareto import Objective
from umbel.scheduler.search.pruning import Asha, Hyperband, Mark, Median, Record, Rule
from umbel.scheduler.search.standings import Standings

if TYPE_CHECKING:
    from umbel.scheduler.search.sampling import TrialSource

__all__ = ["Judged", "Judges", "Pruning", "as_json", "from_json", "to_pruning"]

#: The rules that have a name, as they come.
NAMED: dict[str, Callable[[], Asha | Hyperband | Median]] = {"asha": Asha, "hyperband": Hyperband, "median": Median}


class Judged(Protocol):
    """One trial on its way; see `umbel.scheduler.search.standings.Course`."""

    marks: list[Mark]

    def report(self, step: int, value: float) -> bool:
        """Whether a trial that reports this is to be stopped."""

    def announce(self, step: int, value: float) -> None:
        """The trial is about to report this, together with others: these are compared with it too."""

    def announce_rank(self, step: int, value: float) -> None:
        """After all have announced this, once more: now their ranks are known, too."""

    def end(self, status: str) -> None:
        """The trial has ended, with this status."""


class Judges(Protocol):
    """What is known of a sweep's trials where trials run; see `umbel.scheduler.search.standings.Standings`."""

    def learn(self, records: Iterable[Record]) -> None:
        """Take into account what trials reported elsewhere, or before."""

    def course(self, trial: int) -> Judged:
        """A trial that begins."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """How a sweep is pruned."""

    #: One of our rules, or a pruner of Optuna's.
    rule: Any
    mode: str
    across: bool = False
    #: For the run's record.
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> Rule | None:
        """The rule, if it is one of ours."""
        return self.rule if isinstance(self.rule, (Asha, Median)) else None

    def judges(
        self, source: TrialSource, on_record: Callable[[Record], object], refresh: Callable[[], object]
    ) -> Judges:
        """What a process that runs trials of this sweep judges by.

        Args:
            source: the sweep's trials.
            on_record: told of every record that a trial made there.
            refresh: called before every verdict; the moment to let it `learn`.
        """
        rule = self.ours
        if rule is not None:
            return Standings(rule, self.mode, source.trials, across=self.across, on_record=on_record, refresh=refresh)
        from umbel.runtime.search.pruning_optuna import OptunaJudges

        return OptunaJudges(self.rule, self.mode, source, on_record, refresh)


def to_pruning(prune: object, across: object, objectives: Sequence[Objective]) -> Pruning | None:
    """What `umbel.sweep` was given as ``prune=``, checked; None: nothing is pruned.

    Raises:
        UsageError: it is no rule, or the sweep has several objectives.
    """
    if not isinstance(across, bool):
        raise UsageError("prune_across is neither True nor False", got=across, expected="True or False")
    if prune is None:
        if across:
            raise UsageError(
                "prune_across=True says how to prune, but nothing is pruned",
                got="prune=None",
                expected='a rule, such as prune="asha"',
            )
        return None
    if len(objectives) > 1:
        raise UsageError(
            "pruning compares trials by one metric, and this sweep has several objectives",
            got=f"metric={[each.metric for each in objectives]!r}",
            expected="one metric, or no prune=",
        )
    mode = objectives[0].mode
    rule: object
    if isinstance(prune, str):
        if prune not in NAMED:
            raise _unknown(prune)
        rule = NAMED[prune]()
    else:
        rule = prune
    if isinstance(rule, (Asha, Hyperband, Median)):
        description = {"rule": type(rule).__name__.lower(), **asdict(rule)}
        if across:
            description["across"] = True
        return Pruning(rule.asha() if isinstance(rule, Hyperband) else rule, mode, across, description)
    optuna = sys.modules.get("optuna.pruners")
    if optuna is None or not isinstance(rule, optuna.BasePruner):
        raise _unknown(prune)
    if across:
        raise UsageError(
            "prune_across=True needs a rule of Umbel's: Optuna's pruners see the trials of one study, which is a group",
            got=type(rule).__name__,
            expected='"asha", "median", "hyperband", or one of umbel.Asha, umbel.Median, umbel.Hyperband',
        )
    kept = {name: value for name, value in sorted(vars(rule).items()) if isinstance(value, (str, int, float, bool))}
    description = {"rule": f"{type(rule).__module__}.{type(rule).__qualname__}", **kept}
    # A copy, since pruners learn as they go, and this one may be given to other sweeps.
    return Pruning(copy.deepcopy(rule), mode, False, description)


def _unknown(prune: object) -> UsageError:
    return UsageError(
        "unknown prune",
        got=f"prune={prune!r}",
        expected='"asha", "median", "hyperband", umbel.Asha(…), umbel.Median(…), umbel.Hyperband(…), '
        "or a pruner of optuna.pruners",
        hint="an object is needed, not its class" if isinstance(prune, type) else None,
    )


# ---- marks in rows -------------------------------------------------------------------------------------------


def as_json(marks: Sequence[Mark]) -> str | None:
    """The marks of a trial as they stand in its row; None: there are none. Numbers that JSON lacks are texts."""
    if not marks:
        return None
    return json.dumps(
        [{name: _plain(value) for name, value in mark._asdict().items() if value is not None} for mark in marks]
    )


def from_json(text: str) -> list[Mark]:
    """The marks that a row holds."""
    return [
        Mark(
            each["rung"],
            each["step"],
            float(each["value"]),
            each.get("rank"),
            each["of"],
            float(each["cutoff"]) if "cutoff" in each else None,
        )
        for each in json.loads(text)
    ]


def _plain(value: float) -> float | str:
    return value if isfinite(value) else str(value)
