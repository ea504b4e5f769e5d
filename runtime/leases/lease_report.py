"""What a worker says of a lease to the driver, and what is put together for it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from umbel.scheduler.protocol import LeaseId, Retry
from umbel.scheduler.search.pruning import Record

__all__ = ["REPORT_OUTPUT_LIMIT", "LeaseReport", "Taken", "bounded", "to_ipc"]

#: Characters of output that one report carries; with two or three reports a second this bounds what the driver gets.
REPORT_OUTPUT_LIMIT = 2 * 2**20


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What a worker says of a lease: the scheduler's `Reported`, and the rows."""

    lease: LeaseId
    begin: int
    position: int
    stop: int
    failed: tuple[int, ...]
    retries: tuple[Retry, ...]
    busy_s: float
    #: The rows as an Arrow IPC stream, or None if there are none.
    rows: bytes | None
    #: What elements printed, as (element, attempt, text); those that printed nothing are absent.
    output: tuple[tuple[int, int, str], ...] = ()
    #: True: the element before ``position`` overran its time limit and still runs; the worker must be ended.
    overrun: bool = False
    #: References to copies of large values, as (element, reference).
    copies: tuple[tuple[int, object], ...] = ()
    #: What trials of the lease's node noted at rungs since the last report, the one in hand included.
    rungs: tuple[Record, ...] = ()
    #: The trial in hand and its params as JSON, if others work on the same study.
    under_way: tuple[int, str] | None = None


@dataclass(slots=True)
class Taken:
    """What has finished of a lease, as rows; see `LeaseReport`."""

    rows: pa.RecordBatch | None
    failed: tuple[int, ...]
    retries: tuple[Retry, ...]
    output: list[tuple[int, int, str]]
    copies: tuple[tuple[int, object], ...] = ()
    rungs: tuple[Record, ...] = ()
    under_way: tuple[int, str] | None = None


def bounded(output: list[tuple[int, int, str]]) -> tuple[tuple[int, int, str], ...]:
    """As much of the output as one report may carry, the latest first to stay; what is dropped is said."""
    held = 0
    for place in range(len(output) - 1, -1, -1):
        held += len(output[place][2])
        if held > REPORT_OUTPUT_LIMIT:
            element, attempt, _ = output[place]
            return ((element, attempt, "… not kept: the trials around this one printed too much"), *output[place + 1 :])
    return tuple(output)


def to_ipc(rows: pa.RecordBatch | None) -> bytes | None:
    """Rows as an Arrow IPC stream."""
    if rows is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return bytes(sink.getvalue())
