"""The inline executor: runs everything in this process, one element after another, with no Ray.

For debugging (breakpoints work), for tests and for small jobs. Time limits are not enforced: nothing can stop a thread
that is one's own.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from functools import partial

from umbel.runtime.driver.plan import Plan
from umbel.runtime.driver.programs import LeaseInputs
from umbel.runtime.driver.session import Session
from umbel.runtime.leases.lease_runner import LeaseRunner
from umbel.runtime.leases.output import capture
from umbel.runtime.leases.rows import Place
from umbel.runtime.leases.running_lease import RunningLease
from umbel.scheduler.graph import ShapeId
from umbel.scheduler.protocol import Capacity, Lease, LeaseId, WorkerId, WorkerJoined
from umbel.storage.objects.interface import ObjectStore

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """One worker of each shape, all of them this thread."""

    def __init__(self, plan: Plan, objects: ObjectStore, run_id: str) -> None:
        self._shapes = list(plan.shapes)
        self._runner = LeaseRunner(list(plan.programs.values()), objects, Place(run_id, socket.gethostname(), "inline"))
        self._granted: deque[tuple[WorkerId, RunningLease]] = deque()
        self._running: RunningLease | None = None
        self._signalled = threading.Event()

    def run(self, session: Session) -> None:
        """Run the session to its end, or until it is interrupted."""
        with session.signals(wake=self._stop_soon), capture(pass_on=True):
            session.attach(self)
            for shape in self._shapes:
                session.handle(Capacity(shape, 1))
                session.handle(WorkerJoined(WorkerId(f"inline-{shape}"), shape))
            while not session.should_stop:
                if session.asked_to_stop:
                    session.interrupt()
                    break
                if self._granted:
                    worker, self._running = self._granted.popleft()
                    for news in session.ledger.rungs.news(worker):
                        self._runner.tell(news)
                    self._running.after_part = partial(self._after_part, session, worker, self._running)
                    self._running.run()
                    self._report(session, worker, self._running)
                else:
                    self._signalled.wait(session.wait_s())  # for a retry's pause to end
                session.tick()

    def _report(self, session: Session, worker: WorkerId, running: RunningLease) -> None:
        session.on_report(worker, running.collect())

    def _after_part(self, session: Session, worker: WorkerId, running: RunningLease) -> None:
        self._report(session, worker, running)
        session.tick()
        if session.asked_to_stop:
            self._stop_soon()

    def _stop_soon(self) -> None:
        """End the waiting, and the lease that runs after the element in hand."""
        self._signalled.set()
        if self._running is not None:
            self._running.shorten(0)

    def grant(self, worker: WorkerId, lease: Lease, inputs: LeaseInputs) -> None:
        """Keep the lease until its turn comes."""
        self._granted.append((worker, self._runner.open(lease, inputs)))

    def revoke(self, worker: WorkerId, lease: LeaseId, stop: int) -> None:
        """Shorten a lease that has not begun."""
        for _, running in self._granted:
            if running.lease.id == lease:
                running.shorten(stop)

    def want(self, shape: ShapeId, count: int) -> None:
        """There is always just the one."""

    def end_worker(self, worker: WorkerId) -> None:
        """Forget the leases of a worker that is no longer known."""
        self._granted = deque(held for held in self._granted if held[0] != worker)
