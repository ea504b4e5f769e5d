"""How do rows become durable, a few objects at a time, without the driver waiting for it?

`SegmentWriter` gathers the batches of each folder and writes them as one Parquet object when the oldest row has waited
long enough or there are many; `read_segments` reads them back and names those that are damaged. The presence of the
object is the commit. It must not know what the rows mean.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from uuid import uuid4

import pyarrow as pa

from umbel.scheduler.errors import InternalError, NotFoundError, UmbelError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segment_format import (
    ColumnChoice,
    SegmentDamagedError,
    decode_segment,
    encode_segment,
    plain,
    unify,
)

__all__ = ["Segment", "SegmentScan", "SegmentWriter", "read_segments", "scan_segments"]

#: Rows that wait to be written, in bytes; beyond that `SegmentWriter.add` waits too.
_MAX_WAITING_BYTES = 32 * 2**20
#: How many segments are fetched at once from a store whose answers take time.
_READERS = 8
#: Files say which writer made them; it makes each one's bytes unlike any other writer's.
_WRITER_KEY = "umbel.writer"


@dataclass(slots=True)
class _Buffer:
    """The batches of one folder that wait to be written."""

    oldest: float
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0


class SegmentWriter:
    """Writes batches of rows as segments, in a thread of its own. One writer a run.

    Args:
        objects: the store.
        max_age_s: a row is written when it has waited this long.
        max_rows: a folder's rows are written when there are this many …
        max_bytes: … or they take this much memory.
        finish: called in the writer's thread with the rows of each segment; what it returns is written, after it has
            written what the rows refer to.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        max_age_s: float = 2.0,
        max_rows: int = 65_536,
        max_bytes: int = 16 * 2**20,
        finish: Callable[[pa.Table], pa.Table] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._max_age_s = max_age_s
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._finish = finish
        self._clock = clock
        self._token = uuid4().hex
        self._metadata: dict[str, dict[str, str]] = {}
        self._order: dict[str, int] = {}
        self._next_number: dict[str, int] = {}
        # Everything below is guarded by this condition, which is notified whenever any of it changes.
        self._changed = threading.Condition()
        self._buffers: dict[str, _Buffer] = {}
        self._waiting_bytes = 0
        self._added = 0
        self._written = 0
        self._pressed = False
        self._flushing = False
        self._closing = False
        self._error: UmbelError | None = None
        self._error_raised = False
        #: Rows that would survive a crash now; objects and bytes written for them.
        self.durable_rows = 0
        self.objects_written = 0
        self.bytes_written = 0
        self._thread = threading.Thread(target=self._run, name="umbel-segment-writer", daemon=True)
        self._thread.start()

    # ---- for the driver ------------------------------------------------------------------------------------

    def describe(self, folder: str, metadata: Mapping[str, str]) -> None:
        """Say what the files of a folder shall carry as Parquet key-value metadata, from the next one on."""
        with self._changed:
            self._metadata[folder] = dict(metadata)

    def keep_order(self, folders: Sequence[str]) -> None:
        """Rows of each of these folders must be durable no later than rows of those after it that were added later.

        So what is read back after a crash never holds a result without those that it was made of.
        """
        with self._changed:
            self._order = {folder: place for place, folder in enumerate(folders)}

    def add(self, folder: str, batch: pa.RecordBatch) -> None:
        """Hand over rows; they will be durable within about `max_age_s`.

        Returns at once, unless about 64 MiB are waiting already: then it waits until the store has kept up.

        Args:
            folder: "runs/gdp/trials/backtest". Columns may differ from batch to batch.
            batch: the rows; not copied, not to be changed.

        Raises:
            StoreError: something could not be written, now or earlier; this batch is not taken.
        """
        if not batch.num_rows:
            return
        size_bytes = batch.nbytes
        with self._changed:
            self._wait_for_room(size_bytes)
            self._raise_error()
            if self._closing:
                raise InternalError("rows were added to a closed segment writer", got=folder)
            buffer = self._buffers.get(folder)
            if buffer is None:
                buffer = self._buffers[folder] = _Buffer(self._clock())
                self._changed.notify_all()
            buffer.batches.append(batch)
            buffer.rows += batch.num_rows
            buffer.size_bytes += size_bytes
            self._waiting_bytes += size_bytes
            self._added += 1
            if self._is_full(buffer):
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all rows added so far are durable.

        Raises:
            StoreError: something could not be written.
        """
        with self._changed:
            target = self._added
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._written >= target)
            self._raise_error()

    def close(self) -> None:
        """Make all rows durable and end the thread. More closing does nothing.

        Raises:
            StoreError: something could not be written, and no call has said so yet.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            if not self._error_raised:
                self._raise_error()

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._error_raised = True
            # A copy: an error that is raised twice would carry the traceback of both.
            raise copy.copy(self._error) from self._error.__cause__

    def _wait_for_room(self, size_bytes: int) -> None:
        def has_room() -> bool:
            # A batch that is larger than all that may wait goes through when nothing else waits.
            return not self._waiting_bytes or self._waiting_bytes + size_bytes <= _MAX_WAITING_BYTES

        while self._error is None and not has_room():
            self._pressed = True
            self._changed.notify_all()
            self._changed.wait()

    def _is_full(self, buffer: _Buffer) -> bool:
        return buffer.rows >= self._max_rows or buffer.size_bytes >= self._max_bytes

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._write_due():
                pass
        except BaseException as error:
            with self._changed:
                self._error = error if isinstance(error, UmbelError) else _internal(error)
                self._buffers.clear()
                self._waiting_bytes = 0
                self._changed.notify_all()

    def _write_due(self) -> bool:
        """Wait for rows to write, write them, and forget them; False when there will be no more."""
        due = self._wait_for_due()
        for folder, buffer in (due or {}).items():
            self._write(folder, buffer)
        return due is not None

    def _wait_for_due(self) -> dict[str, _Buffer] | None:
        """The buffers to write now, taken out; None when all is written and the writer closes."""
        with self._changed:
            while True:
                due = self._due()
                if due:
                    for folder in due:
                        del self._buffers[folder]
                    return due
                self._pressed = self._flushing = False
                if self._closing:
                    return None
                oldest = min((buffer.oldest for buffer in self._buffers.values()), default=None)
                self._changed.wait(None if oldest is None else max(0.0, oldest + self._max_age_s - self._clock()))

    def _due(self) -> dict[str, _Buffer]:
        if self._pressed or self._flushing or self._closing:
            return self._in_order(self._buffers)
        too_old = self._clock() - self._max_age_s
        due = {folder for folder, each in self._buffers.items() if each.oldest <= too_old or self._is_full(each)}
        last = max((self._order.get(folder, -1) for folder in due), default=-1)
        due |= {folder for folder in self._buffers if self._order.get(folder, last + 1) <= last}
        return self._in_order(due)

    def _in_order(self, folders: Iterable[str]) -> dict[str, _Buffer]:
        """The buffers of these folders, in the order in which they are to be written."""
        return {folder: self._buffers[folder] for folder in sorted(folders, key=lambda each: self._order.get(each, -1))}

    def _write(self, folder: str, buffer: _Buffer) -> None:
        for table in _tables(buffer.batches):
            number = self._next_number.get(folder)
            if number is None:
                number = _first_free_number(self._objects, folder)
            with self._changed:
                metadata = {**self._metadata.get(folder, {}), _WRITER_KEY: self._token}
            finished = table if self._finish is None else self._finish(table)
            data = encode_segment(finished, metadata)
            self._objects.create(layout.segment(folder, number), data, unique=True)
            self._next_number[folder] = number + 1
            with self._changed:
                self.durable_rows += table.num_rows
                self.objects_written += 1
                self.bytes_written += len(data)
        with self._changed:
            self._written += len(buffer.batches)
            self._waiting_bytes -= buffer.size_bytes
            self._changed.notify_all()


def _internal(error: BaseException) -> InternalError:
    wrapped = InternalError("the segment writer failed", got=f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _tables(batches: Sequence[pa.RecordBatch]) -> list[pa.Table]:
    """The batches as one table; as several if a column's types can't be reconciled."""
    runs: list[list[pa.RecordBatch]] = []
    for batch in batches:
        if runs and runs[-1][0].schema.equals(batch.schema):
            runs[-1].append(batch)
        else:
            runs.append([batch])
    tables = [plain(pa.Table.from_batches(run)) for run in runs]
    try:
        return [pa.concat_tables(tables, promote_options="permissive").combine_chunks()]
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return tables


def _first_free_number(objects: ObjectStore, folder: str) -> int:
    numbers = (layout.segment_number(path) for path in objects.list(folder))
    return max((number[0] for number in numbers if number is not None), default=-1) + 1


# ---- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as it was read."""

    path: str
    #: The columns asked for; None: it is damaged.
    table: pa.Table | None
    #: All columns that it has; None: it is damaged.
    schema: pa.Schema | None
    #: In what way it is damaged; None: it is not.
    reason: str | None


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """All segments of a folder, in order of their numbers."""

    tables: list[pa.Table]
    #: Where each table came from.
    paths: list[str]
    #: (path, reason) of those that are damaged.
    corrupt: list[tuple[str, str]]

    def unified(self) -> pa.Table | None:
        """All rows as one table (see `unify`); None if there are no segments."""
        return unify(self.tables) if self.tables else None


def read_segments(
    objects: ObjectStore, folder: str, columns: ColumnChoice = None, *, verify: bool = False
) -> SegmentScan:
    """Read all segments of a folder.

    Every file is read whole and checked against its checksum, whatever the columns.

    Args:
        objects: the store.
        folder: "runs/gdp/trials/backtest"; a missing one has no segments.
        columns: which columns to return (see `ColumnChoice`). A segment that lacks one is returned without it.
        verify: check Parquet's own page checksums too.

    Raises:
        StoreError: the store can't be read. Damaged content is no error: it is listed in `SegmentScan.corrupt`.
    """
    scan = SegmentScan([], [], [])
    for segment in scan_segments(objects, folder, columns, verify=verify):
        if segment.table is None:
            scan.corrupt.append((segment.path, segment.reason or "damaged"))
        else:
            scan.tables.append(segment.table)
            scan.paths.append(segment.path)
    return scan


def scan_segments(
    objects: ObjectStore, folder: str, columns: ColumnChoice = None, *, verify: bool = False
) -> Iterator[Segment]:
    """Like `read_segments`, one segment at a time: memory holds a few, however many there are.

    Segments that vanish meanwhile have been merged into others (`umbel.storage.runs.compaction`) or set aside: then
    it lists again, and a row may come twice, the one that counts last.
    """
    seen: set[str] = set()
    vanished = True
    while vanished:
        vanished = False
        paths = [path for _, path in layout.numbered(objects.list(folder)) if path not in seen]
        seen.update(paths)
        for segment in _scan(objects, paths, columns, verify):
            if segment is None:
                vanished = True
            else:
                yield segment


def _scan(objects: ObjectStore, paths: Sequence[str], columns: ColumnChoice, verify: bool) -> Iterator[Segment | None]:
    """These segments in order; None for one that is gone."""

    def read(path: str) -> Segment | None:
        try:
            data = objects.read(path)
        except NotFoundError:
            return None
        try:
            table, schema = decode_segment(data, columns, verify_pages=verify)
        except SegmentDamagedError as error:
            return Segment(path, None, None, str(error))
        return Segment(path, table, schema, None)

    if objects.is_local_path or objects.is_process_local or len(paths) < 2:
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="umbel-segment-reader") as pool:
        coming: deque[Future[Segment | None]] = deque()
        for path in paths:
            coming.append(pool.submit(read, path))
            if len(coming) >= _READERS:
                yield coming.popleft().result()
        yield from (future.result() for future in coming)
