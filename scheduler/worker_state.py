"""Who runs what now: open leases, the workers that hold them, and the shapes that workers come in.

Plain records that the engine keeps up to date. They know neither events nor commands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from umbel.scheduler.graph import NodeId, ShapeId
from umbel.scheduler.protocol import Lease, WorkerId

__all__ = ["OpenLease", "ShapeState", "WorkerState"]


@dataclass(slots=True, eq=False)
class OpenLease:
    """A lease whose worker has not reported it to its end.

    A straggler, an element that takes far longer than its kin, may run in two leases at once. The two are `rival` of
    each other, and the second is `spare`: the element is counted where it was first. Whichever reports it first has
    the first word; from then on the other is `spare` without a rival.
    """

    lease: Lease
    worker: WorkerId
    position: int
    stop: int
    #: How often a worker died while one of these elements was its only unreported one.
    deaths: int
    suspect: bool
    #: How many machines were lost in a row while one of these elements was in flight, without progress in between.
    losses: int
    #: When the last of these was.
    lost_at: float
    #: True: they wait for their turn, so that no other suspect of losing machines goes down with them.
    quarantined: bool
    granted_at: float
    #: Its worker has been at `position` since then, or since earlier.
    since: float
    #: Where a revocation that has not been answered asks it to stop.
    revoked_to: int | None = None
    #: The other lease that runs the element at `position`.
    rival: OpenLease | None = None
    #: True: the element at `position` is another lease's to end, or has ended there.
    spare: bool = False

    @property
    def unreported(self) -> int:
        """Elements whose end its worker has not reported."""
        return self.stop - self.position

    @property
    def owed(self) -> int:
        """Elements that wait for this lease to end them."""
        return self.stop - self.position - self.spare

    @property
    def runs_twice(self) -> bool:
        """True if the element at `position` runs, or has ended, elsewhere too."""
        return self.spare or self.rival is not None


@dataclass(slots=True, eq=False)
class WorkerState:
    """A worker that has joined."""

    id: WorkerId
    shape: ShapeId
    heard_at: float
    #: In the order in which it runs them.
    leases: list[OpenLease] = field(default_factory=list)
    #: For each node, where its last lease ended.
    cursor: dict[NodeId, int] = field(default_factory=dict)
    stopping: bool = False
    #: True: it ends what it has begun and is retired then.
    leaving: bool = False


@dataclass(slots=True, eq=False)
class ShapeState:
    """All workers of one shape, and what there is for them to do."""

    workers: dict[WorkerId, WorkerState] = field(default_factory=dict)
    #: Workers without a lease; a dict for its order.
    idle: dict[WorkerId, None] = field(default_factory=dict)
    #: Workers beyond the capacity, which end what they have begun; a dict for its order.
    leaving: dict[WorkerId, None] = field(default_factory=dict)
    #: (-priority, -rank, node) of the nodes with pending elements.
    queue: list[tuple[int, int, NodeId]] = field(default_factory=list)
    #: Those of them that wait for the engine's allowance.
    held_back: list[tuple[int, int, NodeId]] = field(default_factory=list)
    #: Elements that are ready and have not ended.
    outstanding: int = 0
    wanted: int = 0
    #: Most workers that there can be.
    capacity: int = 0
    #: When to look next for something that idle workers could take over from busy ones.
    look_at: float = 0.0
    #: When that was done last.
    looked_at: float = float("-inf")
