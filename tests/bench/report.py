"""How are results shown and kept? A row as each arm ends, one table at the end, and a JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measurement import ArmResult, Bound, Measurement

__all__ = ["BUSY", "document", "format_bound", "format_value", "print_arm", "print_table", "verdict", "write"]

#: The share of the cores that others may use while an arm runs without a word about it.
BUSY = 0.05


def format_value(value: float, unit: str) -> str:
    """A value with its unit, to about three digits."""
    match unit:
        case "x":
            return f"{value:,.0f} x" if value >= 100 else f"{value:.1f} x" if value >= 10 else f"{value:.3f} x"
        case "objects":
            return f"{value:,.0f}"
        case "MB":
            return f"{value:,.1f} MB"
        case _:
            return f"{value:,.2f} {unit}" if value >= 0.1 else f"{value:,.3f} {unit}"


def format_bound(bound: Bound | None, unit: str) -> str:
    """What must hold, as a sign and a number; "" if nothing must."""
    if bound is None:
        return ""
    number = f"{bound.limit:,g}" if unit == "objects" else f"{bound.limit:,g} {unit}"
    return f"{'≤' if bound.kind == 'at most' else '≥'} {number}"


def verdict(measurement: Measurement, *, judged: bool) -> str:
    """ "yes", "NO", or "" where nothing is promised; "not judged" at sizes that are not the promised ones."""
    if measurement.holds is None:
        return ""
    if not judged:
        return "not judged"
    return "yes" if measurement.holds else "NO"


def print_arm(console: Console, result: ArmResult, *, judged: bool) -> None:
    """The arm's rows, as soon as it has ended."""
    for measured in result.measurements:
        bound, holds = format_bound(measured.bound, measured.unit), verdict(measured, judged=judged)
        judgement = f" ({bound}: {holds})" if bound else ""
        console.print(
            f"{result.arm}: {measured.what}: {format_value(measured.value, measured.unit)}{judgement}",
            highlight=False,
        )
    if result.error is not None:
        console.print(
            f"{result.arm}: could not be measured: {result.error}", style="red", highlight=False, markup=False
        )


def print_table(console: Console, results: Sequence[ArmResult], machine: Mapping[str, Any], *, judged: bool) -> None:
    """All arms, what must hold and whether it does, and what the figures were made on."""
    title = "What Umbel promises" if judged else "A quick look: a tenth of the promised sizes, so nothing is judged"
    table = Table(title=title, title_justify="left")
    table.add_column("arm", no_wrap=True)
    table.add_column("what")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("must hold", justify="right", no_wrap=True)
    table.add_column("holds?", no_wrap=True)
    table.add_column("from")
    for result in results:
        for measured in result.measurements:
            holds = verdict(measured, judged=judged)
            table.add_row(
                result.arm,
                measured.what,
                format_value(measured.value, measured.unit),
                format_bound(measured.bound, measured.unit),
                f"[bold red]{holds}[/]" if holds == "NO" else holds,
                measured.note,
            )
        if result.error is not None:
            table.add_row(
                result.arm, "could not be measured", "", "", "[bold red]NO[/]", result.error.split("\n", 1)[0]
            )
        table.add_section()
    console.print(table)
    changed = " with changes" if machine.get("dirty") else ""
    console.print(
        f"{machine['cores']} cores, Python {machine['python']}, Ray {machine['ray']}, "
        f"commit {str(machine.get('commit') or 'unknown')[:12]}{changed}",
        highlight=False,
    )
    for result in results:
        if result.others > BUSY:
            console.print(
                f"Others used {result.others:.0%} of the cores while {result.arm} ran: "
                "its figures are worse than a quiet machine's.",
                style="yellow",
                highlight=False,
            )


def document(
    results: Sequence[ArmResult], machine: Mapping[str, Any], taken: datetime, *, judged: bool
) -> dict[str, Any]:
    """Everything, as it is kept in JSON."""
    return {
        "taken": taken.isoformat(timespec="seconds"),
        "promised_sizes": judged,
        "machine": dict(machine),
        "arms": {
            result.arm: {
                "seconds": round(result.seconds, 3),
                "others": round(result.others, 3),
                "error": result.error,
                "measurements": [_as_json(measured, judged=judged) for measured in result.measurements],
                "details": result.details,
            }
            for result in results
        },
    }


def _as_json(measured: Measurement, *, judged: bool) -> dict[str, Any]:
    bound = measured.bound
    return {
        "what": measured.what,
        "value": measured.value,
        "unit": measured.unit,
        "must_hold": None if bound is None else {"kind": bound.kind, "limit": bound.limit},
        "holds": measured.holds if judged else None,
        "note": measured.note,
    }


def write(content: Mapping[str, Any], folder: Path, taken: datetime) -> Path:
    """Keep a document under its time, and as the latest; returns the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path = folder / f"{taken:%Y-%m-%dT%H-%M-%SZ}.json"
    for target in (path, folder / "latest.json"):
        target.write_text(text, encoding="utf-8")
    return path
