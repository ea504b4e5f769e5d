"""The rules of pruning, against the reference."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scheduler.reference_pruning import asha_goes_on, asha_rung_steps, median_goes_on, replay_asha
from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.pruning import Asha, Hyperband, Median, Record, Rule
from umbel.scheduler.search.standings import Course, Standings, rank_among

VALUE = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, -1.0, math.inf, math.nan])
CURVES = st.lists(st.lists(VALUE, min_size=12, max_size=12), min_size=1, max_size=25)


def standings(rule: Rule, trials: int = 1000, **options: Any) -> Standings:
    return Standings(rule, options.pop("mode", "min"), trials, **options)


def run(course: Course, curve: list[float]) -> int:
    """The step at which a trial ends."""
    for step, value in enumerate(curve, 1):
        if course.report(step, value):
            return step
    return len(curve)


@settings(derandomize=True, deadline=None)
@given(CURVES, st.integers(2, 4), st.integers(1, 3), st.sampled_from(["min", "max"]))
def test_asha_stops_as_the_reference_does(curves: list[list[float]], factor: int, first: int, mode: str) -> None:
    known = standings(Asha(factor, first, 12), mode=mode)
    sign = 1 if mode == "min" else -1
    ended = [run(known.course(trial), [sign * value for value in curve]) for trial, curve in enumerate(curves)]
    assert ended == replay_asha(curves, factor, first, 12)


@settings(derandomize=True, deadline=None)
@given(CURVES, st.integers(1, 6))
def test_median_stops_as_the_reference_does(curves: list[list[float]], at_least: int) -> None:
    known = standings(Median(min_trials=at_least))
    at: dict[int, list[float]] = {}
    for trial, curve in enumerate(curves):
        course = known.course(trial)
        for step, value in enumerate(curve, 1):
            goes_on = median_goes_on(curve[:step], at.setdefault(step, []), at_least)
            at[step].append(value)
            assert course.report(step, value) is not goes_on
            if not goes_on:
                break


@settings(derandomize=True, deadline=None)
@given(CURVES, st.data())
def test_what_others_reported_counts_in_any_order_and_once(curves: list[list[float]], data: st.DataObject) -> None:
    """A board that learns records of others in any order, some of them twice, judges as one that saw them itself."""
    records: list[Record] = []
    here = standings(Asha(3, 1, 12), on_record=records.append)
    for trial, curve in enumerate(curves):
        run(here.course(trial), curve)
    elsewhere = standings(Asha(3, 1, 12))
    again = data.draw(st.lists(st.sampled_from(records), max_size=5))
    elsewhere.learn(data.draw(st.permutations([*records, *again])))
    probe = data.draw(st.lists(VALUE, min_size=12, max_size=12))
    assert run(here.course(999), probe) == run(elsewhere.course(999), probe)


def test_rungs_are_powers() -> None:
    rule = Asha(3, 2, 60)
    reached = [rule.rung(0, step) for step in range(70)]
    first = [step for step, rung in enumerate(reached) if step and rung != reached[step - 1]]
    assert first == asha_rung_steps(3, 2, 60) == [2, 6, 18, 54]
    assert reached[1] is None


def test_a_trial_is_looked_at_once_a_rung_and_at_the_highest_that_it_reached() -> None:
    known = standings(Asha(2, 1))
    known.learn([Record(trial, rung, 2**rung, 0.0) for trial in range(10) for rung in range(5)])
    course = known.course(99)
    assert course.report(9, 1.0)  # resumed at step 9: compared at the rung of step 8 only
    assert [(mark.rung, mark.step, mark.of, mark.cutoff) for mark in course.marks] == [(3, 9, 10, 0.0)]
    assert not course.report(10, 5.0)


def test_a_trial_that_is_tried_again_counts_once() -> None:
    known = standings(Asha(2, 1, 8))
    run(known.course(0), [1.0] * 8)
    run(known.course(0), [2.0] * 8)
    course = known.course(1)
    assert not course.report(1, 1.5)  # better than the second attempt; the first is forgotten
    assert course.marks[0].of == 1


def test_groups_do_not_compete() -> None:
    known = standings(Asha(2, 1, 8), trials=2)
    run(known.course(0), [0.0] * 8)
    assert run(known.course(2), [1.0] * 8) == 8
    assert run(known.course(1), [1.0] * 8) == 1


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), VALUE), min_size=1, max_size=40), st.integers(2, 4))
def test_across_groups_ranks_are_compared(reports: list[tuple[int, float]], factor: int) -> None:
    known = standings(Asha(factor, 1, 2), trials=100, across=True)
    values: dict[int, list[float]] = {}
    ranks: list[float] = []
    for number, (group, value) in enumerate(reports):
        course = known.course(group * 100 + number % 100)
        stopped = course.report(1, value)
        score = math.inf if math.isnan(value) else value
        mine = values.setdefault(group, [])
        better, equal = sum(other < score for other in mine), sum(other == score for other in mine)
        rank = (better + equal / 2 + 0.5) / (len(mine) + 1)
        assert course.marks[0].rank == pytest.approx(rank) == rank_among(score, sorted(mine))
        assert stopped is (math.isnan(value) or (better > 0 and not asha_goes_on(rank, ranks, factor)))
        mine.append(score)
        ranks.append(rank)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), VALUE), min_size=1, max_size=20), st.randoms(), st.integers(2, 4))
def test_across_groups_trials_that_report_at_once_are_judged_whatever_their_order(
    reports: list[tuple[int, float]], order: Any, factor: int
) -> None:
    stopped: list[set[int]] = []
    for shuffled in (False, True):
        known = standings(Asha(factor, 1, 2), trials=100, across=True)
        courses = {group * 100 + number: value for number, (group, value) in enumerate(reports)}
        made = {trial: known.course(trial) for trial in courses}
        turns = list(courses)
        if shuffled:
            order.shuffle(turns)
        for trial in turns:
            made[trial].announce(1, courses[trial])
        for trial in turns:
            made[trial].announce_rank(1, courses[trial])
        stopped.append({trial for trial in turns if made[trial].report(1, courses[trial])})
        assert all(course.marks[0].of == len(reports) - 1 for course in made.values())
    assert stopped[0] == stopped[1]


def test_hyperband_is_asha_in_all_brackets() -> None:
    rule = Hyperband(3, 1, 81).asha()
    assert rule == Asha(3, 1, 81, brackets=5)
    firsts = {
        rule.bracket(p): min(s for s in range(1, 82) if rule.rung(p, s) is not None)
        for p in range(200)
        if rule.bracket(p) < 4
    }
    assert firsts == {0: 1, 1: 3, 2: 9, 3: 27}
    assert all(rule.rung(p, 81) is None for p in range(200) if rule.bracket(p) == 4)
    sizes = [sum(rule.bracket(p) == bracket for p in range(1000)) for bracket in range(5)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 500
    assert sizes[-1] > 0


def test_brackets_do_not_compete() -> None:
    rule = Asha(2, 1, 16, brackets=2)
    a = next(p for p in range(50) if rule.bracket(p) == 0)
    b = next(p for p in range(50) if rule.bracket(p) == 1)
    known = standings(rule)
    run(known.course(a), [0.0] * 16)
    assert run(known.course(b), [1.0] * 16) == 16


def test_median_looks_ever_more_seldom() -> None:
    looks = [Median(warmup=0).rung(0, step) for step in range(1000)]
    assert looks[:32] == list(range(32))
    assert [rung for rung, _ in itertools.groupby(looks)] == list(range(max(filter(None, looks)) + 1))  # none left out
    assert max(filter(None, looks)) < 16 * 7
    assert [Median(warmup=5, interval=10).rung(0, step) for step in (4, 5, 14, 15, 25)] == [None, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Asha(reduction_factor=1), "reduction_factor"),
        (lambda: Asha(reduction_factor=math.nan), "reduction_factor"),
        (lambda: Asha(min_resource=0), "min_resource"),
        (lambda: Asha(min_resource=1.5), "min_resource"),  # type: ignore[arg-type]
        (lambda: Asha(min_resource=9, max_resource=9), "max_resource"),
        (lambda: Asha(max_resource=9, brackets=4), "brackets"),
        (lambda: Hyperband(max_resource=True), "max_resource"),
        (lambda: Median(min_trials=0), "min_trials"),
        (lambda: Median(interval=0), "interval"),
        (lambda: Median(warmup=-1), "warmup"),
    ],
)
def test_what_is_out_of_range_is_named(make: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make()
