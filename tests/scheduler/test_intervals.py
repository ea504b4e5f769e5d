"""The interval set against a plain set of integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.intervals import IntervalSet

Range = tuple[int, int]
ranges = st.tuples(st.integers(0, 40), st.integers(0, 40))
changes = st.lists(st.tuples(st.sampled_from(["add", "remove"]), ranges), max_size=30)


def model_of(steps: list[tuple[str, Range]]) -> tuple[IntervalSet, set[int]]:
    held, model = IntervalSet(), set()
    for verb, (start, stop) in steps:
        if verb == "add":
            held.add(start, stop)
            model |= set(range(start, stop))
        else:
            held.remove(start, stop)
            model -= set(range(start, stop))
    return held, model


def elements(intervals: list[Range]) -> list[int]:
    return [element for start, stop in intervals for element in range(start, stop)]


@given(changes)
def test_holds_what_a_set_would(steps: list[tuple[str, Range]]) -> None:
    held, model = model_of(steps)
    assert elements(list(held)) == sorted(model)
    assert len(held) == len(model)
    assert bool(held) == bool(model)


@given(changes)
def test_intervals_are_sorted_disjoint_and_never_touch(steps: list[tuple[str, Range]]) -> None:
    intervals = list(model_of(steps)[0])
    assert all(start < stop for start, stop in intervals)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(intervals))


@given(changes, ranges)
def test_within_and_gaps_split_a_range(steps: list[tuple[str, Range]], window: Range) -> None:
    held, model = model_of(steps)
    start, stop = window
    assert elements(list(held.within(start, stop))) == [e for e in range(start, stop) if e in model]
    assert elements(list(held.gaps(start, stop))) == [e for e in range(start, stop) if e not in model]
    assert held.covers(start, stop) == all(e in model for e in range(start, stop))


@given(changes, st.integers(0, 40))
def test_around_finds_the_interval_of_an_element(steps: list[tuple[str, Range]], element: int) -> None:
    held, model = model_of(steps)
    found = held.around(element)
    assert (found is not None) == (element in model) == (element in held)
    if found is not None:
        assert found in list(held)
        assert found[0] <= element < found[1]


def test_reads_from_both_ends_and_copies_independently() -> None:
    held = IntervalSet([(4, 6), (0, 2)])
    twin = held.copy()
    twin.add(2, 4)
    assert held.first() == (0, 2)
    assert list(held.from_the_end()) == [(4, 6), (0, 2)]
    assert (held.pieces, twin.pieces) == (2, 1)
    assert held != twin
    assert repr(held) == "IntervalSet([0, 2), [4, 6))"
    with pytest.raises(IndexError):
        IntervalSet().first()
