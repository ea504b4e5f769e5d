"""Distances of values from a description of others, against their definitions."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.statistics.distributions import (
    MAX_CATEGORIES,
    OTHERS,
    Categories,
    chi_square_quantile,
    describe_categories,
    describe_numbers,
    distance_of_categories,
    distance_of_numbers,
    kolmogorov_tail,
    psi,
)

NUMBERS = st.lists(st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=300)


def exact_ks(first: list[float], second: list[float]) -> float:
    """The largest difference of the two distribution functions, at every value."""
    points = sorted({*first, *second})
    shares = [[sum(value <= point for value in each) / len(each) for point in points] for each in (first, second)]
    return float(max(abs(a - b) for a, b in zip(*shares, strict=True)))


@given(NUMBERS)
def test_a_description_says_what_the_values_are(values: list[float]) -> None:
    found = describe_numbers([*values, math.nan])
    assert (found.count, found.minimum, found.maximum) == (len(values), min(values), max(values))
    assert found.missing == pytest.approx(1 / (len(values) + 1))
    assert found.mean == pytest.approx(float(np.mean(values)), abs=1e-6)
    assert set(found.deciles) <= set(found.values) <= set(values)
    for value, at_most, below in zip(found.values, found.at_most, found.below, strict=True):
        assert at_most == pytest.approx(sum(each <= value for each in values) / len(values))
        assert below == pytest.approx(sum(each < value for each in values) / len(values))


@given(NUMBERS, NUMBERS)
def test_ks_is_the_exact_distance_up_to_a_hundredth(before: list[float], now: list[float]) -> None:
    found = distance_of_numbers(describe_numbers(before), now)
    assert found.ks is not None
    exact = exact_ks(before, now)
    assert exact - 0.0101 - 1 / len(before) <= found.ks <= exact + 1e-9


@given(NUMBERS)
def test_nothing_is_far_from_itself(values: list[float]) -> None:
    found = distance_of_numbers(describe_numbers(values), values)
    assert found.psi == pytest.approx(0.0, abs=1e-9)
    assert found.ks == pytest.approx(0.0, abs=1e-9)
    assert found.ks_p_value == 1.0


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(sum), st.data())
def test_psi_is_symmetric_and_never_negative(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, 50), min_size=len(first), max_size=len(first)).filter(sum))
    assert psi(first, second) >= 0.0
    assert psi(first, second) == pytest.approx(psi(second, first))
    assert psi(first, first) == pytest.approx(0.0)


def test_psi_of_numbers_is_that_of_their_tenths() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.standard_normal(5_000), rng.standard_normal(3_000) + 0.5
    edges = np.quantile(before, np.linspace(0, 1, 101)[10:100:10], method="inverted_cdf")
    counts = [np.bincount(np.searchsorted(edges, each, side="left"), minlength=10) for each in (before, now)]
    found = distance_of_numbers(describe_numbers(before), now)
    assert found.psi == pytest.approx(psi(counts[0].tolist(), counts[1].tolist()))
    assert found.psi > 0.2
    assert found.ks == pytest.approx(0.197, abs=0.03)  # 2Φ(0.25) - 1


def test_no_change_stays_below_the_bars_and_little_data_raises_them() -> None:
    rng = np.random.default_rng(1)
    before = describe_numbers(rng.lognormal(size=10_000))
    found = [distance_of_numbers(before, rng.lognormal(size=100)) for _ in range(500)]
    assert np.mean([each.psi > each.psi_noise for each in found]) <= 0.01
    assert np.mean([each.psi > 0.05 for each in found]) > 0.5  # a bar of 0.05 would find drift in most of them
    p_values = [each.ks_p_value or 0.0 for each in found]
    assert np.mean([p < 0.05 for p in p_values]) <= 0.08


def test_missing_values_are_a_part_of_their_own() -> None:
    values = np.arange(1_000.0)
    with_gaps = np.where(np.arange(1_000) % 3 == 0, np.nan, values)
    found = distance_of_numbers(describe_numbers(values), with_gaps)
    assert found.psi > 0.2
    assert found.ks is not None
    assert found.ks < 0.01
    assert distance_of_numbers(describe_numbers(with_gaps), with_gaps).psi == pytest.approx(0.0, abs=1e-3)


def test_nothing_at_all() -> None:
    nothing, some = describe_numbers([]), describe_numbers([1.0])
    assert (nothing.count, nothing.values) == (0, ())
    assert distance_of_numbers(some, []).ks is None
    assert distance_of_numbers(nothing, [1.0]).ks is None
    assert distance_of_numbers(describe_numbers([math.nan]), [math.nan] * 3).psi == 0.0
    assert distance_of_categories(describe_categories([]), ["a"]).psi == math.inf
    constant = distance_of_numbers(describe_numbers([2.0] * 50), [2.0] * 50)
    assert (constant.psi, constant.ks) == (0.0, 0.0)
    moved = distance_of_numbers(describe_numbers([2.0] * 50), [3.0] * 50)
    assert moved.ks == 1.0


@given(st.lists(st.one_of(st.none(), st.text(max_size=2)), max_size=60))
def test_categories_are_counted(values: list[str | None]) -> None:
    found = describe_categories(values)
    assert found.count == sum(value is not None for value in values)
    assert found.counts == dict(Counter(value for value in values if value is not None))
    if found.count:
        assert distance_of_categories(found, values).psi == pytest.approx(0.0, abs=1e-9)


def test_rare_and_new_categories_count_together() -> None:
    many = [str(i) for i in range(MAX_CATEGORIES + 50)] + ["0"] * 50
    found = describe_categories(many)
    assert len(found.counts) == MAX_CATEGORIES + 1
    assert found.counts[OTHERS] == 50
    before = Categories(1_000, 0, {"a": 500, "b": 500})
    assert distance_of_categories(before, ["a", "b"] * 500).psi == pytest.approx(0.0)
    assert distance_of_categories(before, ["a", "b", "c"] * 300).psi > 0.2


def test_tails() -> None:
    assert kolmogorov_tail(0.0) == 1.0
    assert kolmogorov_tail(1.6276) == pytest.approx(0.01, abs=1e-4)
    assert kolmogorov_tail(9.0) == pytest.approx(0.0, abs=1e-30)
    for probability, degrees, quantile in ((0.999, 9, 27.877), (0.95, 1, 3.841), (0.999, 100, 149.449)):
        assert chi_square_quantile(probability, degrees) == pytest.approx(quantile, rel=0.03)


def test_scipy_agrees() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    before, now = rng.standard_normal(2_000), rng.standard_normal(1_000) + 0.1
    found = distance_of_numbers(describe_numbers(before), now)
    expected = stats.ks_2samp(before, now, method="asymp")
    assert found.ks == pytest.approx(expected.statistic, abs=0.01)
    assert kolmogorov_tail(1.2) == pytest.approx(stats.kstwobign.sf(1.2))
