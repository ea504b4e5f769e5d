"""How a lease is run: element after element on one thread, while another collects what has finished.

The running thread only runs the user's function and appends an outcome; making rows of the outcomes is left to
`collect`, which any other thread may call at any time. The inline executor calls both from the same thread.
"""

from __future__ import annotations

import json
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import cloudpickle
import pyarrow as pa

from umbel.runtime import context as trial_context
from umbel.runtime.checkpoints import TrialCheckpoints
from umbel.runtime.context import TrialContext
from umbel.runtime.metrics import DEFAULT, check_has, named_metrics, to_metrics
from umbel.runtime.output import Tail, kept
from umbel.runtime.programs import InputKind, LeaseInputs, Parameter, Program, SweepProgram, TaskProgram
from umbel.runtime.results import Result, Sourced
from umbel.runtime.rows import ElementOutcome, Outcome, Place, TrialChunk, TrialPart, TrialRows, element_rows
from umbel.runtime.sequences import item
from umbel.runtime.values import (
    PACKED_LIMIT_BYTES,
    StoredModel,
    ValueCache,
    ValueHandle,
    item_digest,
    store_model,
    store_value,
)
from umbel.scheduler.errors import StoreCorruptError, StoreError, UmbelError
from umbel.scheduler.identity import element_key
from umbel.scheduler.protocol import Lease, LeaseId, Retry
from umbel.storage.objects import ObjectStore
from umbel.storage.packs import pack_models, payload_bytes
from umbel.storage.redaction import is_secret_name, redact_url

__all__ = ["LeaseReport", "LeaseRunner", "RunningLease"]

#: Trials whose configs are made at a time.
CHUNK = 4096
#: Characters of a traceback that are kept: its end, where the cause stands.
ERROR_LIMIT = 8000
#: Bytes of small models that one report carries to the driver, which packs those of all workers together; more are
#: packed by the worker itself.
REPORT_MODELS_LIMIT = 512 * 2**10
#: Bytes of small models that may wait for a report; beyond that each is stored at once, which takes its time.
WAITING_LIMIT_BYTES = 64 * 2**20
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


class LeaseRunner:
    """Runs the leases of one run in one process.

    Args:
        programs: the nodes that leases may come from.
        objects: the store, for large values and models.
        place: what rows say of where they were made.
        put_copy: makes copies of large values that are nearer to other workers than the store.
    """

    def __init__(
        self,
        programs: list[Program],
        objects: ObjectStore,
        place: Place,
        put_copy: Callable[[bytes], object | None] | None = None,
    ) -> None:
        self._programs = {program.node: program for program in programs}
        self._functions: dict[int, tuple[Callable[..., Any], tuple[type[BaseException], ...]]] = {}
        self._rows: dict[int, TrialRows] = {}
        self._objects = objects
        self._cache = ValueCache(objects)
        self._place = place
        self._put_copy = put_copy

    def open(self, lease: Lease, inputs: LeaseInputs) -> RunningLease:
        """A lease made ready to run.

        Raises:
            Exception: whatever unpickling the node's function raises: the module it needs is missing here, say.
        """
        program = self._programs[lease.node]
        if lease.node not in self._functions:
            self._functions[lease.node] = cloudpickle.loads(program.function)
        function, retry_on = self._functions[lease.node]
        call = _Call(program, function, retry_on, lease.attempt, self._cache, self._objects)
        if isinstance(program, SweepProgram):
            if lease.node not in self._rows:
                self._rows[lease.node] = TrialRows(program, self._place)
            return _SweepLease(lease, inputs, call, program, self._rows[lease.node])
        assert isinstance(program, TaskProgram)
        put_copy = self._put_copy if program.feeds_others else None
        return _TaskLease(lease, inputs, call, program, self._place, put_copy)


class _Call:
    """The user's function with what surrounds each call of it."""

    __slots__ = ("attempt", "cache", "function", "may_retry", "objects", "program", "retry_on")

    def __init__(
        self,
        program: Program,
        function: Callable[..., Any],
        retry_on: tuple[type[BaseException], ...],
        attempt: int,
        cache: ValueCache,
        objects: ObjectStore,
    ) -> None:
        self.program = program
        self.function = function
        self.retry_on = retry_on
        self.attempt = attempt
        self.cache = cache
        self.objects = objects
        self.may_retry = attempt <= program.retries

    def retries(self, error: BaseException) -> bool:
        return self.may_retry and isinstance(error, self.retry_on)

    def fill(self, handles: list[tuple[ValueHandle, ...]], element: int) -> tuple[list[object], dict[str, object]]:
        """The arguments that an element's handles stand for (of a sweep: a group's)."""
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for parameter, held in zip(self.program.parameters, handles, strict=True):
            values = [self.cache.get(handle) for handle in held]
            value = values if parameter.kind is InputKind.ALL else values[0]
            if parameter.kind is InputKind.ITEM:
                value = item(value, item_place(parameter, held[0], element))
            if parameter.keyword is None:
                args.append(value)
            else:
                kwargs[parameter.keyword] = value
        return args, kwargs


def item_place(parameter: Parameter, handle: ValueHandle, element: int) -> int:
    """Which item of a list an element gets."""
    assert handle.length is not None  # of what is no list the driver has not granted any element
    return element // parameter.repeat % handle.length


def input_digests(parameters: Sequence[Parameter], handles: list[tuple[ValueHandle, ...]], element: int) -> list[str]:
    """What identifies the inputs of an element (of a sweep: of a group)."""
    found: list[str] = []
    for parameter, held in zip(parameters, handles, strict=True):
        if is_secret_name(parameter.keyword):
            continue  # no digest of a credential is kept
        if parameter.kind is InputKind.ITEM:
            found.append(item_digest(held[0], item_place(parameter, held[0], element)))
        else:
            found.extend(handle.digest for handle in held)
    return found


def describe_error(error: BaseException) -> str:
    """An exception as the text of a row: its traceback from the user's function on, the end of it if it is long."""
    if isinstance(error, UmbelError):
        return redact_url(f"{type(error).__name__}: {error}")
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = redact_url("".join(traceback.format_exception(type(error), error, frames)).rstrip())
    return text if len(text) <= ERROR_LIMIT else "…" + text[-ERROR_LIMIT:]


def _store_failed(error: BaseException) -> bool:
    """Whether the store could not do its part: no element is to blame for that, and the run can't go on."""
    return isinstance(error, StoreError) and not isinstance(error, StoreCorruptError)


class RunningLease(ABC):
    """A lease being run.

    `run` belongs to one thread; `collect` and `shorten` to another.
    """

    def __init__(self, lease: Lease, call: _Call) -> None:
        self.lease = lease
        self.stop = lease.stop
        self._call = call
        #: The element that `run` is at, set before it is begun; and since when, which is set before that.
        self._current = lease.start - 1
        self._current_since = time.perf_counter()
        self._collected = lease.start
        self._busy_until = time.perf_counter()
        self._clock_offset = time.time() - time.perf_counter()

    @abstractmethod
    def run(self) -> None:
        """Run the elements in order, until the lease's end, which may move nearer meanwhile."""

    @abstractmethod
    def _finished(self) -> int:
        """Outcomes so far."""

    @abstractmethod
    def _take(self, start: int, stop: int, overrun: Outcome | None) -> _Taken:
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
            _to_ipc(self._slim(taken.rows)),
            _bounded(taken.output),
            overrun is not None,
            taken.copies,
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
        return current, Outcome(since + self._clock_offset, seconds, None, "timeout", text, retry=retry)


@dataclass(slots=True)
class _Taken:
    rows: pa.RecordBatch | None
    failed: tuple[int, ...]
    retries: tuple[Retry, ...]
    output: list[tuple[int, int, str]]
    copies: tuple[tuple[int, object], ...] = ()


class _SweepLease(RunningLease):
    """Trials of a sweep, in chunks of one group each."""

    def __init__(self, lease: Lease, inputs: LeaseInputs, call: _Call, program: SweepProgram, rows: TrialRows) -> None:
        super().__init__(lease, call)
        self._inputs = inputs
        self._program = program
        self._rows = rows
        self._chunks: list[tuple[TrialChunk, list[Outcome]]] = []
        #: Outcomes in chunks that have been collected whole and dropped.
        self._dropped = 0
        self._best: dict[int, float] = {}
        #: Bytes of small models that `run` has kept, and those that `collect` has handed over; one thread writes each.
        self._kept_bytes = self._handed_over_bytes = 0

    def run(self) -> None:
        # What is there before belongs to a trial that has started a run of its own.
        outer = trial_context.current.context, kept.tail
        self._busy_until = time.perf_counter()  # waiting behind another lease is not work
        try:
            self._run_chunks()
        finally:
            trial_context.current.context, kept.tail = outer

    def _run_chunks(self) -> None:
        trials = self._program.source.trials
        start = self.lease.start
        first_group = start // trials
        while start < self.stop:
            group = start // trials
            stop = min(self.stop, (group + 1) * trials, start + CHUNK)
            handles = self._group_handles(group - first_group)
            digests = input_digests(self._program.parameters, handles, group)
            data = digests[0] if digests else None
            keys = self._inputs.groups[group - first_group]
            chunk = TrialChunk(self._program, keys, group, start - group * trials, stop - group * trials, data)
            outcomes: list[Outcome] = []
            self._chunks.append((chunk, outcomes))
            try:
                args, kwargs = self._call.fill(handles, group)
            except Exception as error:
                if _store_failed(error):
                    raise
                text = f"the group's data can't be loaded: {describe_error(error)}"
                retry = self._call.retries(error)
                now = time.time()
                outcomes.extend(Outcome(now, 0.0, None, "failed", text, retry=retry) for _ in chunk.configs)
            else:
                if not self._run_chunk(chunk, outcomes, args, kwargs):
                    return
            start = stop

    def _group_handles(self, group_in_lease: int) -> list[tuple[ValueHandle, ...]]:
        chosen: list[tuple[ValueHandle, ...]] = []
        for parameter, handles in zip(self._program.parameters, self._inputs.handles, strict=True):
            each = parameter.kind is InputKind.EACH
            chosen.append((handles[group_in_lease],) if each else handles)
        return chosen

    def _run_chunk(
        self, chunk: TrialChunk, outcomes: list[Outcome], args: list[object], kwargs: dict[str, object]
    ) -> bool:
        """Run a chunk's trials; False if the lease ended before its last."""
        function, metric = self._call.function, self._program.metric
        offset_s, clock = self._clock_offset, time.perf_counter
        context = TrialContext(
            self._program.name,
            chunk.group_keys,
            chunk.first,
            0,
            self._call.attempt,
            metric,
            open_state=self._open_state,
        )
        trial_context.current.context = context
        kept.tail = tail = Tail()
        add = outcomes.append
        index = chunk.first
        for config, seed in zip(chunk.configs, chunk.seeds, strict=True):
            self._current_since = started = clock()
            self._current = index
            if index >= self.stop:
                break
            context.index, context.seed = index, seed
            try:
                result = function(config, *args, **kwargs)
            except BaseException as error:
                seconds = clock() - started
                if context.state is not None and context.state.error is not None:
                    raise context.state.error from error  # the store could not do its part
                metrics = context.reported or None
                retry = self._call.retries(error)
                text = describe_error(error)
                outcome = Outcome(started + offset_s, seconds, metrics, "failed", text, retry=retry)
            else:
                seconds = clock() - started
                if type(result) is float and not context.reported:
                    outcome = Outcome(started + offset_s, seconds, {DEFAULT: result})
                else:
                    outcome = self._judge(result, context, metric, started + offset_s, seconds, chunk.group)
            if context.reported or context.step is not None:
                context.reported, context.step = {}, None
            if context.state is not None:
                context.state = None
            if tail:
                outcome.output = tail.take()
            add(outcome)  # whole: another thread may make a row of it at once
            index += 1
        return index == chunk.stop

    def _open_state(self, trial: int) -> TrialCheckpoints:
        place = self._rows.place
        return TrialCheckpoints(self._call.objects, place.run, self._program.name, trial, self._call.attempt)

    def _judge(
        self, result: object, context: TrialContext, metric: str, started: float, seconds: float, group: int
    ) -> Outcome:
        """The outcome of a trial that returned."""
        model: object = None
        try:
            returned = result
            if isinstance(result, Result):
                returned, model = result.metrics, result.model
            metrics = dict(context.reported)
            if returned is not None or not metrics:
                metrics.update(named_metrics(returned, metric))
            check_has(metrics, metric)
            stored = None if model is None else self._keep(model, metrics[metric], group)
        except Exception as error:
            if _store_failed(error):
                raise
            return Outcome(started, seconds, None, "failed", describe_error(error), retry=self._call.retries(error))
        return Outcome(started, seconds, metrics, model=stored)

    def _keep(self, model: object, value: float, group: int) -> StoredModel | None:
        """Store the model if it is to be kept, or have it stored with its row."""
        keep = self._program.keep
        if keep == "none":
            return None
        if keep == "best":
            score = value if self._program.mode == "min" else -value
            if not isfinite(score) or score >= self._best.get(group, inf):
                return None
            self._best[group] = score
        waiting_bytes = self._kept_bytes - self._handed_over_bytes
        limit_bytes = PACKED_LIMIT_BYTES if waiting_bytes < WAITING_LIMIT_BYTES else 0
        stored = store_model(model, self._call.objects, limit_bytes)
        self._kept_bytes += len(stored.payload or b"")
        return stored

    def _finished(self) -> int:
        return self._dropped + sum(len(outcomes) for _, outcomes in list(self._chunks))

    def _take(self, start: int, stop: int, overrun: Outcome | None) -> _Taken:
        parts: list[TrialPart] = []
        for chunk, outcomes in list(self._chunks):
            low, high = max(start, chunk.first), min(stop, chunk.stop)
            if low >= high:
                continue
            held = outcomes[low - chunk.first : high - chunk.first]
            if overrun is not None and high == stop:
                held = [*held[: high - low - 1], overrun]
            parts.append(TrialPart(chunk, low - chunk.first, held, self._call.attempt))
        failed: list[int] = []
        retries: list[Retry] = []
        output: list[tuple[int, int, str]] = []
        for part in parts:
            for index, outcome in enumerate(part.outcomes, part.chunk.first + part.offset):
                if outcome.retry:
                    retries.append(Retry(index, self._call.attempt))
                elif outcome.status != "ok":
                    failed.append(index)
                if outcome.output is not None:
                    output.append((index, self._call.attempt, outcome.output))
        while self._chunks and self._chunks[0][0].stop <= stop:  # made into rows: no longer needed
            _, outcomes = self._chunks.pop(0)
            self._dropped += len(outcomes)
        rows = self._rows.build(parts)
        for part in parts:
            for outcome in part.outcomes:
                if outcome.model is not None:
                    self._handed_over_bytes += len(outcome.model.payload or b"")
                    outcome.model = None  # its chunk may live on for thousands of trials
        return _Taken(rows, tuple(failed), tuple(retries), output)


class _TaskLease(RunningLease):
    """Elements of a task."""

    def __init__(
        self,
        lease: Lease,
        inputs: LeaseInputs,
        call: _Call,
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
            kept.tail = tail = Tail()
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
            if _store_failed(error) and not in_function:
                raise
            seconds = clock() - begun
            retry = self._call.retries(error)
            return ElementOutcome(started, seconds, None, "failed", describe_error(error), metrics, model, key, retry)
        return ElementOutcome(started, seconds, handle, metrics=metrics, model=model, key=key, source=source)

    def _finished(self) -> int:
        return len(self._outcomes)

    def _take(self, start: int, stop: int, overrun: Outcome | None) -> _Taken:
        first = self.lease.start
        held = self._outcomes[start - first : stop - first]
        if overrun is not None:
            timed_out = ElementOutcome(
                overrun.started, overrun.seconds, None, "timeout", overrun.error, retry=overrun.retry
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
        return _Taken(rows, failed, retries, output, copies)


def _bounded(output: list[tuple[int, int, str]]) -> tuple[tuple[int, int, str], ...]:
    """As much of the output as one report may carry, the latest first to stay; what is dropped is said."""
    held = 0
    for place in range(len(output) - 1, -1, -1):
        held += len(output[place][2])
        if held > REPORT_OUTPUT_LIMIT:
            element, attempt, _ = output[place]
            return ((element, attempt, "… not kept: the trials around this one printed too much"), *output[place + 1 :])
    return tuple(output)


def _to_ipc(rows: pa.RecordBatch | None) -> bytes | None:
    if rows is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return bytes(sink.getvalue())
