"""Exact tests, against counting."""

from __future__ import annotations

import itertools
from math import comb, isclose

import pytest

from umbel.runtime.answers.statistics import fisher_exact, information_gain, sign_test


def test_sign_test_by_counting() -> None:
    for wins, losses in itertools.product(range(7), range(7)):
        n, uneven = wins + losses, abs(wins - losses)
        counted = sum(comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= uneven) / 2**n
        assert isclose(sign_test(wins, losses), min(1.0, counted))


def test_sign_test_of_many() -> None:
    assert sign_test(0, 0) == 1.0
    assert isclose(sign_test(5000, 5000), 1.0)
    assert 0 < sign_test(5200, 4800) < 1e-4
    assert sign_test(3000, 0) == pytest.approx(0.0)


@pytest.mark.parametrize("total", [1, 4, 7])
def test_fisher_exact_by_counting(total: int) -> None:
    for hits, inside in itertools.product(range(total + 1), range(total + 1)):
        chosen = list(itertools.combinations(range(total), hits))
        for at_least in range(max(0, hits + inside - total), min(hits, inside) + 1):
            counted = sum(sum(item < inside for item in hit) >= at_least for hit in chosen) / len(chosen)
            assert isclose(fisher_exact(at_least, inside, hits, total), counted)


def test_information_gain() -> None:
    assert information_gain(5, 5, 5, 10) == 1.0
    assert information_gain(2, 4, 5, 10) == 0.0
    assert information_gain(0, 0, 3, 6) == 0.0
    assert 0 < information_gain(4, 5, 5, 10) < 1
