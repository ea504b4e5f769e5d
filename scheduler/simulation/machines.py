"""Which machines come and go, and when do workers start on them?

Machines of the start, those that the autoscaler brings later because workers wait for room, and those that are lost.
"""

from __future__ import annotations

from collections.abc import Callable

from umbel.scheduler.graph import ShapeId
from umbel.scheduler.simulation.clock import Clock, Draws
from umbel.scheduler.simulation.fleet import Fleet, Machine
from umbel.scheduler.simulation.measures import Meters
from umbel.scheduler.simulation.setup import Scenario
from umbel.scheduler.simulation.worker import SimulatedWorker

__all__ = ["Machines"]


class Machines:
    """All machines of a simulation.

    Args:
        scenario: what is simulated.
        clock: virtual time.
        meters: what is measured.
        on_started: a worker's process has started.
        on_crash: its time to crash has come.
        on_lost: it was lost with its machine.
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        meters: Meters,
        *,
        on_started: Callable[[SimulatedWorker, None], None],
        on_crash: Callable[[SimulatedWorker, None], None],
        on_lost: Callable[[SimulatedWorker], None],
    ) -> None:
        self._scenario = scenario
        self._clock = clock
        self._meters = meters
        self._draws = Draws(scenario.seed, 1)
        self._on_started = on_started
        self._on_crash = on_crash
        self._on_lost = on_lost
        self.fleet = Fleet(scenario)

    def start(self) -> None:
        """The machines of the start are there."""
        for kind, described in enumerate(self._scenario.machines):
            for _ in range(described.initial):
                self._add(kind)
            if described.initial:
                self._count(kind, described.initial)

    def add_workers(self, shape: ShapeId, first: int, count: int) -> list[SimulatedWorker]:
        """Ask for worker processes, numbered from ``first``; they start when there is room."""
        weight = self.fleet.weight(shape)
        workers = [SimulatedWorker(number, shape, weight) for number in range(first, first + count)]
        for worker in workers:
            self.fleet.enqueue(worker)
        self._place()
        return workers

    def withdraw(self, worker: SimulatedWorker) -> None:
        """A worker is not wanted any more, wherever it is."""
        if worker.machine is None:
            self.fleet.withdraw(worker)
        else:
            self.release(worker)

    def release(self, worker: SimulatedWorker) -> None:
        """A worker's process has ended: there is room for another."""
        self.fleet.release(worker)
        self._place()

    def _place(self) -> None:
        for worker in self.fleet.place():
            start_s = self._scenario.costs.worker_start_s * (0.75 + 0.5 * next(self._draws.uniforms))
            self._clock.at(self._clock.now + start_s, self._start, worker)
        for kind, count in enumerate(self.fleet.missing()):
            for _ in range(count):
                scaler = self._scenario.autoscaler
                self.fleet.coming[kind] += 1
                lag_s = scaler.lag_s + scaler.lag_jitter_s * next(self._draws.exponentials)
                self._clock.at(self._clock.now + lag_s, self._on_machine, kind)

    def _start(self, worker: SimulatedWorker, _: None) -> None:
        if not worker.alive:
            return
        rate = self._scenario.faults.crashes_per_hour
        if rate > 0:
            life_s = 3600.0 / rate * next(self._draws.exponentials)
            self._clock.at(self._clock.now + life_s, self._on_crash, worker)
        self._on_started(worker, None)

    def _on_machine(self, kind: int, _: None) -> None:
        self.fleet.coming[kind] -= 1
        self._add(kind)
        self._count(kind, 1)
        self._place()

    def _add(self, kind: int) -> None:
        described = self._scenario.machines[kind]
        slow = described.slow_share > 0 and next(self._draws.uniforms) < described.slow_share
        machine = self.fleet.add(kind, described.slow_speed if slow else 1.0)
        rate = self._scenario.faults.machine_losses_per_hour
        if rate > 0:
            life_s = 3600.0 / rate * next(self._draws.exponentials)
            self._clock.at(self._clock.now + life_s, self._on_machine_lost, machine)

    def lose(self, worker: SimulatedWorker) -> None:
        """A worker has taken its machine down."""
        if worker.machine is not None:
            self._on_machine_lost(self.fleet.machines[worker.machine], None)

    def _on_machine_lost(self, machine: Machine, _: None) -> None:
        if machine.number not in self.fleet.machines:
            return  # brought down before its time
        self._meters.machines_lost += 1
        workers = self.fleet.remove(machine)
        self._count(machine.kind, -1)
        for worker in workers:
            self._on_lost(worker)
        self._place()  # workers that wait for room may need another machine now

    def _count(self, kind: int, by: int) -> None:
        now, meters = self._clock.now, self._meters
        meters.machines.change(by, now)
        meters.cpus.change(by * self._scenario.machines[kind].resources.get("CPU", 0.0), now)
        meters.available.append((now, self.fleet.amounts()))
