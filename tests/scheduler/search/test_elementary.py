"""The reproducible functions against the C library's, and the property that makes them worth having."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from umbel.scheduler.search.elementary import Floats, exp, log, normal_quantile


def _grid(low: float, high: float) -> Floats:
    return np.random.default_rng(7).uniform(low, high, 5000)


def _units_apart(ours: Floats, true: list[float]) -> float:
    expected = np.array(true)
    return float(np.max(np.abs(ours - expected) / np.spacing(np.abs(expected))))


def test_exp_is_within_two_units_in_the_last_place() -> None:
    x = np.concatenate([_grid(-700, 709), _grid(-1, 1), np.array([0.0, 1.0, -745.0])])
    assert _units_apart(exp(x), [math.exp(value) for value in x]) <= 2


def test_log_is_within_four_units_in_the_last_place() -> None:
    x = np.concatenate([2.0 ** _grid(-1000, 1000), _grid(0.5, 2), np.array([5e-324, 1e-310, 2.0, 1.79e308])])
    assert _units_apart(log(x), [math.log(value) for value in x]) <= 4
    assert log(np.array([1.0])).tolist() == [0.0]


def test_the_quantile_is_the_published_algorithm_far_into_the_tails() -> None:
    tails = 2.0 ** _grid(-53, -1)
    u = np.concatenate([_grid(0, 1), tails, 1 - tails, np.array([2.0**-53, 0.5, 1 - 2.0**-53, 0.075, 0.925])])
    u = u[(u > 0) & (u < 1)]
    expected = np.array([NormalDist().inv_cdf(value) for value in u])
    np.testing.assert_allclose(normal_quantile(u), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("function", [exp, log, normal_quantile])
def test_a_value_does_not_depend_on_its_neighbours_or_layout(function: object) -> None:
    """What NumPy's vectorised exp does not promise: the same bits in any slice, stride and position."""
    assert callable(function)
    u = _grid(0.0001, 0.9999)
    whole = function(u)
    assert np.array_equal(whole[3:17], function(u[3:17]))
    assert np.array_equal(whole[::7], function(u[::7]))
    assert [function(u[i : i + 1])[0] for i in range(20)] == whole[:20].tolist()


def test_pinned_bits() -> None:
    """The same on every machine: a change here changes the identity of every trial ever stored."""
    assert [value.hex() for value in exp(np.array([-9.5, 0.1, 3.7])).tolist()] == EXP
    assert [value.hex() for value in log(np.array([1e-4, 0.7, 33.0])).tolist()] == LOG
    assert [value.hex() for value in normal_quantile(np.array([1e-15, 0.01, 0.6])).tolist()] == QUANTILE


EXP: list[str] = ["0x1.39f38a5498fe2p-14", "0x1.1aec7b35a00d4p+0", "0x1.4394144eeec81p+5"]
LOG: list[str] = ["-0x1.26bb1bbb55516p+3", "-0x1.6d3c324e13f4fp-2", "0x1.bf8d8f4d5b8d1p+1"]
QUANTILE: list[str] = ["-0x1.fc3f007789667p+2", "-0x1.29c5c4630ff0ep+1", "0x1.036d6c4a04b5ap-2"]
