"""The engine under any sequence of crashes, preemptions, retries and late messages: nothing lost, nothing twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scheduler.cluster_model import Behaviour, ClusterModel
from tests.scheduler.small_engines import SHAPE, engine_with, reference, single
from umbel.scheduler.engine import Engine, Restored
from umbel.scheduler.errors import GraphError, InternalError
from umbel.scheduler.graph import Graph, Input, NodeId, NodeSpec, RetryPolicy
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.protocol import (
    Capacity,
    Grant,
    LossCause,
    Reported,
    StopWorker,
    Tick,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_complete(model: ClusterModel) -> None:
    """Every element ended exactly once, in exactly one way."""
    sizes = model.sizes()
    for spec in model.graph:
        for element in range(sizes[spec.id]):
            at = (spec.id, element)
            ends = [
                model.accepted[at] > 0,
                at in model.failed_upstream,
                at in model.lost,
                model.evaluated[at] > 0,
                model.recalled[at] > 0,
            ]
            assert sum(ends) == 1, (at, ends)
            assert model.accepted[at] <= 1
            assert model.evaluated[at] <= 1
        assert model.finished_nodes[spec.id] == 1


@MANY
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 6),
    trials=st.integers(1, 12),
    workers=st.integers(1, 5),
    crash=st.sampled_from([0.0, 0.05, 0.2]),
    preempt=st.sampled_from([0.0, 0.1]),
    stale=st.sampled_from([0.0, 0.3]),
    slow=st.sampled_from([0.0, 0.5]),
    failing=st.sampled_from([0, 3, 7]),
    retries=st.integers(0, 2),
)
def test_whatever_happens_nothing_is_lost_and_nothing_is_done_twice(
    seed: int,
    groups: int,
    trials: int,
    workers: int,
    crash: float,
    preempt: float,
    stale: float,
    slow: float,
    failing: int,
    retries: int,
) -> None:
    def fail(node: NodeId, element: int, attempt: int) -> bool:
        return failing > 0 and (node * 31 + element * 17 + attempt) % failing == 0

    behaviour = Behaviour(crash=crash, preempt=preempt, stale=stale, slow=slow, fail=fail)
    model = ClusterModel(reference(groups, trials, retries), seed=seed, workers=workers, behaviour=behaviour)
    model.run()
    check_complete(model)
    if not crash:
        assert not model.lost


@MANY
@given(seed=st.integers(0, 2**32), size=st.integers(1, 300), data=st.data())
def test_poison_elements_are_lost_and_all_others_finish(seed: int, size: int, data: st.DataObject) -> None:
    poison = data.draw(st.frozensets(st.integers(0, size - 1), max_size=3))
    behaviour = Behaviour(poison=frozenset((NodeId(0), element) for element in poison))
    model = ClusterModel(single(size), seed=seed, behaviour=behaviour)
    model.run()
    check_complete(model)
    assert {element for _, element in model.lost} == poison
    # Closing in on a culprit costs a logarithm of the lease, not the lease.
    assert model.started <= 3 + 12 * len(poison)


@MANY
@given(seed=st.integers(0, 2**32))
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    behaviour = Behaviour(crash=0.1, preempt=0.1, stale=0.2, fail=lambda n, e, a: e % 5 == 0)
    one, two = (ClusterModel(reference(3, 8, retries=1), seed=seed, behaviour=behaviour) for _ in range(2))
    one.run()
    two.run()
    assert one.history == two.history


@MANY
@given(seed=st.integers(0, 2**32), groups=st.integers(1, 4), trials=st.integers(1, 8), data=st.data())
def test_a_restored_run_does_the_rest_and_only_the_rest(
    seed: int, groups: int, trials: int, data: st.DataObject
) -> None:
    graph = reference(groups, trials)
    done: dict[NodeId, set[int]] = {}
    # Whatever was durable: any loads, and any trials of groups whose load was.
    done[NodeId(0)] = data.draw(st.sets(st.integers(0, groups - 1)))
    possible = [g * trials + t for g in sorted(done[NodeId(0)]) for t in range(trials)]
    done[NodeId(1)] = set(data.draw(st.lists(st.sampled_from(possible)))) if possible else set()
    restored = {
        node: Restored(IntervalSet((e, e + 1) for e in elements), IntervalSet()) for node, elements in done.items()
    }
    model = ClusterModel(graph, seed=seed, restored=restored)
    model.run()
    for spec in graph:
        for element in range(spec.size):
            before = element in done.get(spec.id, set())
            again = model.accepted[spec.id, element] + model.evaluated[spec.id, element]
            assert again == (0 if before else 1)


def test_a_failed_element_fails_what_needs_it_and_nothing_else() -> None:
    behaviour = Behaviour(fail=lambda node, element, attempt: node == 0 and element == 1)
    model = ClusterModel(reference(3, 4), behaviour=behaviour)
    model.run()
    check_complete(model)
    assert model.failed_upstream == {
        **{(NodeId(1), trial): (NodeId(0), 1) for trial in range(4, 8)},
        (NodeId(3), 1): (NodeId(0), 1),
        (NodeId(4), 0): (NodeId(0), 1),
    }


def test_a_cross_product_starts_a_pair_when_both_its_elements_are_done() -> None:
    pairs = NodeSpec(NodeId(2), "pairs", 6, (Input(NodeId(0), 1, 3), Input(NodeId(1))))
    graph = Graph([NodeSpec(NodeId(0), "a", 2), NodeSpec(NodeId(1), "b", 3), pairs])
    failing = Behaviour(fail=lambda node, element, attempt: (node, element) == (1, 1))
    for seed in range(20):
        model = ClusterModel(graph, seed=seed, behaviour=failing)
        model.run()
        check_complete(model)
        # Pair i is (i // 3, i % 3): those with b's second element fail.
        assert model.failed_upstream == {(NodeId(2), 1): (NodeId(1), 1), (NodeId(2), 4): (NodeId(1), 1)}


@MANY
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 5),
    trials=st.integers(1, 8),
    crash=st.sampled_from([0.0, 0.1]),
    every=st.integers(1, 4),
    failing=st.sampled_from([0, 5]),
)
def test_what_an_earlier_run_has_done_is_not_run(
    seed: int, groups: int, trials: int, crash: float, every: int, failing: int
) -> None:
    graph = Graph([replace(spec, recalls=spec.id in (1, 3)) for spec in reference(groups, trials)])
    behaviour = Behaviour(
        crash=crash,
        preempt=0.1,
        stale=0.2,
        fail=lambda node, element, attempt: failing > 0 and (node + element) % failing == 0,
        known=lambda node, element: (element + seed) % every == 0,
    )
    model = ClusterModel(graph, seed=seed, behaviour=behaviour)
    model.run()
    check_complete(model)
    for at in model.recalled:
        assert not model.executed[at]
        assert at[0] in (1, 3)
    ready = set(model.executed) | set(model.recalled)
    assert all((at in model.recalled) == ((at[1] + seed) % every == 0) for at in ready if at[0] in (1, 3))


def revealed(trials: int) -> Graph:
    """list -> load (its length from the list) -> sweep -> best -> refit, and a reduction over it; plus a broadcast."""
    return Graph(
        [
            NodeSpec(NodeId(0), "list", 1),
            NodeSpec(NodeId(1), "settings", 1),
            NodeSpec(NodeId(2), "load", 0, (Input(NodeId(0), 0),), sized_later=True),
            NodeSpec(NodeId(3), "sweep", 0, (Input(NodeId(2), 1, trials), Input(NodeId(1), 0)), sized_later=True),
            NodeSpec(
                NodeId(4), "best", 0, (Input(NodeId(3), trials, needs_success=False),), shape=None, sized_later=True
            ),
            NodeSpec(NodeId(5), "refit", 0, (Input(NodeId(4)), Input(NodeId(2))), sized_later=True),
            NodeSpec(NodeId(6), "report", 1, (Input(NodeId(5), 0),)),
        ]
    )


def told_by_the_list(groups: int, trials: int) -> dict[NodeId, tuple[NodeId, int]]:
    sizes = {NodeId(2): groups, NodeId(3): groups * trials, NodeId(4): groups, NodeId(5): groups}
    return {node: (NodeId(0), size) for node, size in sizes.items()}


@MANY
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(0, 5),
    trials=st.integers(1, 6),
    crash=st.sampled_from([0.0, 0.1]),
    failing=st.sampled_from([0, 3, 7]),
    data=st.data(),
)
def test_lengths_that_only_a_result_reveals(
    seed: int, groups: int, trials: int, crash: float, failing: int, data: st.DataObject
) -> None:
    def fail(node: NodeId, element: int, attempt: int) -> bool:
        return failing > 0 and (node * 31 + element * 17 + seed) % failing == 0

    done = data.draw(st.sets(st.integers(0, groups - 1))) if groups else set()
    restored = {}
    if done:  # an earlier sitting got so far
        restored = {
            NodeId(0): Restored(IntervalSet([(0, 1)]), IntervalSet()),
            NodeId(2): Restored(IntervalSet((e, e + 1) for e in done), IntervalSet()),
        }
    behaviour = Behaviour(crash=crash, preempt=0.1, stale=0.2, fail=fail)
    later = told_by_the_list(groups, trials)
    model = ClusterModel(revealed(trials), seed=seed, behaviour=behaviour, restored=restored, later=later)
    model.run()
    for element in done:
        assert not model.accepted[NodeId(2), element]
        model.accepted[NodeId(2), element] = 1
    if done:
        model.accepted[NodeId(0), 0] += 1
    check_complete(model)
    if not crash and not groups and not model.unsizable:
        assert model.accepted[NodeId(6), 0] == 1  # a reduction over nothing runs


def test_a_list_that_failed_fails_what_needs_the_fan_out_over_it() -> None:
    model = ClusterModel(
        revealed(2),
        behaviour=Behaviour(fail=lambda node, element, attempt: node == 0),
        later=told_by_the_list(3, 2),
    )
    model.run()
    check_complete(model)
    assert model.failed_upstream == {(NodeId(6), 0): (NodeId(0), 0)}


def test_a_size_that_does_not_fit_is_refused() -> None:
    graph = Graph(
        [
            NodeSpec(NodeId(0), "list", 1),
            NodeSpec(NodeId(1), "a", 3),
            NodeSpec(NodeId(2), "b", 0, (Input(NodeId(0), 0), Input(NodeId(1))), sized_later=True),
        ]
    )
    with pytest.raises(GraphError, match="does not line up"):
        ClusterModel(graph, later={NodeId(2): (NodeId(0), 2)}).run()


def test_a_group_is_evaluated_even_if_all_its_trials_failed() -> None:
    behaviour = Behaviour(fail=lambda node, element, attempt: node == 1 and element < 4)
    model = ClusterModel(reference(2, 4), behaviour=behaviour)
    model.run()
    assert model.evaluated[NodeId(2), 0] == 1


def test_elements_are_retried_as_often_as_allowed_and_no_more() -> None:
    graph = single(20, retry=RetryPolicy(retries=2, base_s=0.1))
    model = ClusterModel(graph, behaviour=Behaviour(fail=lambda n, e, attempt: e == 3 or (e == 7 and attempt < 3)))
    model.run()
    assert model.attempts[NodeId(0), 3] == 3
    assert model.attempts[NodeId(0), 7] == 3
    assert model.attempts[NodeId(0), 8] == 1
    assert list(model.engine.nodes[0].failed) == [(3, 4)]


def test_preemptions_use_up_no_retries_and_lose_nobody() -> None:
    model = ClusterModel(single(60), seed=1, behaviour=Behaviour(preempt=0.6))
    model.run()
    check_complete(model)
    assert not model.lost
    assert set(model.attempts.values()) == {1}


def test_a_long_chain_needs_no_recursion() -> None:
    chain = [NodeSpec(NodeId(0), "n0", 1)]
    chain += [NodeSpec(NodeId(i), f"n{i}", 1, (Input(NodeId(i - 1)),)) for i in range(1, 3000)]
    engine = Engine(Graph(chain))
    engine.handle(Capacity(SHAPE, 1), 0.0)
    (grant,) = [c for c in engine.handle(WorkerJoined(WorkerId("w"), SHAPE), 0.0) if isinstance(c, Grant)]
    engine.handle(Reported(WorkerId("w"), grant.lease.id, 0, 1, 1, failed=(0,)), 0.1)
    assert engine.finished


def test_empty_nodes_finish_at_once() -> None:
    graph = Graph([NodeSpec(NodeId(0), "none", 0), NodeSpec(NodeId(1), "all", 1, (Input(NodeId(0), 0),), shape=None)])
    model = ClusterModel(graph)
    model.run(max_steps=2)
    assert model.evaluated[NodeId(1), 0] == 1


# ---- leases, step by step ----------------------------------------------------------------------------------


def test_leases_start_with_one_element_and_grow_with_what_is_measured() -> None:
    engine, grants = engine_with(100_000, workers=2)
    worker = WorkerId("w0")
    assert [g.lease.stop - g.lease.start for g in grants[worker]] == [1, 1]
    lease = grants[worker][0].lease
    commands = engine.handle(Reported(worker, lease.id, lease.start, lease.stop, lease.stop, busy_s=0.001), 0.01)
    sizes = [c.lease.stop - c.lease.start for c in commands if isinstance(c, Grant)]
    assert sizes == [500]  # half a second of work


def test_a_worker_stays_with_its_group_and_new_workers_begin_new_ones() -> None:
    engine, grants = engine_with(1000, workers=2, affinity_block=100)
    first = [(g.lease.start, g.lease.stop) for held in grants.values() for g in held]
    assert first == [(0, 1), (1, 2), (100, 101), (101, 102)]
    lease = grants[WorkerId("w1")][0].lease
    commands = engine.handle(Reported(WorkerId("w1"), lease.id, lease.start, lease.stop, lease.stop, busy_s=0.01), 0.01)
    (grant,) = [c for c in commands if isinstance(c, Grant)]
    assert grant.lease.start == 102


# ---- stragglers --------------------------------------------------------------------------------------------


def test_slow_workers_hold_nothing_up() -> None:
    duplicated = 0
    for seed in range(30):
        model = ClusterModel(single(60), seed=seed, workers=4, behaviour=Behaviour(slow=0.5))
        model.run()
        check_complete(model)
        duplicated += model.engine.duplicated
    assert duplicated > 10


def test_a_worker_that_hangs_behind_a_node_without_a_limit_is_found() -> None:
    graph = Graph([NodeSpec(NodeId(0), "a", 2), NodeSpec(NodeId(1), "b", 1, timeout_s=1.0)])
    engine = Engine(graph)
    engine.handle(Capacity(SHAPE, 1), 0.0)
    granted = [c.lease for c in engine.handle(WorkerJoined(WorkerId("w"), SHAPE), 0.0) if isinstance(c, Grant)]
    # While an element without a limit runs, silence says nothing; so what has one does not wait behind it.
    assert [lease.node for lease in granted] == [0, 0]
    commands = engine.handle(Reported(WorkerId("w"), granted[0].id, 0, 1, 1, busy_s=0.01), 0.1)
    assert not [c for c in commands if isinstance(c, Grant)]
    commands = engine.handle(Reported(WorkerId("w"), granted[1].id, 1, 2, 2, busy_s=0.01), 0.2)
    assert [c.lease.node for c in commands if isinstance(c, Grant)] == [1]
    assert [c for c in engine.handle(Tick(), 7.0) if isinstance(c, StopWorker)]


def test_time_is_asked_for_once_a_second() -> None:
    engine, _ = engine_with(2)
    assert engine.wakeup_s(0.0) == 0.0
    engine.handle(Tick(), 0.0)
    assert engine.wakeup_s(0.25) == 0.75
    assert engine.wakeup_s(3.0) == 0.0


def test_a_silent_worker_is_stopped_after_the_time_limit() -> None:
    engine, _ = engine_with(2, timeout_s=1.0)
    assert not [c for c in engine.handle(Tick(), 5.0) if isinstance(c, StopWorker)]
    assert [c for c in engine.handle(Tick(), 6.5) if isinstance(c, StopWorker)]
    assert not [c for c in engine.handle(Tick(), 7.0) if isinstance(c, StopWorker)]


def test_late_word_from_a_lost_worker_is_not_accepted() -> None:
    engine, grants = engine_with(10)
    lease = grants[WorkerId("w0")][0].lease
    engine.handle(WorkerLost(WorkerId("w0"), LossCause.CRASHED), 1.0)
    assert engine.handle(Reported(WorkerId("w0"), lease.id, lease.start, lease.stop, lease.stop), 1.1) == []


def test_a_contradiction_tells_its_story() -> None:
    engine, grants = engine_with(10)
    lease = grants[WorkerId("w0")][0].lease
    with pytest.raises(InternalError, match="WorkerJoined"):
        engine.handle(Reported(WorkerId("w0"), lease.id, lease.start, lease.stop + 5, lease.stop), 1.0)


def test_state_does_not_grow_with_elements() -> None:
    model = ClusterModel(single(1_000_000), workers=4)
    model.start()
    while not model.engine.finished:
        model.step()
        assert model.engine.nodes[0].done.pieces <= 16
        if model.events > 400:
            break


# ---- graphs ------------------------------------------------------------------------------------------------


def in_order(groups: int, trials: int) -> Graph:
    return Graph([NodeSpec(NodeId(0), "s", groups * trials, affinity_block=trials, in_order=True)])


@MANY
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 6),
    trials=st.integers(1, 12),
    workers=st.integers(1, 5),
    crash=st.sampled_from([0.0, 0.1]),
)
def test_blocks_in_order_are_granted_whole_while_there_are_enough(
    seed: int, groups: int, trials: int, workers: int, crash: float
) -> None:
    behaviour = Behaviour(crash=crash, preempt=crash, stale=0.2, fail=lambda n, e, attempt: e % 7 == 3)
    model = ClusterModel(in_order(groups, trials), seed=seed, workers=workers, behaviour=behaviour)
    model.run()
    check_complete(model)
    assert model.engine.nodes[0].whole_blocks == (groups >= min(workers, groups * trials))
    if groups >= workers and not crash:
        twins = model.engine.duplicated  # stragglers, begun a second time
        granted = [
            (lease.start, lease.stop) for lease in model.granted if not twins or lease.stop - lease.start == trials
        ]
        assert sorted(set(granted)) == [(group * trials, (group + 1) * trials) for group in range(groups)]


def test_elements_in_order_are_granted_a_few_at_a_time_where_workers_outnumber_blocks() -> None:
    model = ClusterModel(in_order(2, 100), workers=4)
    model.run()
    check_complete(model)
    assert max(lease.stop - lease.start for lease in model.granted) <= 200 // 16
    assert all(lease.start // 100 == (lease.stop - 1) // 100 for lease in model.granted)
    begun = [lease.start // 100 for lease in model.granted]
    assert set(begun[:2]) == {0, 1}  # both blocks come on


def test_blocks_are_granted_whole_however_few_there_are_if_the_node_says_so() -> None:
    node = NodeSpec(NodeId(0), "s", 200, affinity_block=100, in_order=True, whole_blocks=True)
    model = ClusterModel(Graph([node]), workers=4)
    model.run()
    check_complete(model)
    assert {(lease.start, lease.stop) for lease in model.granted if lease.stop - lease.start > 1} == {
        (0, 100),
        (100, 200),
    }


def test_what_is_in_order_has_blocks() -> None:
    with pytest.raises(GraphError, match="no blocks"):
        Graph([NodeSpec(NodeId(0), "s", 10, in_order=True)])
