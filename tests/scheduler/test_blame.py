"""Who is to blame for a worker's end: culprits are found and given up in bounded time, and nobody else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scheduler import histories
from umbel.scheduler.blame import DEATHS_TO_LOSE, LOSSES_TO_SUSPECT, MACHINE_GONE_S, QUARANTINE_EVERY
from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import Graph, NodeId, NodeSpec, RetryPolicy, ShapeId
from umbel.scheduler.protocol import (
    Capacity,
    Command,
    Grant,
    Lease,
    LoseElement,
    LossCause,
    Reported,
    Tick,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)
from umbel.scheduler.simulation.setup import Faults, one_sweep
from umbel.scheduler.simulation.simulator import simulate

TRIALS, SHAPE = NodeId(0), ShapeId(0)


class Fates:
    """One worker after another on an engine with a single node."""

    def __init__(self, size: int, retries: int = 0) -> None:
        self.engine = Engine(Graph([NodeSpec(TRIALS, "trials", size, retry=RetryPolicy(retries=retries))]))
        self.engine.handle(Capacity(SHAPE, 1), 0.0)
        self.now = 0.0

    def worker(self, number: int) -> list[Lease]:
        """A worker joins after a pause; returns what it is given."""
        self.now += 2 * MACHINE_GONE_S
        self.engine.handle(Tick(), self.now)
        return granted(self.engine.handle(WorkerJoined(WorkerId(f"w{number}"), SHAPE), self.now))

    def lost(self, number: int, cause: LossCause) -> list[LoseElement]:
        """It is gone; returns what is given up."""
        commands = self.engine.handle(WorkerLost(WorkerId(f"w{number}"), cause), self.now)
        self.engine.check_invariants()
        return [command for command in commands if isinstance(command, LoseElement)]


def granted(commands: list[Command]) -> list[Lease]:
    return [command.lease for command in commands if isinstance(command, Grant)]


def test_an_element_that_takes_its_machine_down_each_time_is_given_up_in_the_end() -> None:
    fates, last = Fates(1, retries=2), LOSSES_TO_SUSPECT + DEATHS_TO_LOSE
    for number in range(1, last):
        assert [lease.attempt for lease in fates.worker(number)] == [1]  # no retry is used up
        assert not fates.lost(number, LossCause.PREEMPTED)
    fates.worker(last)
    assert fates.lost(last, LossCause.PREEMPTED) == [LoseElement(TRIALS, 0, 1, LossCause.PREEMPTED)]
    assert fates.engine.finished


def test_crashes_give_it_up_sooner() -> None:
    fates = Fates(1)
    for number in range(1, DEATHS_TO_LOSE + 1):
        fates.worker(number)
        given_up = fates.lost(number, LossCause.CRASHED)
        assert len(given_up) == (number == DEATHS_TO_LOSE)


def test_progress_in_between_clears_from_suspicion() -> None:
    fates = Fates(3 * LOSSES_TO_SUSPECT)
    for number in range(1, 3 * LOSSES_TO_SUSPECT):  # each worker ends one element, and is lost in the next
        first = fates.worker(number)[0]
        done = Reported(WorkerId(f"w{number}"), first.id, first.start, first.start + 1, first.stop, busy_s=1.0)
        fates.engine.handle(done, fates.now)
        assert not fates.lost(number, LossCause.PREEMPTED)
    assert not fates.engine.nodes[0].failed


def suspects(count: int) -> tuple[Fates, list[Lease]]:
    """``count`` elements, each at a worker of its own, all workers lost again and again until all are suspects."""
    fates = Fates(count)
    fates.engine.handle(Capacity(SHAPE, count), 0.0)
    numbers: Iterator[int] = iter(range(1, 10_000))
    for _ in range(LOSSES_TO_SUSPECT):
        workers = [next(numbers) for _ in range(count)]
        for number in workers:
            fates.worker(number)
        for number in workers:
            assert not fates.lost(number, LossCause.PREEMPTED)
    return fates, [lease for _ in range(count) for lease in fates.worker(next(numbers))]


def test_suspects_of_losing_machines_run_one_at_a_time() -> None:
    fates, leases = suspects(4)
    assert len(leases) == 1
    assert fates.engine.running() == 1
    [worker] = [w for w in fates.engine._workers.values() if w.leases]
    first = leases[0]
    done = Reported(worker.id, first.id, first.start, first.stop, first.stop, busy_s=1.0)
    assert len(granted(fates.engine.handle(done, fates.now))) == 1  # at once, as nothing went wrong
    fates.engine.check_invariants()


def test_after_a_loss_the_next_suspect_waits_until_the_machine_s_other_workers_are_known_to_be_gone() -> None:
    fates, _ = suspects(3)
    [worker] = [w for w in fates.engine._workers.values() if w.leases]
    assert not granted(fates.engine.handle(WorkerLost(worker.id, LossCause.PREEMPTED), fates.now))
    assert not granted(fates.engine.handle(Tick(), fates.now + MACHINE_GONE_S / 2))
    assert len(granted(fates.engine.handle(Tick(), fates.now + MACHINE_GONE_S))) == 1


@pytest.mark.parametrize("mean_s", [0.02, 20.0])
def test_one_fatal_trial_costs_some_machines_and_no_other_trial(mean_s: float) -> None:
    faults = Faults(fatal={TRIALS: [77]})
    scenario = one_sweep(400, 4, mean_s=mean_s, seed=3, faults=faults)
    model = histories.PlainModel(scenario)
    outcome = simulate(scenario, model.observe)
    assert [element for (_, element), how in model.ended.items() if how == histories.LOST] == [77]
    assert LOSSES_TO_SUSPECT + DEATHS_TO_LOSE <= outcome.machines_lost < 40
    assert outcome.accepted == 399


def test_a_machine_s_whole_crew_is_cleared_when_one_of_them_is_fatal_and_there_is_no_other_machine() -> None:
    scenario = one_sweep(8, 1, mean_s=30.0, faults=Faults(fatal={TRIALS: [5]}))
    model = histories.PlainModel(scenario)
    simulate(scenario, model.observe)
    assert [element for (_, element), how in model.ended.items() if how == histories.LOST] == [5]


def test_large_clusters_have_more_places_in_quarantine() -> None:
    assert QUARANTINE_EVERY >= 128  # more than the slots of most machines
