"""How do the many small segments of a run become few?

What is merged is written first, under new numbers behind all others; only then the segments that it was made of are
deleted. So every row is there at every moment, at times twice, and a row that is there twice is known as one: of equal
elements the later segment counts, and what is merged holds for each element the row that counts already. A reader that
had listed segments that are deleted now lists again (`segments.scan_segments`). Only the run's owner may do it, so
nobody writes meanwhile. It must not know what rows mean beyond the column that numbers them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pyarrow as pa

from umbel.scheduler.errors import NotFoundError, StoreCorruptError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.ownership import Ownership, owner_status
from umbel.storage.runs.segment_format import encode_segment, unify
from umbel.storage.runs.segments import Segment, scan_segments
from umbel.storage.values.columns import booleans, int_values

__all__ = ["Compacted", "compact_run"]

#: A merged segment ends when it has this many rows, or takes this many bytes in memory.
MOST_ROWS = 1_000_000
MOST_BYTES = 128 * 2**20
#: What numbers the rows of a folder; folders without (outputs) have no row twice.
_INDEX = ("trial", "element")


@dataclass(frozen=True, slots=True)
class Compacted:
    """What came of it."""

    #: Segments and their bytes before and after.
    segments_before: int
    segments_after: int
    bytes_before: int
    bytes_after: int


def compact_run(objects: ObjectStore, run_id: str) -> Compacted:
    """Merge the segments of a run, folder by folder.

    Cost: all segments are read twice and written once; memory holds one merged segment. Interrupted, it leaves all rows
    in place, and can be done again.

    Raises:
        NotFoundError: there is no such run.
        RunHeldError: a process is writing it.
        StoreCorruptError: a segment is damaged: which rows count can't be known.
        StoreError: the store can't be read or written.
    """
    if not objects.exists(layout.record(run_id)):
        raise NotFoundError(f"the store {objects.url} has no run of this name", got=run_id)
    view = owner_status(objects, run_id)
    before = _segments_of(objects, run_id)
    ownership = Ownership.acquire(objects, run_id)
    # As it was: a run that died does not become one that was interrupted in good order.
    reason = "died" if view.record is None or view.record.reason is None else view.record.reason
    try:
        for folder in sorted({path.rpartition("/")[0] for path in before}):
            _compact_folder(objects, folder, ownership)
    finally:
        ownership.release(reason)
    after = _segments_of(objects, run_id)
    return Compacted(len(before), len(after), sum(before.values()), sum(after.values()))


def _segments_of(objects: ObjectStore, run_id: str) -> dict[str, int]:
    """The segments of a run in place, with their sizes."""
    listed = {info.path: info.size_bytes for info in objects.list_details(layout.run_folder(run_id))}
    return {path: listed[path] for _, path in layout.numbered(listed)}


def _compact_folder(objects: ObjectStore, folder: str, ownership: Ownership) -> None:
    numbered = layout.numbered(objects.list(folder))
    if len(numbered) < 2:
        return
    last = _last_segments(objects, folder)
    number = numbered[-1][0] + 1
    metadata = {"umbel.writer": uuid4().hex}
    written = 0
    for table in _merged(objects, folder, last):
        merged = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        data = encode_segment(table, {**merged, **metadata})
        objects.create(layout.segment(folder, number + written), data, unique=True)
        written += 1
        ownership.renew()
    if not written:
        return
    for _, path in numbered:
        objects.delete(path)


def _last_segments(objects: ObjectStore, folder: str) -> dict[str, np.ndarray] | None:
    """For each segment which of its rows count; None: all do."""
    parts: list[tuple[str, np.ndarray]] = []
    for segment in scan_segments(objects, folder, lambda names: [name for name in names if name in _INDEX][:1]):
        table = _whole(segment)
        if not table.num_columns:
            return None
        parts.append((segment.path, int_values(table.column(0))))
    index = np.concatenate([part for _, part in parts])
    # The first in reversed order is the last; np.unique gives the first.
    _, firsts = np.unique(index[::-1], return_index=True)
    counts = np.zeros(len(index), np.bool_)
    counts[len(index) - 1 - firsts] = True
    ends = np.cumsum([len(part) for _, part in parts])
    return {path: counts[end - len(part) : end] for (path, part), end in zip(parts, ends.tolist(), strict=True)}


def _merged(objects: ObjectStore, folder: str, counts: dict[str, np.ndarray] | None) -> Iterator[pa.Table]:
    """The rows that count, in pieces."""
    held: list[pa.Table] = []
    metadata: dict[bytes, bytes] = {}
    for segment in scan_segments(objects, folder):
        table = _whole(segment)
        metadata = metadata or dict(table.schema.metadata or {})
        if counts is not None:
            if segment.path not in counts:
                continue
            table = table.filter(booleans(counts[segment.path]))
        held.append(table)
        if sum(map(len, held)) >= MOST_ROWS or sum(part.nbytes for part in held) >= MOST_BYTES:
            yield unify(held).combine_chunks().replace_schema_metadata(metadata)
            held = []
    if held:
        yield unify(held).combine_chunks().replace_schema_metadata(metadata)


def _whole(segment: Segment) -> pa.Table:
    if segment.table is None:
        raise StoreCorruptError(
            f"{segment.path} is damaged: {segment.reason}",
            hint="run the same command as ever again, which sets it aside and repeats its rows; then compact",
        )
    return segment.table
