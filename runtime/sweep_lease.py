"""How are the trials of a lease run? In chunks of one group each, whose configs are made at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf, isfinite, nan

from umbel.runtime import context as trial_context
from umbel.runtime.asked_chunk import AskedChunk, AskFailed
from umbel.runtime.calls import Call, describe_error, input_digests, store_failed
from umbel.runtime.checkpoints import TrialCheckpoints
from umbel.runtime.context import TrialContext
from umbel.runtime.lease_report import Taken
from umbel.runtime.metrics import DEFAULT, check_has, named_metrics
from umbel.runtime.output import Tail, kept
from umbel.runtime.programs import InputKind, LeaseInputs, SweepProgram
from umbel.runtime.pruning import Judged, as_json
from umbel.runtime.results import Result
from umbel.runtime.rows import Outcome, TrialChunk, TrialPart, TrialRows
from umbel.runtime.rungs import RungBoard
from umbel.runtime.running_lease import RunningLease
from umbel.runtime.values import (
    PACKED_LIMIT_BYTES,
    StoredModel,
    ValueHandle,
    store_model,
)
from umbel.scheduler.pareto import Front
from umbel.scheduler.protocol import Lease, Retry
from umbel.storage.trial_rows import SUCCEEDED

__all__ = ["SweepLease"]

#: Trials whose configs are made at a time.
CHUNK = 4096
#: Bytes of small models that may wait for a report; beyond that each is stored at once, which takes its time.
WAITING_LIMIT_BYTES = 64 * 2**20


class SweepLease(RunningLease):
    """Trials of a sweep, in chunks of one group each."""

    def __init__(
        self,
        lease: Lease,
        inputs: LeaseInputs,
        call: Call,
        program: SweepProgram,
        rows: TrialRows,
        board: RungBoard | None = None,
    ) -> None:
        super().__init__(lease, call)
        self._inputs = inputs
        self._program = program
        self._rows = rows
        self._board = board
        self._chunks: list[tuple[TrialChunk | AskedChunk, list[Outcome]]] = []
        #: Outcomes in chunks that have been collected whole and dropped.
        self._dropped = 0
        #: By group, what is best so far of what is known here.
        self._best: dict[int, float] = {}
        self._fronts: dict[int, Front] = {}
        #: Bytes of small models that `run` has kept, and those that `collect` has handed over; one thread writes each.
        self._kept_bytes = self._handed_over_bytes = 0

    def run(self) -> None:
        """Run the trials in order, until the lease's end, which may move nearer meanwhile."""
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
            stop = min(self.stop, (group + 1) * trials)
            if self._program.search is None:
                stop = min(stop, start + CHUNK)
            handles = self._group_handles(group - first_group)
            digests = input_digests(self._program.parameters, handles, group)
            data = digests[0] if digests else None
            keys = self._inputs.groups[group - first_group]
            chunk = self._chunk(keys, group, start, stop, data)
            outcomes: list[Outcome] = []
            self._chunks.append((chunk, outcomes))
            try:
                args, kwargs = self._call.fill(handles, group)
            except Exception as error:
                if store_failed(error):
                    raise
                text = f"the group's data can't be loaded: {describe_error(error)}"
                retry = self._call.retries(error)
                now = time.time()
                if isinstance(chunk, AskedChunk):
                    chunk.leave_out()
                outcomes.extend(Outcome(now, 0.0, None, "failed", text, retry=retry) for _ in chunk.seeds)
            else:
                if not self._run_chunk(chunk, outcomes, args, kwargs):
                    return
            start = stop

    def _chunk(
        self, keys: Mapping[str, object], group: int, start: int, stop: int, data: str | None
    ) -> TrialChunk | AskedChunk:
        program, first = self._program, group * self._program.source.trials
        if program.search is None:
            return TrialChunk(program, keys, group, start - first, stop - first, data)
        study = self._inputs.study
        for trial in () if study is None else study.known:
            if trial.values is not None and trial.pruned_at is None:
                self._is_best(trial.values, group)  # so that a model is kept only if it is better than these
        return AskedChunk(program, keys, group, start - first, stop - first, data, study)

    def _group_handles(self, group_in_lease: int) -> list[tuple[ValueHandle, ...]]:
        chosen: list[tuple[ValueHandle, ...]] = []
        for parameter, handles in zip(self._program.parameters, self._inputs.handles, strict=True):
            each = parameter.kind is InputKind.EACH
            chosen.append((handles[group_in_lease],) if each else handles)
        return chosen

    def _run_chunk(
        self, chunk: TrialChunk | AskedChunk, outcomes: list[Outcome], args: list[object], kwargs: dict[str, object]
    ) -> bool:
        """Run a chunk's trials; False if the lease ended before its last."""
        function, metrics_wanted = self._call.function, self._program.metrics
        single = len(metrics_wanted) == 1
        offset_s, clock = self._clock_offset, time.perf_counter
        context = TrialContext(
            self._program.name,
            chunk.group_keys,
            chunk.first,
            0,
            self._call.attempt,
            metrics_wanted,
            open_state=self._open_state,
        )
        trial_context.current.context = context
        self._tail = kept.tail = tail = Tail()
        add, board = outcomes.append, self._board
        index = chunk.first
        asked = chunk if isinstance(chunk, AskedChunk) else None
        for config, seed in chunk.trials():
            self._current_since = started = clock()
            self._current = index
            if index >= self.stop:
                break
            context.index, context.seed = index, seed
            if board is not None:
                context.course, context.pruned = board.course(index), False
            try:
                if type(config) is AskFailed:
                    raise config.error
                result = function(config, *args, **kwargs)
            except BaseException as error:
                seconds = clock() - started
                if context.state is not None and context.state.error is not None:
                    raise context.state.error from error  # the store could not do its part
                metrics = context.reported or None
                if context.pruned:  # whatever the function made of it
                    outcome = Outcome(started + offset_s, seconds, metrics, "pruned")
                else:
                    retry = self._call.retries(error)
                    text = describe_error(error)
                    outcome = Outcome(started + offset_s, seconds, metrics, "failed", text, retry=retry)
            else:
                seconds = clock() - started
                if type(result) is float and single and not context.reported:
                    outcome = Outcome(started + offset_s, seconds, {DEFAULT: result})
                else:
                    outcome = self._judge(result, context, started + offset_s, seconds, chunk.group)
            if context.reported or context.step is not None:
                outcome.steps = context.step
                context.reported, context.step = {}, None
            if context.course is not None:
                _end_course(context, context.course, outcome)
            if context.state is not None:
                context.state = None
            if tail:
                outcome.output = tail.take()
            if asked is not None and outcome.retry:
                asked.leave_open()
            elif asked is not None:
                asked.tell(index, self._values(outcome), outcome.steps if outcome.status == "pruned" else None)
            add(outcome)  # whole: another thread may make a row of it at once
            index += 1
        return index == chunk.stop

    def _values(self, outcome: Outcome) -> tuple[float, ...] | None:
        """What an adaptive search is told of a trial; None: it failed."""
        if outcome.metrics is None or outcome.status not in SUCCEEDED:
            return None
        default = outcome.metrics.get(DEFAULT, nan)
        return tuple(outcome.metrics.get(metric, default) for metric in self._program.metrics)

    def _open_state(self, trial: int) -> TrialCheckpoints:
        place = self._rows.place
        return TrialCheckpoints(self._call.objects, place.run, self._program.name, trial, self._call.attempt)

    def _judge(self, result: object, context: TrialContext, started: float, seconds: float, group: int) -> Outcome:
        """The outcome of a trial that returned."""
        model: object = None
        try:
            returned = result
            if isinstance(result, Result):
                returned, model = result.metrics, result.model
            metrics = dict(context.reported)
            if returned is not None or not metrics:
                metrics.update(named_metrics(returned, context.metrics))
            check_has(metrics, context.metrics)
            stored = None if model is None else self._keep(model, metrics, group)
        except Exception as error:
            if store_failed(error):
                raise
            return Outcome(started, seconds, None, "failed", describe_error(error), retry=self._call.retries(error))
        return Outcome(started, seconds, metrics, model=stored)

    def _keep(self, model: object, metrics: Mapping[str, float], group: int) -> StoredModel | None:
        """Store the model if it is to be kept, or have it stored with its row."""
        keep = self._program.keep
        if keep == "none":
            return None
        if keep == "best" and not self._is_best(tuple(metrics[name] for name in self._program.metrics), group):
            return None
        waiting_bytes = self._kept_bytes - self._handed_over_bytes
        limit_bytes = PACKED_LIMIT_BYTES if waiting_bytes < WAITING_LIMIT_BYTES else 0
        stored = store_model(model, self._call.objects, limit_bytes)
        self._kept_bytes += len(stored.payload or b"")
        return stored

    def _is_best(self, values: tuple[float, ...], group: int) -> bool:
        """Whether a trial with these values beats those seen of its group; with several metrics, whether none of those
        dominates it."""
        if not all(map(isfinite, values)):
            return False
        scores = [each.sign * value for each, value in zip(self._program.objectives, values, strict=True)]
        if len(scores) > 1:
            return self._fronts.setdefault(group, Front()).add(scores)
        if scores[0] >= self._best.get(group, inf):
            return False
        self._best[group] = scores[0]
        return True

    def _finished(self) -> int:
        return self._dropped + sum(len(outcomes) for _, outcomes in list(self._chunks))

    def _take(self, start: int, stop: int, overrun: Outcome | None) -> Taken:
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
                elif outcome.status not in SUCCEEDED:
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
        rungs = () if self._board is None else self._board.take()
        return Taken(rows, tuple(failed), tuple(retries), output, rungs=rungs)


def _end_course(context: TrialContext, course: Judged, outcome: Outcome) -> None:
    """A trial of a sweep that prunes has ended, and its outcome says what it left at rungs."""
    if context.pruned and outcome.status == "ok":
        outcome.status = "pruned"  # it was told to stop, and returned something
    outcome.rungs = as_json(course.marks)
    course.end(outcome.status)
