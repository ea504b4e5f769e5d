"""What does the comparison of two versions of a model say? The object that `umbel.ab` gives, as plain data.

It must not know how anything in it was computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from umbel.storage.registry.gate_results import GateResult
    from umbel.storage.registry.model_version import ModelVersion

__all__ = ["SHARES_ALPHA", "Arm", "Comparison", "Decision", "GroupComparison", "Look", "Shares"]

Decision: TypeAlias = Literal["promote", "keep", "not yet"]
#: Below this chance the shares count as wrong. A comparison whose arms are not alike decides nothing, so this is
#: stricter than the comparison itself.
SHARES_ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class Arm:
    """One version, as far as it takes part in the comparison."""

    alias: str
    version: int
    #: Units (requests, or keys of callers) that it was chosen for.
    assigned: int
    #: Of these, those whose loss counts; whose outcome is not there yet; and whose answer no loss can be had of.
    n: int
    waiting: int
    unusable: int
    mean_loss: float | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Whether units were assigned as they should have been (no sample ratio mismatch)."""

    #: The challenger's share of the units of both arms: as it was to be, and as it is.
    expected: float
    actual: float
    #: The chance of so uneven counts at any look (always valid), and at one look planned ahead (chi-square).
    p_value: float
    chi_square_p_value: float

    @property
    def ok(self) -> bool:
        """Whether the counts are credible."""
        return self.p_value >= SHARES_ALPHA


@dataclass(frozen=True, slots=True)
class Look:
    """The difference as it was after ``n`` units."""

    #: Microseconds since the epoch.
    time: int
    n: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GroupComparison:
    """One group, judged with regard to how many there are."""

    group: str
    champion_n: int
    challenger_n: int
    champion_loss: float | None
    challenger_loss: float | None
    #: Of the mean losses, challenger less champion; None where there are fewer than two of an arm.
    difference: float | None
    low: float | None
    high: float | None
    #: The chance of so clear a difference at any look, if there were none; of this group by itself.
    p_value: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions of a model compared: what `umbel.ab` gives."""

    model: str
    loss: str
    #: "paired": both answered the same requests; "unpaired": each had its own.
    design: str
    unit: str
    alpha: float
    least: int
    gain: float
    champion: Arm
    challenger: Arm
    #: Of the mean losses, challenger less champion: below 0 the challenger is better.
    difference: float | None
    low: float | None
    high: float | None
    p_value: float
    #: None: not known, or both answered the same requests.
    shares: Shares | None
    #: The same of units that have an outcome: outcomes may be missing unevenly.
    outcome_shares: Shares | None
    decision: Decision
    #: What the decision rests on, or what is missing, in sentences.
    because: tuple[str, ...]
    groups: tuple[GroupComparison, ...]
    #: Rows that replicas let go because the store was away.
    dropped: int = 0
    #: Requests whose outcome the loss can't use, as a text where it needs numbers: they count as waiting.
    unfit_outcomes: int = 0
    looks: tuple[Look, ...] = field(default=(), repr=False)

    def text(self, *, per_group: bool = False) -> str:
        """For people; with a line a group if wanted."""
        from umbel.runtime.production.ab_view import as_text

        return as_text(self, per_group=per_group)

    def svg(self) -> str:
        """The difference and its interval over the units, as a picture."""
        from umbel.runtime.production.ab_view import as_svg

        return as_svg(self)

    def _repr_html_(self) -> str:
        from umbel.runtime.production.ab_view import as_html

        return as_html(self)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        found = asdict(self)
        found["because"] = list(self.because)
        for name, shares in (("shares", self.shares), ("outcome_shares", self.outcome_shares)):
            if shares is not None:
                found[name]["ok"] = shares.ok
        return found

    def gate(self, candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
        """This comparison as a gate of a promotion: evidence for the whole and, group by group, for each."""
        from umbel.runtime.production.ab_promotion import judge

        return judge(self, candidate, current)
