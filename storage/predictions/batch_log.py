"""How do rows that many replicas log reach the store in batches, without any of them waiting for it?

A `BatchLog` takes rows in memory and writes them, from a thread of its own, as objects that nobody else writes. While
the store is away it keeps what it has, up to a bound; beyond it counts what it lets go, and says so in the next object.
It must not know what the rows mean.
"""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, TypeVar
from uuid import uuid4

import pyarrow as pa

from umbel.scheduler.errors import InternalError, StoreError, UmbelError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segment_format import encode_segment

__all__ = ["DROPPED_KEY", "BatchLog", "LogState"]

_Row = TypeVar("_Row")
#: Under which key an object says how many rows before it were let go.
DROPPED_KEY = "umbel.dropped"
#: What a row takes beside its texts, in bytes: measured with sys.getsizeof for 17 fields, rounded up.
_ROW_BYTES = 512


@dataclass(frozen=True, slots=True)
class LogState:
    """What has become of the rows of a log."""

    #: Rows that are in the store.
    written: int
    #: Rows that wait to be written.
    waiting: int
    #: Rows that were let go because too many waited.
    dropped: int
    objects: int
    #: What the store said last, if it could not be written; None: it could.
    error: str | None


class BatchLog(Generic[_Row]):
    """Rows, written in batches. Safe to use from several threads; `add` never waits for the store.

    Args:
        objects: the store.
        path_of: the path of an object, from the time (UTC) when it is written and a token that makes it unlike others.
        table_of: rows as a table.
        metadata: what each object says about itself.
        max_age_s: a row is written when it has waited this long.
        max_rows: rows are written when there are this many.
        max_waiting_bytes: about how much memory may wait while the store is away; beyond it the oldest rows are let go.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        objects: ObjectStore,
        path_of: Callable[[datetime, str], str],
        table_of: Callable[[Sequence[_Row]], pa.Table],
        *,
        metadata: dict[str, str] | None = None,
        max_age_s: float = 5.0,
        max_rows: int = 10_000,
        max_waiting_bytes: int = 64 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._path_of = path_of
        self._table_of = table_of
        self._metadata = metadata or {}
        self._max_age_s = max_age_s
        self._max_rows = max_rows
        self._max_waiting_bytes = max_waiting_bytes
        self._clock = clock
        # Everything below is guarded by this condition, which is notified whenever any of it changes.
        self._changed = threading.Condition()
        self._rows: deque[tuple[_Row, int, float]] = deque()  # with its size and when it came
        self._bytes = 0
        self._dropped = 0
        self._dropped_said = 0
        self._written = 0
        self._objects_written = 0
        self._in_flight = 0
        self._added = 0
        self._failures = 0
        self._error: UmbelError | None = None
        self._hurry = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def append(self, row: _Row, size_bytes: int) -> None:
        """Take a row; ``size_bytes`` is what its texts take. Returns at once."""
        size_bytes += _ROW_BYTES
        with self._changed:
            if self._closing:
                raise InternalError("a row was added to a closed log")
            if self._thread is None:  # not before there is something to write: a replica may log nothing
                self._thread = threading.Thread(target=self._run, name="umbel-batch-log", daemon=True)
                self._thread.start()
            self._rows.append((row, size_bytes, self._clock()))
            self._added += 1
            self._bytes += size_bytes
            self._keep_bound()
            if len(self._rows) == 1 or len(self._rows) >= self._max_rows:
                self._changed.notify_all()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StoreError: it could not be written; it still waits, and will be tried again.
            InternalError: a row could not be made part of a table, and is lost; the others are written.
        """
        with self._changed:
            target = self._added
            before = self._failures
            # An attempt that goes on may fail without having had all that waits.
            failures = before + (2 if self._in_flight else 1)
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled() >= target or self._failures >= failures)
            if self._failures > before and self._error is not None:
                raise copy.copy(self._error) from self._error.__cause__

    def _settled(self) -> int:
        return self._written + self._dropped

    def close(self) -> None:
        """Try once more to write what waits, and end the thread. What the store does not take is warned of."""
        with self._changed:
            self._closing = True
            self._error = None
            self._changed.notify_all()
            thread, dropped = self._thread, self._dropped
        if thread is not None:
            thread.join()
        if self._dropped > dropped:
            text = f"{self._dropped - dropped} rows of a log could not be written and are lost: {self._error}"
            warnings.warn(text, UserWarning, stacklevel=2)

    @property
    def state(self) -> LogState:
        """What has become of the rows so far."""
        with self._changed:
            return LogState(
                self._written,
                len(self._rows) + self._in_flight,
                self._dropped,
                self._objects_written,
                None if self._error is None else str(self._error),
            )

    def __enter__(self) -> BatchLog[_Row]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._wait_for_due():
                    return
                taken = [self._rows.popleft() for _ in range(min(len(self._rows), self._max_rows))]
                self._bytes -= sum(size for _, size, _ in taken)
                self._in_flight = len(taken)
                said = self._dropped
            written, error = self._write([row for row, _, _ in taken], said - self._dropped_said)
            with self._changed:
                self._in_flight = 0
                self._error = error
                if error is not None:
                    self._failures += 1
                if isinstance(error, StoreError):
                    self._put_back(taken)
                else:  # what is no row of a table will not become one
                    self._written += written
                    self._dropped += len(taken) - written
                if written:
                    self._objects_written += 1
                    self._dropped_said = said
                self._hurry = self._hurry and error is None and bool(self._rows)
                self._changed.notify_all()

    def _wait_for_due(self) -> bool:
        """Wait until there is something to write now; False: there will be nothing any more."""
        while True:
            if self._closing:
                if not self._rows or isinstance(self._error, StoreError):
                    self._dropped += len(self._rows)
                    self._rows.clear()
                    self._changed.notify_all()
                    return False
                return True
            if self._rows:
                is_away = isinstance(self._error, StoreError)
                if self._hurry or (not is_away and len(self._rows) >= self._max_rows):
                    return True
                left_s = self._rows[0][2] + self._max_age_s - self._clock()
                if left_s <= 0:
                    return True
                self._changed.wait(left_s)
            else:
                self._hurry = False
                self._changed.wait()

    def _write(self, rows: list[_Row], dropped: int) -> tuple[int, UmbelError | None]:
        """Write some rows as one object: how many were written, and what went wrong, if something did."""
        token = uuid4().hex[:12]
        metadata = {**self._metadata, "umbel.writer": token}
        if dropped:
            metadata[DROPPED_KEY] = str(dropped)
        lost: UmbelError | None = None
        try:
            data, written = encode_segment(self._table_of(rows), metadata), len(rows)
        except Exception:  # of one caller's row; the others' are not to go with it
            good, lost = self._good(rows)
            if not good:
                return 0, lost
            data, written = encode_segment(self._table_of(good), metadata), len(good)
        try:
            self._objects.create(self._path_of(datetime.now(UTC), token), data, unique=True)
        except StoreError as error:
            return 0, error
        except Exception as error:
            return 0, InternalError("a log can't be written", got=f"{type(error).__name__}: {error}")
        return written, lost

    def _good(self, rows: Sequence[_Row]) -> tuple[list[_Row], UmbelError | None]:
        """Those of some rows that can be made a table, and what is wrong with the others."""
        good: list[_Row] = []
        why = ""
        for row in rows:
            try:
                self._table_of([row])
            except Exception as wrong:
                why = f"{type(wrong).__name__}: {wrong}"
            else:
                good.append(row)
        if len(good) == len(rows):
            return good, None
        text = f"{len(rows) - len(good)} of {len(rows)}: {why}"
        return good, InternalError("rows of a log can't be made a table", got=text)

    def _put_back(self, taken: Sequence[tuple[_Row, int, float]]) -> None:
        """Rows that the store did not take wait again, in front of all others, and are due again after `max_age_s`."""
        now = self._clock()
        self._rows.extendleft((row, size, now) for row, size, _ in reversed(taken))
        self._bytes += sum(size for _, size, _ in taken)
        self._keep_bound()

    def _keep_bound(self) -> None:
        while self._bytes > self._max_waiting_bytes and len(self._rows) > 1:
            self._bytes -= self._rows.popleft()[1]
            self._dropped += 1
