"""What idle workers take over from busy ones: what these have not begun, and stragglers."""

from __future__ import annotations

import pytest

from tests.scheduler.cluster_model import Behaviour, ClusterModel
from tests.scheduler.small_engines import SHAPE, engine_with, single
from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import NodeId, RetryPolicy, ShapeId
from umbel.scheduler.protocol import (
    Accept,
    Capacity,
    Command,
    Grant,
    Lease,
    LoseElement,
    LossCause,
    Reported,
    Retry,
    Revoke,
    Tick,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)


def test_an_idle_worker_takes_from_a_long_lease() -> None:
    engine, grants = engine_with(40)
    first, second = (grant.lease for grant in grants[WorkerId("w0")])
    engine.handle(Reported(WorkerId("w0"), first.id, 0, 1, 1, busy_s=0.02), 0.02)
    engine.handle(Reported(WorkerId("w0"), second.id, 1, 2, 2, busy_s=0.02), 0.04)
    engine.handle(Capacity(SHAPE, 2), 0.05)
    commands = engine.handle(WorkerJoined(WorkerId("w1"), SHAPE), 0.05)
    now = 0.05
    while not (revoked := [command for command in commands if isinstance(command, Revoke)]):
        granted = [command.lease for command in commands if isinstance(command, Grant)]
        assert granted, "the second worker is idle, and nothing is taken from the first"
        now += 0.06
        commands = []
        for lease in granted:
            done = Reported(WorkerId("w1"), lease.id, lease.start, lease.stop, lease.stop, busy_s=0.01)
            commands += engine.handle(done, now)
    assert {command.worker for command in revoked} == {"w0"}
    # The first worker gives up the end of its lease, and the second gets it.
    stop = revoked[0].stop
    lease_id = revoked[0].lease
    held = engine._leases[lease_id]
    commands = engine.handle(Reported(WorkerId("w0"), lease_id, held.position, held.position, stop), now + 0.01)
    granted = [command.lease for command in commands if isinstance(command, Grant)]
    assert granted
    assert granted[0].start == stop


def straggling(**options: object) -> tuple[Engine, dict[str, Lease], float]:
    """A worker is stuck in element 5 of 6, and an idle one has been given it too; the leases by "stuck" and "twin"."""
    engine, grants = engine_with(6, workers=2, **options)
    waiting = [grant for granted in grants.values() for grant in granted]
    leases: dict[str, Lease] = {}
    now = 0.0
    while "twin" not in leases:
        now += 0.3
        commands: list[Command] = []
        for worker, lease in [(grant.worker, grant.lease) for grant in waiting]:
            if lease.start == 5:
                leases["twin" if leases else "stuck"] = lease
            else:
                done = Reported(worker, lease.id, lease.start, lease.stop, lease.stop, busy_s=0.3)
                commands += engine.handle(done, now)
        commands += engine.handle(Tick(), now)
        engine.check_invariants()
        waiting = [command for command in commands if isinstance(command, Grant)]
        assert now < 30, "the straggler is not begun a second time"
    assert engine.duplicated == 1
    return engine, leases, now


def said(engine: Engine, lease: Lease, *retries: Retry) -> Reported:
    """A lease of one element is reported to its end."""
    worker = engine._leases[lease.id].worker
    return Reported(worker, lease.id, lease.start, lease.stop, lease.stop, retries=retries, busy_s=0.3)


def lost(engine: Engine, lease: Lease, cause: LossCause) -> WorkerLost:
    """The worker that holds a lease is lost."""
    return WorkerLost(engine._leases[lease.id].worker, cause)


@pytest.mark.parametrize(("first", "second"), [("stuck", "twin"), ("twin", "stuck")])
def test_of_two_results_the_first_is_taken_and_the_other_worker_is_let_go(first: str, second: str) -> None:
    engine, leases, now = straggling()
    other = engine._leases[leases[second].id].worker
    commands = engine.handle(said(engine, leases[first]), now + 1)
    engine.check_invariants()
    assert Accept(NodeId(0), ((5, 6),)) in commands
    assert Revoke(other, leases[second].id, 5) in commands
    assert engine.finished
    late = engine.handle(said(engine, leases[second]), now + 2)
    engine.check_invariants()
    assert [command for command in late if isinstance(command, Accept)] == [Accept(NodeId(0), ())]
    assert not engine.busy


def test_a_straggler_that_may_be_retried_is_left_to_its_twin() -> None:
    engine, leases, now = straggling(retry=RetryPolicy(retries=3))
    commands = engine.handle(said(engine, leases["stuck"], Retry(5, 1)), now + 0.5)
    engine.check_invariants()
    assert not [command for command in commands if isinstance(command, Grant | Revoke)]
    assert engine.nodes[0].waiting_retries == 0
    # The twin fails too: now it is tried again, as often as the policy says and not twice as often.
    engine.handle(said(engine, leases["twin"], Retry(5, 1)), now + 0.6)
    engine.check_invariants()
    assert engine.nodes[0].waiting_retries == 1
    grants = [c for c in engine.handle(Tick(), now + 40) if isinstance(c, Grant)]
    assert [grant.lease.attempt for grant in grants] == [2]


@pytest.mark.parametrize(("gone", "stays"), [("stuck", "twin"), ("twin", "stuck")])
def test_a_straggler_whose_worker_is_lost_is_left_to_its_twin(gone: str, stays: str) -> None:
    engine, leases, now = straggling()
    engine.handle(lost(engine, leases[gone], LossCause.PREEMPTED), now + 1)
    engine.check_invariants()
    commands = engine.handle(said(engine, leases[stays]), now + 2)
    assert Accept(NodeId(0), ((5, 6),)) in commands
    assert engine.finished


@pytest.mark.parametrize(("first", "second"), [("stuck", "twin"), ("twin", "stuck")])
def test_a_straggler_that_kills_both_its_workers_and_a_third_is_lost(first: str, second: str) -> None:
    engine, leases, now = straggling()
    for which in (first, second):
        assert not [
            c for c in engine.handle(lost(engine, leases[which], LossCause.CRASHED), now) if isinstance(c, Lease)
        ]
        engine.check_invariants()
    engine.handle(WorkerJoined(WorkerId("third"), ShapeId(0)), now)
    commands = engine.handle(WorkerLost(WorkerId("third"), LossCause.CRASHED), now)
    assert LoseElement(NodeId(0), 5, 1, LossCause.CRASHED) in commands
    assert engine.finished


def test_nothing_is_begun_twice_while_elements_are_pending() -> None:
    model = ClusterModel(single(400), seed=3, workers=3, behaviour=Behaviour(slow=0.4))
    model.start()
    while model.engine.nodes[0].has_pending or not model.engine.busy:
        model.step()
        assert model.engine.duplicated == 0
