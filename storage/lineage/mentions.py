"""Which values, data and models does a run mention, and at which of its elements? A small object answers for all.

Written once, when a run is done, so that a thousand runs can be searched for a digest by reading a thousand small
objects instead of all their segments. Of each digest the first 64 bits are kept, in columns: which node (by its place
in run.json), which element (of a sweep: which group or trial), and what the digest is there. A run that has none,
because it goes on or was stopped, is read from its segments. How many runs are searched at once is in
`umbel.storage.lineage.mentions_index`. It must not know what is made of what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.errors import StoreConflictError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord
from umbel.storage.runs.revealed import revealed
from umbel.storage.runs.trial_rows import read_trials
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.columns import int_values, integers

__all__ = [
    "DATA",
    "MODEL",
    "VALUE",
    "Mentions",
    "RunMentions",
    "parse_mentions",
    "prefixes",
    "scan_mentions",
    "summary_of",
    "write_mentions",
]

#: What a digest is: the value of an element, the data of a group of a sweep, the model of a trial or element.
VALUE, DATA, MODEL = 0, 1, 2
#: More than this are not kept in memory while a run goes on: such a run is read from its segments.
LIMIT = 1_000_000
#: Where the file says what the run is.
_SUMMARY = b"umbel.summary"
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


@dataclass(frozen=True, slots=True)
class RunMentions:
    """What one run mentions."""

    #: Of run.json what a search needs: when and by whom, code, arguments, and the graph with its sizes.
    summary: Mapping[str, Any]
    #: The columns node, index, kind and digest.
    columns: Mapping[str, npt.NDArray[Any]]


def write_mentions(
    objects: ObjectStore, record: Mapping[str, Any], sizes: Mapping[str, int | None], mentions: Mentions
) -> None:
    """Write what a run mentions; a second time changes nothing.

    Args:
        objects: the store.
        record: the run's run.json.
        sizes: by node the sizes that the run has revealed.
        mentions: what it mentions.

    Raises:
        StoreError: the store can't be written.
    """
    if not mentions.complete:
        return
    schema = _SCHEMA.with_metadata({_SUMMARY: json.dumps(summary_of(record, sizes)).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(mentions.table().replace_schema_metadata(schema.metadata))
    try:
        objects.create(layout.mentions(str(record["id"]), str(record["created"])), sink.getvalue().to_pybytes())
    except StoreConflictError:
        return


def summary_of(record: Mapping[str, Any], sizes: Mapping[str, int | None]) -> dict[str, Any]:
    """Of run.json what a search needs."""
    nodes = []
    for entry in (record.get("graph") or {}).get("nodes") or []:
        node = {name: entry.get(name) for name in ("name", "kind", "arguments", "code", "code_parts")}
        size = entry.get("size")
        nodes.append({**node, "size": sizes.get(entry["name"]) if size is None else size})
        if entry.get("sweep"):
            nodes[-1]["trials"] = entry["sweep"]["trials"]
    kept = {name: record.get(name) for name in ("id", "created", "user", "source", "environment")}
    return {**kept, "commit": (record.get("git") or {}).get("commit"), "nodes": nodes}


def parse_mentions(data: bytes) -> RunMentions | None:
    """Read what `write_mentions` wrote; None: it is damaged."""
    try:
        with pa.ipc.open_stream(data) as stream:
            table = stream.read_all()
        summary = json.loads((table.schema.metadata or {})[_SUMMARY])
    except (pa.ArrowInvalid, KeyError, ValueError):
        return None
    if not table.schema.equals(_SCHEMA) or not _is_summary(summary):
        return None
    columns = _columns(table)
    fits = not len(columns["node"]) or (columns["index"].min() >= 0 <= columns["node"].min())
    return RunMentions(summary, columns) if fits and columns["node"].max(initial=-1) < len(summary["nodes"]) else None


def _is_summary(summary: Any) -> bool:
    """Whether it is what `summary_of` makes: anyone may have written it."""
    if not isinstance(summary, dict) or not isinstance(summary.get("nodes"), list):
        return False
    return all(
        isinstance(node, dict)
        and isinstance(node.get("name"), str)
        and isinstance(node.get("kind"), str)
        and isinstance(node.get("size"), int | None)
        and isinstance(node.get("trials", 1), int)
        and all(isinstance(each, dict) for each in node.get("arguments") or [])
        and all(isinstance(each, str) for each in (node.get("code_parts") or {}).values())
        for node in summary["nodes"]
    )


def scan_mentions(objects: ObjectStore, record: Mapping[str, Any]) -> RunMentions:
    """What a run mentions according to its segments: for one that goes on, or was stopped.

    Args:
        objects: the store.
        record: its run.json.
    """
    run_id = str(record["id"])
    mentions, graph = Mentions(), revealed(GraphRecord(record), objects)
    for position, node in enumerate(graph.nodes.values()):
        if node.sweep is not None:
            rows = read_trials(objects, run_id, node.sweep, ["trial", "data", "model"])
            mentions.add_trials(position, rows.combine_chunks(), node.sweep.trials)
        else:
            mentions.add_elements(position, read_elements(objects, run_id, node, ["digest", "model"]).combine_chunks())
    sizes = {node.name: node.size for node in graph.nodes.values()}
    return RunMentions(summary_of(record, sizes), _columns(mentions.table()))


def _columns(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for field in _SCHEMA:
        dtype = np.dtype(field.type.to_pandas_dtype())
        chunks = [
            np.frombuffer(c.buffers()[1], dtype, len(c), c.offset * dtype.itemsize) for c in table[field.name].chunks
        ]
        found[field.name] = np.concatenate([np.zeros(0, dtype), *(chunk for chunk in chunks if len(chunk))])
    return found
