"""What does a gate say about a version that is to be promoted, and how is that kept and shown?

A gate is a function of the candidate and of what serves now (None for the first), that judges each group. The built-in
ones are in `umbel.runtime.production.gates`. It must not know how they judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from umbel.scheduler.errors import PromotionRefusedError, UmbelError, UsageError
from umbel.scheduler.words import counted
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.values.columns import booleans, floats, strings

__all__ = ["Gate", "GateResult", "GroupEvidence", "check_gate", "evidence_table", "refusal", "run_gate"]

_MAX_SHOWN = 20
#: What may stand for true or false.
_TRUTH = (bool, np.bool_)


@dataclass(frozen=True, slots=True)
class GroupEvidence:
    """What a gate says about one group."""

    group: str
    #: The group may have the candidate's model.
    ok: bool
    #: What was compared, if it is a number.
    candidate: float | None = None
    current: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate says."""

    #: The gate, with what it was given: ``"better_on_most('mase', share=0.5)"``.
    gate: str
    #: The candidate as a whole may take the place.
    passed: bool
    rows: tuple[GroupEvidence, ...] = ()
    note: str = ""


#: Judges a candidate. A table with the columns group and ok (candidate, current, note) passes if all rows are ok; it
#: has a row for each group, or, where groups may keep their models, for those that may move. One that has a method
#: ``check(candidate)`` refuses there, before any model is read, what it can't judge.
Gate: TypeAlias = Callable[[ModelVersion, "ModelVersion | None"], "GateResult | pa.Table | bool"]


def check_gate(gate: Gate, candidate: ModelVersion) -> None:
    """Let a gate say, before anything is read, that it can't judge this version.

    Raises:
        UsageError: it is no gate, or says so.
    """
    if not callable(gate):
        raise UsageError("this is no gate", got=repr(gate), expected="a function of (candidate, current)")
    mistake = _arguments_mistake(gate)
    if mistake is not None:
        raise UsageError(
            f"the gate {_name(gate)!r} can't be asked about version {candidate.number} of {candidate.model!r}; "
            "nothing was moved",
            got=mistake,
            expected="a function of (candidate, current)",
        )
    check = getattr(gate, "check", None)
    if callable(check):
        check(candidate)


def run_gate(
    gate: Gate,
    candidate: ModelVersion,
    current: ModelVersion | None,
    *,
    known: Iterable[str] = (),
    may_keep: bool = False,
) -> GateResult:
    """Ask a gate, and understand what it says about groups as it is understood elsewhere.

    Args:
        gate: the gate.
        candidate: the version, with the groups that may move.
        current: what serves now, likewise.
        known: further groups that it may name; what it says about these is left out.
        may_keep: groups that it does not judge are not ok, so that they can keep the model they have; else a table
            must have a row for each.

    Raises:
        NotFoundError: it names a group that neither version has.
        UsageError: it raises what is no error of Umbel's; its answer is no evidence, or leaves groups out.
    """
    name = _name(gate)
    try:
        found: Any = gate(candidate, current)
    except UmbelError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise UsageError(
            f"the gate {name!r} failed on version {candidate.number} of {candidate.model!r}; nothing was moved",
            got=f"{type(error).__name__}: {error}"[:500],
            expected="umbel.gates.GateResult, True or False, or an Arrow table with the columns group and ok",
            hint="current is None where an alias is new" if current is None else None,
        ) from error
    if isinstance(found, _TRUTH):
        return GateResult(name, bool(found))
    is_table = isinstance(found, pa.Table) and {"group", "ok"} <= set(found.column_names)
    if not is_table and not isinstance(found, GateResult):
        raise UsageError(
            f"the gate {name!r} gave no evidence",
            got=repr(found)[:200],
            expected="umbel.gates.GateResult, True or False, or an Arrow table with the columns group and ok",
        )
    rows = _table_rows(found, name) if is_table else _checked_rows(found, name)
    rows = _understood(rows, name, candidate, current, known)
    judged = {row.group for row in rows}
    missing = [group for group in candidate.groups if group not in judged]
    if missing and may_keep and (is_table or rows):
        rows += tuple(GroupEvidence(group, False, note="the gate says nothing about this group") for group in missing)
    elif missing and is_table:
        more = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
        raise UsageError(
            f"the gate {name!r} says nothing about {len(missing):,} of {counted(len(candidate.groups), 'group')} of "
            f"version {candidate.number} of {candidate.model!r}; nothing was moved",
            got="no row of " + ", ".join(missing[:_MAX_SHOWN]) + more,
            expected="a row for each group",
        )
    return GateResult(name, all(row.ok for row in rows), rows) if is_table else replace(found, rows=rows)


def _name(gate: Gate) -> str:
    return str(getattr(gate, "__name__", None) or type(gate).__name__)


def _arguments_mistake(gate: Gate) -> str | None:
    try:
        takes = signature(gate)
    except (TypeError, ValueError):  # it does not say what it takes
        return None
    try:
        takes.bind(None, None)
    except TypeError as error:
        return f"a function of {takes}: {error}"
    return None


def _table_rows(table: pa.Table, gate: str) -> tuple[GroupEvidence, ...]:
    """The rows of a gate's table; a null in ok is not ok."""
    kind = table["ok"].type
    oks = table["ok"].to_pylist()
    if not (pa.types.is_boolean(kind) or pa.types.is_null(kind)) and not (
        pa.types.is_integer(kind) and set(oks) <= {0, 1, None}
    ):
        raise UsageError(
            f"the column ok in the table of the gate {gate!r} is not boolean; nothing was moved",
            got=f"{kind}: {', '.join(map(repr, oks[:3]))}",
            expected="true or false for each group",
        )
    names = [each for each in ("group", "candidate", "current", "note") if each in table.column_names]
    try:
        return tuple(
            GroupEvidence(
                row["group"],
                bool(ok),
                None if row.get("candidate") is None else float(row["candidate"]),
                None if row.get("current") is None else float(row["current"]),
                str(row.get("note") or ""),
            )
            for row, ok in zip(table.select(names).to_pylist(), oks, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the columns candidate and current in the table of the gate {gate!r} hold no numbers; nothing was moved",
            got=str(error),
            expected="what was compared, or null",
        ) from None


def _checked_rows(found: GateResult, gate: str) -> tuple[GroupEvidence, ...]:
    """The rows of a gate's own result, of which everything that decides is a truth value: "no" would count as yes."""
    rows = tuple(found.rows)
    wrong = [repr(row) for row in rows if not isinstance(row, GroupEvidence) or not isinstance(row.ok, _TRUTH)]
    if not isinstance(found.passed, _TRUTH):
        wrong.insert(0, f"passed={found.passed!r}")
    if wrong:
        raise UsageError(
            f"what the gate {gate!r} says is neither true nor false; nothing was moved",
            got=", ".join(wrong[:_MAX_SHOWN])[:500],
            expected="passed, and the ok of each GroupEvidence: True or False",
        )
    return rows


def _understood(
    rows: Iterable[GroupEvidence],
    gate: str,
    candidate: ModelVersion,
    current: ModelVersion | None,
    known: Iterable[str],
) -> tuple[GroupEvidence, ...]:
    """The rows of groups that are judged, by their canonical texts."""
    judged = dict.fromkeys([*candidate.groups, *([] if current is None else current.groups)])
    texts = list(dict.fromkeys([*judged, *known]))
    places = {text: place for place, text in enumerate(texts)}
    what = f"version {candidate.number} of {candidate.model!r}, which the gate {gate!r} judges,"
    named = [(texts[find_group(row.group, candidate.by, places, what)], row) for row in rows]
    return tuple(replace(row, group=group) for group, row in named if group in judged)


def evidence_table(results: Sequence[GateResult], kept: frozenset[str] = frozenset()) -> pa.Table:
    """All that gates said, a row a gate and group; a gate that judged no group has one row without a group.

    Args:
        results: what they said.
        kept: the groups that keep the model they have.
    """
    rows: list[tuple[GateResult, GroupEvidence | None]] = []
    for result in results:
        rows += [(result, row) for row in result.rows] or [(result, None)]
    groups = [None if row is None else row.group for _, row in rows]
    return pa.table(
        {
            "gate": strings([result.gate for result, _ in rows]),
            "group": strings(groups),
            "passed": booleans([result.passed for result, _ in rows]),
            "ok": booleans([result.passed if row is None else row.ok for result, row in rows]),
            "candidate": floats([None if row is None else row.candidate for _, row in rows]),
            "current": floats([None if row is None else row.current for _, row in rows]),
            "kept": booleans([group in kept for group in groups]),
            "note": strings([result.note if row is None else row.note for result, row in rows]),
        }
    )


def refusal(candidate: ModelVersion, alias: str, results: Sequence[GateResult], hint: str) -> PromotionRefusedError:
    """The error that says which gates have not passed, and where."""
    failed: list[dict[str, object]] = []
    for result in results:
        if result.passed:
            continue
        rows = [row for row in result.rows if not row.ok]
        failed += [
            {"gate": result.gate, "group": r.group, "candidate": r.candidate, "current": r.current, "note": r.note}
            for r in rows
        ] or [{"gate": result.gate, "group": None, "candidate": None, "current": None, "note": result.note}]
    error = PromotionRefusedError(
        f"version {candidate.number} of {candidate.model!r} is not promoted to {alias!r}",
        got=_text(failed),
        expected=", ".join(result.gate for result in results if not result.passed) + " to pass",
        hint=hint,
    )
    error.failed = tuple(failed)
    return error


def _text(failed: Sequence[dict[str, object]]) -> str:
    names = ("gate", "group", "candidate", "current", "note")
    shown = [[_cell(row[name]) for name in names] for row in failed[:_MAX_SHOWN]]
    lines = [list(names), *shown]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if len(failed) > _MAX_SHOWN:
        text.append(f"and {len(failed) - _MAX_SHOWN} more")
    return ("\n" + " " * 12).join([f"{len(failed)} of the checks failed", *text])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
