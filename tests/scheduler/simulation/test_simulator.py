"""The simulator: true to its seed, true to arithmetic where that is known, and the engine sound under all it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.scheduler import histories
from umbel.scheduler.engine import Engine
from umbel.scheduler.errors import UsageError
from umbel.scheduler.graph import Graph, Input, NodeId, NodeSpec, RetryPolicy, ShapeId
from umbel.scheduler.node_state import NodeState
from umbel.scheduler.protocol import Command, Event
from umbel.scheduler.simulation.bounds import in_order_s, longest_chain_s, work_bound_s
from umbel.scheduler.simulation.measures import Level, Simulation, Timeline, Traffic
from umbel.scheduler.simulation.setup import (
    Autoscaler,
    Costs,
    Faults,
    MachineKind,
    Network,
    Polling,
    Scenario,
    lognormal_seconds,
    one_sweep,
)
from umbel.scheduler.simulation.simulator import simulate
from umbel.scheduler.transitions import TRANSITIONS, Transition

TRIALS = NodeId(0)


def same(seconds: float, count: int) -> Any:
    return np.full(count, seconds)


def small(**changes: Any) -> Scenario:
    """200 trials of 2 s in all kinds of trouble, on 4 machines of 2 CPUs."""
    options: dict[str, Any] = {
        "machines": (MachineKind({"CPU": 2.0}, initial=2, most=4, slow_share=0.3, slow_speed=0.2),),
        "faults": Faults(machine_losses_per_hour=30, crashes_per_hour=30, poison={TRIALS: [17]}),
        "network": Network(doubled=0.2, late=0.1),
        "autoscaler": Autoscaler(lag_s=5.0),
    }
    return one_sweep(200, mean_s=2.0, sigma=1.0, **{"seed": 5, **options, **changes})


# ---- histories ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(8))
def test_thousands_of_random_histories_end_as_they_must(part: int) -> None:
    duplicated = again = 0
    for seed in range(part * 250, (part + 1) * 250):
        outcome = histories.check(seed)
        duplicated += outcome.duplicated
        again += outcome.run_again
    assert duplicated > 10  # the histories are worth something
    assert again > 100


def test_everything_in_the_table_of_transitions_happens() -> None:
    seen: Counter[Transition] = Counter()
    for seed in range(2000):
        histories.check(seed, seen)
        if all(seen[transition] for transition in TRANSITIONS):
            return
    raise AssertionError(f"these never happen: {[t for t in TRANSITIONS if not seen[t]]}")


def test_a_history_that_goes_wrong_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back = NodeState.put_back

    def forgetful(self: NodeState, piece: Any) -> None:
        if piece.start != 3:
            put_back(self, piece)

    monkeypatch.setattr(NodeState, "put_back", forgetful)

    def many() -> None:
        for seed in range(300):
            histories.check(seed)

    with pytest.raises(AssertionError, match=r"history of seed \d+ goes wrong; replay it with: python -m tests"):
        many()


def test_a_replay_prints_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    histories.replay(7)
    printed = capsys.readouterr().out
    assert "Capacity(shape=0" in printed
    assert "-> Grant(" in printed


# ---- one seed, one history ---------------------------------------------------------------------------------


def test_one_seed_gives_one_history_in_every_process() -> None:
    here = [simulate(small(seed=seed)).digest for seed in (5, 5, 6)]
    assert here[0] == here[1] != here[2]
    code = (
        "from tests.scheduler.simulation.test_simulator import small; "
        "from umbel.scheduler.simulation.simulator import simulate; "
        "print(simulate(small(seed=5)).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stdout.strip()
    assert there == here[0]


def test_outcomes_are_equal_down_to_the_last_bit() -> None:
    assert simulate(small()) == simulate(small())


def test_watching_changes_nothing() -> None:
    seen: list[tuple[float, Event, list[Command]]] = []
    outcome = simulate(small(), lambda now, event, commands: seen.append((now, event, commands)))
    assert len(seen) == outcome.events
    assert [now for now, _, _ in seen] == sorted(now for now, _, _ in seen)
    assert outcome == simulate(small())


def test_durations_are_a_pure_function_of_seed_node_and_element() -> None:
    many = lognormal_seconds(1000, 30.0, 1.0, seed=3, node=2)
    assert np.array_equal(lognormal_seconds(10, 30.0, 1.0, seed=3, node=2), many[:10])
    assert not np.array_equal(lognormal_seconds(10, 30.0, 1.0, seed=4, node=2), many[:10])
    assert not np.array_equal(lognormal_seconds(10, 30.0, 1.0, seed=3, node=1), many[:10])
    assert np.array_equal(lognormal_seconds(5, 2.0, 0.0, seed=1), same(2.0, 5))
    assert lognormal_seconds(200_000, 30.0, 0.5, seed=1).mean() == pytest.approx(30.0, rel=0.01)


# ---- arithmetic --------------------------------------------------------------------------------------------


def quiet(graph: Graph, seconds: dict[NodeId, Any], **options: Any) -> Simulation:
    """A simulation in which nothing goes wrong and nothing costs time."""
    costs = Costs(element_s=0.0, lease_s=0.0, worker_start_s=0.0, answer_s=0.0, batch_s=0.0, row_s=0.0, evaluate_s=0.0)
    network = Network(delay_s=0.0, jitter_s=0.0)
    return simulate(Scenario(graph, seconds, **{"costs": costs, "network": network, **options}))


def test_equal_trials_take_as_long_as_arithmetic_says() -> None:
    outcome = quiet(Graph([NodeSpec(TRIALS, "trials", 64)]), {TRIALS: same(3.0, 64)})
    assert outcome.makespan_s == pytest.approx(64 * 3.0 / 8)
    assert outcome.lower_bound_s == pytest.approx(24.0)
    assert outcome.useful_core_s == outcome.busy_core_s == pytest.approx(192.0)
    assert outcome.accepted == 64
    assert outcome.run_again == 0
    assert outcome.lost_core_s == 0
    assert np.mean(outcome.utilisation) == pytest.approx(1.0)


def test_stages_overlap_and_the_longest_chain_bounds_them() -> None:
    # Four groups: load 1 s (the last 10 s), then 3 trials of 2 s each, then one reduction of 1 s.
    graph = Graph(
        [
            NodeSpec(NodeId(0), "load", 4),
            NodeSpec(NodeId(1), "trials", 12, (Input(NodeId(0), 1, 3),)),
            NodeSpec(NodeId(2), "best", 4, (Input(NodeId(1), 3, 1),), shape=None),
            NodeSpec(NodeId(3), "report", 1, (Input(NodeId(2), 0),)),
        ]
    )
    seconds = {NodeId(0): np.array([1.0, 1.0, 1.0, 10.0]), NodeId(1): same(2.0, 12), NodeId(3): same(1.0, 1)}
    assert longest_chain_s(graph, seconds) == pytest.approx(13.0)
    outcome = quiet(graph, seconds, machines=(MachineKind({"CPU": 4.0}),))
    assert outcome.chain_bound_s == pytest.approx(13.0)
    assert outcome.makespan_s == pytest.approx(13.0, abs=0.1)


def test_cross_products_wait_for_both() -> None:
    graph = Graph(
        [
            NodeSpec(NodeId(0), "a", 2),
            NodeSpec(NodeId(1), "b", 3),
            NodeSpec(NodeId(2), "pairs", 6, (Input(NodeId(0), 1, 3), Input(NodeId(1)))),
        ]
    )
    seconds = {NodeId(0): np.array([1.0, 5.0]), NodeId(1): np.array([2.0, 3.0, 4.0]), NodeId(2): np.arange(6.0)}
    assert longest_chain_s(graph, seconds) == pytest.approx(max(2, 1 + 3, 2 + 4, 5 + 3, 5 + 4, 5 + 5))


def test_work_is_bounded_by_what_the_machines_have_over_time() -> None:
    scenario = Scenario(Graph([NodeSpec(TRIALS, "trials", 10)]), {TRIALS: same(10.0, 10)})
    # 100 CPU-seconds: 2 CPUs for 10 s, none for 5 s, 4 CPUs from then on.
    available = [(0.0, {"CPU": 2.0}), (10.0, {"CPU": 0.0}), (15.0, {"CPU": 4.0})]
    assert work_bound_s(scenario, available) == pytest.approx(35.0)
    assert work_bound_s(scenario, available[:2]) == float("inf")


def test_no_simulation_beats_its_bounds() -> None:
    for seed in range(30):
        machines = (MachineKind({"CPU": 3.0}, initial=seed % 3, most=3, slow_share=0.5, slow_speed=0.5),)
        outcome = simulate(one_sweep(60, mean_s=1.0, sigma=1.0, seed=seed, machines=machines))
        assert outcome.makespan_s >= outcome.lower_bound_s
        assert outcome.useful_core_s <= outcome.busy_core_s <= outcome.available_core_s


def test_greedy_order_is_graham_s() -> None:
    assert in_order_s(np.array([3.0, 1.0, 1.0, 2.0]), 2) == 4.0


def test_timelines_keep_their_amounts_when_they_grow_coarser() -> None:
    line = Timeline()
    line.add(0.5, 3.5, 30.0)
    assert line.amounts(1.0, 4) == pytest.approx([5.0, 10.0, 10.0, 5.0])
    line.add(5000.0, 5000.0, 7.0)
    assert line.width_s == 16.0
    assert line.amounts(16.0, 1) == pytest.approx([30.0])
    assert sum(line.amounts(16.0, 400)) == pytest.approx(37.0)


def test_levels_and_traffic_are_integrated() -> None:
    level = Level()
    level.change(2, 1.0)
    level.change(1, 3.5)
    level.change(-3, 4.0)
    assert level.timeline(6.0).amounts(1.0, 5) == pytest.approx([0.0, 2.0, 2.0, 2.5, 0.0])
    assert level.total == pytest.approx(6.5)
    traffic = Traffic(quiet_bytes=10.0)
    traffic.add(1, 100.0, 0.2)
    traffic.add(2, 100.0, 0.7)
    traffic.add(1, 50.0, 2.5)
    traffic.spread(4, 0.0, 2.0)
    messages, size_bytes = traffic.amounts(1.0, 3)
    assert messages == pytest.approx([5.0, 2.0, 1.0])
    assert size_bytes == pytest.approx([220.0, 20.0, 50.0])


# ---- clusters ----------------------------------------------------------------------------------------------


def test_many_trials_come_close_to_the_lower_bound() -> None:
    outcome = simulate(one_sweep(20_000, machines=20, seed=1))
    assert outcome.ratio <= 1.03
    assert outcome.accepted == 20_000
    ideal_s = in_order_s(lognormal_seconds(20_000, 30.0, 0.3, seed=1), 160)
    assert outcome.makespan_s <= 1.01 * ideal_s + 1.0  # a second to start


def test_lost_machines_cost_what_was_in_hand_and_are_replaced() -> None:
    outcome = simulate(one_sweep(4000, machines=20, mean_s=10.0, machine_losses_per_hour=20.0, seed=3))
    assert outcome.machines_lost > 10
    assert outcome.machines_started > 30
    assert outcome.accepted == 4000
    assert outcome.workers_lost - 8 <= outcome.run_again <= outcome.workers_lost + 30
    assert outcome.lost_core_s < 1.5 * 10.0 * outcome.run_again
    assert outcome.ratio < 1.2


def test_stragglers_on_slow_machines_are_begun_twice_and_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = (MachineKind({"CPU": 8.0}, initial=20, most=20, slow_share=0.1, slow_speed=0.1),)
    scenario = one_sweep(8000, machines=machines, seed=1)
    helped = simulate(scenario)
    monkeypatch.setattr("umbel.scheduler.sharing.STRAGGLER_FACTOR", 1e9)
    alone = simulate(scenario)
    assert alone.duplicated == 0 < helped.duplicated
    assert helped.makespan_s < 0.95 * alone.makespan_s
    assert helped.ratio < 1.1
    assert helped.accepted == alone.accepted == 8000


def test_machines_come_from_none_to_the_cap_some_time_after_they_are_asked_for() -> None:
    machines = (MachineKind({"CPU": 4.0}, initial=0, most=5),)
    scaler = Autoscaler(lag_s=30.0, lag_jitter_s=0.0)
    outcome = simulate(one_sweep(2000, mean_s=5.0, sigma=0.0, machines=machines, autoscaler=scaler))
    assert outcome.machines_started == 5
    assert 30.0 < outcome.first_grant_s < 33.0
    assert outcome.utilisation[int(10 / outcome.bin_s)] == 0.0
    assert outcome.makespan_s < 1.1 * (2000 * 5.0 / 20 + 90)  # asked for in three steps


def test_cpu_and_gpu_machines_serve_one_graph() -> None:
    train, score = NodeId(0), NodeId(1)
    graph = Graph([NodeSpec(train, "train", 20, shape=ShapeId(1)), NodeSpec(score, "score", 20, (Input(train),))])
    outcome = quiet(
        graph,
        {train: same(4.0, 20), score: same(1.0, 20)},
        shapes={ShapeId(1): {"CPU": 1.0, "GPU": 1.0}},
        machines=(MachineKind({"CPU": 2.0}), MachineKind({"CPU": 1.0, "GPU": 2.0}, initial=0, most=4)),
        autoscaler=Autoscaler(lag_s=1.0, lag_jitter_s=0.0),
    )
    assert outcome.machines_started == 5
    assert outcome.lower_bound_s == pytest.approx(1.0 + 20 * 4.0 / 4, abs=5.0)
    assert outcome.makespan_s < outcome.lower_bound_s + 10


def test_polls_without_news_are_counted_as_if_they_were_simulated() -> None:
    for spacing_s in (0.002, 0.01):
        scenario = one_sweep(400, machines=10, mean_s=10.0, polling=Polling(spacing_s=spacing_s))
        counted = simulate(scenario)
        each = simulate(replace(scenario, polling=Polling(spacing_s=spacing_s, each=True)))
        assert each.events > 2 * counted.events
        assert counted.messages == pytest.approx(each.messages, rel=0.1)
        assert counted.driver_busy_s == pytest.approx(each.driver_busy_s, rel=0.1)
        assert counted.makespan_s == pytest.approx(each.makespan_s, rel=0.01)


def test_a_driver_that_is_flooded_for_a_while_catches_up_again() -> None:
    # All first trials end at about the same time: 800 answers of 4.8 ms in a second or two.
    scenario = one_sweep(4000, machines=100, mean_s=6.0, costs=Costs(answer_s=0.004), seed=2)
    counted = simulate(scenario)
    each = simulate(replace(scenario, polling=Polling(each=True)))
    assert counted.makespan_s == pytest.approx(each.makespan_s, rel=0.1)


def test_a_flooded_driver_makes_workers_wait() -> None:
    fast = simulate(one_sweep(4000, machines=20, mean_s=2.0, seed=1))
    for polling in (Polling(), Polling(each=True)):
        slow = simulate(one_sweep(4000, machines=20, mean_s=2.0, seed=1, costs=Costs(answer_s=0.05), polling=polling))
        # Each trial is an answer: with one every 50 ms the driver can't serve 160 slots of 2 s.
        assert slow.makespan_s > 0.95 * 4000 * 0.05 > 2 * fast.makespan_s
    assert slow.driver_busy_s > 0.9 * slow.makespan_s


def test_short_trials_are_reported_together() -> None:
    outcome = simulate(one_sweep(200_000, machines=2, mean_s=0.001))
    assert outcome.leases < 3000
    assert outcome.ratio < 1.15


def test_poison_is_lost_and_time_limits_hold() -> None:
    graph = Graph([NodeSpec(TRIALS, "trials", 50, timeout_s=5.0, retry=RetryPolicy(retries=1))])
    seconds = same(1.0, 50)
    seconds[20], seconds[30] = 60.0, 1e9
    faults = Faults(poison={TRIALS: [10]}, silent={TRIALS: [30]}, failing={TRIALS: {40: 1, 41: 2}})
    scenario = Scenario(graph, {TRIALS: seconds}, faults=faults)
    model = histories.PlainModel(scenario)
    simulate(scenario, model.observe)
    ends = [model.ended[TRIALS, element] for element in (10, 20, 30, 40, 41, 42)]
    assert ends == ["lost", "failed", "lost", "ok", "failed", "ok"]


def test_workers_that_answer_rarely_are_not_taken_to_hang() -> None:
    spec = NodeSpec(TRIALS, "trials", 4000, timeout_s=2.0)
    scenario = one_sweep(4000, machines=250, mean_s=1.0, sigma=0.0, polling=Polling(spacing_s=0.004))
    outcome = simulate(replace(scenario, graph=Graph([spec])))
    assert outcome.workers_lost == 0
    assert outcome.run_again == 0


# ---- what can't be simulated -------------------------------------------------------------------------------


def test_wrong_scenarios_are_refused() -> None:
    graph = Graph([NodeSpec(TRIALS, "trials", 3)])
    with pytest.raises(UsageError, match="do not fit it"):
        Scenario(graph, {TRIALS: same(1.0, 2)})
    with pytest.raises(UsageError, match="do not fit it"):
        Scenario(graph, {})
    with pytest.raises(UsageError, match="not a number"):
        Scenario(graph, {TRIALS: np.array([1.0, np.nan, 1.0])})
    with pytest.raises(UsageError, match="no machine can hold"):
        Scenario(graph, {TRIALS: same(1.0, 3)}, shapes={ShapeId(0): {"GPU": 1.0}})
    with pytest.raises(UsageError, match="no machine can hold"):
        Scenario(graph, {TRIALS: same(1.0, 3)}, machines=(MachineKind(initial=0, most=0),))


def test_a_simulation_that_can_t_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = Engine._grant

    def refuse(self: Engine, worker: Any, shape: Any, now: float) -> bool:
        return now < 5.0 and grant(self, worker, shape, now)

    monkeypatch.setattr(Engine, "_grant", refuse)
    with pytest.raises(UsageError, match="can't end"):
        simulate(one_sweep(1000, machines=1, mean_s=1.0, machine_losses_per_hour=0.0))


def test_nothing_to_do_takes_no_time() -> None:
    assert simulate(one_sweep(0, machines=1)).makespan_s == 0.0
