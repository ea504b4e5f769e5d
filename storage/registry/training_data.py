"""What were the winners of a run trained on, in figures, as far as the run has kept it and it is cheap to say?

A sweep's ``data=`` is a table, an array or a series a group, or one for all. Some groups' data are read, rows of them
are sampled, and of their columns those are described that the example inputs have too: a target or a date among the
training data is nothing that is served, and would seem to be gone. It must not write, and never stands in the way of
registering: data that can't be read or are no table are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.storage.registry.input_fields import as_table, describe, fields_of_rows, fields_of_table
from umbel.storage.registry.profiles import Descriptions
from umbel.storage.runs.graph_record import NodeRecord
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import SUCCEEDED
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.artifacts import get_artifact
from umbel.storage.values.codecs import decode
from umbel.storage.values.columns import integers, python_rows

__all__ = ["describe_training_data"]

#: Groups whose data are read, evenly spaced; bytes of them, as they are stored; and rows that are looked at.
_MAX_GROUPS = 16
_MAX_BYTES = 256 * 2**20
_MAX_ROWS = 100_000
#: Values of at most this size lie in segments, and are read with those of all other elements.
_INLINE_BYTES = 64 * 2**10


def describe_training_data(run: Run, rows: pa.Table, example: Any) -> Descriptions | None:
    """The fields of the example inputs as they were in the data that winners were trained on.

    Args:
        run: the run.
        rows: its winners, with the columns sweep and trial.
        example: plain data that a model is asked.

    Returns:
        None: there is nothing that could be described.

    Cost: the data of at most 16 groups and 256 MiB are read and decoded; values of the user's own classes are
    unpickled, as the models are.
    """
    if not len(rows) or not {"sweep", "trial"} <= set(rows.column_names):
        return None
    wanted = fields_of_rows([json.dumps(example)]).keys()
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_MAX_GROUPS, len(rows))).astype(np.int64))
    picked = rows.select(["sweep", "trial", *({"data"} & set(rows.column_names))]).take(integers(chosen)).to_pylist()
    try:
        values = list(_data(run, picked))
    except Exception:  # whatever reading, or unpickling what is the user's, raises
        return None
    count, columns = 0, dict[str, list[Any]]()
    for value in values:
        found = _fields(value, _MAX_ROWS // len(values))
        if found is None:
            continue
        for name in wanted & found[1].keys():
            columns.setdefault(name, []).append(found[1][name])
        count += found[0]
    if not columns:
        return None
    order = [name for name in wanted if name in columns]
    return Descriptions(count, {name: describe(_joined(columns[name])) for name in order})


def _data(run: Run, picked: list[dict[str, Any]]) -> Iterator[Any]:
    """The data of some winners, each once."""
    name = picked[0]["sweep"]
    entry = next(each for each in run.record["graph"]["nodes"] if each["name"] == name)
    argument = next((each for each in entry.get("arguments") or () if each["kind"] != "axis"), None)
    if argument is None:
        return
    per_group = int(entry["sweep"]["trials"])
    if argument.get("node") is None:
        yield from _given(run, name, list(dict.fromkeys(row.get("data") for row in picked)))
        return
    node, kind, repeat = run.graph.node(argument["node"]), argument["kind"], int(argument.get("repeat", 1))
    groups = [int(row["trial"]) // per_group // repeat for row in picked]
    elements = [group % (node.size or 1) for group in groups] if kind == "each" else [0]
    sizes = {int(row["element"]): int(row["size"] or 0) for row in _rows(run, node, "size")}
    inline = sum(size for size in sizes.values() if size <= _INLINE_BYTES)  # they are read together
    found: dict[int, dict[str, Any]] = {}
    if inline <= _MAX_BYTES:
        found = {int(row["element"]): row for row in _rows(run, node, "status", "digest", "payload")}
    spent = 0
    for element in dict.fromkeys(elements):
        row = found.get(element) or {}
        spent += sizes.get(element, 0)
        if row.get("digest") is None or row["status"] not in SUCCEEDED or spent > _MAX_BYTES:
            continue
        payload = row.get("payload")
        value: Any = get_artifact(run.objects, row["digest"]) if payload is None else decode(payload)
        if kind == "item":
            yield from (value[group % len(value)] for group in dict.fromkeys(groups))
        else:
            yield value


def _rows(run: Run, node: NodeRecord, *columns: str) -> list[dict[str, Any]]:
    return python_rows(read_elements(run.objects, run.id, node, columns))


def _given(run: Run, sweep: str, digests: list[str | None]) -> Iterator[Any]:
    """Data that the sweep was given as they are: large ones lie by their digests, small ones in its program."""
    program: Any = None
    for digest in digests:
        if digest is None:
            continue
        if program is None:
            program = get_artifact(run.objects, run.record["programs"][sweep])
        small: Mapping[str, bytes] = program["data"]["small"]
        yield decode(small[digest]) if digest in small else get_artifact(run.objects, digest)


def _fields(value: Any, most: int) -> tuple[int, dict[str, Any]] | None:
    """The number of rows looked at, and the values of each field; None: it is no table."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, (int, float)) for each in value):
        value = np.asarray(value, np.float64)
    try:
        rows = value if isinstance(value, np.ndarray) else as_table(value)
        if len(rows) > most:
            places = np.linspace(0, len(rows) - 1, most).astype(np.int64)
            rows = rows[places] if isinstance(rows, np.ndarray) else rows.take(integers(places))
        return fields_of_table(rows)
    except Exception:  # no table, or one of a kind that Arrow does not know
        return None


def _joined(parts: list[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]
