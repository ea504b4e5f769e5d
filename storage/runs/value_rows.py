"""What do the segments of a node's values say, and which values are they?

Reads the rows in order of element, and decodes what they hold or point to. It must not write, and must not know what a
value is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.scheduler.errors import ElementFailedError, NotFoundError
from umbel.scheduler.words import counted
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import NodeRecord, SweepRecord, group_columns
from umbel.storage.runs.segment_format import unify
from umbel.storage.runs.segments import read_segments
from umbel.storage.runs.trial_rows import SUCCEEDED, warn_of_corrupt
from umbel.storage.values.artifacts import get_artifact
from umbel.storage.values.codecs import decode
from umbel.storage.values.columns import contains, empty_table, int_values, integers, last_of_each, strings

__all__ = ["models_of", "read_elements", "read_output", "read_value"]

#: Kinds of nodes whose value is a list.
_FAN_OUTS = frozenset({"map", "best", "top"})
_MAX_NAMED = 3
_ELEMENT_SCHEMA = pa.schema(
    [
        ("element", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("digest", pa.string()),
        ("format", pa.string()),
        ("size", pa.int64()),
        ("length", pa.int64()),
        ("model", pa.string()),
        ("model_at", pa.string()),
        ("attempt", pa.int32()),
        ("started", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("host", pa.string()),
        ("worker", pa.string()),
        ("code", pa.string()),
        ("key", pa.string()),
    ]
)


def read_elements(
    objects: ObjectStore,
    run_id: str,
    node: NodeRecord,
    columns: Sequence[str] | None = None,
    *,
    payload: bool = False,
) -> pa.Table:
    """The finished elements of a node, one row each, in order; of one recorded twice the later row.

    Args:
        objects: the store.
        run_id: the run.
        node: the node.
        columns: which columns ("element" is always read); None: all.
        payload: of all columns, the payload, too.
    """
    wanted = list(dict.fromkeys(["element", *columns])) if columns is not None else None
    scan = read_segments(
        objects,
        layout.values_folder(run_id, node.name),
        wanted if wanted is not None else lambda names: [name for name in names if payload or name != "payload"],
    )
    warn_of_corrupt(scan.corrupt, objects.url)
    table = unify([empty_table(_ELEMENT_SCHEMA), *scan.tables] if wanted is None or not scan.tables else scan.tables)
    order = last_of_each(int_values(table["element"]))
    return table if order is None else table.take(integers(order))


def read_value(objects: ObjectStore, run_id: str, node: NodeRecord, element: int | None = None) -> object:
    """The value of a node: of a fan-out a list of its elements' values, or the value of one element.

    Raises:
        ElementFailedError: it, or one of its elements, failed; says why.
        NotFoundError: it, or one of its elements, is not there yet.
        StoreError: it can't be read or decoded.
    """
    if node.never:
        raise ElementFailedError(
            f"how many elements the node {node.name!r} of the run {run_id!r} has is not known",
            got="the node that it depends on failed",
            hint="run.failures() tells why",
        )
    rows = read_elements(objects, run_id, node, ("status", "error", "digest", "payload"))
    if element is not None:
        rows = rows.filter(pc.equal(rows["element"], element))
        node = replace(node, size=1)
    elements = int_values(rows["element"])
    fans_out = node.kind in _FAN_OUTS or node.size != 1
    _check_complete(run_id, node, rows, elements, fans_out)
    if not node.size:
        return []
    values = []
    for digest, payload in zip(rows["digest"].to_pylist(), rows["payload"].to_pylist(), strict=True):
        values.append(get_artifact(objects, digest) if payload is None else decode(payload))
    return values if fans_out and element is None else values[0]


def _in_short(error: str | None) -> str | None:
    """What a traceback ends with: the exception. All of it is in ``run.failures()``."""
    if error is None or not error.startswith("Traceback "):
        return error
    lines = error.splitlines()
    last_frame = max((at for at, line in enumerate(lines) if line.startswith('  File "')), default=0)
    end = next((at for at in range(last_frame + 1, len(lines)) if not lines[at].startswith("    ")), len(lines))
    return "\n".join(lines[end:]) or error


def _check_complete(run_id: str, node: NodeRecord, rows: pa.Table, elements: np.ndarray, fans_out: bool) -> None:
    failed = np.flatnonzero(~contains(rows["status"], SUCCEEDED))
    if len(failed):
        errors = rows["error"].take(integers(failed[:_MAX_NAMED])).to_pylist()
        statuses = rows["status"].take(integers(failed[:_MAX_NAMED])).to_pylist()
        numbers = elements[failed[:_MAX_NAMED]].tolist()
        named = "; ".join(
            f"{f'element {number}: ' if fans_out else ''}{_in_short(error) or status}"
            for number, error, status in zip(numbers, errors, statuses, strict=True)
        )
        count = f"{len(failed)} of {counted(node.size or 0, 'element')} of " if fans_out else ""
        raise ElementFailedError(
            f"{count}the node {node.name!r} of the run {run_id!r} failed",
            got=named + ("; …" if len(failed) > _MAX_NAMED else ""),
            hint="run.failures() lists them all; run.elements(node) lists those that did not fail too",
        )
    if node.size is None or len(rows) < node.size:
        of = "an unknown number of" if node.size is None else node.size
        there = f"{len(rows)} of {of} elements" if fans_out else None
        raise NotFoundError(
            f"the value of the node {node.name!r} of the run {run_id!r} is not there yet",
            got=there,
            hint="run the same command again to finish the run",
        )


def models_of(node: NodeRecord, rows: pa.Table, index: str, sweep: SweepRecord | None) -> pa.Table:
    """The rows that have a model, as a table of node, index, group keys and the model's digest.

    Args:
        node: the node that the rows are of.
        rows: its trials or elements.
        index: the column that numbers them.
        sweep: where the groups are, if there are any; a row of trials is in group index // trials.
    """
    if "model" not in rows.column_names:
        rows = rows.append_column("model", pa.nulls(len(rows), pa.string()))
    rows = rows.filter(rows["model"].is_valid())
    numbers = int_values(rows[index])
    columns: dict[str, object] = {"node": strings([node.name] * len(rows)), "index": rows[index]}
    if sweep is not None and sweep.group_names:
        per_group = sweep.trials if node.sweep is not None else 1
        groups = group_columns(sweep, (numbers // per_group).tolist())
        columns.update(zip(groups.column_names, groups.columns, strict=True))
    columns["model"] = rows["model"]
    return pa.table(columns)


def read_output(objects: ObjectStore, run_id: str, node: str, element: int) -> str:
    """What an element printed, attempt by attempt; "" if nothing."""
    found: dict[int, str] = {}
    scan = read_segments(objects, layout.output_folder(run_id, node))
    warn_of_corrupt(scan.corrupt, objects.url)
    for table in scan.tables:
        places = np.flatnonzero(int_values(table.column("element")) == element)
        for place in places.tolist():
            found[table.column("attempt")[place].as_py()] = table.column("text")[place].as_py()
    if len(found) <= 1:
        return next(iter(found.values()), "")
    return "".join(f"--- attempt {attempt} ---\n{found[attempt].rstrip()}\n" for attempt in sorted(found))
