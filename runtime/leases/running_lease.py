"""How a lease is run: element after element on one thread, while another collects what has finished.

The running thread only runs the user's function and appends an outcome; making rows of the outcomes is left to
`collect`, which any other thread may call at any time. The inline executor calls both from the same thread.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import pyarrow as pa

from umbel.runtime.leases.calls import Call
from umbel.runtime.leases.lease_report import LeaseReport, Taken, bounded, to_ipc
from umbel.runtime.leases.output import Tail
from umbel.runtime.leases.rows import Outcome
from umbel.scheduler.protocol import Lease
from umbel.storage.values.packs import pack_models, payload_bytes

__all__ = ["RunningLease"]

#: Bytes of small models that one report carries to the driver, which packs those of all workers together; more are
#: packed by the worker itself.
REPORT_MODELS_LIMIT = 512 * 2**10


class RunningLease(ABC):
    """A lease being run.

    `run` belongs to one thread; `collect` and `shorten` to another.
    """

    def __init__(self, lease: Lease, call: Call) -> None:
        self.lease = lease
        self.stop = lease.stop
        self._call = call
        #: The element that `run` is at, set before it is begun; and since when, which is set before that.
        self._current = lease.start - 1
        self._current_since = time.perf_counter()
        self._collected = lease.start
        #: What the element at `_current` has printed.
        self._tail: Tail | None = None
        self._busy_until = time.perf_counter()
        self._clock_offset = time.time() - time.perf_counter()
        #: Called by `run` when some of a long lease is finished; for executors that run it on the thread that collects.
        self.after_part: Callable[[], object] = lambda: None

    @abstractmethod
    def run(self) -> None:
        """Run the elements in order, until the lease's end, which may move nearer meanwhile."""

    @abstractmethod
    def _finished(self) -> int:
        """Outcomes so far."""

    @abstractmethod
    def _take(self, start: int, stop: int, overrun: Outcome | None) -> Taken:
        """The outcomes of ``[start, stop)`` as rows; ``overrun`` stands for the last one, which still runs."""

    def shorten(self, stop: int) -> None:
        """End the lease at ``stop``, or after the element in hand if that is later."""
        self.stop = min(self.stop, max(stop, self._current + 1))  # `run` may be past the end already: it stays put

    def collect(self) -> LeaseReport:
        """What has finished since the last call.

        An element that overran its time limit is reported as timed out, together with all before it; the thread that
        runs it can't be stopped, so the process must be ended then.
        """
        current, overrun = self._overrun()
        position = min(self.lease.start + self._finished(), self.stop) if overrun is None else current + 1
        taken = self._take(self._collected, position, overrun)
        busy_s, begin = 0.0, self._collected
        if position > begin:
            now = time.perf_counter()
            busy_s, self._busy_until = now - self._busy_until, now
        self._collected = position
        return LeaseReport(
            self.lease.id,
            begin,
            position,
            self.stop,
            taken.failed,
            taken.retries,
            busy_s,
            to_ipc(self._slim(taken.rows)),
            bounded(taken.output),
            overrun is not None,
            taken.copies,
            taken.rungs,
            taken.under_way,
        )

    def _slim(self, rows: pa.RecordBatch | None) -> pa.RecordBatch | None:
        """The rows with few bytes of models: many are packed here, so that they don't pass through the driver."""
        if rows is None or payload_bytes(rows) <= REPORT_MODELS_LIMIT:
            return rows
        return pack_models(self._call.objects, pa.Table.from_batches([rows])).combine_chunks().to_batches()[0]

    @property
    def ended(self) -> bool:
        """True once everything up to the lease's end has been collected."""
        return self._collected >= self.stop

    def _overrun(self) -> tuple[int, Outcome | None]:
        """The element in hand, and how it ends if it has run past its time limit; None if it has not."""
        current, since = self._current, self._current_since
        limit_s = self._call.program.timeout_s
        if limit_s is None or current >= self.stop or current < self.lease.start + self._finished():
            return current, None
        seconds = time.perf_counter() - since
        if seconds <= limit_s:
            return current, None
        error = TimeoutError(f"not finished after its time limit of {limit_s:g} s")
        retry = self._call.retries(error)
        text = f"TimeoutError: {error}"
        printed = None if self._tail is None else self._tail.take()
        return current, Outcome(since + self._clock_offset, seconds, None, "timeout", text, retry=retry, output=printed)
