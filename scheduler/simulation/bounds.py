"""How soon could the work be done at best? Bounds that no scheduler can beat, and one that few can.

The first two are exact for the durations that a scenario has. A scheduler that learns how long an element takes only
by running it can't in general reach them: if the last elements to be begun include long ones, it ends late whatever it
does. `in_order_s` says how late, for one that loses no time at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np

from umbel.scheduler.graph import Graph, NodeId
from umbel.scheduler.simulation.setup import Scenario, Seconds

__all__ = ["in_order_s", "longest_chain_s", "work_bound_s"]


def longest_chain_s(graph: Graph, seconds: Mapping[NodeId, Seconds], speed: float = 1.0) -> float:
    """Seconds of the longest chain of elements that wait for one another. Costs a pass over all elements."""
    ends: list[Seconds] = []
    longest = 0.0
    for spec in graph:
        ready = np.zeros(spec.size)
        for source in spec.inputs:
            before = ends[source.parent]
            if not before.size or not spec.size:
                continue
            if source.parent_block == 0:
                np.maximum(ready, before.max(), out=ready)
            else:
                blocks = before.reshape(-1, source.parent_block).max(axis=1)
                rounds = spec.size // (len(blocks) * source.child_block)
                np.maximum(ready, np.tile(np.repeat(blocks, source.child_block), rounds), out=ready)
        if spec.shape is not None:
            ready += seconds[spec.id] / speed
        ends.append(ready)
        longest = max(longest, float(ready.max(initial=0.0)))
    return longest


def work_bound_s(scenario: Scenario, available: Sequence[tuple[float, Mapping[str, float]]]) -> float:
    """When all work could be done at the earliest if it could be cut and moved at will.

    Args:
        scenario: what is to be done.
        available: changes of what machines had, weighted with their speed: (time, amounts by name), in order.
    """
    work: dict[str, float] = {}
    for spec in scenario.graph:
        if spec.shape is not None:
            total = float(scenario.seconds[spec.id].sum())
            for name, amount in scenario.needs(spec.shape).items():
                work[name] = work.get(name, 0.0) + total * amount
    return max((_reached(amount, name, available) for name, amount in work.items() if amount > 0), default=0.0)


def _reached(work: float, name: str, available: Sequence[tuple[float, Mapping[str, float]]]) -> float:
    done, since, rate = 0.0, 0.0, 0.0
    for time, amounts in available:
        if done + rate * (time - since) >= work:
            break
        done += rate * (time - since)
        since, rate = time, amounts.get(name, 0.0)
    return since + (work - done) / rate if rate > 0 else float("inf")


def in_order_s(seconds: Seconds, slots: int) -> float:
    """When independent elements end if each free slot takes the next one at once (Graham 1966, list scheduling).

    No scheduler that does not know the durations beforehand can be expected to do better. Costs about 0.3 µs an element
    and a logarithm of the slots.
    """
    ends = [0.0] * slots
    for taken in seconds.tolist():
        heapq.heapreplace(ends, ends[0] + taken)
    return max(ends)
