"""Which trials does each node of best trials choose, and what if there are none? Kept by the driver as results arrive.

It must not know where rows are stored, nor when a group is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa

from umbel.runtime.driver.plan import Plan, PlannedNode
from umbel.runtime.driver.selection import Fronts, Selection
from umbel.runtime.graph.nodes import BestNode, Sweep
from umbel.runtime.graph.sizes import Sizes
from umbel.runtime.leases.results import Best
from umbel.runtime.provenance.credentials import hidden_values
from umbel.scheduler.graph import NodeId
from umbel.scheduler.identity import group_key
from umbel.scheduler.words import counted

__all__ = ["BestTrials"]


class BestTrials:
    """The best trials of all sweeps of a plan.

    Args:
        plan: the graph.
        sizes: the groups of its sweeps.
    """

    def __init__(self, plan: Plan, sizes: Sizes) -> None:
        self._plan = plan
        self._sizes = sizes
        self._selections = {planned.id: self._selection(planned) for planned in plan.nodes if _is_sweep(planned)}
        self._without: dict[NodeId, list[int]] = {}

    def _selection(self, planned: PlannedNode) -> Selection | Fronts:
        node = planned.node
        assert isinstance(node, Sweep)
        first, *others = node.objectives
        if others:
            return Fronts(node.source.trials, node.objectives)
        wanted = [p.node.k or 1 for p in self._plan.nodes if isinstance(p.node, BestNode) and p.node.sweep is node]
        return Selection(node.source.trials, first.metric, first.mode, max(wanted, default=1))

    def add(self, sweep: NodeId, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of a sweep's trials table into account."""
        self._selections[sweep].add(rows)

    def choose(self, planned: PlannedNode, group: int) -> Best | list[Best] | None:
        """What a node of best trials has as its value for a group: the best trial, the k best, or the Pareto set.

        None: no trial of the group qualifies; `warnings` will tell.
        """
        node = planned.node
        assert isinstance(node, BestNode)
        (sweep,) = planned.sources
        assert sweep is not None
        found, several = self._selections[sweep].of(group), len(node.sweep.objectives) > 1
        if not found:
            self._without.setdefault(planned.id, []).append(group)
            return None
        if several or node.k is not None:
            return self._described(planned, sweep, group, None if several else node.k)
        return self._described(planned, sweep, group, 1)[0]

    def _described(self, planned: PlannedNode, sweep: NodeId, group: int, most: int | None) -> list[Best]:
        node = planned.node
        assert isinstance(node, BestNode)
        selection, source, search = self._selections[sweep], node.sweep.source, node.sweep.search
        keys, hidden = dict(self._sizes.groups(planned.id)[group]), hidden_values(source.space)
        chosen: list[Best] = []
        for candidate in selection.of(group)[:most]:
            position = candidate.trial - group * source.trials
            batch = source.batch(group_key(keys), position, position + 1)
            config = (
                batch.configs(keys)[0]
                if search is None or candidate.params is None
                else search.config(json.loads(candidate.params), keys)
            )
            chosen.append(
                Best(
                    keys,
                    hidden.config(config),
                    selection.value(candidate),
                    dict(candidate.metrics),
                    candidate.trial,
                    int(batch.seeds[0]),
                    candidate.model,
                )
            )
        return chosen

    def reason(self, planned: PlannedNode, group: int) -> str:
        """Why a group has no best trial."""
        assert isinstance(planned.node, BestNode)
        sweep, text = planned.node.sweep, self._sizes.group_text(planned, group)
        metrics = " and ".join(map(repr, sweep.metrics))
        return f"no trial of group {text} in sweep {sweep.name!r} succeeded with a finite {metrics}"

    def warnings(self) -> Iterable[str]:
        """Which groups have no best trial, a line a node."""
        for node, groups in self._without.items():
            planned = self._plan.nodes[node]
            shown = ", ".join(self._sizes.group_text(planned, group) for group in groups[:5])
            more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
            size = self._sizes.size(node)
            have = "has" if size == 1 else "have"
            yield (
                f"{len(groups)} of {counted(size, 'group')} {have} no best trial in {planned.name!r}, because none "
                f"succeeded: {shown}{more}"
            )

    def leader(self) -> str | None:
        """The best trial of the last sweep that has one (of several metrics, by the first), for progress."""
        for planned in reversed(self._plan.nodes):
            if isinstance(planned.node, Sweep):
                selection = self._selections[planned.id]
                if selection.leader is not None:
                    where = f" ({self._sizes.group_text(planned, selection.leader.trial)})" if planned.node.axes else ""
                    return f"{planned.node.metrics[0]} {selection.value(selection.leader):.4g}{where}"
        return None


def _is_sweep(planned: PlannedNode) -> bool:
    return isinstance(planned.node, Sweep)
