"""May a version take an alias over, wholly or for some groups? Runs the checks, keeps the evidence, moves the alias.

It must not know what gates judge by.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from umbel.scheduler.errors import StoreCorruptError, UmbelError, UntrustedError, UsageError
from umbel.scheduler.words import counted
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.gate_results import (
    Gate,
    GateResult,
    GroupEvidence,
    check_gate,
    evidence_table,
    refusal,
    run_gate,
)
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_rows import encode_rows
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import plain
from umbel.storage.registry.records import AliasRecord, VersionRecord, check_alias
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.registry.registration import create_version
from umbel.storage.runs.segment_format import unify
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.columns import integers
from umbel.storage.values.packs import MODEL_AT

__all__ = ["promote", "smoke_test"]

#: Models that are read at once, from stores whose answers take time.
_READERS = 16
_MAX_NAMED = 5
#: Characters of an error in a table.
_LONGEST_NOTE = 200


def promote(
    model: RegisteredModel,
    version: int | str,
    alias: str,
    *,
    gate: Gate | Sequence[Gate] | None,
    groups: Sequence[object] | None,
    per_group: bool,
    why: str,
    trust: bool,
) -> AliasRecord:
    """Point an alias to a version that has passed its gates; see `RegisteredModel.promote`."""
    check_alias(alias)
    gates: list[Gate] = [] if gate is None else [gate] if callable(gate) else list(gate)
    if per_group and not gates:
        raise UsageError(
            "nothing says in which groups the version is better",
            got="per_group=True (--per-group) without a gate",
            expected="a gate that judges each group",
            hint="gate=umbel.gates.no_group_worse(by=0.0) (--gate no-group-worse:by=0)",
        )
    before = model.newest(alias)
    candidate = model.version(version).trusted(trust)
    named = None if groups is None else _named(candidate, groups)
    for each in gates:
        check_gate(each, candidate)
    if before is None and named is not None:
        raise UsageError(
            f"{alias!r} of {model.name!r} is new, so there is nothing that the other groups could keep",
            got="groups (--group) for an alias that points nowhere yet",
            expected="an alias that points to a version",
            hint=f"point {alias!r} to a whole version first",
        )
    moved = before is None or before.version != candidate.number
    # One that is there already is judged as when it came: against the one that it took the place of.
    against = None if before is None else before.version if moved else before.previous
    current = None if against is None else model.version(against).trusted(trust)
    # Only groups that may move are judged: what is wrong with others is no reason for these to stay.
    judged = candidate if named is None else candidate.only(named)
    beside = current if named is None or current is None else current.only(named)

    def ask() -> list[GateResult]:
        known = [*candidate.groups, *([] if current is None else current.groups)] if gates else []
        return [
            run_gate(each, judged, beside, known=known, may_keep=per_group and current is not None) for each in gates
        ]

    if before is not None and not moved:
        results = ask()
        if not (_moving(judged, results) if per_group else all(result.passed for result in results)):
            what = f"{alias!r} points to version {candidate.number} already, and stays"
            raise refusal(candidate, alias, results, what)
        return before
    smoke = smoke_test(model.objects, judged)
    if not smoke.passed:
        raise refusal(candidate, alias, [smoke], smoke.note or "register the run again, and promote that version")
    results = [smoke, *ask()]
    if current is None or not (per_group or named is not None):
        _refuse_failed(candidate, judged, current, alias, results)
        _warn_of_lost(candidate, current)
        chosen, kept, shown = candidate.number, frozenset[str](), results
    else:
        if not per_group:
            _refuse_failed(candidate, judged, current, alias, results)
        moving = _moving(judged, results) if per_group else frozenset(judged.groups)
        if not moving:
            raise refusal(candidate, alias, _as_failed(results), "all groups keep what they have")
        kept = frozenset(current.groups) - moving
        chosen, shown = candidate.number, results
        if kept or moving != set(candidate.groups):
            stay = _checked_together(model.objects, candidate, current.only(kept), alias)
            shown = [*results, stay]
            chosen = _compose(model, candidate.only(moving), current.only(kept), why)
    evidence = put_artifact(model.objects, encode_rows(evidence_table(shown, kept)))
    names = [result.gate for result in results]
    return model.move_alias(alias, chosen, before, action="promote", why=why, gates=names, evidence=evidence)


def smoke_test(objects: ObjectStore, version: ModelVersion, inputs: object = None) -> GateResult:
    """Compare models with their digests and, if there are example inputs, load and ask them.

    Args:
        objects: the store.
        version: the version.
        inputs: the example; None: that of the version, if it has one.

    Returns:
        A row a group; the note says what to do about models that are damaged.

    Raises:
        UntrustedError: they must be loaded, carry code, and the store is not trusted.
    """
    example = version.smoke if inputs is None else inputs
    wanted = version.groups
    hints: list[str] = []  # what to do about groups that fail

    def test(group: str) -> GroupEvidence:
        try:
            if example is None:
                version.check(group)
            else:
                plain(version.predict(group, example))
        except UntrustedError:
            raise
        except UmbelError as error:
            if isinstance(error, StoreCorruptError):
                hints.append(f"restore the {'pack' if version.row(group).get(MODEL_AT) else 'artifact'} from a copy")
            return GroupEvidence(group, False, note=error.what + (f" ({error.got})" if error.got else ""))
        except Exception as error:  # whatever the model raises
            return GroupEvidence(group, False, note=f"{type(error).__name__}: {error}"[:_LONGEST_NOTE])
        return GroupEvidence(group, True)

    rows: Iterable[GroupEvidence]
    if objects.is_local_path or objects.is_process_local:
        rows = tuple(map(test, wanted))
    else:
        with ThreadPoolExecutor(_READERS) as readers:
            rows = tuple(readers.map(test, wanted))
    return GateResult(
        "smoke test" if example is not None else "digests",
        all(row.ok for row in rows),
        tuple(rows),
        hints[0] if hints else "",
    )


def _refuse_failed(
    candidate: ModelVersion,
    judged: ModelVersion,
    current: ModelVersion | None,
    alias: str,
    results: Sequence[GateResult],
) -> None:
    if all(result.passed for result in results):
        return
    if current is None:
        hint = f"{alias!r} points to no version yet; give it one that passes"
    elif _moving(judged, results):
        hint = "per_group=True (--per-group) keeps what serves now where it is better"
    else:
        hint = f"no group passes; {alias!r} stays at version {current.number}"
    raise refusal(candidate, alias, results, hint)


def _as_failed(results: Sequence[GateResult]) -> list[GateResult]:
    """Gates that may have passed as a whole, though no group did."""
    return [GateResult(r.gate, r.passed and all(row.ok for row in r.rows), r.rows, r.note) for r in results]


def _warn_of_lost(candidate: ModelVersion, current: ModelVersion | None) -> None:
    lost = [] if current is None else sorted(set(current.groups) - set(candidate.groups))
    if lost:
        more = f" and {len(lost) - _MAX_NAMED} more" if len(lost) > _MAX_NAMED else ""
        warnings.warn(
            f"version {candidate.number} of {candidate.model!r} has no models of {counted(len(lost), 'group')} of the "
            f"one that it replaces: {', '.join(lost[:_MAX_NAMED])}{more}",
            UserWarning,
            stacklevel=4,
        )


def _named(candidate: ModelVersion, groups: Sequence[object]) -> frozenset[str]:
    """The groups that somebody has named, by their canonical texts."""
    known = {text: place for place, text in enumerate(candidate.groups)}
    what = f"version {candidate.number} of {candidate.model!r}"
    if isinstance(groups, str) or not groups:
        expected = f"[{candidate.groups[0]!r}], say"
        raise UsageError("groups must be a list of groups", got=repr(groups), expected=expected)
    return frozenset(candidate.groups[find_group(group, candidate.by, known, what)] for group in groups)


def _moving(judged: ModelVersion, results: Sequence[GateResult]) -> frozenset[str]:
    """The groups for which every gate is."""
    moving = set(judged.groups)
    for result in results:
        moving -= {row.group for row in result.rows if not row.ok}
        if not result.rows and not result.passed:
            moving = set()
    return frozenset(moving)


# ---- a version of two ------------------------------------------------------------------------------------------


def _checked_together(objects: ObjectStore, candidate: ModelVersion, staying: ModelVersion, alias: str) -> GateResult:
    """Refuse what can't become one version, before one is made; what the models that stay said to the example."""
    if (candidate.by, candidate.takes) != (staying.by, staying.takes):
        raise UsageError(
            "versions with other group keys or inputs can't be put together",
            got=f"{candidate.by} taking {candidate.takes}, and {staying.by} taking {staying.takes}",
            expected="the same",
            hint="promote the whole version",
        )
    found = smoke_test(objects, staying, candidate.smoke)
    found = replace(found, gate=f"{found.gate} of the models that stay")
    if not found.passed:
        raise refusal(candidate, alias, [found], "the models that stay can't be asked the new version's example")
    return found


def _compose(model: RegisteredModel, candidate: ModelVersion, current: ModelVersion, why: str) -> int:
    """Make a new version of groups of two, the candidate's first; its number."""
    origin = candidate.version_record
    stay, move = counted(len(current.groups), "group"), f"{len(candidate.groups):,}"
    record = VersionRecord(
        model=model.name,
        number=1,
        rows="",
        groups=1,
        by=origin.by,
        by_columns=origin.by_columns,
        metric=origin.metric,
        mode=origin.mode,
        inputs=origin.inputs,
        outputs=origin.outputs,
        takes=origin.takes,
        smoke=origin.smoke,
        composed_of=(current.number, candidate.number),
        why=why or f"{stay} of version {current.number}, {move} of version {candidate.number}",
    )
    return create_version(model.objects, unify([_rows(candidate), _rows(current)]), record).number


def _rows(version: ModelVersion) -> pa.Table:
    """The rows of a version, saying which version they are from."""
    table = version.table()
    origin = [version.number if each is None else each for each in table["registered"].to_pylist()]
    return table.set_column(table.column_names.index("registered"), "registered", integers(origin))
