"""How far has each sweep with a budget of its own come, and which of its trials are to run now?

The engine asks about trials that are ready (`Recall`) before it grants them. Of a sweep with a budget the answer comes
bit by bit: an instalment as pending, and what the budget does not reach, once that is known, as what need not run. So
such trials end without a row. It must not decide who gets what: that is `umbel.scheduler.search.allocation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import pyarrow as pa

from umbel.runtime.driver.plan import PlannedNode
from umbel.runtime.graph.nodes import Sweep
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Recalled
from umbel.scheduler.search.allocation import Allocation
from umbel.storage.runs.trial_rows import SUCCEEDED, metric_column
from umbel.storage.values.columns import int_values, python_values

__all__ = ["Budgets"]

#: The trials of a range that an earlier run has, which are recorded by asking.
Recollect = Callable[[NodeId, int, int], tuple[tuple[int, int], ...]]


class Budgets:
    """The budgets of one run.

    Args:
        nodes: of the plan; those without a budget are left aside.
        groups: how many groups a sweep has; asked once its trials are ready.
    """

    def __init__(self, nodes: list[PlannedNode], groups: Callable[[NodeId], int]) -> None:
        self._sweeps: Mapping[NodeId, Sweep] = {
            planned.id: planned.node
            for planned in nodes
            if isinstance(planned.node, Sweep) and planned.node.budget is not None
        }
        self._groups = groups
        self._allocations: dict[NodeId, Allocation] = {}
        #: What ended before it was known how many groups there are: trials with their scores.
        self._early: dict[NodeId, dict[int, float]] = {node: {} for node in self._sweeps}

    def __contains__(self, node: NodeId) -> bool:
        """Whether a node is a sweep with a budget."""
        return node in self._sweeps

    def done(self, node: NodeId) -> int:
        """How many of its trials have ended."""
        allocation = self._allocations.get(node)
        return len(self._early[node]) if allocation is None else allocation.spent

    def total(self, node: NodeId) -> int:
        """How many of its trials are to run."""
        allocation, budget = self._allocations.get(node), self._sweeps[node].budget
        assert budget is not None
        return max(budget if allocation is None else allocation.budget, self.done(node))

    def ready(self, node: NodeId, start: int, stop: int) -> None:
        """Trials could run."""
        self._allocation(node).ready(start, stop)

    def dropped(self, node: NodeId, start: int, stop: int) -> None:
        """Trials can't run, since what they need failed."""
        self._allocation(node).dropped(start, stop)

    def add(self, node: NodeId, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the trials table into account: trial, status, attempt, and the metric if there is one."""
        sweep = self._sweeps[node]
        (judged,) = sweep.objectives  # `umbel.sweep` has seen to it that there is one
        column, sign = metric_column(judged.metric), judged.sign
        names = rows.schema.names
        values = python_values(rows.column(column)) if column in names else [None] * rows.num_rows
        held = self._allocations.get(node)
        statuses, attempts = python_values(rows.column("status")), int_values(rows.column("attempt")).tolist()
        for trial, status, attempt, value in zip(
            int_values(rows.column("trial")).tolist(), statuses, attempts, values, strict=True
        ):
            if attempt < 1:
                continue  # it was not run
            score = inf if value is None or status not in SUCCEEDED else sign * float(value)
            if held is None:
                self._early[node][trial] = score
            else:
                held.ended(trial, score)

    def answers(self, workers: int, recollect: Recollect) -> list[Recalled]:
        """What the engine is to be told now.

        Args:
            workers: how many want work.
            recollect: looks up which trials an earlier run has.
        """
        found: list[Recalled] = []
        for node, allocation in self._allocations.items():
            for start, stop in allocation.release(max(1, workers)):
                found.append(Recalled(node, start, stop, recollect(node, start, stop)))
            for start, stop in allocation.rest():
                found.append(Recalled(node, start, stop, ((start, stop),), counts=False))
        return found

    def _allocation(self, node: NodeId) -> Allocation:
        if node not in self._allocations:
            sweep = self._sweeps[node]
            assert sweep.budget is not None
            made = Allocation(sweep.source.trials, sweep.budget, sweep.floor, self._groups(node))
            for trial, score in self._early[node].items():
                made.ended(trial, score)
            self._allocations[node] = made
        return self._allocations[node]
