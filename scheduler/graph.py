"""What there is to run: nodes, their sizes, and which elements of one wait for which elements of another.

This is the graph as the engine sees it. It knows no functions, arguments or values: those stay with the runtime,
which looks them up by node id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NewType

from umbel.scheduler.errors import GraphError

__all__ = ["Batched", "Graph", "Input", "NodeId", "NodeSpec", "RetryPolicy", "ShapeId", "check_blocks"]

#: Position of a node in its graph.
NodeId = NewType("NodeId", int)
#: Which kind of worker a node needs; the runtime maps it to resources.
ShapeId = NewType("ShapeId", int)


@dataclass(frozen=True, slots=True)
class Input:
    """Which elements of a parent an element waits for.

    The parent is cut into blocks of ``parent_block`` elements, the child into blocks of ``child_block``; block k of the
    child waits for block k of the parent. If the child has more blocks, it goes through the parent's again and again
    (a cross product). ``parent_block=0`` means that every child element waits for the whole parent (a broadcast of a
    single node, or a reduction).
    """

    parent: NodeId
    parent_block: int = 1
    child_block: int = 1
    #: False: the child runs whatever became of the parent's elements (a sweep's best trial needs one that worked,
    #: not all). True: a failed parent element fails the child elements that wait for it.
    needs_success: bool = True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed element is tried again, and after which pause.

    The pause before attempt k+1 is ``base_s * 2**(k-1)``, at most ``cap_s``, scaled by a jitter in [0.5, 1)
    ("equal jitter", Brooker 2015, "Exponential Backoff and Jitter").
    """

    retries: int = 0
    base_s: float = 0.1
    cap_s: float = 30.0

    def pause_s(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after failed ``attempt`` (1 is the first); ``jitter`` in [0, 1)."""
        exponent = min(attempt - 1, 30)
        return min(self.cap_s, self.base_s * float(2**exponent)) * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Batched:
    """Elements that a worker runs many at once, so that a lease should hold many.

    A lease holds an equal share of what is pending for the workers that have none, at most ``share`` elements of it;
    and ``least`` elements if there are so many, since a batch of few costs nearly as much as one of many. Suspects
    (`umbel.scheduler.blame`) are granted in leases as small as ever.
    """

    least: int
    share: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node: ``size`` elements of the same kind."""

    id: NodeId
    name: str
    #: How many elements there are.
    size: int
    inputs: tuple[Input, ...] = ()
    #: None: the runtime evaluates the node itself, in the driver (choosing the best trial of a group, say).
    shape: ShapeId | None = ShapeId(0)
    #: Elements that share data lie in blocks of this many; a worker keeps to one block while it can. 0: no sharing.
    affinity_block: int = 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    #: Nodes of higher priority are granted first, whatever their place in the graph.
    priority: int = 0
    #: Seconds after which a running element is stopped; None: never.
    timeout_s: float | None = None
    #: True: how many elements there are follows from results of other nodes; `size` is 0, and a `Sized` event tells.
    sized_later: bool = False
    #: True: elements of an affinity block build upon those before them (an adaptive search). While there are blocks
    #: enough for all workers, each is granted whole to one; otherwise in short leases.
    in_order: bool = False
    #: True: blocks of a node in order are granted whole however few there are.
    whole_blocks: bool = False
    #: True: its elements count against the engine's allowance, if there is one.
    counts: bool = False
    #: True: before elements that are ready are granted, `Recall` asks which of them are to run: not those that an
    #: earlier run has done, nor those that a budget does not reach.
    recalls: bool = False
    #: None: elements are run one by one.
    batched: Batched | None = None


def check_blocks(node: NodeSpec, size: int, source: Input, parent: NodeSpec, parent_size: int) -> None:
    """Check that the blocks of a node and of one of its inputs fit one another.

    Raises:
        GraphError: they don't.
    """
    if source.parent_block == 0:
        return
    parent_blocks, parent_rest = divmod(parent_size, source.parent_block)
    child_blocks, child_rest = divmod(size, source.child_block)
    rest = child_blocks % parent_blocks if parent_blocks else child_blocks
    if parent_rest or child_rest or rest:
        raise GraphError(
            f"node {node.name!r} does not line up with its input {parent.name!r}",
            got=f"{size} elements in blocks of {source.child_block}, "
            f"{parent_size} elements in blocks of {source.parent_block}",
            expected="the same number of whole blocks on both sides, or several rounds of the input's",
        )


class Graph:
    """Nodes in topological order: each node's inputs come before it.

    Raises:
        GraphError: an id that is not its node's position, an input that is not an earlier node, or blocks that don't
            fit.
    """

    def __init__(self, nodes: Sequence[NodeSpec]) -> None:
        self.nodes = tuple(nodes)
        children: list[list[tuple[NodeId, int]]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            if node.id != position:
                raise GraphError(
                    f"node {node.name!r} has the wrong id", got=node.id, expected=f"its position, {position}"
                )
            if node.size < 0:
                raise GraphError(f"node {node.name!r} has a negative size", got=node.size, expected="zero or more")
            if node.in_order and not node.affinity_block:
                raise GraphError(
                    f"node {node.name!r} is in order but has no blocks", got=0, expected="affinity_block ≥ 1"
                )
            if node.sized_later and (node.size or not node.inputs):
                raise GraphError(
                    f"node {node.name!r} can't get its size later", got=node, expected="size 0 until then, and an input"
                )
            for slot, source in enumerate(node.inputs):
                if not 0 <= source.parent < position:
                    raise GraphError(
                        f"node {node.name!r} waits for a node that does not come before it",
                        got=f"input {source.parent} of node {position}",
                        expected="nodes in topological order, without cycles",
                    )
                if not (node.sized_later or self.nodes[source.parent].sized_later):
                    check_blocks(node, node.size, source, self.nodes[source.parent], self.nodes[source.parent].size)
                children[source.parent].append((node.id, slot))
        #: For each node, the (child, input slot) pairs that wait for it.
        self.children: tuple[tuple[tuple[NodeId, int], ...], ...] = tuple(tuple(c) for c in children)
        self.ranks = self._ranks()

    def _ranks(self) -> tuple[int, ...]:
        """For each node, how many nodes follow it on the longest chain: the critical path goes first."""
        ranks = [0] * len(self.nodes)
        for node in reversed(self.nodes):
            for source in node.inputs:
                ranks[source.parent] = max(ranks[source.parent], ranks[node.id] + 1)
        return tuple(ranks)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[NodeSpec]:
        return iter(self.nodes)

    def __getitem__(self, node: NodeId) -> NodeSpec:
        return self.nodes[node]
