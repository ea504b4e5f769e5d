"""What commands show of a run to people: its facts, its best trials, its failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from umbel.storage.runs.graph_record import NodeRecord
    from umbel.storage.runs.run import Run

__all__ = ["error_line", "print_best", "print_failures", "run_facts"]


def run_facts(found: Run) -> dict[str, Any]:
    """What a run is and how far it has come, as plain data."""
    import pyarrow.compute as pc

    from umbel.storage.runs.trial_rows import SUCCEEDED
    from umbel.storage.values.columns import contains

    nodes = []
    sizes = found.graph.nodes
    for node in found.record.get("graph", {}).get("nodes", []):
        rows = found.elements(node["name"], ["status", "seconds"])
        ok = int(contains(rows["status"], SUCCEEDED).sum())
        nodes.append(
            {
                "name": node["name"],
                "kind": node["kind"],
                "size": _size(sizes[node["name"]], rows.num_rows),
                "done": rows.num_rows,
                "failed": rows.num_rows - ok,
                "seconds": pc.sum(rows["seconds"]).as_py() or 0.0,
            }
        )
    keys = ("created", "user", "host", "command", "versions")
    facts = {key: found.record.get(key) for key in keys}
    return {
        "name": found.name,
        "status": found.status,
        "reason": found.reason,
        "store": found.store_url,
        **facts,
        "nodes": nodes,
    }


def _size(node: NodeRecord, done: int) -> int | None:
    """How many elements a node was to have; a budget may have been raised since it was recorded."""
    budgeted = node.sweep is not None and node.sweep.budget is not None and node.sweep.known
    return max(node.sweep.planned, done) if budgeted and node.sweep is not None else node.size


def print_best(found: Run, sweep: str | None, limit: int) -> None:
    """The best trial of each group, or its Pareto set: its groups, metrics and config."""
    from umbel.runtime.cli.tables import print_rows
    from umbel.scheduler.search.pareto import in_words
    from umbel.storage.values.columns import python_rows

    rows = python_rows(found.best(sweep))
    if not rows:
        typer.echo("no trial has succeeded")
        return
    metrics = [name for name in rows[0] if name.startswith("metric_")]
    judged_by = found.graph.sweep(sweep).objectives
    what = "best trial" if len(judged_by) == 1 else f"Pareto set by {in_words(judged_by)}"
    shown = [
        {
            **{name: row[name] for name in found.graph.sweep(sweep).group_names},
            "trial": row["trial"],
            **{name.removeprefix("metric_"): row[name] for name in metrics},
            "config": _config_text(row),
        }
        for row in rows
    ]
    print_rows(shown, list(shown[0]), title=f"{what} of each group, sweep {rows[0]['sweep']!r}", limit=limit)


def _config_text(row: dict[str, Any]) -> str:
    items = ((name.removeprefix("config_"), value) for name, value in row.items() if name.startswith("config_"))
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in items)


def print_failures(rows: Sequence[dict[str, Any]], limit: int, *, every: bool) -> None:
    """Failures one a line; those that only follow from others as one line for all, unless ``every`` is asked for."""
    from umbel.runtime.cli.tables import print_rows
    from umbel.storage.runs.trial_rows import NOT_RUN

    following = [row for row in rows if (row["error"] or "").startswith(NOT_RUN)]
    causes = [row for row in rows if not (row["error"] or "").startswith(NOT_RUN)]
    listed = [*causes, *following] if every or not causes else causes
    shown = [{**row, "error": error_line(row["error"] or "")} for row in listed]
    print_rows(shown, ["node", "index", "group", "status", "attempt", "error"], limit=limit)
    if len(listed) < len(rows):
        nodes = ", ".join(dict.fromkeys(row["node"] for row in following))
        were = "element was" if len(following) == 1 else "elements were"
        typer.echo(f"and {len(following):,} {were} not run because of these, of {nodes} (--all shows them)")


def error_line(error: str) -> str:
    """The line of an error that says what went wrong: of a traceback what was raised, else the first."""
    lines = error.strip().splitlines() or [""]
    frames = [place for place, line in enumerate(lines) if line.startswith('  File "')]
    if frames:
        raised = [line for line in lines[frames[-1] + 1 :] if line and not line.startswith((" ", "…"))]
        return raised[0] if raised else lines[-1]
    return lines[0]
