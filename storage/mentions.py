"""Which values, data and models does a run mention, and at which of its elements? A small object answers for all.

Written once, when a run is done, so that a thousand runs can be searched for a digest by reading a thousand small
objects instead of all their segments. Of each digest the first 64 bits are kept, in columns: which node (by its place
in run.json), which element (of a sweep: which group or trial), and what the digest is there. A run that has none,
because it goes on or was stopped, is read from its segments. It must not know what is made of what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.errors import NotFoundError, StoreConflictError
from umbel.storage import layout
from umbel.storage.columns import int_values, integers
from umbel.storage.graph_record import GraphRecord
from umbel.storage.objects import ObjectStore
from umbel.storage.trial_rows import read_trials
from umbel.storage.value_rows import read_elements

__all__ = ["DATA", "MODEL", "VALUE", "Mentions", "prefixes", "read_mentions", "write_mentions"]

#: What a digest is: the value of an element, the data of a group of a sweep, the model of a trial or element.
VALUE, DATA, MODEL = 0, 1, 2
#: More than this are not kept in memory while a run goes on: such a run is read from its segments.
LIMIT = 1_000_000
_DIGITS = 64
_SCHEMA = pa.schema([("node", pa.int32()), ("index", pa.int64()), ("kind", pa.int8()), ("digest", pa.uint64())])

Numbers = npt.NDArray[np.int64]
Prefixes = npt.NDArray[np.uint64]


class Mentions:
    """What a run mentions, gathered row by row."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, Numbers, Prefixes]] = []
        self._count = 0

    @property
    def complete(self) -> bool:
        """False: there were too many to keep."""
        return self._count <= LIMIT

    def add_elements(self, node: int, rows: pa.RecordBatch | pa.Table) -> None:
        """Take over rows of a node's values: their digests and models."""
        for column, kind in (("digest", VALUE), ("model", MODEL)):
            self._add_column(node, kind, rows, "element", column)

    def add_trials(self, node: int, rows: pa.RecordBatch | pa.Table, trials: int) -> None:
        """Take over rows of a sweep's trials: the data of their groups, and their models.

        Args:
            node: the sweep's place in run.json.
            rows: with the columns trial, data and model, as far as they are there.
            trials: trials a group.
        """
        self._add_column(node, MODEL, rows, "trial", "model")
        if "data" not in rows.schema.names or not rows.num_rows or rows.column("data").null_count == rows.num_rows:
            return
        groups = int_values(rows.column("trial")) // trials
        firsts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
        chosen = rows.column("data").take(integers(firsts))
        self._add(node, DATA, groups[firsts], chosen)

    def _add_column(self, node: int, kind: int, rows: pa.RecordBatch | pa.Table, index: str, column: str) -> None:
        if column not in rows.schema.names or rows.column(column).null_count == rows.num_rows:
            return
        self._add(node, kind, int_values(rows.column(index)), rows.column(column))

    def _add(self, node: int, kind: int, index: Numbers, digests: Any) -> None:
        if not self.complete:
            self._parts.clear()
            return
        texts = digests.cast(pa.string()).to_pylist()
        there = [place for place, text in enumerate(texts) if text]
        self._count += len(there)
        self._parts.append((node, kind, index[there], prefixes([texts[place] for place in there])))

    def table(self) -> pa.Table:
        """All that is mentioned, each once."""
        nodes = np.concatenate(
            [np.full(len(i), node, np.int32) for node, _, i, _ in self._parts] or [np.zeros(0, np.int32)]
        )
        kinds = np.concatenate(
            [np.full(len(i), kind, np.int8) for _, kind, i, _ in self._parts] or [np.zeros(0, np.int8)]
        )
        index = np.concatenate([i for _, _, i, _ in self._parts] or [np.zeros(0, np.int64)])
        digests = np.concatenate([d for _, _, _, d in self._parts] or [np.zeros(0, np.uint64)])
        order = np.lexsort((digests, index, kinds, nodes))
        columns = [column[order] for column in (nodes, index, kinds, digests)]
        new = np.ones(len(order), np.bool_)
        if len(order):
            new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
        arrays = [integers(c[new], f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def prefixes(digests: list[str]) -> Prefixes:
    """The first 64 bits of digests."""
    return np.fromiter((int(digest[:16].ljust(16, "0"), 16) for digest in digests), np.uint64, len(digests))


def write_mentions(objects: ObjectStore, run_id: str, mentions: Mentions) -> None:
    """Write what a run mentions; a second time changes nothing.

    Raises:
        StoreError: the store can't be written.
    """
    if not mentions.complete:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA) as stream:
        stream.write_table(mentions.table())
    try:
        objects.create(layout.mentions(run_id), sink.getvalue().to_pybytes())
    except StoreConflictError:
        return


def read_mentions(objects: ObjectStore, run_id: str, record: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """What a run mentions, as the columns node, index, kind and digest.

    Args:
        objects: the store.
        run_id: the run.
        record: its run.json, for a run that is not done: then its segments are read.
    """
    found = stored_mentions(objects, run_id)
    if found is not None:
        return found
    mentions, graph = Mentions(), GraphRecord(record)
    for position, node in enumerate(graph.nodes.values()):
        if node.sweep is not None:
            rows = read_trials(objects, run_id, node.sweep, ["trial", "data", "model"])
            mentions.add_trials(position, rows.combine_chunks(), node.sweep.trials)
        else:
            mentions.add_elements(position, read_elements(objects, run_id, node, ["digest", "model"]).combine_chunks())
    return _columns(mentions.table())


def stored_mentions(objects: ObjectStore, run_id: str) -> dict[str, npt.NDArray[Any]] | None:
    """What a run that is done mentions; None: nothing was written."""
    try:
        data = objects.read(layout.mentions(run_id))
        with pa.ipc.open_stream(data) as stream:
            table = stream.read_all()
    except (NotFoundError, pa.ArrowInvalid):
        return None  # not there, or cut short: the segments say the same
    return _columns(table) if table.schema.equals(_SCHEMA) else None


def _columns(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for field in _SCHEMA:
        dtype = np.dtype(field.type.to_pandas_dtype())
        chunks = [
            np.frombuffer(c.buffers()[1], dtype, len(c), c.offset * dtype.itemsize) for c in table[field.name].chunks
        ]
        found[field.name] = np.concatenate([np.zeros(0, dtype), *(chunk for chunk in chunks if len(chunk))])
    return found
