"""What does a gate say about a version that is to be promoted, and how is that kept and shown?

A gate is a function of the candidate and of what serves now (None for the first), that judges each group. The built-in
ones are in `umbel.runtime.production.gates`. It must not know how they judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from umbel.scheduler.errors import PromotionRefusedError, UsageError
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.values.columns import booleans, floats, strings

__all__ = ["Gate", "GateResult", "GroupEvidence", "check_gate", "evidence_table", "refusal", "run_gate"]

_MAX_SHOWN = 20


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


#: Judges a candidate. A table with the columns group and ok (candidate, current, note) passes if all rows are ok. One
#: that has a method ``check(candidate)`` refuses there, before any model is read, what it can't judge.
Gate: TypeAlias = Callable[[ModelVersion, "ModelVersion | None"], "GateResult | pa.Table | bool"]


def check_gate(gate: Gate, candidate: ModelVersion) -> None:
    """Let a gate say, before anything is read, that it can't judge this version.

    Raises:
        UsageError: it is no gate, or says so.
    """
    if not callable(gate):
        raise UsageError("this is no gate", got=repr(gate), expected="a function of (candidate, current)")
    check = getattr(gate, "check", None)
    if callable(check):
        check(candidate)


def run_gate(gate: Gate, candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
    """Ask a gate.

    Raises:
        UsageError: its answer is no evidence.
    """
    found: Any = gate(candidate, current)
    name = getattr(gate, "__name__", None) or type(gate).__name__
    if isinstance(found, GateResult):
        return found
    if isinstance(found, bool):
        return GateResult(name, found)
    if isinstance(found, pa.Table) and {"group", "ok"} <= set(found.column_names):
        names = [each for each in ("group", "ok", "candidate", "current", "note") if each in found.column_names]
        rows = tuple(GroupEvidence(**row) for row in found.select(names).to_pylist())
        return GateResult(name, bool(rows) and all(row.ok for row in rows), rows)
    raise UsageError(
        f"the gate {name!r} gave no evidence",
        got=repr(found)[:200],
        expected="umbel.gates.GateResult, True or False, or an Arrow table with the columns group and ok",
    )


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
