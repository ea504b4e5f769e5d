from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from umbel.storage.columns import contains, float_values, int_column, int_values, last_of_each

CHUNKS = st.lists(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=4)


@given(CHUNKS, st.integers(0, 5))
def test_integers(chunks: list[list[int | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.int64()).slice(start)
    assert int_values(column).tolist() == [value or 0 for value in column.to_pylist()]


@given(st.lists(st.lists(st.none() | st.floats(allow_nan=False)), max_size=4), st.integers(0, 5))
def test_floats(chunks: list[list[float | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.float64()).slice(start)
    expected = [np.nan if value is None else value for value in column.to_pylist()]
    np.testing.assert_array_equal(float_values(column), np.array(expected, np.float64))


@given(st.lists(st.lists(st.none() | st.sampled_from(["ok", "pruned", "failed", ""])), max_size=4), st.integers(0, 5))
def test_contains(chunks: list[list[str | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.string()).slice(start)
    expected = [value in ("ok", "pruned") for value in column.to_pylist()]
    assert contains(column, frozenset({"ok", "pruned"})).tolist() == expected
    assert contains(column.dictionary_encode(), frozenset({"ok", "pruned"})).tolist() == expected


@given(st.lists(st.integers(0, 8)))
def test_the_last_of_each(index: list[int]) -> None:
    order = last_of_each(np.array(index, np.int64))
    last = {value: position for position, value in enumerate(index)}
    positions = list(range(len(index))) if order is None else order.tolist()
    assert [(index[position], position) for position in positions] == sorted(last.items())


def test_an_int_column_shares_memory() -> None:
    values = np.arange(5)
    column = int_column(values)
    assert column.type == pa.int64()
    values[0] = 7
    assert column[0].as_py() == 7
    assert int_column(values[::2]).to_pylist() == [7, 2, 4]
