"""Which trials and elements of a run failed, and of what?

One table for all nodes, with group and config as JSON, because they differ from sweep to sweep. It must not write, and
must not decide what is done about a failure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord, NodeRecord, SweepRecord
from umbel.storage.runs.trial_rows import SUCCEEDED, read_trials, trials_numbered
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.columns import contains, empty_table, int_values, integers, python_values, strings

__all__ = ["failed_elements", "failed_trials", "no_failures"]

_FAILURE_SCHEMA = pa.schema(
    [
        ("node", pa.string()),
        ("index", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("attempt", pa.int32()),
        ("host", pa.string()),
        ("worker", pa.string()),
        ("started", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("group", pa.string()),
        ("config", pa.string()),
    ]
)
#: What a row of failures takes over from a row of trials or values as it is.
_TAKEN_OVER = ("status", "error", "attempt", "host", "worker", "started", "seconds")


def no_failures() -> pa.Table:
    """A table of failures without rows."""
    return empty_table(_FAILURE_SCHEMA)


def failed_trials(objects: ObjectStore, run_id: str, sweep: SweepRecord) -> pa.Table:
    """The trials of a sweep that failed, in order. Memory: two columns of all trials, and all of one segment's."""
    statuses = read_trials(objects, run_id, sweep, ["status"])
    failed = np.flatnonzero(~contains(statuses["status"], SUCCEEDED))
    if not len(failed):
        return no_failures()
    rows = trials_numbered(objects, run_id, sweep, int_values(statuses["trial"])[failed])
    groups = _json_rows(rows, {name: name for name in sweep.group_names})
    configs = _json_rows(rows, {name: name[7:] for name in rows.column_names if name.startswith("config_")})
    return _failures(rows, sweep.name, "trial", groups, configs)


def failed_elements(objects: ObjectStore, run_id: str, node: NodeRecord, graph: GraphRecord) -> pa.Table:
    """The elements of a node that failed, as failures."""
    rows = read_elements(objects, run_id, node, _TAKEN_OVER)
    failed = np.flatnonzero(~contains(rows["status"], SUCCEEDED))
    if not len(failed):
        return no_failures()
    rows = rows.take(integers(failed))
    sweep = graph.groups_of(node.name)
    groups: list[str | None] = [None] * len(rows)
    if sweep is not None:
        groups = [
            json.dumps(dict(zip(sweep.group_names, sweep.groups[element], strict=True)), default=str)
            for element in int_values(rows["element"]).tolist()
        ]
    return _failures(rows, node.name, "element", groups, [None] * len(rows))


def _json_rows(rows: pa.Table, keys: dict[str, str]) -> list[str | None]:
    present = [(name, key) for name, key in keys.items() if name in rows.column_names]
    columns = [python_values(rows[name]) for name, _ in present]
    return [
        json.dumps(
            {key: value for (_, key), value in zip(present, values, strict=True) if value is not None}, default=str
        )
        for values in (zip(*columns, strict=True) if columns else [()] * len(rows))
    ]


def _failures(
    rows: pa.Table, node: str, index: str, groups: Sequence[str | None], configs: Sequence[str | None]
) -> pa.Table:
    columns = {
        "node": strings([node] * len(rows)),
        "index": rows[index],
        **{name: rows[name] for name in _TAKEN_OVER if name in rows.column_names},
        "group": strings(groups),
        "config": strings(configs),
    }
    return pa.table(
        [columns.get(field.name, pa.nulls(len(rows), field.type)) for field in _FAILURE_SCHEMA],
        names=_FAILURE_SCHEMA.names,
    ).cast(_FAILURE_SCHEMA)
