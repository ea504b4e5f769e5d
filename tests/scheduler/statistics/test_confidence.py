"""Comparisons that are looked at again and again: how often they are wrong, and how soon they are right.

The simulations look after every single observation. Their seeds are fixed; what is asserted of a rate is that three
standard errors of a binomial count above it are within 5 %, so that other seeds would pass as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.statistics.confidence import (
    Difference,
    boundary,
    chi_square_tail,
    e_bh,
    log_evidence,
    moments,
    paired,
    running_moments,
    shares_chi_square,
    shares_evidence,
    tuning,
    unpaired,
)

ALPHA = 0.05
LEAST = 200
RHO2 = tuning(ALPHA, 10 * LEAST)
Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

#: Losses as models have them: squared and absolute errors, heavy tails, rare mistakes.
LOSSES: dict[str, Draw] = {
    "absolute normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "squared normal": lambda rng, shape: rng.standard_normal(shape) ** 2,
    "lognormal": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "squared t5": lambda rng, shape: rng.standard_t(5, shape) ** 2,
    "two mistakes in a hundred": lambda rng, shape: (rng.random(shape) < 0.02).astype(np.float64),
}


def looks(difference: Difference) -> tuple[Array, Array]:
    """The bounds at every look; infinite where it is too early to look."""
    low, high = difference.interval(ALPHA, RHO2)
    early = difference.n < LEAST
    return np.where(early, -np.inf, low), np.where(early, np.inf, high)


def assert_at_most_alpha(wrong: npt.NDArray[np.bool_]) -> None:
    """That so many of these histories being wrong, at some look, speaks for a rate of 5 % at most."""
    rate = float(wrong.mean())
    assert rate + 3 * math.sqrt(max(rate, 1 / len(wrong)) / len(wrong)) <= ALPHA


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
def test_equal_arms_are_seldom_told_apart(loss: str, share: float) -> None:
    rng = np.random.default_rng(6)
    wrong = []
    for _ in range(4):
        losses = LOSSES[loss](rng, (250, 5_000))
        second = rng.random(losses.shape) < share
        low, high = looks(unpaired(running_moments(losses, ~second), running_moments(losses, second)))
        wrong.append(((low > 0) | (high < 0)).any(axis=1))
    assert_at_most_alpha(np.concatenate(wrong))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_arms_that_answer_the_same_requests_are_seldom_told_apart(loss: str) -> None:
    rng = np.random.default_rng(7)
    wrong = []
    for _ in range(4):
        shared = LOSSES[loss](rng, (250, 3_000))  # what makes a request hard makes it hard for both
        first, second = LOSSES[loss](rng, shared.shape), LOSSES[loss](rng, shared.shape)
        low, high = looks(paired(running_moments((second + shared) - (first + shared))))
        wrong.append(((low > 0) | (high < 0)).any(axis=1))
    assert_at_most_alpha(np.concatenate(wrong))


def test_a_plain_interval_would_be_wrong_far_more_often() -> None:
    rng = np.random.default_rng(8)
    found = paired(running_moments(rng.standard_normal((200, 3_000))))
    plain = np.abs(found.estimate) > 1.96 * found.standard_error
    assert (plain & (found.n >= LEAST)).any(axis=1).mean() > 0.2


@pytest.mark.parametrize(("share", "enough"), [(0.5, 2_500), (0.1, 6_000)])
def test_a_real_difference_is_found(share: float, enough: int) -> None:
    """A mean loss that is a quarter lower, of losses that vary as much as they weigh (squared normal errors)."""
    rng = np.random.default_rng(9)
    second = rng.random((200, enough)) < share
    losses = rng.standard_normal(second.shape) ** 2 * np.where(second, 0.75, 1.0)
    low, high = looks(unpaired(running_moments(losses, ~second), running_moments(losses, second)))
    assert (high < 0).any(axis=1).mean() >= 0.8
    assert not (low > 0).any()


def test_answering_the_same_requests_finds_it_sooner() -> None:
    rng = np.random.default_rng(10)
    truth = rng.standard_normal((200, 600))
    first, second = (truth + 1.0 * rng.standard_normal(truth.shape)), (truth + 0.85 * rng.standard_normal(truth.shape))
    low, high = looks(paired(running_moments((second - truth) ** 2 - (first - truth) ** 2)))
    assert (high < 0).any(axis=1).mean() >= 0.3
    assert not (low > 0).any()


@given(
    z=st.floats(0, 50),
    n=st.integers(2, 10**7),
    alpha=st.floats(0.001, 0.5),
    tightest_at=st.integers(1, 10**6),
)
def test_the_interval_and_the_evidence_agree(z: float, n: int, alpha: float, tightest_at: int) -> None:
    rho2 = tuning(alpha, tightest_at)
    bar = float(boundary(n, alpha, rho2))
    if abs(z - bar) > 1e-6:
        assert (float(log_evidence(z, n, rho2)) > -math.log(alpha)) == (z > bar)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_interval_is_tightest_where_asked_for(alpha: float) -> None:
    def width_at(tightest_at: float) -> float:
        return float(boundary(1_000, alpha, tuning(alpha, tightest_at)))

    best = min(np.geomspace(10, 100_000, 2_001), key=width_at)
    assert width_at(1_000) <= width_at(best) * 1.001


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=40), st.floats(-1e6, 1e6))
def test_running_moments_are_those_of_each_beginning(rows: list[tuple[float, bool]], far: float) -> None:
    values = np.array([value for value, _ in rows]) + far
    present = np.array([there for _, there in rows])
    found = running_moments(values, present)
    for end in range(1, len(rows) + 1):
        sample = values[:end][present[:end]]
        assert found.n[end - 1] == len(sample)
        if len(sample):
            assert found.mean[end - 1] == pytest.approx(sample.mean(), abs=1e-6)
        variance = sample.var(ddof=1) if len(sample) > 1 else 0.0
        assert found.variance[end - 1] == pytest.approx(variance, rel=1e-6, abs=1e-4)
    whole = moments(values[present])
    assert whole.n == found.n[-1]
    assert float(whole.mean) == pytest.approx(float(found.mean[-1]), abs=1e-6)


@given(st.lists(st.tuples(st.floats(-100, 100), st.sampled_from([1.0, 2.0, 10.0])), min_size=2, max_size=40))
def test_weighted_moments_are_those_of_a_ratio(rows: list[tuple[float, float]]) -> None:
    values, weights = np.array(rows).T
    found = moments(values, weights)
    mean = (weights * values).sum() / weights.sum()
    n = weights.sum() ** 2 / (weights**2).sum()
    error = (weights**2 * (values - mean) ** 2).sum() / weights.sum() ** 2
    assert float(found.n) == pytest.approx(n)
    assert float(found.mean) == pytest.approx(mean, abs=1e-9)
    assert float(found.variance) / n == pytest.approx(error * n / (n - 1), rel=1e-6, abs=1e-9)
    same = moments(values, np.full(len(values), 7.0))
    assert float(same.variance) == pytest.approx(values.var(ddof=1), abs=1e-6)


def test_nothing_and_one_observation_say_nothing() -> None:
    for values in ([], [1.0]):
        difference = unpaired(moments(values), moments([1.0, 2.0, 3.0]))
        low, high = difference.interval(ALPHA, RHO2)
        assert low == -math.inf
        assert high == math.inf
        assert difference.log_evidence(0.0, RHO2) == 0.0


@pytest.mark.parametrize("loss", [1.0, 0.1, 1e-8, 1e12])
def test_losses_without_variance(loss: float) -> None:
    """Their means differ by rounding, which is no difference; a real one is certain."""
    for first, second in ((300, 300), (1_000, 211), (333, 7_001)):
        same = unpaired(moments([loss] * first), moments([loss] * second))
        assert float(same.log_evidence(0.0, RHO2)) < 0.0
        low, high = same.interval(ALPHA, RHO2)
        assert low <= 0.0 <= high
        assert high - low < 1e-7 * loss
    other = unpaired(moments([loss] * 300), moments([2 * loss] * 300))
    assert float(other.log_evidence(0.0, RHO2)) > 1_000
    assert float(paired(moments([0.0] * 300)).log_evidence(0.0, RHO2)) < 0.0


def test_the_first_mistake_of_many_answers_decides_nothing() -> None:
    """As long as nobody errs, nothing is known; the figures of each beginning have no part in what comes later."""
    rng = np.random.default_rng(15)
    losses = (rng.random((300, 10_000)) < 0.001).astype(np.float64)
    second = rng.random(losses.shape) < 0.5
    low, high = looks(unpaired(running_moments(losses, ~second), running_moments(losses, second)))
    assert_at_most_alpha(np.asarray(((low > 0) | (high < 0)).any(axis=1)))


# ---- many at once ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 20), max_size=30), st.sampled_from([0.01, 0.05, 0.2]))
def test_e_bh_is_its_definition(log_e: list[float], alpha: float) -> None:
    believed = e_bh(log_e, alpha)
    count = len(log_e)
    sizes = [
        k for k in range(1, count + 1) if sum(value >= math.log(count / (k * alpha)) - 1e-12 for value in log_e) >= k
    ]
    largest = max(sizes, default=0)
    assert believed.sum() == largest
    if 0 < largest < count:
        assert min(np.array(log_e)[believed]) >= max(np.array(log_e)[~believed])


def test_of_many_equal_groups_hardly_any_is_decided() -> None:
    """100 groups without a difference, looked at once a hundred requests, thirty times over."""
    rng = np.random.default_rng(11)
    wrong, alone = 0, 0
    for _ in range(30):
        found = paired(running_moments(rng.exponential(size=(100, 1_500)) - rng.exponential(size=(100, 1_500))))
        evidence = np.where(found.n >= LEAST, found.log_evidence(0.0, RHO2), 0.0)[:, 99::100]
        wrong += any(e_bh(evidence[:, look], ALPHA).any() for look in range(evidence.shape[1]))
        alone += bool((evidence > -math.log(ALPHA)).any())
    assert wrong <= 3  # 1.5 are expected at most
    assert alone >= 10  # each group by itself, at 5 %


# ---- shares ----------------------------------------------------------------------------------------------------


def _evidence_at_every_look(rng: np.random.Generator, actual: float, share: float, shape: tuple[int, int]) -> Array:
    """`shares_evidence` after each request, by the chain rule, so that all looks cost one pass."""
    second = rng.random(shape) < actual
    seen = np.arange(shape[1])
    ones: Array = np.cumsum(second, axis=1, dtype=np.float64) - second
    count, prior = np.where(second, ones, seen - ones), np.where(second, share, 1 - share)
    steps = np.log(1_000 * prior + count) - np.log(1_000 + seen) - np.log(prior)
    return np.asarray(np.cumsum(steps, axis=1))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_right_shares_are_seldom_doubted(share: float) -> None:
    found = _evidence_at_every_look(np.random.default_rng(12), share, share, (1_000, 5_000))
    assert_at_most_alpha(np.asarray((found >= -math.log(ALPHA)).any(axis=1)))


@pytest.mark.parametrize(("share", "actual", "enough"), [(0.5, 0.55, 5_000), (0.1, 0.13, 5_000), (0.1, 0.05, 2_000)])
def test_wrong_shares_are_found(share: float, actual: float, enough: int) -> None:
    found = _evidence_at_every_look(np.random.default_rng(13), actual, share, (200, enough))
    assert (found >= -math.log(0.01)).any(axis=1).mean() >= 0.95


def test_evidence_on_shares_is_the_same_step_by_step() -> None:
    rng = np.random.default_rng(14)
    steps = _evidence_at_every_look(rng, 0.3, 0.1, (1, 500))[0]
    second = np.random.default_rng(14).random((1, 500))[0] < 0.3
    ones = int(second.sum())
    assert shares_evidence([500 - ones, ones], [0.9, 0.1]) == pytest.approx(steps[-1])
    assert shares_evidence([0, 0], [0.9, 0.1]) == 0.0


def test_chi_square() -> None:
    assert shares_chi_square([500, 500], [0.5, 0.5]) == 1.0
    assert shares_chi_square([0, 0], [0.5, 0.5]) == 1.0
    assert shares_chi_square([550, 450], [0.5, 0.5]) == pytest.approx(0.001565, abs=1e-6)
    for degrees in range(1, 9):
        # Against the density, integrated numerically (substituting x = y² smooths the pole at 0).
        y = np.linspace(0.0, math.sqrt(7.0), 200_001)
        density = 2 * y ** (degrees - 1) * np.exp(-y * y / 2) / (2 ** (degrees / 2) * math.gamma(degrees / 2))
        below = float(np.sum((density[1:] + density[:-1]) / 2) * (y[1] - y[0]))
        assert chi_square_tail(7.0, degrees) == pytest.approx(1 - below, abs=1e-6)
    assert chi_square_tail(0.0, 3) == 1.0
