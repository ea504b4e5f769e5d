"""What groups lend one another: the model of all groups, portfolios, and what a study makes of them."""

from __future__ import annotations

import json
import math
import pickle
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import distribution_to_json

from umbel.scheduler.search.axes import Axis, axes_of, points
from umbel.scheduler.search.group_model import WORST, Kernels, comparable, fit, improvements, learn_kernels
from umbel.scheduler.search.transfer import (
    CANDIDATES,
    GUIDED,
    MODEL,
    TEACHERS,
    Borrower,
    Lender,
    Portfolio,
    greedy,
    lent_score,
    make_lender,
    make_portfolio,
    teachers,
)

DISTRIBUTIONS: dict[str, Any] = {
    "x": optuna.distributions.FloatDistribution(0, 1),
    "y": optuna.distributions.FloatDistribution(1e-3, 1, log=True),
    "k": optuna.distributions.IntDistribution(1, 9, step=2),
    "deep": optuna.distributions.IntDistribution(1, 100, log=True),
    "q": optuna.distributions.FloatDistribution(0, 1, step=0.25),
    "kind": optuna.distributions.CategoricalDistribution(["a", 1, True, None]),
}
AXES = axes_of({name: json.loads(distribution_to_json(each)) for name, each in DISTRIBUTIONS.items()})


def configs(count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {axis.name: axis.value(place) for axis, place in zip(AXES, row, strict=True)}
        for row in random.random((count, 6))
    ]


def valley(place: float, params: dict[str, Any]) -> float:
    return float((params["x"] - place) ** 2 + (0.0 if params["kind"] == "a" else 0.3) + params["k"] / 40)


def lender(place: float, seed: int, count: int = 20) -> Lender:
    tried = configs(count, seed)
    names = [f"{seed}/{number}" for number in range(count)]
    made = make_lender(AXES, tried, [valley(place, each) for each in tried], names, [False] * count)
    assert made is not None
    return made


def portfolio(places: list[float]) -> Portfolio:
    lenders = [lender(place, number) for number, place in enumerate(places)]
    made = make_portfolio(AXES, lenders, learn_kernels(AXES, teachers(lenders)))
    assert made is not None
    return made


@given(st.sampled_from(AXES), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_values_are_of_the_distribution_and_where_they_are_said_to_be(axis: Axis, drawn: list[float]) -> None:
    places = axis.places(np.array(drawn))
    for number, said in zip(drawn, places.tolist(), strict=True):
        value = axis.value(number)
        assert DISTRIBUTIONS[axis.name]._contains(DISTRIBUTIONS[axis.name].to_internal_repr(value))
        assert math.isclose(axis.place({axis.name: value}), said, abs_tol=1e-9)


@given(st.sampled_from(AXES), st.floats(0, 1, exclude_max=True))
def test_numbers_stand_for_the_values_at_their_places(axis: Axis, drawn: float) -> None:
    value = axis.value(drawn)
    (number,) = axis.numbers(np.array([axis.place({axis.name: value})])).tolist()
    assert 0 <= number < 1
    again = axis.value(number)
    assert math.isclose(again, value, rel_tol=1e-9) if type(value) is float else again is value or again == value


def test_a_missing_param_has_no_place() -> None:
    assert math.isnan(AXES[0].place({}))
    assert AXES[5].place({"kind": True}) == 2.0
    assert AXES[5].place({"kind": 1}) == 1.0
    assert math.isnan(AXES[5].place({"kind": "other"}))


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=30, unique=True),
    st.floats(1e-2, 1e2),
    st.floats(-1e2, 1e2),
)
def test_outcomes_compare_whatever_their_scale(scores: list[float], unit: float, level: float) -> None:
    given_scores, every = np.array(scores), np.ones(len(scores), np.bool_)
    ours = comparable(given_scores, every)
    moved = comparable(given_scores * unit + level, every)
    if np.median(given_scores) - given_scores.min() > 1e-3:
        assert np.allclose(ours, moved, atol=1e-5)
        assert math.isclose(ours.min(), -1.0)


def test_failures_count_as_the_worst_and_what_was_lent_makes_no_scale() -> None:
    every = np.ones(4, np.bool_)
    assert comparable(np.array([1.0, math.inf, 2.0, 9.0]), every).tolist() == [-1.0, 2.0, 0.0, 2.0]
    assert comparable(np.full(4, math.inf), every).tolist() == [2.0] * 4
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, -7.0])
    assert comparable(scores, np.array([True] * 5 + [False])).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0, -5.0]


def test_outcomes_of_any_size_compare_and_a_plateau_has_a_scale() -> None:
    huge = comparable(np.array([1.0, 2.0, *[sys.float_info.max] * 4]), np.ones(6, np.bool_))
    assert np.isfinite(huge).all()
    assert huge[0] == huge.min() < huge[2]
    flat = comparable(np.array([0.0, 0.0, 0.0, 0.0, 5.0, 9.0, 100.0]), np.ones(7, np.bool_))
    assert flat.tolist() == [-1.0] * 4 + [4 / -9, 0.0, WORST]
    assert comparable(np.zeros(6), np.ones(6, np.bool_)).tolist() == [0.0] * 6


def test_whole_numbers_on_a_logarithmic_scale_are_not_tried_twice() -> None:
    axes = (Axis("k", 1, 3, log=True, whole=True), Axis("x"))
    tried = [{"k": 1, "x": number / 8} for number in range(8)]
    made = make_lender(axes, tried, [each["x"] for each in tried], list("abcdefgh"), [False] * 8)
    assert made is not None
    lent = make_portfolio(axes[:1], [replace(made, at=made.at[:, :1], opening=None)], Kernels.unlearned(axes[:1]))
    assert lent is not None
    borrower = Borrower(lent, 0, draws=True)
    for number in range(6):
        borrower.saw({"k": 1}, float(number), guided=False)
    chosen = []
    while (candidate := borrower.next()) is not None:
        chosen.append(candidate.params["k"])
        borrower.saw(candidate.params, 1.0, guided=True)
    assert sorted(chosen) == [2, 3]


def test_bounds_that_change_from_trial_to_trial_are_no_error() -> None:
    axis = Axis("y", 1e-3, 1.0, log=True)
    assert [axis.place({"y": value}) for value in (-0.5, 1e-3, 1.0, 7.0)] == [0.0, 0.0, 1.0, 1.0]


def test_a_long_study_is_no_burden() -> None:
    borrower = Borrower(portfolio([0.3, 0.5]), 0, draws=True)
    for params in configs(1500, 3):
        borrower.saw(params, valley(0.4, params), guided=False)
    candidate = borrower.next()
    assert candidate is not None
    assert valley(0.4, dict(candidate.params)) < 0.3


def test_too_few_outcomes_lend_nothing() -> None:
    assert make_lender(AXES, configs(6, 0), [1.0, 2.0, 3.0, 4.0, math.inf, math.inf], ["o"] * 6, [False] * 6) is None
    assert make_portfolio(AXES, [], Kernels.unlearned(AXES)) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_greedy_is_greedy(seed: int) -> None:
    expected = np.random.default_rng(seed).random((5, 8))
    order = greedy(expected, 8)
    assert sorted(order) == list(range(8))
    assert order[0] == int(expected.mean(0).argmin())
    for place in range(1, 8):
        best = expected[:, order[:place]].min(1)
        means = [float(np.minimum(best, expected[:, other]).mean()) for other in order[place:]]
        assert means[0] <= min(means) + 1e-5


def test_the_model_expects_what_groups_have_in_common() -> None:
    good, bad = {**configs(1, 0)[0], "x": 0.7, "kind": "a"}, {**configs(1, 0)[0], "x": 0.05, "kind": 1}
    expected: list[bool] = []
    for seed in range(20):
        groups = [lender(0.7, seed * 10 + number) for number in range(8)]
        model = fit(AXES, [(each.at, each.outcomes) for each in groups], learn_kernels(AXES, teachers(groups)))
        tried = configs(4, seed + 1)  # so few that the group could be another
        outcomes = comparable(np.array([valley(0.7, each) for each in tried]), np.ones(4, np.bool_))
        belief = model.belief(points(AXES, tried), outcomes, points(AXES, [good, bad]))
        expected.append(bool(belief.mean[0] < belief.mean[1]))
        assert (belief.deviation > 0).all()
        assert (improvements(belief) >= 0).all()
    assert sum(expected) >= 16


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_groups_teach_along_which_dimensions_outcomes_change(seed: int) -> None:
    """However different the groups are: where the valley is, each has for itself."""
    places = np.random.default_rng(seed).random(8)
    groups = [lender(place, seed * 10 + number, 40) for number, place in enumerate(places.tolist())]
    kernels = learn_kernels(AXES, teachers(groups))
    rates = dict(zip([axis.name for axis in AXES], kernels.alone.rates.tolist(), strict=True))
    assert rates["x"] > 4 * max(rates["y"], rates["deep"], rates["q"])


def test_few_groups_teach_and_few_trials_of_each() -> None:
    taught = teachers([lender(0.5, number, count) for number, count in enumerate([5, 40, 8, 31, 32])])
    assert [len(values) for _, values in taught] == [32, 8, 8, 32]
    assert len(teachers([lender(0.5, number, 8) for number in range(40)])) == TEACHERS
    assert teachers([]) == []


def test_outcomes_tell_which_groups_count() -> None:
    """Groups of two kinds: after a few outcomes it is known which kind this one is."""
    lent = portfolio([0.1] * 6 + [0.9] * 6)
    for place in (0.1, 0.9):
        borrower = Borrower(lent, 1, draws=False)
        chosen: list[float] = []
        for number in range(20):
            candidate = borrower.next()
            params = configs(1, 77 + number)[0] if candidate is None else dict(candidate.params)
            borrower.saw(params, valley(place, params), guided=candidate is not None)
            if candidate is not None and number:
                chosen.append(params["x"])
        assert len(chosen) > 8
        assert np.mean(np.abs(np.array(chosen) - place) < 0.35) > 0.8


def test_a_space_that_has_been_tried_through_is_left_to_the_sampler() -> None:
    axes = (Axis("kind", choices=("a", "b", "c")),)
    tried = [{"kind": kind} for kind in "abcab"]
    made = make_lender(axes, tried, [1.0, 2.0, 3.0, 1.0, 2.0], list("vwxyz"), [False] * 5)
    assert made is not None
    lent = make_portfolio(axes, [made], Kernels.unlearned(axes))
    assert lent is not None
    borrower = Borrower(lent, 0, draws=True)
    for number in range(6):
        borrower.saw(tried[number % 2], 1.0, guided=False)
    candidate = borrower.next()
    assert candidate is not None
    assert candidate.params == {"kind": "c"}
    borrower.saw(candidate.params, 3.0, guided=True)
    assert borrower.next() is None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_choices_follow_from_portfolio_and_outcomes_alone(seed: int, draws: bool) -> None:
    lent = portfolio([0.3, 0.5, 0.6])
    first = Borrower(lent, seed, draws=draws)
    told: list[tuple[dict[str, Any], float, bool]] = []
    for number in range(12):
        candidate = first.next()
        guided = candidate is not None
        params = dict(candidate.params) if candidate is not None else configs(1, seed + number)[0]
        again = Borrower(pickle.loads(pickle.dumps(lent)), seed, draws=draws)
        for before in told:
            again.saw(before[0], before[1], guided=before[2])
        assert again.next() == candidate
        told.append((params, valley(0.4, params), guided))
        first.saw(params, told[-1][1], guided=guided)
    assert [number for number, (_, _, guided) in enumerate(told) if guided] == [0, 6, 7, 9, 10]


def test_nothing_is_borrowed_twice_and_no_more_than_so_many() -> None:
    borrower = Borrower(portfolio([0.3, 0.5]), 0, draws=True)
    seen, origins = set(), []
    for number in range(2 * GUIDED + 10):
        candidate = borrower.next()
        params = configs(1, number)[0] if candidate is None else dict(candidate.params)
        borrower.saw(params, math.inf if number % 5 == 0 else valley(0.4, params), guided=candidate is not None)
        if candidate is not None:
            origins.append(candidate.origin)
            assert json.dumps(params) not in seen
            seen.add(json.dumps(params))
    assert len(origins) == GUIDED
    assert MODEL in origins
    assert origins[0] != MODEL
    without = Borrower(portfolio([0.3, 0.5]), 0, draws=False)
    for number in range(20):
        candidate = without.next()
        params = configs(1, number)[0] if candidate is None else dict(candidate.params)
        without.saw(params, valley(0.4, params), guided=candidate is not None)
    assert without.next() is None  # all that is lent was tried


def test_a_portfolio_is_small() -> None:
    lent = portfolio([number / 100 for number in range(100)])
    assert len(lent.candidates) <= CANDIDATES
    assert len(pickle.dumps(lent)) < 50_000


@pytest.mark.parametrize(
    ("values", "pruned_at", "direction", "score"),
    [
        ((2.0,), None, "minimize", 2.0),
        ((2.0,), None, "maximize", -2.0),
        ((2.0,), 3, "minimize", math.inf),
        (None, None, "maximize", math.inf),
        ((math.nan,), None, "minimize", math.inf),
    ],
)
def test_what_counts(values: tuple[float] | None, pruned_at: int | None, direction: str, score: float) -> None:
    assert lent_score(values, pruned_at, direction) == score
