"""What was measured, what must hold, and does it?

Plain records; they must not know how anything is measured or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ArmResult", "Bound", "Measurement", "at_least", "at_most", "failed"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What must hold of a value, in the value's own unit."""

    kind: Literal["at most", "at least"]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether it does. NaN holds nowhere."""
        return value <= self.limit if self.kind == "at most" else value >= self.limit


def at_most(limit: float) -> Bound:
    """The value must not exceed this."""
    return Bound("at most", limit)


def at_least(limit: float) -> Bound:
    """The value must reach this."""
    return Bound("at least", limit)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table."""

    what: str
    value: float
    #: "s", "MB" (10^6 bytes), "x" (a ratio), "us", "objects", …
    unit: str
    #: None: told for information, nothing is promised.
    bound: Bound | None = None
    #: From which figures the value was made.
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether what must hold does; None if nothing must."""
        return None if self.bound is None else self.bound.holds(self.value)


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What came of one arm."""

    arm: str
    measurements: Sequence[Measurement]
    #: How long the arm took, in seconds.
    seconds: float
    #: The share of the machine's cores that others used meanwhile, 0 to 1.
    others: float = 0.0
    #: Why it could not be measured to its end; None: it could.
    error: str | None = None
    #: The figures behind the measurements, as the arm got them.
    details: dict[str, Any] = field(default_factory=dict)


def failed(results: Sequence[ArmResult], *, judged: bool) -> list[str]:
    """What a caller must be told of by the exit code: bounds that don't hold, and arms that did not end.

    Args:
        results: of all arms.
        judged: False: the sizes were not the promised ones, so that bounds say nothing.
    """
    found = []
    for result in results:
        if result.error is not None:
            found.append(f"{result.arm}: {result.error}")
        if judged:
            found += [f"{result.arm}: {m.what}" for m in result.measurements if m.holds is False]
    return found
