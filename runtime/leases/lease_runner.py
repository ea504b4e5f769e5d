"""How does a process run leases? It makes each ready to run, and keeps what they share: functions and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cloudpickle

from umbel.runtime.driver.programs import LeaseInputs, Program, SweepProgram, TaskProgram
from umbel.runtime.fused.batches import BatchSizes
from umbel.runtime.fused.lease import FusedLease
from umbel.runtime.leases.calls import Call
from umbel.runtime.leases.rows import Place, TrialRows
from umbel.runtime.leases.running_lease import RunningLease
from umbel.runtime.leases.sweep_lease import SweepLease
from umbel.runtime.leases.task_lease import TaskLease
from umbel.runtime.leases.values import (
    ValueCache,
)
from umbel.runtime.search.rungs import RungBoard, TellRungs
from umbel.scheduler.protocol import Lease
from umbel.storage.objects.interface import ObjectStore

__all__ = ["LeaseRunner"]


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
        self._boards = {
            program.node: RungBoard(program, program.pruning)
            for program in programs
            if isinstance(program, SweepProgram) and program.pruning is not None
        }
        #: What was learnt about the batches of fused functions.
        self._sizes = {
            program.node: BatchSizes(program.fusion.max_batch)
            for program in programs
            if isinstance(program, SweepProgram) and program.fusion is not None
        }
        self._objects = objects
        self._cache = ValueCache(objects)
        self._place = place
        self._put_copy = put_copy

    def tell(self, news: TellRungs) -> None:
        """Learn what trials elsewhere have reported."""
        self._boards[news.node].tell(news.records)

    def open(self, lease: Lease, inputs: LeaseInputs) -> RunningLease:
        """A lease made ready to run.

        Raises:
            Exception: whatever unpickling the node's function raises: the module it needs is missing here, say.
        """
        program = self._programs[lease.node]
        if lease.node not in self._functions:
            self._functions[lease.node] = cloudpickle.loads(program.function)
        function, retry_on = self._functions[lease.node]
        call = Call(program, function, retry_on, lease.attempt, self._cache, self._objects)
        if isinstance(program, SweepProgram):
            if lease.node not in self._rows:
                self._rows[lease.node] = TrialRows(program, self._place)
            rows, board = self._rows[lease.node], self._boards.get(lease.node)
            if program.fusion is not None:
                return FusedLease(lease, inputs, call, program, rows, self._sizes[lease.node], board)
            return SweepLease(lease, inputs, call, program, rows, board)
        assert isinstance(program, TaskProgram)
        put_copy = self._put_copy if program.feeds_others else None
        return TaskLease(lease, inputs, call, program, self._place, put_copy)
