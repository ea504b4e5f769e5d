"""What state is each element of an engine in? Seen from outside, after each event; and were all changes foreseen?"""

from __future__ import annotations

from collections import Counter

from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Command, Event
from umbel.scheduler.transitions import State, Transition, path


def element_states(engine: Engine) -> list[list[State]]:
    """By node, the state of each of its elements."""
    states: list[list[State]] = []
    for node in engine.nodes:
        found = [State.WAITING] * node.size
        if node.spec.shape is None:
            for element in range(node.size):
                if all(element in satisfied for satisfied in node.satisfied):
                    found[element] = State.EVALUATED
        for start, stop in node.recalling:
            found[start:stop] = [State.RECALLING] * (stop - start)
        for start, stop in node.pending_parts():
            found[start:stop] = [State.PENDING] * (stop - start)
        states.append(found)
    for lease in engine._leases.values():
        found = states[lease.lease.node]
        start = lease.position + lease.spare
        found[start : lease.stop] = [State.LEASED] * (lease.stop - start)
    for lease in engine._leases.values():
        if lease.rival is not None:
            states[lease.lease.node][lease.position] = State.TWICE
    for _, _, node_id, piece in engine._retries:
        states[node_id][piece.start : piece.stop] = [State.BACKING_OFF] * len(piece)
    for node_id, piece in engine._quarantine.waiting:
        states[node_id][piece.start : piece.stop] = [State.QUARANTINED] * len(piece)
    for node in engine.nodes:
        found = states[node.spec.id]
        for start, stop in node.done:
            found[start:stop] = [State.DONE] * (stop - start)
        for start, stop in node.failed:
            found[start:stop] = [State.FAILED] * (stop - start)
    return states


class Watcher:
    """Holds every change of every element against the table of transitions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._states = element_states(engine)
        self.seen: Counter[Transition] = Counter()

    def observe(self, event: Event, commands: list[Command]) -> None:
        """The engine was given an event."""
        causes = {type(event), *(type(command) for command in commands)}
        states = element_states(self._engine)
        for node_id, (before, after) in enumerate(zip(self._states, states, strict=True)):
            if before == after or not before:  # where it was not known how many there are, there was no state
                continue
            for element, (was, is_now) in enumerate(zip(before, after, strict=True)):
                if was is is_now:
                    continue
                taken = path(was, is_now, causes)
                assert taken is not None, (
                    f"element {element} of node {NodeId(node_id)} goes from {was.value} to {is_now.value} by {event}, "
                    f"which is not in the table"
                )
                self.seen.update(taken)
        self._states = states
