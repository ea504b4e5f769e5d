"""How are the trials of a lease run? In chunks of one group each, trial by trial."""

from __future__ import annotations

import time
from math import nan

from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.asked_chunk import AskedChunk, AskFailed
from umbel.runtime.leases.calls import describe_error, store_failed
from umbel.runtime.leases.checkpoints import TrialCheckpoints
from umbel.runtime.leases.context import TrialContext, says_pruned
from umbel.runtime.leases.metrics import DEFAULT, check_has, named_metrics
from umbel.runtime.leases.output import Tail, kept
from umbel.runtime.leases.results import Result
from umbel.runtime.leases.rows import Outcome, TrialChunk
from umbel.runtime.leases.trial_lease import CHUNK, DataFailed, TrialLease
from umbel.runtime.search.pruning import Judged, as_json
from umbel.storage.runs.trial_rows import SUCCEEDED

__all__ = ["SweepLease"]

#: Seconds after which some of a long lease is worth a report; others are as short as this.
PART_S = 0.5


class SweepLease(TrialLease):
    """Trials of a sweep, one after another."""

    def _run_trials(self) -> None:
        trials = self._program.source.trials
        start = self.lease.start
        while start < self.stop:
            group = start // trials
            stop = min(self.stop, (group + 1) * trials)
            if self._program.search is None:
                stop = min(stop, start + CHUNK)
            chunk, outcomes = self._begin_chunk(start, stop)
            try:
                args, kwargs = self._load(group)
            except DataFailed as failed:
                if isinstance(chunk, AskedChunk):
                    chunk.leave_out()
                outcomes.extend(failed.outcome() for _ in chunk.seeds)
            else:
                if not self._run_chunk(chunk, outcomes, args, kwargs):
                    return
            start = stop

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
        asked, told = chunk if isinstance(chunk, AskedChunk) else None, clock()
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
                if context.pruned or says_pruned(error):  # whatever the function made of it; or it says so by itself
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
                asked.tell(index, self._values(outcome), outcome.steps or 0 if outcome.status == "pruned" else None)
            add(outcome)  # whole: another thread may make a row of it at once
            index += 1
            if asked is not None and clock() - told > PART_S:
                self.after_part()
                told = clock()
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


def _end_course(context: TrialContext, course: Judged, outcome: Outcome) -> None:
    """A trial of a sweep that prunes has ended, and its outcome says what it left at rungs."""
    if context.pruned and outcome.status == "ok":
        outcome.status = "pruned"  # it was told to stop, and returned something
    outcome.rungs = as_json(course.marks)
    course.end(outcome.status)
