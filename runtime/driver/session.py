"""One sitting of a run: the engine, the ledger and an executor, joined by a loop of events and commands.

An executor (Ray, or this process) reports to the session and carries out what concerns workers; all else, recording,
evaluating, progress, interruption, is the same whatever runs the trials, and is here.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from umbel.runtime.driver.ledger import Ledger
from umbel.runtime.driver.limits import Limits
from umbel.runtime.driver.plan import Plan
from umbel.runtime.driver.programs import LeaseInputs
from umbel.runtime.driver.progress import Progress, RateMeter, Snapshot
from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.leases.lease_report import LeaseReport
from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import NodeId, ShapeId
from umbel.scheduler.node_state import NodeState
from umbel.scheduler.protocol import (
    Accept,
    Cancel,
    Command,
    Evaluate,
    Evaluated,
    Event,
    FailElements,
    FinishNode,
    Grant,
    Lease,
    LeaseId,
    LoseElement,
    LossCause,
    Recall,
    Recalled,
    Reported,
    Retire,
    Revoke,
    StopWorker,
    Tick,
    WantWorkers,
    WorkerId,
    WorkerLost,
)
from umbel.storage.runs.ownership import Ownership
from umbel.storage.runs.segments import SegmentWriter

__all__ = ["Executor", "Session"]

#: Seconds between two looks at progress.
PROGRESS_EVERY_S = 0.2
#: Seconds between two words on why nothing happens.
COMPLAIN_EVERY_S = 60.0


class Executor(Protocol):
    """What carries out the commands that concern workers."""

    def grant(self, worker: WorkerId, lease: Lease, inputs: LeaseInputs) -> None:
        """Give a lease to a worker."""

    def revoke(self, worker: WorkerId, lease: LeaseId, stop: int) -> None:
        """Ask a worker to end a lease earlier."""

    def want(self, shape: ShapeId, count: int) -> None:
        """Have this many workers of a shape, if they can be had."""

    def end_worker(self, worker: WorkerId) -> None:
        """End a worker's process; its loss has been taken note of."""


class Session:
    """One sitting of a run.

    Args:
        plan: the graph.
        engine: the scheduler, with what earlier sittings finished restored.
        ledger: the results.
        writer: the segment writer that the ledger uses.
        ownership: this process's claim on the run.
        progress: what shows progress.
        limits: when to stop before all is done.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        ledger: Ledger,
        writer: SegmentWriter,
        ownership: Ownership,
        progress: Progress,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self.plan = plan
        self.engine = engine
        self.ledger = ledger
        self.interrupted = False
        #: Why the run stopped by itself before all was done, if it did.
        self.stop_reason: str | None = None
        #: True if that is to be told as an error.
        self.stopped_by_failures = False
        self._limits = limits
        self._sweeps = [planned.id for planned in plan.nodes if isinstance(planned.node, Sweep)]
        self._core_seconds = 0.0
        self._writer = writer
        self._ownership = ownership
        self._progress = progress
        self._executor: Executor | None = None
        self._started = time.monotonic()
        self._resumed = self.done
        self._rate = RateMeter()
        self._next_progress = 0.0
        self._next_complaint = 0.0
        self._next_renewal = self._started + ownership.record.lease_s / 3

    @property
    def total(self) -> int:
        """Elements of all nodes, as far as it is known how many they have."""
        return sum(self._size(node) for node in self.engine.nodes)

    def _size(self, node: NodeState) -> int:
        if node.spec.id not in self.ledger.budgets:
            return node.size
        return self._done(node) if node.finished else self.ledger.budgets.total(node.spec.id)

    @property
    def growing(self) -> bool:
        """True while it is not known of all nodes how many elements they have."""
        return not all(node.sized for node in self.engine.nodes)

    @property
    def done(self) -> int:
        """Elements that have ended."""
        return sum(self._done(node) for node in self.engine.nodes)

    def _done(self, node: NodeState) -> int:
        """Elements of a node that have ended; of a sweep with a budget, those that ran."""
        budgets = self.ledger.budgets
        return budgets.done(node.spec.id) if node.spec.id in budgets else len(node.done)

    @property
    def finished(self) -> bool:
        """True if nothing is left to do."""
        return self.engine.finished

    @property
    def should_stop(self) -> bool:
        """True if the executor's loop should end."""
        return self.finished or self.interrupted

    # ---- events in, commands out ---------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Follow what earlier sittings finished, as far as that needs no workers; stop if a limit is reached."""
        self.handle(Tick())
        for planned in self.plan.nodes:
            task = getattr(planned.node, "task", None)
            if task is not None and task.on_failure == "stop" and self.ledger.failed_before(planned.id):
                self._stop_for(planned.id)
        self.check_limits()

    def attach(self, executor: Executor) -> None:
        """Begin: tell the executor what is wanted."""
        self._executor = executor
        self.handle(Tick())

    def handle(self, event: Event) -> None:
        """Tell the engine of an event and carry out what it answers."""
        self._dispatch(event, None)

    def on_report(self, worker: WorkerId, report: LeaseReport) -> None:
        """Take over what a worker says of a lease. If it overran its time limit, its worker is ended."""
        event = Reported(
            worker,
            report.lease,
            report.begin,
            report.position,
            report.stop,
            report.failed,
            report.retries,
            report.busy_s,
        )
        node = self.engine.node_of(report.lease)
        if node is not None:
            self._note_costs(node, report)
            self.ledger.rungs.note(node, worker, report.rungs)
            if node in self.ledger.studies:
                self.ledger.studies[node].note(worker, report.under_way)
        self._dispatch(event, report)
        if report.output and node is not None:
            self.ledger.keep_output(node, worker, report.output)
        if report.overrun:
            self._dispatch(WorkerLost(worker, LossCause.PREEMPTED), None)  # it is not the next elements' fault
            self._workers.end_worker(worker)

    def _note_costs(self, node: NodeId, report: LeaseReport) -> None:
        task = getattr(self.plan.nodes[node].node, "task", None)
        if task is None:
            return
        self._core_seconds += report.busy_s * max(task.resources.cpus, task.resources.gpus)

    def _note_failures(self, accept: Accept, report: LeaseReport) -> None:
        """Elements have failed for good: of two copies of one the first word counts."""
        failed = sum(any(start <= e < stop for start, stop in accept.ranges) for e in report.failed)
        self.ledger.failed += failed
        self.ledger.own_failures += failed
        task = getattr(self.plan.nodes[accept.node].node, "task", None)
        if failed and task is not None and task.on_failure == "stop":
            self._stop_for(accept.node)

    def _stop_for(self, node: NodeId) -> None:
        name = self.plan.nodes[node].name
        self.stop(f"an element of {name!r} failed, whose task says on_failure='stop'", by_failures=True)

    def stop(self, reason: str, *, by_failures: bool) -> None:
        """Have the executor's loop end in good order, as on Ctrl-C, for this reason; the first one counts."""
        if self.stop_reason is None:
            self.stop_reason, self.stopped_by_failures = reason, by_failures

    @property
    def needs_higher_limit(self) -> bool:
        """True if running again would stop at once: failures and a budget of trials are counted over all sittings."""
        return self.stopped_by_failures or self._limits.trials_used_up(self._trials)

    @property
    def _trials(self) -> int:
        return sum(self._done(self.engine.nodes[node]) for node in self._sweeps)

    def check_limits(self) -> None:
        """Stop if a limit of the run is reached."""
        now = time.monotonic()
        reason = self._limits.reached(
            failures=self.ledger.own_failures,
            elapsed_s=now - self._started,
            trials=self._trials,
            core_seconds=self._core_seconds,
        )
        if reason is not None:
            self.stop(reason, by_failures=self._limits.failures_exceeded(self.ledger.own_failures))

    def _dispatch(self, event: Event, report: LeaseReport | None) -> None:
        waiting: deque[Event] = deque([event])
        while waiting or self._release(waiting):
            current = waiting.popleft()
            if isinstance(current, WorkerLost):
                self.ledger.rungs.forget(current.worker)
                for study in self.ledger.studies.values():
                    study.note(current.worker, None)
            for command in self.engine.handle(current, time.monotonic()):
                self._carry_out(command, report, waiting)

    def _release(self, waiting: deque[Event]) -> bool:
        """Have trials of sweeps with a budget run, as the budget goes; True if there is anything to tell the engine."""
        if not self.interrupted:
            waiting.extend(self.ledger.budgets.answers(self.engine.workers, self.ledger.recall))
        return bool(waiting)

    @property
    def _workers(self) -> Executor:
        """Who carries out what concerns workers; there are none before it is attached."""
        assert self._executor is not None
        return self._executor

    def _carry_out(self, command: Command, report: LeaseReport | None, waiting: deque[Event]) -> None:
        match command:
            case Accept():
                assert report is not None
                self.ledger.record(command, report)
                if report.failed:
                    self._note_failures(command, report)
            case Grant(worker, lease):
                self.ledger.rungs.granted(worker, lease)
                whole_blocks = bool(self.engine.nodes[lease.node].whole_blocks)
                self._workers.grant(worker, lease, self.ledger.inputs(lease, whole_blocks=whole_blocks))
            case Revoke(worker, lease_id, stop):
                self._workers.revoke(worker, lease_id, stop)
            case Evaluate(node, start, stop):
                failed = self.ledger.evaluate(node, start, stop)
                waiting.append(Evaluated(node, start, stop, failed))
            case Recall(node, start, stop) if node in self.ledger.budgets:
                self.ledger.budgets.ready(node, start, stop)
            case Recall(node, start, stop):
                waiting.append(Recalled(node, start, stop, self.ledger.recall(node, start, stop)))
            case FailElements():
                self.ledger.fail(command)
            case LoseElement():
                self.ledger.lose(command)
            case StopWorker(worker):
                waiting.append(WorkerLost(worker, LossCause.HUNG))
                self._workers.end_worker(worker)
            case Retire(worker):
                self._workers.end_worker(worker)
            case WantWorkers(shape, count):
                self._workers.want(shape, count)
            case FinishNode(node):
                waiting.extend(self.ledger.sizes.ended(node, failed=bool(self.engine.nodes[node].failed)))
                self._drop_copies(node)

    def _drop_copies(self, node: NodeId) -> None:
        """A node has ended: copies of its parents' values that nobody else waits for are of no use any more."""
        for parent in {source for source in self.plan.nodes[node].sources if source is not None}:
            children = self.plan.graph.children[parent]
            if all(self.engine.nodes[child].finished for child, _ in children):
                self.ledger.copies.drop(parent)

    # ---- what has to be done every now and then ------------------------------------------------------------

    def tick(self) -> None:
        """To be called often: time passes for the engine, the claim is renewed, progress is shown.

        Raises:
            RunHeldError: another process has taken the run over.
        """
        now = time.monotonic()
        if self.engine.wakeup_s(now) <= 0:
            self.handle(Tick())
        self.check_limits()
        if now >= self._next_renewal:
            self._ownership.renew()
            if self._ownership.cancel_requested():
                self.stop("it was cancelled", by_failures=False)
            self._next_renewal = now + self._ownership.record.lease_s / 3
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_EVERY_S
            self._progress.update(self.snapshot())

    def say_waiting(self, text: str) -> None:
        """Tell the user why nothing happens, now and then."""
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAIN_EVERY_S
            self._progress.message(text)

    def wait_s(self) -> float:
        """How long the executor may wait for news before the next `tick`."""
        now = time.monotonic()
        return max(0.0, min(self.engine.wakeup_s(now), self._next_progress - now, self._next_renewal - now))

    def snapshot(self) -> Snapshot:
        """Where the run stands."""
        now = time.monotonic()
        done = self.done
        rate = self._rate.add(now, done - self._resumed)
        total = self.total
        left = total - done
        stage = next((p.name for p, n in zip(self.plan.nodes, self.engine.nodes, strict=True) if not n.finished), None)
        return Snapshot(
            done=done,
            total=total,
            failed=self.ledger.failed,
            running=self.engine.running(),
            workers=self.engine.workers,
            rate_per_s=rate,
            eta_s=left / rate if rate and not self.growing else None,
            elapsed_s=now - self._started,
            best=self.ledger.best.leader(),
            stage=stage,
            growing=self.growing,
        )

    # ---- interruption --------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Stop granting; the executor's loop ends at its next look."""
        if not self.interrupted:
            self.interrupted = True
            if self._executor is not None:
                self.handle(Cancel())

    @contextmanager
    def signals(self, wake: Callable[[], None]) -> Iterator[None]:
        """While inside, Ctrl-C (or SIGTERM) once ends the run in good order, and twice at once. May be nested.

        Args:
            wake: called from the signal handler to end the executor's waiting.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._asked += 1
            if self._asked > 1:
                self._say("leaving at once; what was durable stays, and the run can be resumed")
                os._exit(130)
            wake()
            again = "Ctrl-C again" if number == signal.SIGINT else "another signal"
            self._say(f"stopping, once what has finished is stored; {again} leaves at once")

        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in kept:
            signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    _asked = 0

    @property
    def asked_to_stop(self) -> bool:
        """True once Ctrl-C was pressed, or a limit was reached."""
        return self._asked > 0 or self.stop_reason is not None

    def _say(self, text: str) -> None:
        """Tell the user something from within a signal handler."""
        with suppress(RuntimeError):  # the signal came while the stream was being written to
            self._progress.message(text)
