"""How are the elements of a task's lease run? One call each, whose value is stored where it was made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from umbel.runtime.driver.programs import InputKind, LeaseInputs, TaskProgram
from umbel.runtime.leases.calls import Call, describe_error, input_digests, store_failed
from umbel.runtime.leases.lease_report import Taken
from umbel.runtime.leases.metrics import to_metrics
from umbel.runtime.leases.output import Tail, kept
from umbel.runtime.leases.results import Result, Sourced
from umbel.runtime.leases.rows import ElementOutcome, Outcome, Place, element_rows
from umbel.runtime.leases.running_lease import RunningLease
from umbel.runtime.leases.values import (
    StoredModel,
    ValueHandle,
    store_model,
    store_value,
)
from umbel.scheduler.identity import element_key
from umbel.scheduler.protocol import Lease, Retry

__all__ = ["TaskLease"]


class TaskLease(RunningLease):
    """Elements of a task."""

    def __init__(
        self,
        lease: Lease,
        inputs: LeaseInputs,
        call: Call,
        program: TaskProgram,
        place: Place,
        put_copy: Callable[[bytes], object | None] | None,
    ) -> None:
        super().__init__(lease, call)
        self._inputs = inputs
        self._program = program
        self._place = place
        self._put_copy = put_copy
        self._outcomes: list[ElementOutcome] = []

    def run(self) -> None:
        """Run the elements in order, until the lease's end, which may move nearer meanwhile."""
        outer = kept.tail
        self._busy_until = time.perf_counter()
        try:
            self._run_elements()
        finally:
            kept.tail = outer

    def _run_elements(self) -> None:
        for element, handles in self._elements():
            self._current_since = time.perf_counter()
            self._current = element
            if element >= self.stop:
                return
            self._tail = kept.tail = tail = Tail()
            outcome = self._run_element(handles, element)
            outcome.output = tail.take()
            self._outcomes.append(outcome)

    def _elements(self) -> Iterator[tuple[int, list[tuple[ValueHandle, ...]]]]:
        start = self.lease.start
        kinds = [parameter.kind for parameter in self._program.parameters]
        for element in range(start, self.lease.stop):
            yield (
                element,
                [
                    (handles[element - start],) if kind is InputKind.EACH else handles
                    for kind, handles in zip(kinds, self._inputs.handles, strict=True)
                ],
            )

    def _run_element(self, handles: list[tuple[ValueHandle, ...]], element: int) -> ElementOutcome:
        key = element_key(self._program.code, input_digests(self._program.parameters, handles, element))
        started = self._current_since + self._clock_offset
        clock = time.perf_counter
        begun = clock()
        metrics: dict[str, float] | None = None
        model: StoredModel | None = None
        source: str | None = None
        in_function = False
        try:
            args, kwargs = self._call.fill(handles, element)
            begun, in_function = clock(), True
            value = self._call.function(*args, **kwargs)
            seconds, in_function = clock() - begun, False
            if isinstance(value, Result):
                metrics = to_metrics(value.metrics)
                if value.model is not None:
                    model = store_model(value.model, self._call.objects)
                value = dict(value.metrics) if not isinstance(value.metrics, (int, float)) else value.metrics
            elif isinstance(value, Sourced):
                source = json.dumps(value.source, default=str)
                value = value.value
            handle = store_value(value, self._call.objects, self._put_copy)
        except BaseException as error:
            if store_failed(error) and not in_function:
                raise
            seconds = clock() - begun
            retry = self._call.retries(error)
            return ElementOutcome(started, seconds, None, "failed", describe_error(error), metrics, model, key, retry)
        return ElementOutcome(started, seconds, handle, metrics=metrics, model=model, key=key, source=source)

    def _finished(self) -> int:
        return len(self._outcomes)

    def _take(self, start: int, stop: int, overrun: Outcome | None) -> Taken:
        first = self.lease.start
        held = self._outcomes[start - first : stop - first]
        if overrun is not None:
            timed_out = ElementOutcome(
                overrun.started,
                overrun.seconds,
                None,
                "timeout",
                overrun.error,
                retry=overrun.retry,
                output=overrun.output,
            )
            held = [*held[: stop - start - 1], timed_out]
        attempt = self._call.attempt
        failed = tuple(e for e, outcome in enumerate(held, start) if outcome.status != "ok" and not outcome.retry)
        retries = tuple(Retry(e, attempt) for e, outcome in enumerate(held, start) if outcome.retry)
        output = [(e, attempt, outcome.output) for e, outcome in enumerate(held, start) if outcome.output is not None]
        copies = tuple(
            (element, outcome.handle.copy)
            for element, outcome in enumerate(held, start)
            if outcome.handle is not None and outcome.handle.copy is not None
        )
        rows = element_rows(self._place, self._program.code, start, held, attempt)
        return Taken(rows, failed, retries, output, copies)
