"""When a run stops by itself before all is done: too many failures, a deadline, a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umbel.scheduler.errors import UsageError
from umbel.scheduler.words import counted

__all__ = ["Limits"]

_BUDGETS = ("trials", "core_seconds")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use up. None: without bound.

    Args:
        max_failures: elements that may fail; one more stops the run.
        deadline_s: seconds from the start of this sitting.
        trials: trials that may end, those of earlier sittings included.
        core_seconds: seconds × processors that elements may take in this sitting.

    Raises:
        UsageError: a limit is not a number that makes sense.
    """

    max_failures: int | None = None
    deadline_s: float | None = None
    trials: float | None = None
    core_seconds: float | None = None

    def __post_init__(self) -> None:
        failures = self.max_failures
        if failures is not None and (not isinstance(failures, int) or isinstance(failures, bool) or failures < 0):
            raise UsageError("max_failures is not a count", got=failures, expected="a whole number ≥ 0, or None")
        for name in ("deadline_s", "trials", "core_seconds"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0):
                raise UsageError(f"{name} is not a limit", got=value, expected="a number > 0, or None")

    @classmethod
    def of(cls, max_failures: int | None, deadline_s: float | None, budget: Mapping[str, float] | None) -> Limits:
        """From the arguments of `umbel.run`."""
        if budget is not None and (not isinstance(budget, Mapping) or set(budget) - set(_BUDGETS)):
            raise UsageError(
                "unknown budget", got=budget, expected='{"trials": 5000} or {"core_seconds": 3600}, or both'
            )
        return cls(max_failures, deadline_s, **(budget or {}))

    def failures_exceeded(self, failures: int) -> bool:
        """True if more elements failed than may."""
        return self.max_failures is not None and failures > self.max_failures

    def trials_used_up(self, trials: int) -> bool:
        """True if as many trials have ended as may."""
        return self.trials is not None and trials >= self.trials

    def reached(self, *, failures: int, elapsed_s: float, trials: int, core_seconds: float) -> str | None:
        """Which limit is reached, in words; None: none."""
        if self.failures_exceeded(failures):
            are = "is" if failures == 1 else "are"
            return f"{counted(failures, 'failure')} {are} more than max_failures={self.max_failures:,} allows"
        if self.deadline_s is not None and elapsed_s >= self.deadline_s:
            return f"the deadline of {self.deadline_s:g} s has passed"
        if self.trials is not None and self.trials_used_up(trials):
            return f"the budget of {counted(int(self.trials), 'trial')} is used up"
        if self.core_seconds is not None and core_seconds >= self.core_seconds:
            return f"the budget of {self.core_seconds:,.0f} core-seconds is used up"
        return None
