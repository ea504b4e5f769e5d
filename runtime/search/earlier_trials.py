"""Which trials of a sweep has an earlier run done? What the driver answers to `Recall`.

A trial whose config follows from its number is looked up by its content key. Where a search builds upon results, whole
beginnings of a group's study are taken over, as far as each trial's key is what it would be here. It must not know
what becomes of the rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pyarrow as pa

from umbel.runtime.driver.plan import Plan
from umbel.runtime.driver.programs import SweepProgram
from umbel.runtime.graph.sizes import Sizes
from umbel.runtime.leases.rows import TrialChunk, TrialRows
from umbel.runtime.leases.values import value_digest
from umbel.scheduler.errors import UmbelError
from umbel.scheduler.graph import NodeId
from umbel.scheduler.identity import group_key, trial_keys
from umbel.storage.runs.memo import Memo
from umbel.storage.runs.study_memo import StudyMemo
from umbel.storage.values.columns import python_values

__all__ = ["EarlierTrials"]


class EarlierTrials:
    """The trials of earlier runs, for the sweeps of one plan.

    Args:
        plan: the graph.
        sizes: the groups of its sweeps.
        data_of: gives the digest of a group's data; None: it has none.
        rows_of: makes rows of a sweep.
    """

    def __init__(
        self,
        plan: Plan,
        sizes: Sizes,
        data_of: Callable[[NodeId, int], str | None],
        rows_of: Callable[[NodeId], TrialRows],
    ) -> None:
        self._plan = plan
        self._sizes = sizes
        self._data_of = data_of
        self._rows_of = rows_of
        self._memos: dict[NodeId, Memo | StudyMemo] = {}
        #: How many have been taken over.
        self.reused = 0

    def look_into(self, sweep: NodeId, memo: Memo | StudyMemo) -> None:
        """Where to look for the trials of a sweep."""
        self._memos[sweep] = memo

    def find(self, sweep: NodeId, start: int, stop: int) -> Iterator[tuple[list[int], pa.RecordBatch]]:
        """What earlier runs have of the trials ``[start, stop)``: their indices, and their rows as rows of this run.

        Cost: about 20 µs a trial that is found; for each earlier run, once, reading its keys.

        Raises:
            StoreError: the store can't be read.
        """
        program = self._plan.programs[sweep]
        assert isinstance(program, SweepProgram)
        trials, memo = program.source.trials, self._memos.get(sweep)
        if memo is None:
            return
        while start < stop:
            group = start // trials
            end = min(stop, (group + 1) * trials)
            if isinstance(memo, Memo):
                found = self._by_key(memo, program, group, start, end)
            else:
                found = self._of_study(memo, program, group, start, end)
            if found is not None:
                numbers, rows = found
                self.reused += len(numbers)
                yield numbers, self._rows_of(sweep).reused(rows, numbers)
            start = end

    def _by_key(
        self, memo: Memo, program: SweepProgram, group: int, start: int, stop: int
    ) -> tuple[list[int], pa.Table] | None:
        first = group * program.source.trials
        keys, data = self._sizes.groups(program.node)[group], self._data_of(program.node, group)
        chunk = TrialChunk(program, keys, group, start - first, stop - first, data)
        known = memo.find(chunk.keys)
        return None if known is None else ([start + position for position in known[0]], known[1])

    def _of_study(
        self, memo: StudyMemo, program: SweepProgram, group: int, start: int, stop: int
    ) -> tuple[list[int], pa.Table] | None:
        if start != group * program.source.trials:
            return None  # it has been begun here
        best: pa.Table | None = None
        for rows in memo.find(self._sizes.groups(program.node)[group], stop - start):
            agreeing = rows.slice(0, self._agreeing(program, group, rows))
            if best is None or len(agreeing) > len(best):
                best = agreeing
            if len(best) == stop - start:
                break
        return (list(range(start, start + len(best))), best) if best is not None and len(best) else None

    def _agreeing(self, program: SweepProgram, group: int, rows: pa.Table) -> int:
        """How many rows, from the first on, are of trials that would have the same key here."""
        keys, search = self._sizes.groups(program.node)[group], program.search
        assert search is not None
        seeds = program.source.batch(group_key(keys), 0, len(rows)).seeds.tolist()
        try:
            configs = [search.config(json.loads(text), keys) for text in python_values(rows["params"])]
            here = trial_keys(program.code, self._data_of(program.node, group), configs, seeds, value_digest)
        except UmbelError:  # params that mean nothing here
            return 0
        there = python_values(rows["key"])
        return next((place for place, key in enumerate(here) if key != there[place]), len(here))
