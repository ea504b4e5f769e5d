"""Which machines are there, and which of them hosts which worker?

Keeps the books of a simulated cluster: room on machines, workers that wait for room, and how many machines to ask for.
Amounts of resources are whole ten-thousandths, as in Ray. It knows neither time nor chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from umbel.scheduler.graph import ShapeId
from umbel.scheduler.simulation.setup import MachineKind, Scenario, fit
from umbel.scheduler.simulation.worker import SimulatedWorker

__all__ = ["Fleet", "Machine"]

UNIT = 10_000


@dataclass(slots=True, eq=False)
class Machine:
    """One machine."""

    number: int
    kind: int
    speed: float
    free: dict[str, int]
    #: A dict for its order.
    workers: dict[SimulatedWorker, None] = field(default_factory=dict)


class Fleet:
    """The machines of a scenario, and the workers on them."""

    def __init__(self, scenario: Scenario) -> None:
        self.kinds: Sequence[MachineKind] = scenario.machines
        shapes = sorted({spec.shape for spec in scenario.graph if spec.shape is not None})
        needs = {shape: _nonzero(scenario.needs(shape)) for shape in shapes}
        self._needs = {shape: _units(amounts) for shape, amounts in needs.items()}
        self._fits = {shape: [fit(amounts, kind.resources) for kind in self.kinds] for shape, amounts in needs.items()}
        self.machines: dict[int, Machine] = {}
        #: By kind, machines that are on their way.
        self.coming = [0] * len(self.kinds)
        self.alive = [0] * len(self.kinds)
        self._waiting: dict[ShapeId, deque[SimulatedWorker]] = {shape: deque() for shape in shapes}
        #: By shape, machines that may have room for one more worker.
        self._roomy: dict[ShapeId, dict[int, None]] = {shape: {} for shape in shapes}
        self.started = 0

    @property
    def shapes(self) -> Sequence[ShapeId]:
        """All shapes, in order."""
        return list(self._needs)

    def capacity(self, shape: ShapeId) -> int:
        """How many workers of a shape fit on the machines there are, when nothing else runs."""
        return sum(fits * alive for fits, alive in zip(self._fits[shape], self.alive, strict=True))

    @property
    def grows(self) -> bool:
        """True if there can be more machines than there are at the start."""
        return any(kind.most > kind.initial for kind in self.kinds)

    def weight(self, shape: ShapeId) -> float:
        """CPUs that a worker of a shape holds."""
        return self._needs[shape].get("CPU", 0) / UNIT

    # ---- machines ------------------------------------------------------------------------------------------

    def add(self, kind: int, speed: float) -> Machine:
        """A machine has come."""
        self.started += 1
        machine = Machine(self.started, kind, speed, _units(self.kinds[kind].resources))
        self.machines[machine.number] = machine
        self.alive[kind] += 1
        self._has_room(machine)
        return machine

    def remove(self, machine: Machine) -> list[SimulatedWorker]:
        """A machine is gone; returns the workers that were on it."""
        del self.machines[machine.number]
        self.alive[machine.kind] -= 1
        for roomy in self._roomy.values():
            roomy.pop(machine.number, None)
        return list(machine.workers)

    def missing(self) -> list[int]:
        """By kind, how many machines to ask for so that all workers that wait find room, as far as can be had."""
        asked = [0] * len(self.kinds)
        demand: list[dict[str, int]] = [{} for _ in self.kinds]
        for shape, waiting in self._waiting.items():
            if not waiting:
                continue
            kind = self._kind_for(shape, asked)
            if kind is None:
                continue
            for name, amount in self._needs[shape].items():
                demand[kind][name] = demand[kind].get(name, 0) + amount * len(waiting)
            has = _units(self.kinds[kind].resources)
            needed = max(-(-amount // has[name]) for name, amount in demand[kind].items())
            room = self.kinds[kind].most - self.alive[kind] - self.coming[kind]
            asked[kind] = max(asked[kind], min(needed - self.coming[kind], room), 0)
        return asked

    def _kind_for(self, shape: ShapeId, asked: Sequence[int]) -> int | None:
        """The first kind that fits and can still be had; else one that is on its way."""
        fitting = [kind for kind, fits in enumerate(self._fits[shape]) if fits]
        for kind in fitting:
            if self.alive[kind] + self.coming[kind] + asked[kind] < self.kinds[kind].most:
                return kind
        return next((kind for kind in fitting if self.coming[kind]), None)

    def amounts(self) -> dict[str, float]:
        """What all machines have together, weighted with their speed."""
        total: dict[str, float] = {}
        for machine in self.machines.values():
            for name, amount in self.kinds[machine.kind].resources.items():
                total[name] = total.get(name, 0.0) + amount * machine.speed
        return total

    # ---- workers -------------------------------------------------------------------------------------------

    def enqueue(self, worker: SimulatedWorker) -> None:
        """A worker waits for room."""
        self._waiting[worker.shape].append(worker)

    def withdraw(self, worker: SimulatedWorker) -> None:
        """A worker does not wait for room any more."""
        self._waiting[worker.shape].remove(worker)

    def place(self) -> list[SimulatedWorker]:
        """Give room to workers that wait, first come, first served in each shape; returns those that got it."""
        placed: list[SimulatedWorker] = []
        for shape, waiting in self._waiting.items():
            while waiting:
                machine = self._with_room(shape)
                if machine is None:
                    break
                worker = waiting.popleft()
                for name, amount in self._needs[shape].items():
                    machine.free[name] -= amount
                machine.workers[worker] = None
                worker.machine, worker.speed = machine.number, machine.speed
                placed.append(worker)
        return placed

    def release(self, worker: SimulatedWorker) -> None:
        """A worker's process has ended."""
        machine = self.machines.get(worker.machine) if worker.machine is not None else None
        if machine is None or worker not in machine.workers:
            return
        del machine.workers[worker]
        for name, amount in self._needs[worker.shape].items():
            machine.free[name] += amount
        self._has_room(machine)

    def _has_room(self, machine: Machine) -> None:
        for shape, fits in self._fits.items():
            if fits[machine.kind]:
                self._roomy[shape][machine.number] = None

    def _with_room(self, shape: ShapeId) -> Machine | None:
        roomy, needs = self._roomy[shape], self._needs[shape]
        while roomy:
            machine = self.machines[next(iter(roomy))]
            if all(machine.free.get(name, 0) >= amount for name, amount in needs.items()):
                return machine
            del roomy[machine.number]
        return None


def _nonzero(needs: Mapping[str, float]) -> Mapping[str, float]:
    return {name: amount for name, amount in needs.items() if amount > 0} or {"CPU": 1.0}


def _units(amounts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount * UNIT) for name, amount in amounts.items()}
