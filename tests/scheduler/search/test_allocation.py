"""One budget over many groups: spent to the last trial, never beyond, each group at least its floor."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.scheduler.search.allocation import Allocation, slope


class Runner:
    """Runs what is released, and holds the allocation to its promises."""

    def __init__(self, allocation: Allocation, trials: int, seed: int) -> None:
        self.allocation, self.trials = allocation, trials
        self.chance = np.random.default_rng(seed)
        self.running: deque[int] = deque()
        self.ended: list[int] = []
        self.closed: set[int] = set()

    def step(self, workers: int, *, at_once: int = 1) -> bool:
        for start, stop in self.allocation.release(workers):
            assert start < stop
            assert start // self.trials == (stop - 1) // self.trials
            self.running.extend(range(start, stop))
        for start, stop in self.allocation.rest():
            assert not self.closed & set(range(start, stop))
            self.closed |= set(range(start, stop))
        busy = bool(self.running)
        for _ in range(min(at_once, len(self.running))):
            self.running.rotate(int(self.chance.integers(len(self.running))))
            trial = self.running.popleft()
            self.ended.append(trial)
            score = math.inf if self.chance.random() < 0.1 else float(self.chance.exponential())
            self.allocation.ended(trial, score)
        return busy

    def counts(self, groups: int) -> list[int]:
        return [sum(trial // self.trials == group for trial in self.ended) for group in range(groups)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_it_is_spent_exactly_and_each_has_its_floor(data: st.DataObject) -> None:
    groups, trials = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 30))
    floor = data.draw(st.integers(1, trials))
    budget = data.draw(st.integers(groups * floor, groups * trials))
    runner = Runner(Allocation(trials, budget, floor, groups), trials, data.draw(st.integers(0, 1000)))
    waiting = data.draw(st.permutations(range(groups)))
    workers = data.draw(st.integers(1, 4))
    while waiting:  # groups become ready one after another
        group = waiting.pop()
        runner.allocation.ready(group * trials, (group + 1) * trials)
        for _ in range(data.draw(st.integers(0, 5))):
            runner.step(workers, at_once=3)
    while runner.step(workers):
        assert len(runner.ended) + len(runner.running) <= budget
    runner.step(workers)
    assert len(runner.ended) == len(set(runner.ended)) == budget == runner.allocation.spent
    assert min(runner.counts(groups)) >= floor
    assert runner.closed == set(range(groups * trials)) - set(runner.ended)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_what_was_spent_before_counts_and_a_group_without_data_costs_nothing(data: st.DataObject) -> None:
    groups, trials, floor = 4, 20, 3
    budget = data.draw(st.integers(groups * floor, 3 * trials))
    first = Runner(Allocation(trials, budget, floor, groups), trials, 1)
    first.allocation.ready(0, groups * trials)
    for _ in range(data.draw(st.integers(0, budget))):
        first.step(1)
    done = set(first.ended)
    raised = budget + data.draw(st.integers(0, 10))
    again = Runner(Allocation(trials, raised, floor, groups), trials, 2)
    for trial in first.ended:
        again.allocation.ended(trial, 1.0 + trial)
    for trial in range(groups * trials):
        if trial not in done and trial // trials != 3:
            again.allocation.ready(trial, trial + 1)
    again.allocation.dropped(3 * trials, 4 * trials)
    while again.step(2):
        pass
    again.step(2)
    most = sum(1 for trial in range(3 * trials) if trial not in done)
    assert len(again.ended) == min(max(0, min(raised, groups * trials) - len(done)), most)
    assert not done & set(again.ended)


def test_what_is_begun_is_ended_first() -> None:
    whole = Runner(Allocation(100, 90, 6, 4), 100, 3)
    scores = {trial: float((trial * 7919) % 101) for trial in range(400)}

    def run(runner: Runner, upto: int) -> list[int]:
        order: list[int] = []
        while True:
            for start, stop in runner.allocation.release(1):
                runner.running.extend(range(start, stop))
            if not runner.running or len(order) == upto:
                return order
            trial = runner.running.popleft()
            runner.allocation.ended(trial, scores[trial])
            order.append(trial)

    whole.allocation.ready(0, 400)
    order = run(whole, 90)
    for cut in (3, 24, 27, 40, 61, 89):
        resumed = Runner(Allocation(100, 90, 6, 4), 100, 3)
        for trial in order[:cut]:
            resumed.allocation.ended(trial, scores[trial])
        for trial in sorted(set(range(400)) - set(order[:cut])):
            resumed.allocation.ready(trial, trial + 1)
        assert set(run(resumed, 90)) == set(order[cut:])


def test_more_goes_where_more_is_to_gain() -> None:
    allocation = Allocation(1000, 600, 10, 3)
    allocation.ready(0, 3000)
    chance = np.random.default_rng(0)
    # Where many are near the best, little is to gain; where the good end is long, more is.
    draw = [lambda: 1.0, lambda: float(1 + chance.random() ** 0.2), lambda: float(-chance.exponential())]
    counts = [0, 0, 0]
    while released := allocation.release(1):
        for start, stop in released:
            for trial in range(start, stop):
                allocation.ended(trial, draw[trial // 1000]())
                counts[trial // 1000] += 1
    assert sum(counts) == 600
    assert counts[2] > counts[0]
    assert min(counts) >= 10


def test_the_scale_of_the_good_end_is_free_of_units() -> None:
    scores = np.random.default_rng(1).normal(size=50)
    assert math.isclose(slope(scores.tolist()), slope((scores * 1e3 + 7).tolist()), rel_tol=1e-9)
    assert slope([1.0] * 10) == 0.0
    assert slope([1.0, math.inf]) == 1.0
