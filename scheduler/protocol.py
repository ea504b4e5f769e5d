"""What the engine is told (events) and what it answers (commands): the whole conversation, as small frozen records.

The Ray shell, the inline executor and the simulator speak nothing else with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from umbel.scheduler.graph import NodeId, ShapeId

__all__ = [
    "Accept",
    "Cancel",
    "Capacity",
    "Command",
    "Evaluate",
    "Evaluated",
    "Event",
    "FailElements",
    "FinishNode",
    "Grant",
    "Lease",
    "LeaseId",
    "LoseElement",
    "LossCause",
    "Recall",
    "Recalled",
    "Reported",
    "Retire",
    "Retry",
    "Revoke",
    "Sized",
    "StopWorker",
    "Tick",
    "Unsizable",
    "WantWorkers",
    "WorkerId",
    "WorkerJoined",
    "WorkerLost",
]

WorkerId = NewType("WorkerId", str)
LeaseId = NewType("LeaseId", int)


class LossCause(Enum):
    """Why a worker is gone, which decides who is to blame."""

    #: The process died by itself: the element in flight is suspected.
    CRASHED = "crashed"
    #: It stopped answering within the element's time limit and was killed: the element in flight is suspected.
    HUNG = "hung"
    #: Its node was drained or died, or we ended it on purpose: nobody is to blame, unless it happens again and again.
    PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True)
class Lease:
    """A slice of a node's elements, granted to a worker."""

    id: LeaseId
    node: NodeId
    start: int
    stop: int
    #: Which attempt at these elements this is; the first is 1.
    attempt: int = 1


# ---- events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many workers of a shape there can be at most; none until this is said.

    If there are more, those beyond it end what they have begun and are retired.
    """

    shape: ShapeId
    workers: int
    #: True: those beyond it are retired at once, and what they had begun runs again.
    preempt: bool = False


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker of a shape is ready for leases."""

    worker: WorkerId
    shape: ShapeId


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone with whatever it had not reported."""

    worker: WorkerId
    cause: LossCause


@dataclass(frozen=True, slots=True)
class Retry:
    """An element failed in a way that its policy allows to be tried again."""

    element: int
    #: The attempt that failed.
    attempt: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's word on one of its leases: how far it has come. A report that is older than one heard is ignored.

    Also a sign of life: a report that moves nothing still says that the worker answers.
    """

    worker: WorkerId
    lease: LeaseId
    #: The elements ``[begin, position)`` have been run since the last report; those before were reported.
    begin: int
    position: int
    #: Where the lease ends now: smaller than granted once a revocation has taken effect.
    stop: int
    #: Elements run since the last report that failed for good.
    failed: tuple[int, ...] = ()
    #: Elements run since the last report that are to be tried again.
    retries: tuple[Retry, ...] = ()
    #: Seconds spent in the elements run since the last report.
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The driver has evaluated elements of a node that it evaluates itself."""

    node: NodeId
    start: int
    stop: int
    failed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    """Which of the elements ``[start, stop)`` need not run, because their results are known already.

    It may answer a part of what `Recall` asked about; the others wait for theirs.
    """

    node: NodeId
    start: int
    stop: int
    found: tuple[tuple[int, int], ...]
    #: False: no results are known of those found, they are just not to run; they don't count against an allowance.
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Sized:
    """How many elements a node has, of which that was not known before (`NodeSpec.sized_later`)."""

    node: NodeId
    size: int


@dataclass(frozen=True, slots=True)
class Unsizable:
    """How many elements a node has will never be known, because this element of another node failed.

    The node ends without elements, and whatever needs its value fails.
    """

    node: NodeId
    cause_node: NodeId
    cause_element: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop granting; what runs may be reported still."""


Event = Capacity | WorkerJoined | WorkerLost | Reported | Evaluated | Recalled | Sized | Unsizable | Tick | Cancel


# ---- commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """Give a lease to a worker."""

    worker: WorkerId
    lease: Lease


@dataclass(frozen=True, slots=True)
class Revoke:
    """Ask a worker to end a lease earlier. It keeps what it has started; its next report says where it stopped."""

    worker: WorkerId
    lease: LeaseId
    stop: int


@dataclass(frozen=True, slots=True)
class Accept:
    """These elements of a report are the first word on them: record their results, and only theirs."""

    node: NodeId
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Evaluate:
    """The inputs of these elements are complete: evaluate them in the driver and answer with `Evaluated`."""

    node: NodeId
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Recall:
    """These elements are ready: look up which of them an earlier run has done, and answer with `Recalled`."""

    node: NodeId
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class FailElements:
    """These elements can't run because an element that they wait for failed: record them as failed."""

    node: NodeId
    start: int
    stop: int
    cause_node: NodeId
    cause_element: int


@dataclass(frozen=True, slots=True)
class LoseElement:
    """This element took its workers with it: record it as lost (or timed out, if they hung).

    It was alone in flight at the last of several deaths (`umbel.scheduler.blame`); ``cause`` is that of the last.
    """

    node: NodeId
    element: int
    attempt: int
    cause: LossCause


@dataclass(frozen=True, slots=True)
class StopWorker:
    """This worker has not answered within its element's time limit: end its process, then report it lost as HUNG."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Retire:
    """This worker's resources are needed elsewhere: end it. It is forgotten already, and nobody is to blame."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WantWorkers:
    """How many workers of a shape there is work for now."""

    shape: ShapeId
    count: int


@dataclass(frozen=True, slots=True)
class FinishNode:
    """Every element of this node has ended."""

    node: NodeId


Command = (
    Grant
    | Revoke
    | Accept
    | Evaluate
    | Recall
    | FailElements
    | LoseElement
    | StopWorker
    | Retire
    | WantWorkers
    | FinishNode
)
