"""Is every element in exactly one place, and do the engine's counts agree with what they count?

For tests and the simulator, which ask after every event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from umbel.scheduler.blame import LOSSES_TO_SUSPECT, Quarantine
from umbel.scheduler.graph import NodeId, ShapeId
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.node_state import NodeState, Piece
from umbel.scheduler.worker_state import OpenLease, ShapeState

__all__ = ["broken_invariant"]


def broken_invariant(
    nodes: Sequence[NodeState],
    leases: Iterable[OpenLease],
    shapes: Mapping[ShapeId, ShapeState],
    retries: Iterable[tuple[NodeId, Piece]],
    quarantine: Quarantine,
) -> str | None:
    """What is wrong, or None. Costs O(state)."""
    held: dict[NodeId, list[OpenLease]] = {}
    at_large = sum(len(p) for node in nodes for p in node.pieces if p.losses >= LOSSES_TO_SUSPECT)
    for lease in leases:
        at_large += lease.unreported if lease.quarantined else 0
        held.setdefault(lease.lease.node, []).append(lease)
    retrying: dict[NodeId, list[Piece]] = {}
    for node_id, piece in retries:
        retrying.setdefault(node_id, []).append(piece)
    for node in nodes:
        at = node.spec.id
        wrong = _wrong_node(node, held.get(at, []), retrying.get(at, []))
        if wrong is not None:
            return f"{node.spec.name!r}: {wrong}"
    for shape_id, shape in shapes.items():
        wrong = _wrong_shape(shape, sum(node.outstanding for node in nodes if node.spec.shape == shape_id))
        if wrong is not None:
            return f"shape {shape_id}: {wrong}"
    if at_large != quarantine.at_large:
        return f"quarantine counts {quarantine.at_large} elements at large, but there are {at_large}"
    return None


def _wrong_node(node: NodeState, leases: list[OpenLease], retries: list[Piece]) -> str | None:
    owed = sum(lease.owed for lease in leases)
    if owed != node.leased:
        return f"it counts {node.leased} leased elements, but leases hold {owed}"
    waiting = sum(len(piece) for piece in retries)
    if waiting != node.waiting_retries:
        return f"it counts {node.waiting_retries} retries, but {waiting} wait"
    places = [("pending", start, stop) for start, stop in node.pending_parts()]
    places += [(f"lease {lease.lease.id}", lease.position + lease.spare, lease.stop) for lease in leases]
    places += [("recalling", start, stop) for start, stop in node.recalling]
    places += [("a retry", piece.start, piece.stop) for piece in retries]
    seen = node.done.copy()
    for place, start, stop in places:
        if start < stop and any(True for _ in seen.within(start, stop)):
            return f"[{start}, {stop}) is in {place} and in another place too"
        seen.add(start, stop)
    for lease in leases:
        wrong = _wrong_rival(lease, node)
        if wrong is not None:
            return f"lease {lease.lease.id}: {wrong}"
    for start, stop in node.failed:
        if not node.done.covers(start, stop):
            return f"[{start}, {stop}) failed but is not done"
    if not node.sized and any(start < stop for _, start, stop in places):
        return "elements of it are scheduled though it is not known how many there are"
    if node.spec.shape is None:
        return None
    ready = IntervalSet([(0, node.size)])
    for satisfied in node.satisfied:
        for start, stop in satisfied.gaps(0, node.size):
            ready.remove(start, stop)
    for start, stop in ready:
        if not seen.covers(start, stop):
            return f"ready elements are nowhere: {list(seen.gaps(start, stop))}"
    if node.has_pending and not node.queued:
        return "it has pending elements but is not queued"
    return None


def _wrong_rival(lease: OpenLease, node: NodeState) -> str | None:
    rival = lease.rival
    if rival is None:
        if lease.spare and lease.position not in node.done:
            return f"element {lease.position} is left to another lease that there is not"
        return None
    if rival.rival is not lease or rival.lease.node != lease.lease.node or rival.position != lease.position:
        return f"its rival {rival.lease.id} runs another element"
    if rival.spare == lease.spare:
        return f"it and its rival {rival.lease.id} both count element {lease.position}, or neither"
    return None


def _wrong_shape(shape: ShapeState, outstanding: int) -> str | None:
    if shape.outstanding != outstanding:
        return f"it counts {shape.outstanding} outstanding elements, but its nodes hold {outstanding}"
    for worker in shape.workers.values():
        if (worker.id in shape.idle) == bool(worker.leases):
            return f"worker {worker.id} is idle and busy at once, or neither"
        if len(worker.leases) > 2:
            return f"worker {worker.id} holds {len(worker.leases)} leases"
        if worker.leaving != (worker.id in shape.leaving) or (worker.leaving and not worker.leases):
            return f"worker {worker.id} leaves and stays at once, or leaves with nothing to end"
    if len(shape.leaving) > max(0, len(shape.workers) - shape.capacity):
        return f"{len(shape.leaving)} workers leave, of {len(shape.workers)} where {shape.capacity} may stay"
    return None
