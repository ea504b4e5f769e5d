"""What has a run revealed about its graph that was not known when it began: sizes of fan-outs, groups of sweeps?

Groups are made anew of the lists that their nodes returned, as the runtime made them; sizes stand in the run's
end.json. It must not write.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from umbel.scheduler.errors import ElementFailedError, NotFoundError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord, NodeRecord, SweepRecord
from umbel.storage.runs.records import read_end
from umbel.storage.runs.value_rows import read_value

__all__ = ["revealed"]


def revealed(graph: GraphRecord, objects: ObjectStore) -> GraphRecord:
    """The graph with all that the run has revealed so far. Costs a few reads if there is something to reveal.

    Raises:
        StoreError: the store can't be read.
    """
    if graph.complete:
        return graph
    end = read_end(objects, graph.run_id) or {}
    sizes = end.get("sizes") or {}
    nodes = []
    for node in graph.nodes.values():
        sweep = node.sweep if node.sweep is None else _with_groups(node.sweep, graph, objects)
        size, never = node.size, node.never
        if size is None and node.name in sizes:
            size, never = sizes[node.name], sizes[node.name] is None
        elif size is None and sweep is not None and sweep.known:
            size = sweep.size
        nodes.append(replace(node, size=size, never=never, sweep=sweep))
    return GraphRecord.of(graph.run_id, nodes)


def _with_groups(sweep: SweepRecord, graph: GraphRecord, objects: ObjectStore) -> SweepRecord:
    if sweep.known:
        return sweep
    try:
        axes = [values if node is None else _list_of(graph.node(node), graph, objects) for node, values in sweep.axes]
    except (NotFoundError, ElementFailedError):
        return sweep  # it is not there yet, or never will be
    return replace(sweep, groups=tuple(itertools.product(*axes)), known=True)


def _list_of(node: NodeRecord, graph: GraphRecord, objects: ObjectStore) -> Sequence[object]:
    values = read_value(objects, graph.run_id, node)
    if hasattr(values, "tolist"):  # NumPy's and pandas' own numbers become Python's
        values = values.tolist()
    elif hasattr(values, "to_pylist"):
        values = values.to_pylist()
    assert isinstance(values, Sequence)  # the run checked it, before it made groups of it
    return values
