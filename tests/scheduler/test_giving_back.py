"""Fewer workers may be had than there are: which go, what becomes of what they had, and that nobody is to blame."""

from __future__ import annotations

from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import Graph, NodeId, NodeSpec, ShapeId
from umbel.scheduler.protocol import (
    Capacity,
    Command,
    Event,
    Grant,
    Lease,
    LeaseId,
    LoseElement,
    Reported,
    Retire,
    Revoke,
    WantWorkers,
    WorkerId,
    WorkerJoined,
)

SHAPE = ShapeId(0)


class Driver:
    """An engine with workers, and their leases."""

    def __init__(self, size: int, workers: int) -> None:
        self.engine = Engine(Graph([NodeSpec(NodeId(0), "trials", size)]))
        self.now = 0.0
        self.held: dict[WorkerId, list[Lease]] = {}
        self.revoked: set[LeaseId] = set()
        self.tell(Capacity(SHAPE, workers))
        for number in range(workers):
            self.join(f"w{number}")

    def tell(self, event: Event) -> list[Command]:
        self.now += 1.0
        commands = self.engine.handle(event, self.now)
        self.engine.check_invariants()
        for command in commands:
            if isinstance(command, Grant):
                self.held.setdefault(command.worker, []).append(command.lease)
            elif isinstance(command, Revoke):
                self.revoked.add(command.lease)
            elif isinstance(command, Retire):
                self.held.pop(command.worker, None)
        return commands

    def join(self, name: str) -> list[Command]:
        return self.tell(WorkerJoined(WorkerId(name), SHAPE))

    def end(self, name: str) -> list[Command]:
        """A worker reports its lease to its end, and those behind it that were revoked."""
        worker = WorkerId(name)
        lease = self.held[worker].pop(0)
        told = self.tell(Reported(worker, lease.id, lease.start, lease.stop, lease.stop, busy_s=1.0))
        while self.held.get(worker) and self.held[worker][0].id in self.revoked:
            lease = self.held[worker].pop(0)
            told += self.tell(Reported(worker, lease.id, lease.start, lease.start, lease.start))
        return told


def retired(commands: list[Command]) -> list[str]:
    return [command.worker for command in commands if isinstance(command, Retire)]


def revoked(commands: list[Command]) -> list[str]:
    return sorted({command.worker for command in commands if isinstance(command, Revoke)})


def test_idle_workers_go_at_once_and_busy_ones_stay() -> None:
    driver = Driver(size=1, workers=3)
    assert retired(driver.tell(Capacity(SHAPE, 1))) == ["w2", "w1"]
    assert driver.engine.workers == 1


def test_busy_ones_go_when_their_lease_has_ended_those_that_began_first_before_others() -> None:
    driver = Driver(size=20, workers=3)
    told = driver.tell(Capacity(SHAPE, 1))
    assert (retired(told), revoked(told)) == ([], ["w0", "w1"])
    assert retired(driver.end("w2")) == []
    assert driver.held[WorkerId("w2")]  # it stays, and goes on
    assert retired(driver.end("w0")) == ["w0"]
    assert retired(driver.end("w1")) == ["w1"]
    assert driver.engine.workers == 1


def test_unbegun_elements_run_elsewhere() -> None:
    driver = Driver(size=4, workers=2)
    driver.tell(Capacity(SHAPE, 1))
    assert retired(driver.end("w0")) == ["w0"]
    while driver.held.get(WorkerId("w1")):
        driver.end("w1")
    assert driver.engine.finished


def test_who_was_to_leave_stays_if_there_may_be_more_again() -> None:
    driver = Driver(size=20, workers=3)
    driver.tell(Capacity(SHAPE, 1))
    driver.tell(Capacity(SHAPE, 3))
    for name in ("w0", "w1", "w2"):
        assert retired(driver.end(name)) == []
        assert driver.held[WorkerId(name)]


def test_at_once_if_it_must_be_and_what_it_had_runs_again_without_blame() -> None:
    driver = Driver(size=2, workers=2)
    for _ in range(20):  # far more often than a machine may be lost with an element in flight
        first = driver.tell(Capacity(SHAPE, 0, preempt=True))
        assert sorted(retired(first)) == ["w0", "w1"]
        driver.tell(Capacity(SHAPE, 2))
        told = driver.join("w0") + driver.join("w1")
        assert not any(isinstance(command, LoseElement) for command in told)
        assert sum(isinstance(command, Grant) for command in told) == 2
    for name in ("w0", "w1"):
        (lease,) = driver.held[WorkerId(name)]
        assert lease.attempt == 1
        driver.end(name)
    assert driver.engine.finished


def test_who_comes_too_late_is_sent_away_and_less_is_asked_for() -> None:
    driver = Driver(size=20, workers=3)
    told = driver.tell(Capacity(SHAPE, 2))
    assert WantWorkers(SHAPE, 2) in told
    assert retired(driver.join("late")) == ["late"]
