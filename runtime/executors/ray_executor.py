"""The Ray executor: a pool of long-lived worker actors, one a slot, driven by one loop in the driver.

Every worker has one `poll` call in flight; its answer arrives by a callback on a queue, so the loop's cost depends on
how many answers come and not on how many workers there are. A worker that dies shows in its poll's error.
"""

from __future__ import annotations

import functools
import queue
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from umbel.runtime.driver.plan import Plan
from umbel.runtime.driver.programs import LeaseInputs
from umbel.runtime.driver.session import Session
from umbel.runtime.executors.ray_cluster import (
    connect,
    is_scaling,
    nothing_fits,
    object_store_bytes,
    ray_amounts,
    resources_text,
    slots,
)
from umbel.runtime.executors.ray_workers import actor_options, cause_of_death
from umbel.runtime.executors.worker import GrantLease, RevokeLease, Worker, WorkerCommand, WorkerSetup
from umbel.runtime.leases.shared_memory import SHARE
from umbel.runtime.search.rungs import RungBook
from umbel.runtime.sharing.member import AHEAD, TELL_EVERY_S, Sharing
from umbel.runtime.sharing.share import Share
from umbel.scheduler.errors import ExecutorError, StoreError
from umbel.scheduler.graph import ShapeId
from umbel.scheduler.protocol import Capacity, Lease, LeaseId, LossCause, WorkerId, WorkerJoined, WorkerLost
from umbel.storage.objects.interface import ObjectStore

__all__ = ["RayExecutor"]

#: Seconds between two answers of a worker that has nothing urgent to say. What is finished waits at most this long
#: before the driver has it.
REPORT_EVERY_S = 0.4
#: With many workers they answer less often, so that the driver hears at most 1 / this a second. An answer costs it half
#: a millisecond, so signs of life take a quarter of its time at most (`docs/scale.md`).
REPORT_SPACING_S = 0.002
#: Workers that may die before their first answer, one after another, until the run gives up; and at least as many as
#: there are, since one bad moment or one bad node is no reason for a whole cluster to stop.
START_ATTEMPTS = 4
#: Seconds that workers get to hand over what they have finished when the run is interrupted.
FLUSH_S = 1.5
#: Seconds between two looks at how many workers there can be.
LOOK_EVERY_S = 1.0
#: Seconds of waiting without any worker coming after which no more are expected.
GIVE_UP_S = 20.0


class _Call(Enum):
    HELLO = "hello"
    POLL = "poll"


@dataclass(slots=True)
class _Member:
    """A worker as the driver sees it."""

    shape: ShapeId
    actor: Any
    joined: bool = False
    #: Commands to go with the next poll, or with a push if a poll is out.
    outgoing: list[WorkerCommand] = field(default_factory=list)


class RayExecutor:
    """Runs a session's leases on Ray.

    Args:
        plan: the graph.
        objects: the store; every worker must be able to reach it.
        run_id: the run.
        address: the cluster to join; see `umbel.runtime.executors.ray_cluster.connect`.
        workers: most workers of each shape; None: as many as fit on the cluster.
        share: its part in a cluster that was joined; None: it takes what it can get.
        share_own: also in one that this process started.
    """

    def __init__(
        self,
        plan: Plan,
        objects: ObjectStore,
        run_id: str,
        address: str | None,
        workers: int | None,
        share: Share | None = None,
        *,
        share_own: bool = False,
    ) -> None:
        self._plan = plan
        self._objects = objects
        self._run_id = run_id
        self._address = address
        self._limit = workers
        self._share = share
        self._share_own = share_own
        #: The word with those that share the cluster, if any may.
        self._sharing: Sharing | None = None
        self._answers: queue.SimpleQueue[tuple[WorkerId, _Call, Future[Any]] | None] = queue.SimpleQueue()
        self._members: dict[WorkerId, _Member] = {}
        self._dirty: dict[WorkerId, None] = {}
        self._capacity: dict[ShapeId, int] = {}
        #: How many workers fit on the nodes there are.
        self._fitting: dict[ShapeId, int] = {}
        #: True: the cluster is our own and does not grow.
        self._fixed = False
        #: For shapes with waiting workers: how many had joined when the waiting began, and when that was.
        self._waiting: dict[ShapeId, tuple[int, float]] = {}
        self._next_look = 0.0
        self._wanted: dict[ShapeId, int] = {}
        self._started = 0
        self._failed_starts = 0
        self._book: RungBook | None = None
        self._actor_class: Any = None
        self._setup: Any = None

    def run(self, session: Session) -> None:
        """Run the session to its end, or until it is interrupted.

        Raises:
            ExecutorError: Ray can't be reached, no worker can be started, or a worker can't do its work.
        """
        if self._objects.is_process_local:
            raise StoreError(
                "this store lives in this process only, so workers can't reach it",
                got=self._objects.url,
                expected="a folder or an object store",
                hint='use executor="inline" with memory://',
            )
        self._book = session.ledger.rungs
        wake = functools.partial(self._answers.put, None)
        with session.signals(wake):
            self._prepare()
            with session.signals(wake):  # again: ray.init has put a handler of its own in the place of ours
                try:
                    self._loop(session)
                finally:
                    for worker in list(self._members):
                        self._kill(worker)
                    if self._sharing is not None:
                        self._sharing.leave()

    def _loop(self, session: Session) -> None:
        session.attach(self)
        while not session.should_stop:
            self._look_at_capacity(session)
            self._step(session, session.wait_s())
            if session.asked_to_stop:
                session.interrupt()
                self._flush(session)

    def _prepare(self) -> None:
        self._fixed = connect(self._address)
        import ray

        for shape, resources in self._plan.shapes.items():
            self._fitting[shape] = slots(resources)
            if self._fixed and not self._fitting[shape]:
                raise nothing_fits(resources)
        if self._share is not None and (self._share_own or not self._fixed):
            needs = {shape: ray_amounts(resources) for shape, resources in self._plan.shapes.items()}
            wake = functools.partial(self._answers.put, None)
            self._sharing = Sharing(self._share, self._run_id, needs, wake)
        self._actor_class = ray.remote(Worker)
        programs = list(self._plan.programs.values())
        self._setup = ray.put(WorkerSetup.of_this_process(programs, self._objects, self._run_id))

    def _look_at_capacity(self, session: Session) -> None:
        """Tell the engine how many workers there can be; complain if there can't be any.

        On a cluster that we joined, some more are asked for than fit at present: Ray's autoscaler starts nodes for
        actors that wait. If none come, only one is left waiting. The ask ends with the actors, or with this process.
        """
        now, sharing = time.monotonic(), self._sharing
        if now < self._next_look and (sharing is None or not sharing.news):
            return
        self._next_look = now + (LOOK_EVERY_S if sharing is None else TELL_EVERY_S)
        session.ledger.copies.limit_bytes = SHARE * object_store_bytes()
        joined = {shape: self._joined(shape) for shape in self._plan.shapes}
        possible: dict[ShapeId, int] = {}
        given_up: dict[ShapeId, bool] = {}
        for shape, resources in self._plan.shapes.items():
            waits_s = self._waits_s(shape, joined[shape], now)
            given_up[shape] = waits_s > GIVE_UP_S
            if given_up[shape] and not joined[shape] and not is_scaling():
                self._fitting[shape] = slots(resources)
                if not self._fitting[shape]:
                    raise nothing_fits(resources)
                session.say_waiting(f"workers wait for {resources_text(resources)}, which others hold")
            capacity = self._fitting[shape]
            if not self._fixed:
                capacity = max(capacity, joined[shape] + (1 if given_up[shape] else max(AHEAD, joined[shape])))
            possible[shape] = capacity if self._limit is None else min(capacity, self._limit)
        wanted = {shape: min(possible[shape], session.engine.outstanding(shape)) for shape in possible}
        if sharing is not None:
            sharing.tell(wanted, joined, {shape: self._alive(shape) - joined[shape] for shape in joined})
        for shape, most in possible.items():
            capacity = most
            if sharing is not None:
                capacity = sharing.bound(shape, most, wanted[shape], given_up=given_up[shape])
                if wanted[shape] and not capacity:
                    session.say_waiting("no worker for now: others are before this run (umbel top shows who)")
            if capacity != self._capacity.get(shape):
                self._capacity[shape] = capacity
                session.handle(Capacity(shape, capacity, self._share is not None and self._share.preemptible))

    def _alive(self, shape: ShapeId) -> int:
        return sum(member.shape == shape for member in self._members.values())

    def _joined(self, shape: ShapeId) -> int:
        return sum(member.joined for member in self._members.values() if member.shape == shape)

    def _waits_s(self, shape: ShapeId, joined: int, now: float) -> float:
        """How long workers of a shape have been waiting without any that joined or left."""
        waiting = sum(not member.joined for member in self._members.values() if member.shape == shape)
        known = self._waiting.get(shape)
        if not waiting:
            self._waiting.pop(shape, None)
            return 0.0
        if known is None or known[0] != joined:
            self._waiting[shape] = (joined, now)
            return 0.0
        return now - known[1]

    def _step(self, session: Session, wait_s: float) -> None:
        """Wait for an answer, take over all that are there, send what came of it."""
        try:
            answer = self._answers.get(timeout=wait_s) if wait_s > 0 else self._answers.get_nowait()
            while True:
                if answer is not None:
                    self._on_answer(session, *answer)
                    self._push()
                answer = self._answers.get_nowait()
        except queue.Empty:
            pass
        session.tick()
        self._push()

    # ---- commands ------------------------------------------------------------------------------------------

    def grant(self, worker: WorkerId, lease: Lease, inputs: LeaseInputs) -> None:
        """Send a lease along with the worker's next poll, or by itself if a poll is out."""
        self._send(worker, GrantLease(lease, inputs))

    def revoke(self, worker: WorkerId, lease: LeaseId, stop: int) -> None:
        """Send a revocation."""
        self._send(worker, RevokeLease(lease, stop))

    def want(self, shape: ShapeId, count: int) -> None:
        """Start workers until there are as many.

        Surplus ones that wait for room are withdrawn; those that run stay, idle, until another shape needs their room.
        """
        self._wanted[shape] = count
        members = [(worker, member) for worker, member in self._members.items() if member.shape == shape]
        surplus = len(members) - count
        for worker, member in reversed(members):
            if surplus > 0 and not member.joined:
                self._kill(worker)
                surplus -= 1
        self._refill(shape)

    def end_worker(self, worker: WorkerId) -> None:
        """Kill a worker's process, and start another if there is work for it."""
        member = self._kill(worker)
        if member is not None:
            self._refill(member.shape)

    def _kill(self, worker: WorkerId) -> _Member | None:
        import ray

        member = self._members.pop(worker, None)
        if member is not None:
            ray.kill(member.actor, no_restart=True)
        return member

    def _refill(self, shape: ShapeId) -> None:
        for _ in range(min(self._wanted.get(shape, 0), self._capacity.get(shape, 0)) - self._alive(shape)):
            self._start_worker(shape)

    def _start_worker(self, shape: ShapeId) -> None:
        self._started += 1
        worker = WorkerId(f"w{self._started}")
        options = actor_options(self._plan.shapes[shape])
        member = _Member(shape, self._actor_class.options(**options).remote(self._setup, worker))
        self._members[worker] = member
        self._ask(worker, _Call.HELLO, member.actor.hello.remote())

    def _send(self, worker: WorkerId, command: WorkerCommand) -> None:
        self._members[worker].outgoing.append(command)
        self._dirty[worker] = None

    def _push(self) -> None:
        """Send the commands of workers whose poll is out."""
        for worker in self._dirty:
            member = self._members.get(worker)
            if member is not None and member.outgoing:
                commands = self._outgoing(worker, member)
                member.actor.push.remote(commands)  # if the worker is gone, its poll will say so
        self._dirty.clear()

    def _poll(self, worker: WorkerId) -> None:
        member = self._members[worker]
        commands = self._outgoing(worker, member)
        wait_s = max(REPORT_EVERY_S, REPORT_SPACING_S * len(self._members))
        self._ask(worker, _Call.POLL, member.actor.poll.remote(commands, wait_s))

    def _outgoing(self, worker: WorkerId, member: _Member) -> list[WorkerCommand]:
        """The commands that wait for a worker, after what it is to know of trials elsewhere."""
        commands, member.outgoing = member.outgoing, []
        assert self._book is not None
        return [*self._book.news(worker), *commands]

    def _ask(self, worker: WorkerId, call: _Call, ref: Any) -> None:
        answers = self._answers
        ref.future().add_done_callback(lambda future: answers.put((worker, call, future)))

    # ---- answers -------------------------------------------------------------------------------------------

    def _on_answer(self, session: Session, worker: WorkerId, call: _Call, future: Future[Any]) -> None:
        member = self._members.get(worker)
        if member is None:
            return  # ended by us since
        error = future.exception()
        if error is not None:
            self._on_error(session, worker, member, error)
            return
        if call is _Call.HELLO:
            if not future.result():
                raise StoreError(
                    "a worker does not see this run in the store",
                    got=self._objects.url,
                    expected="a store that every node reaches: a shared file system, or an object store",
                )
            member.joined = True
            self._failed_starts = 0
            session.handle(WorkerJoined(worker, member.shape))
        else:
            for report in future.result():
                session.on_report(worker, report)
        if worker in self._members:
            self._poll(worker)

    def _on_error(self, session: Session, worker: WorkerId, member: _Member, error: BaseException) -> None:
        import ray
        from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError, RayTaskError

        del self._members[worker]
        if not isinstance(error, (RayActorError, ObjectLostError)) or getattr(error, "actor_init_failed", False):
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, StoreError):
                raise cause from None
            raise ExecutorError(
                "a worker can't do its work", got=f"{type(cause).__name__}: {cause}", expected=_EXPECTED
            ) from error
        if not isinstance(error, ActorDiedError):  # only out of sight, or its answer was: it must not come back
            ray.kill(member.actor, no_restart=True)
        if member.joined:
            session.handle(WorkerLost(worker, cause_of_death(error)))
        elif cause_of_death(error) is LossCause.CRASHED:
            self._failed_starts += 1
            if self._failed_starts >= max(START_ATTEMPTS, len(self._members)):
                raise ExecutorError(
                    f"{self._failed_starts} workers in a row died before their first answer",
                    got=str(error),
                    hint="look into the worker logs under the Ray session's logs folder",
                ) from error
        self._refill(member.shape)

    def _flush(self, session: Session) -> None:
        """After an interruption: take over what workers have finished, for a moment."""
        self._push()
        deadline = time.monotonic() + FLUSH_S
        while session.engine.busy and not session.finished and (left := deadline - time.monotonic()) > 0:
            try:
                answer = self._answers.get(timeout=left)
            except queue.Empty:
                break
            if answer is not None:
                self._on_answer(session, *answer)


_EXPECTED = "a worker that can import what the graph's functions need"
