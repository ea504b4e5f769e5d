"""What is the same for all leases of trials, however these are run: their chunks, their rows, the models that are kept.

A chunk holds consecutive trials of one group. Whoever runs them appends an outcome each, in order; the rest is done
here.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import inf, isfinite

from umbel.runtime.driver.programs import InputKind, LeaseInputs, SweepProgram
from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.asked_chunk import AskedChunk
from umbel.runtime.leases.calls import Call, describe_error, input_digests, store_failed
from umbel.runtime.leases.lease_report import Taken
from umbel.runtime.leases.output import kept
from umbel.runtime.leases.rows import NOT_BEGUN, Outcome, TrialChunk, TrialPart, TrialRows
from umbel.runtime.leases.running_lease import RunningLease
from umbel.runtime.leases.values import (
    PACKED_LIMIT_BYTES,
    StoredModel,
    ValueHandle,
    store_model,
)
from umbel.runtime.search.rungs import RungBoard
from umbel.scheduler.protocol import Lease, Retry
from umbel.scheduler.search.pareto import Front
from umbel.storage.runs.trial_rows import SUCCEEDED

__all__ = ["CHUNK", "DataFailed", "TrialLease"]

#: Trials whose configs are made at a time.
CHUNK = 4096
#: Bytes of small models that may wait for a report; beyond that each is stored at once, which takes its time.
WAITING_LIMIT_BYTES = 64 * 2**20


class DataFailed(Exception):
    """A group's data can't be loaded; no fault of the store's."""

    def __init__(self, text: str, retry: bool) -> None:
        super().__init__(text)
        self.text = text
        self.retry = retry

    def outcome(self) -> Outcome:
        """How that ends a trial of the group."""
        return Outcome(time.time(), 0.0, None, "failed", self.text, retry=self.retry)


class TrialLease(RunningLease):
    """Trials of a sweep."""

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
            self._run_trials()
        finally:
            trial_context.current.context, kept.tail = outer

    @abstractmethod
    def _run_trials(self) -> None:
        """Run the trials, and append their outcomes to those of their chunks."""

    def _begin_chunk(self, start: int, stop: int) -> tuple[TrialChunk | AskedChunk, list[Outcome]]:
        """The trials ``[start, stop)``, of one group, and the list for their outcomes."""
        program, inputs = self._program, self._inputs
        trials = program.source.trials
        group = start // trials
        handles, first = self._group_handles(group), group * trials
        digests = input_digests(program.parameters, handles, group)
        data = digests[0] if digests else None
        keys = inputs.groups[group - self.lease.start // trials]
        chunk: TrialChunk | AskedChunk
        if program.search is None:
            chunk = TrialChunk(program, keys, group, start - first, stop - first, data)
        else:
            for trial in () if inputs.study is None else inputs.study.known:
                if trial.values is not None and trial.pruned_at is None:
                    self._is_best(trial.values, group)  # so that a model is kept only if it is better than these
            chunk = AskedChunk(program, keys, group, start - first, stop - first, data, inputs.study)
        outcomes: list[Outcome] = []
        self._chunks.append((chunk, outcomes))
        return chunk, outcomes

    def _load(self, group: int) -> tuple[list[object], dict[str, object]]:
        """The function's arguments beside the config.

        Raises:
            DataFailed: they can't be loaded.
        """
        try:
            return self._call.fill(self._group_handles(group), group)
        except Exception as error:
            if store_failed(error):
                raise
            text = f"the group's data can't be loaded: {describe_error(error)}"
            raise DataFailed(text, self._call.retries(error)) from None

    def _group_handles(self, group: int) -> list[tuple[ValueHandle, ...]]:
        in_lease = group - self.lease.start // self._program.source.trials
        chosen: list[tuple[ValueHandle, ...]] = []
        for parameter, handles in zip(self._program.parameters, self._inputs.handles, strict=True):
            each = parameter.kind is InputKind.EACH
            chosen.append((handles[in_lease],) if each else handles)
        return chosen

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

    def _overrun_part(
        self, held: Sequence[Outcome], low: int, high: int, stop: int, overrun: Outcome
    ) -> Sequence[Outcome]:
        """The outcomes of ``[low, high)`` of a report that ends at ``stop`` with an element past its time limit."""
        return [*held[: high - low - 1], overrun] if high == stop else held

    def _take(self, start: int, stop: int, overrun: Outcome | None) -> Taken:
        parts: list[TrialPart] = []
        for chunk, outcomes in list(self._chunks):
            low, high = max(start, chunk.first), min(stop, chunk.stop)
            if low >= high:
                continue
            held: Sequence[Outcome] = outcomes[low - chunk.first : high - chunk.first]
            if overrun is not None:
                held = self._overrun_part(held, low, high, stop, overrun)
            parts.append(TrialPart(chunk, low - chunk.first, held, self._call.attempt))
        failed: list[int] = []
        retries: list[Retry] = []
        output: list[tuple[int, int, str]] = []
        for part in parts:
            for index, outcome in enumerate(part.outcomes, part.chunk.first + part.offset):
                if outcome.retry:
                    retries.append(Retry(index, self._call.attempt - (outcome.status == NOT_BEGUN)))
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
        return Taken(rows, tuple(failed), tuple(retries), output, rungs=rungs, under_way=self._under_way())

    def _under_way(self) -> tuple[int, str] | None:
        """What others that work on the same study should know of the trial in hand."""
        if self._inputs.study is None or self._inputs.study.in_order or not self._chunks:
            return None
        chunk, outcomes = self._chunks[-1]
        return chunk.under_way(len(outcomes)) if isinstance(chunk, AskedChunk) else None
