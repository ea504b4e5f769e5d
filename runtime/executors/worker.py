"""The worker: a long-lived Ray actor that runs leases on one thread and answers the driver on others.

The driver keeps one `poll` call in flight to each worker. It returns when there is something to say, or after a while
as a sign of life, and carries new commands back. So a lease costs about one round trip, and order is kept without
locks.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cloudpickle

from umbel.runtime.driver.programs import LeaseInputs, Program
from umbel.runtime.leases.context import mark_as_worker
from umbel.runtime.leases.lease_report import LeaseReport
from umbel.runtime.leases.lease_runner import LeaseRunner
from umbel.runtime.leases.output import capture
from umbel.runtime.leases.rows import Place
from umbel.runtime.leases.running_lease import RunningLease
from umbel.runtime.leases.shared_memory import put_copy
from umbel.runtime.provenance.environment import environment_digest, note_worker
from umbel.runtime.search.rungs import TellRungs
from umbel.scheduler.protocol import Lease, LeaseId
from umbel.storage.layout import record
from umbel.storage.objects.interface import ObjectStore

__all__ = ["GrantLease", "RevokeLease", "Worker", "WorkerCommand", "WorkerSetup"]


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What every worker of a run is told when it starts."""

    #: The programs, pickled: reading them may need the paths below.
    programs: bytes
    #: Where the driver looks for modules. On other machines those that don't exist do no harm.
    python_path: tuple[str, ...]
    objects: ObjectStore
    run_id: str
    #: The digest of the driver's environment.
    environment: str

    @classmethod
    def of_this_process(cls, programs: list[Program], objects: ObjectStore, run_id: str) -> WorkerSetup:
        """For workers that are to find the modules that this process finds."""
        path = tuple(str(Path(entry).absolute()) for entry in sys.path)
        return cls(cloudpickle.dumps(programs), path, objects, run_id, environment_digest())


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Run this lease after those that you have."""

    lease: Lease
    inputs: LeaseInputs


@dataclass(frozen=True, slots=True)
class RevokeLease:
    """End this lease earlier."""

    lease: LeaseId
    stop: int


WorkerCommand = GrantLease | RevokeLease | TellRungs


class Worker:
    """Runs leases one after another. Made a Ray actor by the executor; plain Python otherwise."""

    def __init__(self, setup: WorkerSetup, name: str) -> None:
        sys.path.extend(entry for entry in setup.python_path if entry not in sys.path)
        mark_as_worker()
        self._setup = setup
        place = Place(setup.run_id, socket.gethostname(), name)
        self._runner = LeaseRunner(cloudpickle.loads(setup.programs), setup.objects, place, put_copy)
        #: Leases that have not been reported to their end, in the order in which they run.
        self._leases: deque[RunningLease] = deque()
        self._to_run: deque[RunningLease] = deque()
        self._work = threading.Semaphore(0)
        self._news = threading.Event()
        self._broken: BaseException | None = None
        threading.Thread(target=self._run, name="umbel-trials", daemon=True).start()

    def hello(self) -> bool:
        """Whether this worker sees the run in the store: a local path may exist on one node only."""
        setup = self._setup
        if not setup.objects.exists(record(setup.run_id)):
            return False
        note_worker(setup.objects, setup.run_id, setup.environment)
        return True

    def push(self, commands: Sequence[WorkerCommand]) -> None:
        """Take commands outside a poll. Nobody waits for this call: what goes wrong is told by the next poll."""
        try:
            self._take(commands)
        except BaseException as error:
            self._broken = error
            self._news.set()

    def _take(self, commands: Sequence[WorkerCommand]) -> None:
        for command in commands:
            match command:
                case GrantLease(lease, inputs):
                    running = self._runner.open(lease, inputs)
                    self._leases.append(running)
                    self._to_run.append(running)
                    self._work.release()
                case TellRungs():
                    self._runner.tell(command)
                case RevokeLease(lease_id, stop):
                    for running in list(self._leases):
                        if running.lease.id == lease_id:
                            running.shorten(stop)
                            self._news.set()

    def poll(self, commands: Sequence[WorkerCommand], wait_s: float) -> list[LeaseReport]:
        """Take commands, wait for news up to ``wait_s`` seconds, and say how the leases stand.

        Raises:
            BaseException: something has failed outside the user's functions; the worker is of no use.
        """
        self.push(commands)
        self._news.wait(wait_s)
        self._news.clear()
        if self._broken is not None:
            raise self._broken
        reports: list[LeaseReport] = []
        for running in list(self._leases):
            report = running.collect()
            reports.append(report)
            if report.overrun:
                break
            if not running.ended:
                break  # those behind it have not begun
            self._leases.popleft()
        return reports

    def _run(self) -> None:
        try:
            with capture(pass_on=False):
                while True:
                    self._work.acquire()
                    self._to_run.popleft().run()
                    self._news.set()
        except BaseException as error:
            self._broken = error
            self._news.set()
