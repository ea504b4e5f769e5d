"""The Pareto set is what the definition says, however it is computed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.scheduler.search.pareto import Front, Objective, in_words, non_dominated

#: Few different values, so that ties are frequent; zeros of both signs; and any finite number.
NUMBERS = st.one_of(st.sampled_from([-1.0, -0.0, 0.0, 1.0, 2.0]), st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[float, ...]]:
    columns = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[NUMBERS] * columns), max_size=25))


def dominates(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    no_worse = all(a <= b for a, b in zip(left, right, strict=True))
    return no_worse and any(a < b for a, b in zip(left, right, strict=True))


@settings(max_examples=300, deadline=None)
@given(tables())
def test_it_is_what_the_definition_says(rows: list[tuple[float, ...]]) -> None:
    expected = [not any(dominates(other, row) for other in rows) for row in rows]
    values = np.asarray(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 1)
    assert non_dominated(values).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(tables())
def test_one_by_one_a_value_is_kept_unless_one_before_dominates_it(rows: list[tuple[float, ...]]) -> None:
    front = Front()
    for place, row in enumerate(rows):
        assert front.add(row) == (not any(dominates(before, row) for before in rows[:place]))


def test_objectives_in_words() -> None:
    three = [Objective("a", "min"), Objective("b", "max"), Objective("c", "min")]
    assert [in_words(three[:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [each.sign for each in three] == [1.0, -1.0, 1.0]
