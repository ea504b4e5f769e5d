"""How does a comparison become a promotion? As a gate, whose evidence the registry keeps with the alias's record.

It must not know how the comparison was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel.runtime.production.ab_result import Comparison, GroupComparison
from umbel.scheduler.errors import PromotionRefusedError, UsageError
from umbel.storage.registry.gate_results import GateResult, GroupEvidence
from umbel.storage.registry.model_version import ModelVersion

if TYPE_CHECKING:
    from umbel.storage.registry.records import AliasRecord
    from umbel.storage.registry.registered_model import RegisteredModel

__all__ = ["judge", "promote"]

_LONGEST_WHY = 500


def judge(comparison: Comparison, candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
    """What a comparison says about a promotion: it passes if the decision is to promote these very versions.

    A group passes if it was decided for the group by itself, with regard to how many there are.
    """
    name = f"ab({comparison.loss!r}, alpha={comparison.alpha:g}, least={comparison.least}, gain={comparison.gain:g})"
    compared = (comparison.champion.version, comparison.challenger.version)
    if current is None or (current.number, candidate.number) != compared:
        now = "nothing" if current is None else f"version {current.number}"
        note = f"versions {compared[0]} and {compared[1]} were compared; now {now} is to give way to {candidate.number}"
        return GateResult(name, False, (), note)
    groups = {group.group: group for group in comparison.groups}
    rows = tuple(_evidence(name, groups.get(name)) for name in candidate.groups)
    return GateResult(name, comparison.decision == "promote", rows, _note(comparison))


def _evidence(name: str, group: GroupComparison | None) -> GroupEvidence:
    if group is None:
        return GroupEvidence(name, False, note="not yet: no answers")
    note = f"{group.decision}: {group.challenger_n} against {group.champion_n}"
    if group.low is not None and group.high is not None:
        note += f", difference {group.difference:.5g} in [{group.low:.5g}, {group.high:.5g}]"
    return GroupEvidence(name, group.decision == "promote", group.challenger_loss, group.champion_loss, note)


def _note(comparison: Comparison) -> str:
    return f"{comparison.decision}: " + "; ".join(comparison.because)


def promote(
    comparison: Comparison,
    model: RegisteredModel,
    *,
    per_group: bool = False,
    why: str = "",
    trust: bool = False,
) -> AliasRecord:
    """Point the champion's alias to the challenger, with the comparison as evidence.

    Args:
        comparison: what it rests on.
        model: the registered model.
        per_group: only groups for which that was decided move; all others keep the champion's model.
        why: a note for people; "": what was decided.
        trust: load models whatever they hold.

    Raises:
        PromotionRefusedError: the decision is another; nothing is changed.
        UsageError: the champion was named by a number, so there is no alias to move.
        StoreConflictError: another process has moved the alias meanwhile.
    """
    alias = comparison.champion.alias
    if alias.isdecimal() or alias == "latest":
        raise UsageError("there is no alias to promote to", got=alias, expected="an alias, such as champion")
    winners = [group.group for group in comparison.groups if group.decision == "promote"]
    if not (winners if per_group else comparison.decision == "promote"):
        raise PromotionRefusedError(
            f"version {comparison.challenger.version} of {comparison.model!r} is not promoted to {alias!r}",
            got="no group is decided" if per_group else _note(comparison),
            expected="the decision promote" + (" for some group" if per_group else ""),
            hint="look again when there are more outcomes"
            if comparison.decision == "not yet" or per_group
            else f"{alias!r} stays; nothing was changed",
        )
    rests_on = f"promoted in {', '.join(winners)}" if per_group else _note(comparison)
    return model.promote(
        comparison.challenger.version,
        alias,
        gate=comparison.gate,
        per_group=per_group,
        why=why or f"ab: {rests_on}"[:_LONGEST_WHY],
        trust=trust,
    )
