"""Leases: long enough for the driver, short enough for an even end."""

from __future__ import annotations

from umbel.scheduler.lease_size import TARGET_PER_WORKER_S, TARGET_S, LeaseSizer


def measured(seconds: float) -> LeaseSizer:
    sizer = LeaseSizer()
    sizer.observe(100, 100 * seconds)
    return sizer


def test_nothing_is_risked_before_something_is_measured() -> None:
    assert LeaseSizer().size(1_000_000, 1) == 1


def test_a_lease_aims_at_the_same_time_whatever_an_element_takes() -> None:
    assert measured(0.001).size(1_000_000, 4) == round(TARGET_S / 0.001)
    assert measured(30.0).size(1_000_000, 4) == 1


def test_with_many_workers_a_lease_lasts_longer_so_that_the_driver_hears_less() -> None:
    assert measured(1.0).size(1_000_000, 100) == 1
    assert measured(1.0).size(1_000_000, 8000) == round(8000 * TARGET_PER_WORKER_S)


def test_towards_the_end_leases_shrink() -> None:
    sizes = [measured(0.1).size(pending, 8000) for pending in (10_000_000, 160_000, 16_000, 100)]
    assert sizes == [160, 10, 1, 1]
