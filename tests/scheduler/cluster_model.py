"""A shell around the engine for tests: workers that crash, are preempted, retry and answer late, drawn from a seed.

It keeps its own plain record of what was accepted, so that tests can compare it with what the engine believes, and
checks the engine's invariants after every event.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from umbel.scheduler.engine import Engine, Restored
from umbel.scheduler.graph import Graph, NodeId, ShapeId
from umbel.scheduler.protocol import (
    Accept,
    Cancel,
    Capacity,
    Command,
    Evaluate,
    Evaluated,
    Event,
    FailElements,
    FinishNode,
    Grant,
    Lease,
    LoseElement,
    LossCause,
    Recall,
    Recalled,
    Reported,
    Retire,
    Retry,
    Revoke,
    Sized,
    StopWorker,
    Tick,
    Unsizable,
    WantWorkers,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)


@dataclass
class Running:
    """A lease at a worker."""

    lease: Lease
    position: int
    stop: int


@dataclass
class ModelWorker:
    """A worker: leases in order, the first of them running."""

    shape: ShapeId
    leases: list[Running] = field(default_factory=list)
    #: It answers, but finishes next to nothing.
    slow: bool = False


@dataclass(frozen=True)
class Behaviour:
    """What can go wrong, as probabilities a step, and which elements always go wrong."""

    crash: float = 0.0
    preempt: float = 0.0
    stale: float = 0.0
    #: Share of the workers that are slow.
    slow: float = 0.0
    fail: Callable[[NodeId, int, int], bool] = lambda node, element, attempt: False
    #: Elements that an earlier run has done.
    known: Callable[[NodeId, int], bool] = lambda node, element: False
    #: Elements that kill their worker whenever they run.
    poison: frozenset[tuple[NodeId, int]] = frozenset()


class ClusterModel:
    """Runs an engine to its end on pretended workers."""

    def __init__(
        self,
        graph: Graph,
        *,
        seed: int = 0,
        workers: int = 3,
        behaviour: Behaviour | None = None,
        restored: dict[NodeId, Restored] | None = None,
        later: Mapping[NodeId, tuple[NodeId, int]] | None = None,
    ) -> None:
        self.graph = graph
        #: For nodes sized later: the node whose end tells their size, and the size.
        self.later = dict(later or {})
        self.unsizable: set[NodeId] = set()
        self.random = random.Random(seed)
        self.behaviour = behaviour or Behaviour()
        self.engine = Engine(graph, restored=restored, jitter_seed=seed)
        self.now = 0.0
        self.workers: dict[WorkerId, ModelWorker] = {}
        self.wanted: dict[ShapeId, int] = {}
        self.started = 0
        self.capacity = workers
        #: How often each element's result was accepted.
        self.accepted: Counter[tuple[NodeId, int]] = Counter()
        self.failed_upstream: dict[tuple[NodeId, int], tuple[NodeId, int]] = {}
        self.lost: dict[tuple[NodeId, int], LoseElement] = {}
        self.evaluated: Counter[tuple[NodeId, int]] = Counter()
        self.recalled: Counter[tuple[NodeId, int]] = Counter()
        self.executed: Counter[tuple[NodeId, int]] = Counter()
        self.finished_nodes: Counter[NodeId] = Counter()
        self.attempts: dict[tuple[NodeId, int], int] = {}
        self.history: list[str] = []
        self.granted: list[Lease] = []
        self.late: list[Reported] = []
        self.events = 0

    def send(self, event: Event) -> None:
        """One event, its commands, and those of what they cause."""
        waiting = [event]
        while waiting:
            self.events += 1
            current = waiting.pop(0)
            commands = self.engine.handle(current, self.now)
            self.history.append(f"{self.now:.4f} {current} -> {commands}")
            self.engine.check_invariants()
            for command in commands:
                waiting.extend(self.carry_out(command))

    def carry_out(self, command: Command) -> list[Event]:
        """Do as the engine says; returns what it causes at once."""
        match command:
            case Accept(node, ranges):
                for start, stop in ranges:
                    self.accepted.update((node, element) for element in range(start, stop))
            case Grant(worker, lease):
                self.granted.append(lease)
                self.workers[worker].leases.append(Running(lease, lease.start, lease.stop))
            case Revoke(worker, lease_id, stop):
                for place, running in enumerate(self.workers[worker].leases):
                    if running.lease.id == lease_id:
                        started = 1 if place == 0 else 0
                        running.stop = max(min(running.stop, stop), min(running.position + started, running.stop))
            case Evaluate(node, start, stop):
                self.evaluated.update((node, element) for element in range(start, stop))
                return [Evaluated(node, start, stop)]
            case Recall(node, start, stop):
                known = [element for element in range(start, stop) if self.behaviour.known(node, element)]
                self.recalled.update((node, element) for element in known)
                middle = (start + stop + 1) // 2  # an answer may come in parts, the last first
                parts = [part for part in ((middle, stop), (start, middle)) if part[0] < part[1]]
                return [Recalled(node, a, b, tuple((e, e + 1) for e in known if a <= e < b)) for a, b in parts]
            case FailElements(node, start, stop, cause_node, cause_element):
                for element in range(start, stop):
                    assert (node, element) not in self.failed_upstream
                    self.failed_upstream[node, element] = (cause_node, cause_element)
            case LoseElement(node, element):
                self.lost[node, element] = command
            case StopWorker(worker):
                del self.workers[worker]
                return [WorkerLost(worker, LossCause.HUNG)]
            case Retire(worker):
                del self.workers[worker]
            case WantWorkers(shape, count):
                self.wanted[shape] = count
            case FinishNode(node):
                self.finished_nodes[node] += 1
                return [self.size(child, size) for child, (after, size) in self.later.items() if after == node]
        return []

    def size(self, node: NodeId, size: int) -> Event:
        """The size of a node, unless what tells it failed."""
        after, _ = self.later[node]
        if not self.engine.nodes[after].failed:
            return Sized(node, size)
        self.unsizable.add(node)
        return Unsizable(node, after, 0)

    def sizes(self) -> dict[NodeId, int]:
        """How many elements each node has in the end."""
        known = {node: size for node, (_, size) in self.later.items()}
        return {s.id: 0 if s.id in self.unsizable else known.get(s.id, s.size) for s in self.graph}

    def start(self) -> None:
        """Say how many workers there can be."""
        for shape in sorted({spec.shape for spec in self.graph if spec.shape is not None}):
            self.send(Capacity(shape, self.capacity))
        self.send(Tick())

    def step(self) -> None:
        """Something happens: a worker joins, dies or reports."""
        self.now += self.random.choice([0.0, 0.001, 0.05, 0.3])
        for shape, count in list(self.wanted.items()):
            alive = sum(worker.shape == shape for worker in self.workers.values())
            if alive < min(count, self.capacity):
                self.started += 1
                worker = WorkerId(f"w{self.started}")
                self.workers[worker] = ModelWorker(shape, slow=self.random.random() < self.behaviour.slow)
                self.send(WorkerJoined(worker, shape))
        if self.late and self.random.random() < 0.5:
            self.send(self.late.pop())
        busy = [worker for worker, held in self.workers.items() if held.leases]
        if not busy:
            self.now += 0.5
            self.send(Tick())
            return
        worker = self.random.choice(busy)
        chance = self.random.random()
        if chance < self.behaviour.crash:
            self.lose(worker, LossCause.CRASHED)
        elif chance < self.behaviour.crash + self.behaviour.preempt:
            self.lose(worker, LossCause.PREEMPTED)
        else:
            self.advance(worker)
        if self.random.random() < 0.1:
            self.send(Tick())

    def lose(self, worker: WorkerId, cause: LossCause) -> None:
        """A worker is gone; what it had done since its last report with it."""
        held = self.workers.pop(worker)
        if held.leases and self.random.random() < 0.5:  # a report that was under way arrives afterwards
            running = held.leases[0]
            self.late.append(
                Reported(worker, running.lease.id, running.position, running.stop, running.stop, busy_s=0.1)
            )
        self.send(WorkerLost(worker, cause))

    def advance(self, worker: WorkerId) -> None:
        """A worker runs some elements of its first lease and reports."""
        running = self.workers[worker].leases[0]
        lease = running.lease
        target = self.random.randint(running.position, running.stop)
        if self.workers[worker].slow and self.random.random() < 0.9:
            target = running.position
        failed: list[int] = []
        retries: list[Retry] = []
        position = running.position
        retry = self.graph[lease.node].retry
        while position < target:
            if (lease.node, position) in self.behaviour.poison:
                if self.random.random() < 0.5:  # some of what came before it had been reported
                    self.report(worker, running, position, failed, retries)
                self.lose(worker, LossCause.CRASHED)
                return
            self.executed[lease.node, position] += 1
            self.attempts[lease.node, position] = lease.attempt
            if self.behaviour.fail(lease.node, position, lease.attempt):
                if lease.attempt <= retry.retries:
                    retries.append(Retry(position, lease.attempt))
                else:
                    failed.append(position)
            position += 1
        self.report(worker, running, position, failed, retries)

    def report(
        self, worker: WorkerId, running: Running, position: int, failed: list[int], retries: list[Retry]
    ) -> None:
        """Tell the engine how far a lease has come."""
        busy_s = 0.01 * (position - running.position)
        event = Reported(
            worker, running.lease.id, running.position, position, running.stop, tuple(failed), tuple(retries), busy_s
        )
        running.position = position
        if running.position >= running.stop:
            self.workers[worker].leases.pop(0)
        self.send(event)
        if self.random.random() < self.behaviour.stale:
            self.late.append(event)

    def run(self, max_steps: int = 100_000) -> None:
        """To the end.

        Raises:
            AssertionError: it does not end.
        """
        self.start()
        for _ in range(max_steps):
            if self.engine.finished:
                return
            self.step()
        raise AssertionError("the run does not end; last events:\n" + "\n".join(self.history[-20:]))

    def cancel(self) -> None:
        """Stop granting."""
        self.send(Cancel())
