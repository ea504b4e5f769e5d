"""What can idle workers take over from busy ones, when nothing is pending?

Two things, in this order:

- Elements that a lease holds and its worker has not begun: the lease is asked to end earlier ("work stealing").
- A straggler: an element that its worker has run for `STRAGGLER_FACTOR` times the mean of its kin. It is begun a second
  time elsewhere, and the first result wins ("backup tasks": Dean and Ghemawat 2004, "MapReduce", OSDI, section 3.6).
  That helps where the worker is slow, not the element; `docs/scale.md` has the measurements behind the factor.

Both only choose; the engine carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from umbel.scheduler.node_state import NodeState
from umbel.scheduler.protocol import LeaseId
from umbel.scheduler.worker_state import OpenLease, ShapeState

__all__ = ["Sharing", "look_every_s", "share"]

#: Leases with less unstarted work than this, in seconds, are not worth taking from.
STEAL_FLOOR_S = 0.02
#: Seconds between two attempts to find work for idle workers in the leases of others: at least this …
LOOK_EVERY_S = 0.05
#: … and this for each worker, so that looking, which costs up to 0.5 µs a worker, stays below 3 % of the time.
LOOK_SPACING_S = 0.00002
#: Seconds an unmeasured lease is left alone before it may be taken from.
STEAL_UNKNOWN_AFTER_S = 0.2
#: An element is a straggler when it has run for this many times the mean time of its node's elements …
STRAGGLER_FACTOR = 2.0
#: … and for this many seconds …
STRAGGLER_FLOOR_S = 1.0
#: … once this many of them have been measured.
STRAGGLER_KIN = 5


@dataclass(slots=True)
class Sharing:
    """What to take, and when to look again."""

    #: Leases to end earlier, and where.
    cuts: list[tuple[LeaseId, int]] = field(default_factory=list)
    #: Leases whose element at `position` is to be begun a second time.
    stragglers: list[OpenLease] = field(default_factory=list)
    #: Infinite: not before another lease has been granted.
    look_at: float = inf


def look_every_s(shape: ShapeState) -> float:
    """Seconds between two looks at least."""
    return max(LOOK_EVERY_S, LOOK_SPACING_S * len(shape.workers))


def share(shape: ShapeState, nodes: Sequence[NodeState], now: float) -> Sharing:
    """Choose for the idle workers of a shape, the longest work first.

    Costs a pass over its workers, so it should follow `look_at`.
    """
    found = Sharing()
    soon = now + look_every_s(shape)
    cuts: list[tuple[float, LeaseId, int]] = []
    overdue: list[tuple[float, LeaseId, OpenLease]] = []
    for worker in shape.workers.values():
        for order, held in enumerate(worker.leases):
            if held.revoked_to is not None:
                continue
            node = nodes[held.lease.node]
            started = 1 if order == 0 else 0
            unstarted = held.unreported - started
            if node.whole_blocks:
                unstarted = 0  # they build upon the one that runs
            batched = node.spec.batched
            if batched is not None and started and unstarted < 2 * batched.least:
                unstarted = 0  # two leases of few cost more than one
            if unstarted > 0:
                found.look_at = min(found.look_at, soon)
                mean_s = node.sizer.mean_s
                if mean_s is None:
                    mean_s = now - held.granted_at
                    if mean_s < STEAL_UNKNOWN_AFTER_S:
                        continue
                if unstarted * mean_s >= STEAL_FLOOR_S:
                    keep = held.position + 1 + unstarted // 2 if started else held.position
                    cuts.append((-unstarted * mean_s, held.lease.id, keep))
            # Of a batch no element is late: they end together.
            if started and batched is None and not (held.runs_twice or held.suspect or held.deaths or worker.stopping):
                due = _overdue_at(held, node)
                if due <= now:
                    overdue.append((due, held.lease.id, held))
                elif due < inf:
                    found.look_at = min(found.look_at, due)
                else:  # its kin are not measured yet
                    found.look_at = min(found.look_at, now + STRAGGLER_FLOOR_S)
    cuts.sort()
    overdue.sort()
    idle = len(shape.idle)
    found.cuts = [(lease, keep) for _, lease, keep in cuts[:idle]]
    found.stragglers = [held for _, _, held in overdue[: idle - len(found.cuts)]]
    if len(overdue) > len(found.stragglers):
        found.look_at = soon
    return found


def _overdue_at(held: OpenLease, node: NodeState) -> float:
    """When the running element counts as a straggler; infinite while its kin are unknown."""
    kin_s = node.sizer.overall_s
    if kin_s is None or len(node.done) < STRAGGLER_KIN:
        return inf
    return held.since + max(STRAGGLER_FACTOR * kin_s, STRAGGLER_FLOOR_S)
