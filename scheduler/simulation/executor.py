"""Which workers does the simulated driver have, and how many does it ask for? As the runtime's Ray executor.

Starts workers until there are as many as the engine wants, withdraws surplus ones that have not come yet, and on a
cluster that can grow asks for some more than have joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from umbel.scheduler.graph import ShapeId
from umbel.scheduler.protocol import Capacity, WorkerId
from umbel.scheduler.simulation.clock import Clock
from umbel.scheduler.simulation.machines import Machines
from umbel.scheduler.simulation.measures import Meters
from umbel.scheduler.simulation.processes import Processes
from umbel.scheduler.simulation.setup import Autoscaler
from umbel.scheduler.simulation.worker import SimulatedWorker

__all__ = ["Members"]


class Members:
    """The workers that the driver knows.

    Args:
        shapes: all shapes.
        machines: where workers start.
        processes: what ends them.
        clock: virtual time.
        meters: what is measured.
        autoscaler: how to have the cluster grow.
        tell: gives the engine an event.
    """

    def __init__(
        self,
        shapes: Sequence[ShapeId],
        machines: Machines,
        processes: Processes,
        clock: Clock,
        meters: Meters,
        autoscaler: Autoscaler,
        tell: Callable[[Capacity], object],
    ) -> None:
        self._machines = machines
        self._processes = processes
        self._clock = clock
        self._meters = meters
        self._autoscaler = autoscaler
        self._tell = tell
        self.by_name: dict[WorkerId, SimulatedWorker] = {}
        self._count: dict[ShapeId, int] = dict.fromkeys(shapes, 0)
        self._joined: dict[ShapeId, int] = dict.fromkeys(shapes, 0)
        self._wanted: dict[ShapeId, int] = dict.fromkeys(shapes, 0)
        self._capacity: dict[ShapeId, int] = dict.fromkeys(shapes, 0)
        #: How many others leave to this run, and how many there could be but for them.
        self._allowed: dict[ShapeId, Capacity] = {}
        self._possible: dict[ShapeId, int] = dict.fromkeys(shapes, 0)
        #: How many fitted at the start.
        self._fitting: dict[ShapeId, int] = {}
        self._next_look = 0.0
        #: How many had joined when the waiting for more began, and when that was.
        self._waiting: dict[ShapeId, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self.by_name)

    def __contains__(self, worker: SimulatedWorker) -> bool:
        return self.by_name.get(worker.name) is worker

    def start(self) -> None:
        """Say how many there can be on the machines of the start."""
        for shape in self._count:
            self._fitting[shape] = self._machines.fleet.capacity(shape)
            self._set_capacity(shape, self._fitting[shape])

    def look(self) -> None:
        """To be called often: if the cluster can grow, ask for more workers once those asked for have come."""
        scaler, now = self._autoscaler, self._clock.now
        if now < self._next_look or not self._machines.fleet.grows:
            return
        self._next_look = now + scaler.look_every_s
        for shape, fitting in self._fitting.items():
            joined = self._joined[shape]
            ahead = 1 if self._waits_s(shape) > scaler.give_up_s else max(scaler.ahead, joined)
            self._set_capacity(shape, max(fitting, joined + ahead))

    def allow(self, allowed: Capacity) -> None:
        """Others leave no more than this to this run from now on."""
        if allowed.shape in self._possible:
            self._allowed[allowed.shape] = allowed
            self._set_capacity(allowed.shape, self._possible[allowed.shape])

    def _set_capacity(self, shape: ShapeId, possible: int) -> None:
        self._possible[shape] = possible
        allowed = self._allowed.get(shape)
        capacity = possible if allowed is None else min(possible, allowed.workers)
        if capacity != self._capacity[shape]:
            self._capacity[shape] = capacity
            self._tell(Capacity(shape, capacity, allowed is not None and allowed.preempt))

    def _waits_s(self, shape: ShapeId) -> float:
        joined, now = self._joined[shape], self._clock.now
        if self._count[shape] == joined:
            self._waiting.pop(shape, None)
            return 0.0
        known = self._waiting.get(shape)
        if known is None or known[0] != joined:
            self._waiting[shape] = (joined, now)
            return 0.0
        return now - known[1]

    def join(self, worker: SimulatedWorker) -> None:
        """A worker is ready."""
        worker.joined = True
        self._joined[worker.shape] += 1

    def want(self, shape: ShapeId, count: int) -> None:
        """Have this many workers, if they can be had; those that have not come yet are withdrawn if there are more."""
        self._wanted[shape] = count
        surplus = self._count[shape] - count
        if surplus > 0:
            pending = [w for w in reversed(self.by_name.values()) if w.shape == shape and not w.joined]
            for worker in pending[:surplus]:
                self.forget(worker)
                self._processes.kill(worker)
                self._machines.withdraw(worker)
        self.refill(shape)

    def refill(self, shape: ShapeId) -> None:
        """Start workers until there are as many as wanted."""
        missing = min(self._wanted[shape], self._capacity[shape]) - self._count[shape]
        if missing > 0:
            first = self._meters.workers_started + 1
            self._meters.workers_started += missing
            self._count[shape] += missing
            for worker in self._machines.add_workers(shape, first, missing):
                self.by_name[worker.name] = worker
            self._processes.polled(len(self.by_name))

    def forget(self, worker: SimulatedWorker) -> None:
        """A worker is known no longer."""
        del self.by_name[worker.name]
        self._processes.polled(len(self.by_name))
        self._count[worker.shape] -= 1
        self._joined[worker.shape] -= worker.joined

    def end(self, name: WorkerId) -> None:
        """End a worker's process, and start another if there is work for it."""
        worker = self.by_name.get(name)
        if worker is not None:
            self.forget(worker)
            self._processes.kill(worker)
            self.refill(worker.shape)
            self._machines.withdraw(worker)
