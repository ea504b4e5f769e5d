"""How fast a run goes, how long it will take, and how that is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.runtime.driver.progress import (
    RateMeter,
    format_count,
    format_duration,
)


def _meter(rate: Callable[[float], float], until: float, step: float = 0.2) -> RateMeter:
    meter, done = RateMeter(), 0.0
    for i in range(int(until / step)):
        done += rate(i * step) * step
        meter.add(i * step, int(done))
    return meter


def test_a_rate_is_that_of_the_last_seconds() -> None:
    assert _meter(lambda _: 1000, 60).rate_per_s == pytest.approx(1000, rel=0.01)
    assert _meter(lambda now: 100 if now < 30 else 1000, 60).rate_per_s == pytest.approx(1000, rel=0.01)
    assert _meter(lambda _: 1000, 60).eta_s(1_000_000) == pytest.approx(940, rel=0.01)


def test_a_rate_below_one_a_second_looks_further_back() -> None:
    assert _meter(lambda _: 1 / 60, 3600).rate_per_s == pytest.approx(1 / 60, rel=0.15)


def test_a_rate_is_unknown_before_the_first_completion() -> None:
    meter = RateMeter()
    assert [meter.add(now, 500) for now in range(5)] == [None] * 5
    assert meter.eta_s(1000) is None
    assert meter.add(5, 600) == pytest.approx(20)


def test_a_stall_lowers_the_rate() -> None:
    meter = _meter(lambda now: 100 if now < 20 else 0, 40)
    assert meter.rate_per_s == pytest.approx(0.5, abs=0.6)


def test_counting_anew_starts_anew() -> None:
    meter = _meter(lambda _: 100, 20)
    assert meter.add(21, 0) is None
    assert meter.add(22, 10) == 10


@given(st.lists(st.tuples(st.just(0.0) | st.floats(0.001, 5), st.integers(0, 1000)), max_size=200))
def test_a_meter_keeps_few_samples_and_never_a_wrong_sign(steps: list[tuple[float, int]]) -> None:
    meter, now, done = RateMeter(), 0.0, 0
    for seconds, count in steps:
        now, done = now + seconds, done + count
        rate = meter.add(now, done)
        assert rate is None or rate > 0
        eta = meter.eta_s(done + 1)
        assert eta is None or eta > 0
    assert len(meter._samples) <= 60


def test_words() -> None:
    assert [format_count(count) for count in (0, 999, 1000, 1_000_000)] == ["0", "999", "1,000", "1,000,000"]
    seconds = [-1, 0.001, 0.5, 0.999, 9.96, 59.4, 59.5, 3599.6, 86399, 86400, float("nan"), float("inf")]
    assert [format_duration(s) for s in seconds] == [
        "0.00 s",
        "0.00 s",
        "0.50 s",
        "1.0 s",
        "10 s",
        "59 s",
        "1 min 00 s",
        "1 h 00 min",
        "23 h 59 min",
        "1 d 00 h",
        "?",
        "?",
    ]
