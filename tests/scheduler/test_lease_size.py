"""Leases: long enough for the driver, short enough for an even end."""

from __future__ import annotations

from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import Batched, Graph, NodeId, NodeSpec, ShapeId
from umbel.scheduler.lease_size import TARGET_PER_WORKER_S, TARGET_S, LeaseSizer
from umbel.scheduler.node_state import NodeState, Piece
from umbel.scheduler.protocol import Capacity, Grant, LeaseId, Reported, Revoke, Tick, WorkerId, WorkerJoined


def measured(seconds: float) -> LeaseSizer:
    sizer = LeaseSizer()
    sizer.observe(100, 100 * seconds)
    return sizer


def test_nothing_is_risked_before_something_is_measured() -> None:
    assert LeaseSizer().size(1_000_000, 1) == 1


def test_a_lease_aims_at_the_same_time_whatever_an_element_takes() -> None:
    assert measured(0.001).size(1_000_000, 4) == round(TARGET_S / 0.001)
    assert measured(30.0).size(1_000_000, 4) == 1


def test_with_many_workers_a_lease_lasts_longer_so_that_the_driver_hears_less() -> None:
    assert measured(1.0).size(1_000_000, 100) == 1
    assert measured(1.0).size(1_000_000, 8000) == round(8000 * TARGET_PER_WORKER_S)


def test_towards_the_end_leases_shrink() -> None:
    sizes = [measured(0.1).size(pending, 8000) for pending in (10_000_000, 160_000, 16_000, 100)]
    assert sizes == [160, 10, 1, 1]


def test_elements_that_are_run_many_at_once_get_long_leases_whatever_they_take() -> None:
    groups = Batched(least=50, share=100)
    assert [LeaseSizer().size(pending, 4, groups) for pending in (1000, 300, 100, 30)] == [100, 75, 50, 30]
    assert measured(60.0).size(1000, 4, groups) == 100
    assert measured(0.001).size(100_000, 4, groups) == round(TARGET_S / 0.001)
    everything = Batched(least=50, share=10**9)
    assert [LeaseSizer().size(pending, 4, everything) for pending in (1000, 750, 120, 30)] == [250, 188, 50, 30]


def test_long_leases_end_with_a_group_and_suspects_get_short_ones() -> None:
    node = NodeState(NodeSpec(NodeId(0), "n", 1000, affinity_block=100, batched=Batched(50, 10**9)))
    node.fresh.add(0, 1000)
    taken = node.take(3, None, suspects=True)
    assert taken is not None
    assert (taken.start, taken.stop) == (0, 300)
    taken = node.take(20, 300, suspects=True)
    assert taken is not None
    assert len(taken) == 50  # less than a group
    node.put_back(Piece(0, 300, cap=18))
    taken = node.take(3, None, suspects=True)
    assert taken is not None
    assert (taken.start, taken.stop) == (0, 18)


def test_workers_share_what_is_run_many_at_once_equally() -> None:
    spec = NodeSpec(NodeId(0), "n", 1000, shape=ShapeId(0), batched=Batched(50, 10**9))
    engine = Engine(Graph([spec]))
    engine.handle(Capacity(ShapeId(0), 4), 0.0)
    granted = []
    for name in "abcd":
        commands = engine.handle(WorkerJoined(WorkerId(name), ShapeId(0)), 0.0)
        granted += [(each.lease.start, each.lease.stop) for each in commands if isinstance(each, Grant)]
    assert granted == [(0, 250), (250, 500), (500, 750), (750, 1000)]


def test_idle_workers_take_from_a_batched_lease_only_what_is_worth_two_batches() -> None:
    def revoked(least: int) -> list[Revoke]:
        spec = NodeSpec(NodeId(0), "n", 100, shape=ShapeId(0), batched=Batched(least, 10**9))
        engine = Engine(Graph([spec]))
        engine.handle(Capacity(ShapeId(0), 2), 0.0)
        engine.handle(WorkerJoined(WorkerId("a"), ShapeId(0)), 0.0)
        engine.handle(WorkerJoined(WorkerId("b"), ShapeId(0)), 0.0)
        commands = engine.handle(Reported(WorkerId("b"), LeaseId(1), 50, 100, 100, busy_s=50.0), 50.0)
        commands += [each for at in range(51, 400, 10) for each in engine.handle(Tick(), float(at))]
        assert not any(isinstance(each, Grant) for each in commands)  # trials of a batch are no stragglers
        engine.check_invariants()
        return [each for each in commands if isinstance(each, Revoke)]

    assert revoked(30) == []
    (only,) = revoked(20)
    assert only.stop == 25
