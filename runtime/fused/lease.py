"""How are trials run many at once? A window of the lease at a time, parted into batches that a fused function can run.

A window is what is in flight: it is as long as it takes for the batch of one key to be full
(`umbel.runtime.fused.batches`). Results are noted as batches end, and appended in the order of the trials. A batch that
raises is parted until the trials that do are alone, so that the others get their results; one that does not fit into
memory likewise. Mistakes of the function itself (results of the wrong length, what `UmbelError` tells) fail the whole
batch at once.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from umbel.runtime.driver.programs import LeaseInputs, SweepProgram
from umbel.runtime.fused.batches import BatchSizes, batch_key, is_out_of_memory, split, together
from umbel.runtime.fused.configs import Configs
from umbel.runtime.fused.context import BatchContext
from umbel.runtime.fused.results import BatchResults, read_results
from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.asked_chunk import AskedChunk
from umbel.runtime.leases.calls import Call, describe_error, store_failed
from umbel.runtime.leases.output import Tail, kept
from umbel.runtime.leases.rows import NOT_BEGUN, Outcome, TrialChunk, TrialRows
from umbel.runtime.leases.trial_lease import CHUNK, DataFailed, TrialLease
from umbel.runtime.search.pruning import as_json
from umbel.runtime.search.rungs import RungBoard
from umbel.scheduler.errors import TrialUsageError, UmbelError
from umbel.scheduler.protocol import Lease

__all__ = ["FusedLease", "describe_batch"]

#: Trials of a window at most.
WINDOW = 2**17


@dataclass(frozen=True, slots=True)
class _Trial:
    index: int
    group: int
    config: dict[str, object]
    seed: int
    key: Hashable


class FusedLease(TrialLease):
    """Trials of a sweep of a fused function."""

    def __init__(
        self,
        lease: Lease,
        inputs: LeaseInputs,
        call: Call,
        program: SweepProgram,
        rows: TrialRows,
        sizes: BatchSizes,
        board: RungBoard | None = None,
    ) -> None:
        super().__init__(lease, inputs, call, program, rows, board)
        assert program.fusion is not None
        self._fusion = program.fusion
        self._sizes = sizes
        #: Trials whose configs are made and which have not begun.
        self._ahead: deque[_Trial] = deque()
        #: Chunks some of whose trials have no outcome yet.
        self._open: deque[tuple[TrialChunk | AskedChunk, list[Outcome]]] = deque()
        #: Outcomes that wait for those of trials before them.
        self._found: dict[int, Outcome] = {}
        #: The trials of the batch that runs; and of the one that was found to have overrun its time limit.
        self._batch: tuple[int, ...] = ()
        self._overdue: tuple[int, ...] = ()
        self._data: dict[int, tuple[list[object], dict[str, object]]] = {}
        self._abandoned = False

    def shorten(self, stop: int) -> None:
        """End the lease at ``stop``, or after the window in hand if that is later; at once means after the batch."""
        self._abandoned = self._abandoned or stop <= self.lease.start
        super().shorten(stop)

    def _run_trials(self) -> None:
        start = self.lease.start
        while start < self.stop:
            window = self._next_window(start)
            if not window:
                return
            start = window[-1].index + 1
            self._run_window(window)
            self.after_part()

    # ---- windows -------------------------------------------------------------------------------------------

    def _next_window(self, start: int) -> list[_Trial]:
        """The next trials to be begun, marked as in hand; none if the lease has ended meanwhile."""
        trials = self._program.source.trials
        most = WINDOW if self._fusion.fuse_groups else trials - start % trials
        most = min(most, self.stop - start)
        count = together((trial.key for trial in self._coming(start, most)), self._sizes)
        self._current_since = time.perf_counter()
        self._current = start + count - 1
        count = min(count, self.stop - start)
        return [self._ahead.popleft() for _ in range(count)]

    def _coming(self, start: int, most: int) -> Iterator[_Trial]:
        """The trials from here on, whose configs are made as they are wanted."""
        for place in range(most):
            if place == len(self._ahead):
                self._make_more(start + place)
            yield self._ahead[place]

    def _make_more(self, start: int) -> None:
        trials, by = self._program.source.trials, self._fusion.by
        group = start // trials
        chunk, outcomes = self._begin_chunk(start, min(self.lease.stop, (group + 1) * trials, start + CHUNK))
        assert isinstance(chunk, TrialChunk)
        self._open.append((chunk, outcomes))
        self._ahead.extend(
            _Trial(index, group, config, seed, batch_key(by, config))
            for index, (config, seed) in enumerate(zip(chunk.configs, chunk.seeds, strict=True), start)
        )

    def _run_window(self, window: Sequence[_Trial]) -> None:
        groups = dict.fromkeys(trial.group for trial in window)
        self._data = {group: held for group, held in self._data.items() if group in groups}
        batches: dict[Hashable, list[_Trial]] = {}
        failed: dict[int, DataFailed] = {}
        for group in groups:
            if group not in self._data:
                try:
                    self._data[group] = self._load(group)
                except DataFailed as error:
                    failed[group] = error
        for trial in window:
            if trial.group in failed:
                self._found[trial.index] = failed[trial.group].outcome()
            else:
                batches.setdefault(trial.key, []).append(trial)
        self._note({})
        for key, trials in batches.items():
            self._run_batch(key, trials)

    def _note(self, outcomes: dict[int, Outcome]) -> None:
        """Take over outcomes of a batch, and append those whose turn it is."""
        self._found.update(outcomes)
        self._batch = ()
        while self._open:
            chunk, held = self._open[0]
            index = chunk.first + len(held)
            if index == chunk.stop:
                self._open.popleft()
                continue
            outcome = self._found.pop(index, None)
            if outcome is None:
                return
            held.append(outcome)  # whole: another thread may make a row of it at once

    # ---- batches -------------------------------------------------------------------------------------------

    def _run_batch(self, key: Hashable, trials: Sequence[_Trial]) -> None:
        """Run trials as one; if that fails, in ever smaller parts."""
        waiting = [trials]
        while waiting:
            part = waiting.pop()
            if len(part) > (limit := self._sizes.limit(key)):
                waiting += reversed(split(part, -(-len(part) // limit)))
                continue
            if self._abandoned:
                self._note({trial.index: _not_begun() for trial in part})
                continue
            outcomes = self._call_function(key, part)
            if outcomes is None:
                waiting += reversed(split(part))
            else:
                self._note(outcomes)

    def _call_function(self, key: Hashable, trials: Sequence[_Trial]) -> dict[int, Outcome] | None:
        """Run trials as one; None: they are to be parted."""
        clock, board = time.perf_counter, self._board
        batch = describe_batch(self._program.name, [trial.index for trial in trials], self._group_names(trials))
        courses = None if board is None else [board.course(trial.index) for trial in trials]
        context = BatchContext(len(trials), self._program.metrics, batch, courses)
        configs, args, kwargs = self._arguments(trials)
        trial_context.current.context = context
        self._tail = kept.tail = tail = Tail()
        self._current_since = started = clock()
        self._batch = tuple(trial.index for trial in trials)
        results: BatchResults | None = None
        text: str | None = None
        retry = no_memory = False
        try:
            returned = self._call.function(configs, *args, **kwargs)
            if not context.pruned:
                results = read_results(returned, context.reported, self._program.metrics, len(trials), batch)
                del returned
        except BaseException as error:
            if isinstance(error, Exception) and store_failed(error):
                raise
            if not context.pruned:
                no_memory = is_out_of_memory(error)
                if len(trials) > 1 and (no_memory or not _of_all(error)):
                    text = ""
                else:
                    text, retry = describe_error(error), self._call.retries(error)
        each_s = (clock() - started) / len(trials)
        if no_memory:
            self._sizes.out_of_memory(key, len(trials))
            _free_memory()
        if text == "":
            return None
        if results is not None:
            self._sizes.ran(key, len(trials), each_s * len(trials))
        outcomes: dict[int, Outcome] = {}
        wanted = self._wanted(trials, results, context)
        for place, trial in enumerate(trials):
            outcome = Outcome(started + self._clock_offset, each_s, context.reported_of(place))
            if not context.alive[place]:
                outcome.status = "pruned"
            elif results is None:
                outcome.status, outcome.error, outcome.retry = "failed", text, retry
            else:
                self._fill(outcome, results, place, trial.group, place in wanted)
            if context.steps[place] >= 0:
                outcome.steps = int(context.steps[place])
            if courses is not None:
                outcome.rungs = as_json(courses[place].marks)
                courses[place].end(outcome.status)
            outcomes[trial.index] = outcome
        outcomes[trials[0].index].output = tail.take()
        return outcomes

    def _fill(self, outcome: Outcome, results: BatchResults, place: int, group: int, wanted: bool) -> None:
        """What a trial of a batch that went well has come to."""
        outcome.metrics = results.of(place)
        if not wanted or results.model is None:
            return
        try:
            model = results.model(place)
            outcome.model = None if model is None else self._keep(model, outcome.metrics, group)
        except Exception as error:
            if store_failed(error):
                raise
            outcome.metrics, outcome.status = None, "failed"
            outcome.error, outcome.retry = describe_error(error), self._call.retries(error)

    def _wanted(self, trials: Sequence[_Trial], results: BatchResults | None, context: BatchContext) -> set[int]:
        """The places of the trials whose models may be kept: of each group the best of the batch, or all."""
        if results is None or results.model is None or self._program.keep == "none":
            return set()
        alive = [place for place in range(len(trials)) if context.alive[place]]
        if self._program.keep == "all" or len(self._program.objectives) > 1:
            return set(alive)
        (objective,) = self._program.objectives
        best: dict[int, tuple[float, int]] = {}
        for place in alive:
            score = objective.sign * results.of(place)[objective.metric]
            group = trials[place].group
            if isfinite(score) and (group not in best or score < best[group][0]):
                best[group] = score, place
        return {place for _, place in best.values()}

    def _arguments(self, trials: Sequence[_Trial]) -> tuple[Configs, list[object], dict[str, object]]:
        """What the function is given."""
        places = {group: place for place, group in enumerate(dict.fromkeys(trial.group for trial in trials))}
        configs = Configs(
            [trial.config for trial in trials],
            by=self._fusion.by,
            seeds=[trial.seed for trial in trials],
            group=[places[trial.group] for trial in trials],
            trials=[trial.index for trial in trials],
        )
        if not self._fusion.fuse_groups:
            return configs, *self._data[trials[0].group]
        held = [self._data[group] for group in places]
        args: list[object] = [list(each) for each in zip(*(args for args, _ in held), strict=True)]
        return configs, args, {name: [kwargs[name] for _, kwargs in held] for name in held[0][1]}

    def _group_names(self, trials: Sequence[_Trial]) -> list[str]:
        first = self.lease.start // self._program.source.trials
        groups = dict.fromkeys(trial.group for trial in trials)
        return [" ".join(f"{k}={v}" for k, v in self._inputs.groups[group - first].items()) for group in groups]

    # ---- time limits ---------------------------------------------------------------------------------------

    def _overrun(self) -> tuple[int, Outcome | None]:
        """The last trial in hand, and how those of the batch end if it has run past its time limit."""
        current, batch, since = self._current, self._batch, self._current_since
        limit_s = self._call.program.timeout_s
        seconds = time.perf_counter() - since
        if limit_s is None or not batch or seconds <= limit_s:
            return current, None
        self._overdue = batch
        error = TimeoutError(f"its batch of {len(batch)} trials was not finished after the time limit of {limit_s:g} s")
        printed = None if self._tail is None else self._tail.take()
        return current, Outcome(
            since + self._clock_offset,
            seconds / len(batch),
            None,
            "timeout",
            f"TimeoutError: {error}",
            retry=self._call.retries(error),
            output=printed,
        )

    def _overrun_part(
        self, held: Sequence[Outcome], low: int, high: int, stop: int, overrun: Outcome
    ) -> Sequence[Outcome]:
        """The outcomes of ``[low, high)``: the batch that overran, what was finished before, and what was not begun."""
        found, overdue = dict(self._found), set(self._overdue)
        whole = list(held)
        for index in range(low + len(whole), high):
            if index in found:
                whole.append(found[index])
            elif index in overdue:
                printed = overrun.output if index == self._overdue[0] else None
                whole.append(replace(overrun, output=printed))
            else:
                whole.append(_not_begun())
        return whole


def describe_batch(sweep: str, trials: Sequence[int], groups: Sequence[str]) -> str:
    """A batch in words, for errors."""
    first, last = min(trials), max(trials)
    which = f"trial {first}" if len(trials) == 1 else f"{len(trials)} trials between {first} and {last}"
    if last - first + 1 == len(trials) > 1:
        which = f"trials {first} to {last}"
    where = groups[0] if len(groups) == 1 else f"{len(groups)} groups, {groups[0]} the first"
    return f"sweep {sweep!r}, {which}{f' ({where})' if where else ''}"


def _not_begun() -> Outcome:
    return Outcome(time.time(), 0.0, None, NOT_BEGUN, retry=True)


def _of_all(error: BaseException) -> bool:
    """Whether an error is the function's mistake, whatever the trials are."""
    return isinstance(error, UmbelError) and not isinstance(error, TrialUsageError)


def _free_memory() -> None:
    """Give back what a batch that did not fit has left behind."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
