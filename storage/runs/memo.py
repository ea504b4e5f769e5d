"""Which trials of earlier runs have a given content key, and what came of them?

Each sweep leaves a mark under the fingerprint of its code when its run begins. A later sweep of the same code lists
those marks and looks its trials' keys up in the runs that they name, the newest first. A key stands for code, data,
config and seed together, so an equal one means an equal trial. Of each earlier run only keys and places are kept in
memory; rows are read when they are wanted. It must not know what is to be run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.records import read_run_record
from umbel.storage.runs.segment_format import SegmentDamagedError, decode_segment, plain, unify
from umbel.storage.runs.segments import scan_segments
from umbel.storage.runs.trial_rows import WHOLE, metric_column
from umbel.storage.values.columns import contains, int_values, integers, python_values, strings

__all__ = ["Memo", "SegmentCache", "earlier_sweeps", "mark_sweep", "recorded_sweep", "with_origin"]

#: Whose models a sweep keeps, from few to many.
_KEEPS = ("none", "best", "all")
#: How many earlier runs are looked into: the newest ones.
MOST_RUNS = 20
#: Decoded segments that are kept: groups that follow one another lie in the same ones.
KEPT_SEGMENTS = 4
#: Hexadecimal digits of a key that are looked up; the whole key is compared afterwards.
PREFIX = 16


def mark_sweep(objects: ObjectStore, code: str, created: str, run_id: str, sweep: str) -> None:
    """Let later runs find this sweep's trials; a second time changes nothing.

    Args:
        objects: the store.
        code: the fingerprint of the sweep's function; of an adaptive search the identity of its studies.
        created: when the run was made, as in its record (ISO 8601, UTC).
        run_id: the run.
        sweep: the sweep's name.
    """
    try:
        objects.create(layout.memo_mark(code, created, run_id, sweep), b"")
    except StoreConflictError:
        return


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The keys of one earlier sweep, in order of their prefixes, and where their rows are."""

    run_id: str
    sweep: str
    prefixes: npt.NDArray[np.uint64]
    segment: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    paths: tuple[str, ...]


class Memo:
    """The trials of earlier runs of one sweep's code.

    Args:
        objects: the store.
        code: the fingerprint of the sweep's function.
        run_id: the run that asks; its own trials are not looked at.
        metrics: what the sweep is judged by; trials that lack one don't count.
        keep: whose models the sweep keeps; sweeps that kept fewer don't count, since theirs would be missing.
    """

    def __init__(
        self, objects: ObjectStore, code: str, run_id: str, metrics: Sequence[str], keep: str = "none"
    ) -> None:
        self._objects = objects
        self._keep = keep
        self._metrics = [metric_column(metric) for metric in metrics]
        self._unread = earlier_sweeps(objects, code, run_id)
        self._earlier: list[_Earlier] = []
        self._segments = SegmentCache(objects)

    def __bool__(self) -> bool:
        return bool(self._earlier or self._unread)

    def find(self, keys: Sequence[str]) -> tuple[list[int], pa.Table] | None:
        """The rows of earlier trials with these keys; None: there is none.

        Returns:
            Which of the keys were found (positions, in order of the rows), and the rows as they were stored, with a
            column ``reused_from``: "run/sweep/trial" of where each was run.

        Cost: for each earlier run, once, reading its keys; then about 20 µs a key that is found.

        Raises:
            StoreError: the store can't be read.
        """
        wanted = dict(enumerate(keys))
        positions: list[int] = []
        tables: list[pa.Table] = []
        for earlier in self._all():
            if not wanted:
                break
            for found, table in self._rows_of(earlier, wanted):
                positions += found
                tables.append(table)
                for position in found:
                    del wanted[position]
        return (positions, unify(tables)) if tables else None

    def _all(self) -> list[_Earlier]:
        """All earlier sweeps, read when they are first asked for."""
        while self._unread:
            _, run_id, sweep = self._unread.pop(0)
            found = self._read(run_id, sweep)
            if found is not None:
                self._earlier.append(found)
        return self._earlier

    def _read(self, run_id: str, sweep: str) -> _Earlier | None:
        if recorded_sweep(self._objects, run_id, sweep, self._keep) is None:
            return None
        paths: list[str] = []
        prefixes, segments, rows = [], [], []
        columns = ["key", "status", *self._metrics]
        for segment in scan_segments(self._objects, layout.trials_folder(run_id, sweep), columns):
            table = segment.table
            if table is None or any(name not in table.column_names for name in columns):
                continue
            usable = contains(table["status"], WHOLE)
            for name in self._metrics:
                usable = usable & np.asarray(table[name].is_valid())
            places = np.flatnonzero(usable)
            found = [int(key[:PREFIX], 16) for key in python_values(table["key"].take(integers(places)))]
            prefixes.append(np.asarray(found, np.uint64))
            segments.append(np.full(len(places), len(paths), np.int32))
            rows.append(places.astype(np.int32))
            paths.append(segment.path)
        if not paths:
            return None
        every = np.concatenate(prefixes)
        order = np.argsort(every, kind="stable")
        return _Earlier(
            run_id, sweep, every[order], np.concatenate(segments)[order], np.concatenate(rows)[order], tuple(paths)
        )

    def _rows_of(self, earlier: _Earlier, wanted: dict[int, str]) -> list[tuple[list[int], pa.Table]]:
        """By segment: the positions of the keys found there, and their rows."""
        if not len(earlier.prefixes):
            return []
        positions = np.fromiter(wanted, np.int64, len(wanted))
        prefixes = np.asarray([int(key[:PREFIX], 16) for key in wanted.values()], np.uint64)
        places = np.minimum(np.searchsorted(earlier.prefixes, prefixes), len(earlier.prefixes) - 1)
        hits = earlier.prefixes[places] == prefixes
        positions, places = positions[hits], places[hits]
        found: list[tuple[list[int], pa.Table]] = []
        for number in np.unique(earlier.segment[places]).tolist():
            table = self._segments.get(earlier.paths[number])
            here = earlier.segment[places] == number
            if table is None:
                continue
            rows = table.take(integers(earlier.row[places[here]].astype(np.int64)))
            candidates = positions[here].tolist()
            same = [wanted[p] == key for p, key in zip(candidates, python_values(rows["key"]), strict=True)]
            if not all(same):
                rows = rows.filter(pa.array(same))
                candidates = [p for p, is_same in zip(candidates, same, strict=True) if is_same]
            if candidates:
                found.append((candidates, with_origin(rows, earlier.run_id, earlier.sweep)))
        return found


class SegmentCache:
    """The segments that were read last, decoded."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._held: OrderedDict[str, pa.Table | None] = OrderedDict()

    def get(self, path: str) -> pa.Table | None:
        """A segment; None: it is gone or spoilt since its keys were read, so what it held is run.

        Raises:
            StoreError: the store can't be read.
        """
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        try:
            table: pa.Table | None = plain(decode_segment(self._objects.read(path))[0])
        except (NotFoundError, SegmentDamagedError):
            table = None
        self._held[path] = table
        while len(self._held) > KEPT_SEGMENTS:
            self._held.popitem(last=False)
        return table


def earlier_sweeps(objects: ObjectStore, code: str, run_id: str) -> list[tuple[str, str, str]]:
    """When the newest sweeps under a mark began, their runs and names, the newest first, without those of a run."""
    marks = (layout.parse_memo_mark(path) for path in objects.list(layout.memo_folder(code)))
    others = [mark for mark in marks if mark is not None and mark[1] != run_id]
    return sorted(others, reverse=True)[:MOST_RUNS]


def recorded_sweep(objects: ObjectStore, run_id: str, sweep: str, keep: str) -> dict[str, Any] | None:
    """A sweep's node as its run.json has it; None: there is none, or it kept fewer models than ``keep`` asks for."""
    try:
        record = read_run_record(objects, run_id) or {}
    except StoreCorruptError:
        return None  # whoever asks for that run is told; here it only can't be used
    for node in (record.get("graph") or {}).get("nodes") or ():
        if node.get("name") == sweep and node.get("sweep"):
            kept = node["sweep"].get("keep", "best")
            enough = kept in _KEEPS and _KEEPS.index(kept) >= _KEEPS.index(keep)
            return dict(node) if enough else None
    return None


def with_origin(rows: pa.Table, run_id: str, sweep: str) -> pa.Table:
    """The rows, saying where they were run: one that was taken over itself says where from."""
    origin = [f"{run_id}/{sweep}/{trial}" for trial in int_values(rows["trial"]).tolist()]
    if "reused_from" in rows.column_names:
        before = python_values(rows["reused_from"])
        origin = [old or new for old, new in zip(before, origin, strict=True)]
        rows = rows.drop_columns(["reused_from"])
    return rows.append_column("reused_from", strings(origin))
