"""May a version take an alias over, wholly or for some groups? Runs the checks, keeps the evidence, moves the alias.

It must not know what gates judge by.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from umbel.scheduler.errors import UmbelError, UntrustedError, UsageError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.gate_results import Gate, GateResult, GroupEvidence, evidence_table, refusal, run_gate
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_rows import GROUP, encode_rows
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import plain
from umbel.storage.registry.records import AliasRecord, VersionRecord, check_alias
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.registry.registration import create_version
from umbel.storage.runs.segment_format import unify
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.columns import integers

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
    current = None if before is None else model.version(before.version).trusted(trust)
    if before is not None and before.version == candidate.number:
        return before
    smoke = smoke_test(model.objects, candidate)
    if not smoke.passed:
        raise refusal(candidate, alias, [smoke], "register the run again, and promote that version")
    results = [smoke, *(run_gate(each, candidate, current) for each in gates)]
    kept: frozenset[str] = frozenset()
    chosen = candidate
    if (per_group or groups is not None) and current is not None:
        kept = _kept(candidate, current, results if per_group else (), groups)
        if not per_group:
            _refuse_failed(candidate, alias, results)
        elif not set(candidate.groups) - kept:
            raise refusal(candidate, alias, _as_failed(results), "all groups keep what they have")
        if kept:
            chosen = _composed(model, candidate, current, kept, why).trusted(trust)
            again = smoke_test(model.objects, chosen, sorted(kept))
            if not again.passed:
                raise refusal(chosen, alias, [again], "the models that stay can't be asked the new version's example")
    else:
        _refuse_failed(candidate, alias, results)
        _warn_of_lost(candidate, current)
    evidence = put_artifact(model.objects, encode_rows(evidence_table(results, kept)))
    names = [result.gate for result in results]
    return model.move_alias(alias, chosen.number, before, action="promote", why=why, gates=names, evidence=evidence)


def smoke_test(objects: ObjectStore, version: ModelVersion, groups: Sequence[str] | None = None) -> GateResult:
    """Compare models with their digests and, if the version has example inputs, load and ask them.

    Args:
        objects: the store.
        version: the version.
        groups: which groups; None: all.

    Raises:
        UntrustedError: they must be loaded, carry code, and the store is not trusted.
    """
    example = version.smoke
    wanted = version.groups if groups is None else list(groups)

    def test(group: str) -> GroupEvidence:
        try:
            if example is None:
                version.check(group)
            else:
                plain(version.predict(group, example))
        except UntrustedError:
            raise
        except UmbelError as error:
            note = error.what + (f" ({error.got})" if error.got else "")
            return GroupEvidence(group, False, note=note[:_LONGEST_NOTE])
        except Exception as error:  # whatever the model raises
            return GroupEvidence(group, False, note=f"{type(error).__name__}: {error}"[:_LONGEST_NOTE])
        return GroupEvidence(group, True)

    rows: Iterable[GroupEvidence]
    if objects.is_local_path or objects.is_process_local:
        rows = tuple(map(test, wanted))
    else:
        with ThreadPoolExecutor(_READERS) as readers:
            rows = tuple(readers.map(test, wanted))
    return GateResult("smoke test" if example is not None else "digests", all(row.ok for row in rows), tuple(rows))


def _refuse_failed(candidate: ModelVersion, alias: str, results: Sequence[GateResult]) -> None:
    if not all(result.passed for result in results):
        hint = "per_group=True (--per-group) keeps what serves now where it is better"
        raise refusal(candidate, alias, results, hint)


def _as_failed(results: Sequence[GateResult]) -> list[GateResult]:
    """Gates that may have passed as a whole, though no group did."""
    return [GateResult(r.gate, r.passed and all(row.ok for row in r.rows), r.rows, r.note) for r in results]


def _warn_of_lost(candidate: ModelVersion, current: ModelVersion | None) -> None:
    lost = [] if current is None else sorted(set(current.groups) - set(candidate.groups))
    if lost:
        more = f" and {len(lost) - _MAX_NAMED} more" if len(lost) > _MAX_NAMED else ""
        warnings.warn(
            f"version {candidate.number} of {candidate.model!r} has no models of {len(lost)} groups of the one that it "
            f"replaces: {', '.join(lost[:_MAX_NAMED])}{more}",
            UserWarning,
            stacklevel=4,
        )


def _kept(
    candidate: ModelVersion, current: ModelVersion, results: Sequence[GateResult], groups: Sequence[object] | None
) -> frozenset[str]:
    """The groups that keep what they have."""
    known = {text: place for place, text in enumerate(candidate.groups)}
    moving = set(known)
    if groups is not None:
        what = f"version {candidate.number} of {candidate.model!r}"
        moving = {candidate.groups[find_group(group, candidate.by, known, what)] for group in groups}
    for result in results:
        moving -= {row.group for row in result.rows if not row.ok}
        if not result.rows and not result.passed:
            moving = set()
    return frozenset(set(current.groups) - moving)


# ---- a version of two ------------------------------------------------------------------------------------------


def _composed(
    model: RegisteredModel, candidate: ModelVersion, current: ModelVersion, kept: frozenset[str], why: str
) -> ModelVersion:
    """A new version: the present rows of some groups, and the candidate's of all others that it has."""
    if (candidate.by, candidate.takes) != (current.by, current.takes):
        raise UsageError(
            "versions with other group keys or inputs can't be put together",
            got=f"{candidate.by} taking {candidate.takes}, and {current.by} taking {current.takes}",
            expected="the same",
            hint="promote the whole version",
        )
    rows = unify([_rows(candidate, set(candidate.groups) - kept), _rows(current, set(kept))])
    origin = candidate.version_record
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
        why=why or f"{len(kept)} groups of version {current.number}, all others of version {candidate.number}",
    )
    return ModelVersion(model.objects, create_version(model.objects, rows, record))


def _rows(version: ModelVersion, groups: set[str]) -> pa.Table:
    """The rows of some groups, saying which version they are from."""
    table = version.table()
    chosen = np.flatnonzero([text in groups for text in table[GROUP].to_pylist()])
    table = table.take(integers(chosen))
    origin = [version.number if each is None else each for each in table["registered"].to_pylist()]
    return table.set_column(table.column_names.index("registered"), "registered", integers(origin))
