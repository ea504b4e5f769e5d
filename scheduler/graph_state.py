"""What follows in the graph when elements end: which others are ready or fail, and which nodes are finished?

The engine's picture of the graph without workers: the states of all nodes, and the queues of those with pending
elements. Each change appends its commands to a list that it shares with the engine. It must not know leases or time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from umbel.scheduler.errors import InternalError
from umbel.scheduler.graph import Graph, Input, NodeId, ShapeId, check_blocks
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.node_state import NodeState, Piece
from umbel.scheduler.protocol import (
    Command,
    Evaluate,
    Evaluated,
    FailElements,
    FinishNode,
    Recall,
    Recalled,
    Unsizable,
)
from umbel.scheduler.worker_state import ShapeState

__all__ = ["GraphState", "Restored"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What an earlier session of the same run had finished of one node."""

    done: IntervalSet
    failed: IntervalSet


@dataclass(frozen=True, slots=True)
class _Settled:
    """Elements that have ended, and which of them badly; ``root`` is what their failure goes back to."""

    node: NodeState
    start: int
    stop: int
    failed: list[tuple[int, int]]
    root: tuple[NodeId, int] | None


class GraphState:
    """The state of one graph.

    Args:
        graph: the graph.
        shapes: the shapes of workers, whose queues and counts of outstanding elements are kept here.
        restored: by node, what is done already.
        allowance: how many elements of nodes that count against it may be granted; None: all.
        broken: makes an error of what contradicts the state.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[ShapeId, ShapeState],
        restored: Mapping[NodeId, Restored],
        allowance: int | None,
        broken: Callable[[str], InternalError],
    ) -> None:
        self.graph = graph
        self.nodes = [NodeState(spec) for spec in graph]
        #: What the shell is to do; the engine takes it away after each event.
        self.commands: list[Command] = []
        #: Nodes of which an element has not ended.
        self.unfinished = len(self.nodes)
        self.allowance = allowance
        self._shapes = shapes
        self._restored = dict(restored)
        self._broken = broken

    def start(self) -> None:
        """Follow what earlier sittings finished, and make ready what waits for nothing."""
        for node_id, earlier in self._restored.items():  # all of it first, so that nothing done fails a second time
            for start, stop in earlier.done:
                self.nodes[node_id].done.add(start, stop)
        for node in self.nodes:
            if not node.sized:
                continue
            self._restore(node)
            if not node.spec.inputs:
                self.ready(node, list(node.done.gaps(0, node.size)))
            if node.size == 0:
                self._complete(node)

    def _restore(self, node: NodeState) -> None:
        """Follow the consequences of what an earlier session finished of a node."""
        earlier = self._restored.get(node.spec.id)
        if earlier is not None:
            for start, stop in earlier.done:
                self.settle(node, start, stop, list(earlier.failed.within(start, stop)))

    def evaluated(self, event: Evaluated) -> None:
        """The driver has evaluated elements."""
        node = self.nodes[event.node]
        self.settle(node, event.start, event.stop, [(element, element + 1) for element in event.failed])

    def recalled(self, event: Recalled) -> None:
        """It is known which elements an earlier run has done: the others are pending."""
        node = self.nodes[event.node]
        shape = node.spec.shape
        if shape is None or not node.recalling.covers(event.start, event.stop):
            raise self._broken(f"nobody asked about [{event.start}, {event.stop}) of {node.spec.name!r}")
        node.recalling.remove(event.start, event.stop)
        rest = IntervalSet([(event.start, event.stop)])
        for start, stop in event.found:
            rest.remove(start, stop)
        for start, stop in rest:
            self._make_pending(node, shape, start, stop)
        self.queue(node)
        for start, stop in event.found:
            if self.allowance is not None and node.spec.counts and event.counts:
                self.allowance = max(0, self.allowance - (stop - start))
            self.settle(node, start, stop, [])

    def sized(self, node: NodeState, size: int) -> None:
        """It is known how many elements a node has: it catches up with what its parents have come to."""
        if node.sized:
            raise self._broken(f"{node.spec.name!r} is given a size twice")
        node.size, node.sized = size, True
        for slot in range(len(node.spec.inputs)):
            self._check_blocks(node, slot)
        for child_id, slot in self.graph.children[node.spec.id]:
            self._check_blocks(self.nodes[child_id], slot)
        self._restore(node)
        for slot, source in enumerate(node.spec.inputs):
            self._catch_up(node, slot, source)
        if size == 0:
            self._complete(node)

    def _check_blocks(self, node: NodeState, slot: int) -> None:
        source = node.spec.inputs[slot]
        parent = self.nodes[source.parent]
        if node.sized and parent.sized and parent.unsizable is None:
            check_blocks(node.spec, node.size, source, parent.spec, parent.size)

    def unsizable(self, event: Unsizable) -> None:
        """A node will never have elements: whatever needs its value fails."""
        node = self.nodes[event.node]
        if node.sized:
            raise self._broken(f"{node.spec.name!r} has a size already")
        node.sized, node.unsizable = True, (event.cause_node, event.cause_element)
        self._complete(node)

    def put_back(self, node: NodeState, piece: Piece) -> None:
        """Elements that were granted are pending again."""
        node.put_back(piece)
        if self.allowance is not None and node.spec.counts and len(piece):
            self.allowance += len(piece)
            for shape in self._shapes.values():
                while shape.held_back:
                    heapq.heappush(shape.queue, shape.held_back.pop())
        self.queue(node)

    def queue(self, node: NodeState) -> None:
        """Put a node with pending elements into its shape's queue."""
        shape_id = node.spec.shape
        if not node.queued and node.has_pending and shape_id is not None:
            node.queued = True
            spec = node.spec
            heapq.heappush(self._shapes[shape_id].queue, (-spec.priority, -self.graph.ranks[spec.id], spec.id))

    def ready(self, node: NodeState, parts: Sequence[tuple[int, int]]) -> None:
        """Elements have all their inputs."""
        for start, stop in parts:
            if node.spec.shape is None:
                self.commands.append(Evaluate(node.spec.id, start, stop))
            elif node.spec.recalls:
                node.recalling.add(start, stop)
                self.commands.append(Recall(node.spec.id, start, stop))
            else:
                self._make_pending(node, node.spec.shape, start, stop)
        self.queue(node)

    def _make_pending(self, node: NodeState, shape: ShapeId, start: int, stop: int) -> None:
        node.fresh.add(start, stop)
        self._shapes[shape].outstanding += stop - start

    def end(self, node: NodeState, start: int, stop: int, failed: list[tuple[int, int]]) -> None:
        """Elements that a worker was to run have ended."""
        if node.spec.shape is not None:
            self._shapes[node.spec.shape].outstanding -= stop - start
        self.settle(node, start, stop, failed)

    def settle(self, node: NodeState, start: int, stop: int, failed: list[tuple[int, int]]) -> None:
        """Mark elements done and follow the consequences down the graph."""
        self._follow([_Settled(node, start, stop, failed, None)])

    def _follow(self, first: list[_Settled]) -> None:
        work = deque(first)  # not by recursion, since chains may be long
        while work:
            settled = work.popleft()
            node = settled.node
            node.done.add(settled.start, settled.stop)
            for bad_start, bad_stop in settled.failed:
                node.failed.add(bad_start, bad_stop)
            for child_id, slot in self.graph.children[node.spec.id]:
                child = self.nodes[child_id]
                if not child.sized:
                    continue  # it catches up when it is
                source = child.spec.inputs[slot]
                if source.needs_success:
                    work.extend(self._fail_dependents(child, source, settled))
                for a, b in self._served(child, source, settled):
                    self.ready(child, child.satisfy(slot, a, b))
            if node.finished:
                self._complete(node)

    def _catch_up(self, child: NodeState, slot: int, source: Input) -> None:
        """Pass on to a node that has just got its size what a parent has come to meanwhile."""
        parent = self.nodes[source.parent]
        if parent.sized and parent.size == 0:
            self._pass_empty(parent, child, slot)
            return
        for start, stop in list(parent.done):
            settled = _Settled(parent, start, stop, list(parent.failed.within(start, stop)), None)
            if source.needs_success:
                self._follow(self._fail_dependents(child, source, settled))
            for a, b in self._served(child, source, settled):
                self.ready(child, child.satisfy(slot, a, b))

    def _pass_empty(self, parent: NodeState, child: NodeState, slot: int) -> None:
        """A parent has ended that has no elements."""
        if parent.unsizable is not None and child.spec.inputs[slot].needs_success:
            failed = [self._fail(child, a, b, parent.unsizable) for a, b in list(child.done.gaps(0, child.size))]
            self._follow(failed)
        else:
            self.ready(child, child.satisfy(slot, 0, child.size))

    def _fail_dependents(self, child: NodeState, source: Input, settled: _Settled) -> list[_Settled]:
        """Fail the child elements that wait for a failed parent element."""
        failed: list[_Settled] = []
        for element, a, b in self._dependents(child, source, settled):
            cause = settled.root or (settled.node.spec.id, element)
            failed += [self._fail(child, start, stop, cause) for start, stop in list(child.done.gaps(a, b))]
        return failed

    def _fail(self, child: NodeState, start: int, stop: int, cause: tuple[NodeId, int]) -> _Settled:
        self.commands.append(FailElements(child.spec.id, start, stop, *cause))
        child.done.add(start, stop)
        return _Settled(child, start, stop, [(start, stop)], cause)

    def _dependents(self, child: NodeState, source: Input, settled: _Settled) -> Iterator[tuple[int, int, int]]:
        """For failed parent elements: (the element, start, stop) of the child elements that wait for it."""
        for start, stop in settled.failed:
            if source.parent_block == 0:
                yield start, 0, child.size
                return
            for element in range(start, stop):
                block = element // source.parent_block
                for a, b in self._in_rounds(child, source, settled.node, block, block + 1):
                    yield element, a, b

    def _served(self, child: NodeState, source: Input, settled: _Settled) -> Iterator[tuple[int, int]]:
        """The child elements for which this input is complete now."""
        block, node = source.parent_block, settled.node
        if block == 0:
            if node.finished:
                yield 0, child.size
            return
        held = node.done.around(settled.start)
        if held is None:
            raise self._broken(f"elements [{settled.start}, {settled.stop}) of {node.spec.name!r} are not done")
        first = -(-max(held[0], settled.start // block * block) // block)
        last = min(held[1], -(-settled.stop // block) * block) // block
        if first < last:
            yield from self._in_rounds(child, source, node, first, last)

    def _in_rounds(
        self, child: NodeState, source: Input, parent: NodeState, first: int, last: int
    ) -> Iterator[tuple[int, int]]:
        """The child's elements that wait for the parent's blocks ``[first, last)``, in each round through them."""
        blocks = parent.size // source.parent_block
        for base in range(0, child.size // source.child_block, blocks):
            yield (base + first) * source.child_block, (base + last) * source.child_block

    def _complete(self, node: NodeState) -> None:
        if node.reported_finished:
            return
        node.reported_finished = True
        self.unfinished -= 1
        self.commands.append(FinishNode(node.spec.id))
        if node.size == 0:  # nothing will ever be settled here, so its children hear of it now
            for child_id, slot in self.graph.children[node.spec.id]:
                child = self.nodes[child_id]
                if child.sized:
                    self._pass_empty(node, child, slot)
