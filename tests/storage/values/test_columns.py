"""Columns built from buffers equal those that pyarrow would build, and are read back as pyarrow would."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.storage.values import columns
from umbel.storage.values.columns import contains, float_values, int_values, last_of_each, python_rows, python_values

PROPERTY = settings(derandomize=True, deadline=None)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
FLOATS = st.floats(allow_nan=False)
STATUSES = st.sampled_from(["ok", "pruned", "failed", ""])


def in_chunks(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    return st.lists(st.lists(st.none() | values), max_size=4)


# ---- columns from values ---------------------------------------------------------------------------------------


@PROPERTY
@given(st.lists(st.none() | TEXTS))
def test_strings(values: list[str | None]) -> None:
    assert columns.strings(values).equals(pa.array(values, pa.string()))
    assert columns.coded(values).to_pylist() == values


@PROPERTY
@given(st.lists(st.none() | st.binary(max_size=8)))
def test_binaries(values: list[bytes | None]) -> None:
    assert columns.binaries(values).equals(pa.array(values, pa.binary()))


def test_texts_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MAX_VARIABLE_BYTES", 7)
    assert columns.strings(["abcd", None, "efg"]).to_pylist() == ["abcd", None, "efg"]
    with pytest.raises(pa.ArrowCapacityError):
        columns.strings(["abcd", "efgh"])


@PROPERTY
@given(st.lists(st.none() | FLOATS))
def test_floats(values: list[float | None]) -> None:
    assert columns.floats(values).equals(pa.array(values, pa.float64()))


def test_nan_is_a_value_and_none_is_not() -> None:
    column = columns.floats([math.nan, None])
    assert column.null_count == 1
    assert math.isnan(column[0].as_py())


@PROPERTY
@given(st.lists(st.none() | INTEGERS))
def test_integers(values: list[int | None]) -> None:
    assert columns.integers(values).equals(pa.array(values, pa.int64()))
    whole = [value for value in values if value is not None]
    assert columns.integers(whole).equals(pa.array(whole, pa.int64()))


def test_integers_of_other_sizes() -> None:
    assert columns.integers([1, None], pa.int32()).equals(pa.array([1, None], pa.int32()))
    assert columns.integers(np.arange(3), pa.int32()).equals(pa.array([0, 1, 2], pa.int32()))


def test_integers_share_an_arrays_memory() -> None:
    values = np.arange(5)
    column = columns.integers(values)
    assert column.type == pa.int64()
    values[0] = 7
    assert column[0].as_py() == 7
    assert columns.integers(values[::2]).to_pylist() == [7, 2, 4]


@PROPERTY
@given(st.lists(st.none() | st.booleans()))
def test_booleans(values: list[bool | None]) -> None:
    assert columns.booleans(values).equals(pa.array(values, pa.bool_()))
    whole = np.array([bool(value) for value in values], np.bool_)
    assert columns.booleans(whole).equals(pa.array(whole.tolist(), pa.bool_()))


@PROPERTY
@given(st.lists(st.none() | TEXTS, min_size=1, max_size=5), st.data())
def test_dictionaries(values: list[str | None], data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(values) - 1)))
    column = columns.dictionary(np.asarray(indices, np.int32), values)
    assert column.to_pylist() == [values[index] for index in indices]
    column.validate(full=True)


def test_times_are_in_microseconds_and_utc() -> None:
    (time,) = columns.timestamps([1.5]).to_pylist()
    assert time.isoformat() == "1970-01-01T00:00:01.500000+00:00"


MIXED = st.integers(-(2**53), 2**53) | FLOATS


@PROPERTY
@given(st.one_of([st.lists(st.none() | kind) for kind in (TEXTS, st.booleans(), INTEGERS, FLOATS, MIXED)]))
def test_values_of_one_kind_keep_it(values: list[Any]) -> None:
    assert columns.inferred(values).equals(pa.array(values))


@pytest.mark.parametrize("values", [["a", 1], [1, True], [2.5, False, "x"], [2**63, -1], [2**53 + 1, 0.5], [[1], "a"]])
def test_values_of_several_kinds_become_text(values: list[object]) -> None:
    assert columns.inferred([*values, None]).to_pylist() == [*map(str, values), None]


# ---- values from columns ---------------------------------------------------------------------------------------


@PROPERTY
@given(in_chunks(INTEGERS), st.integers(0, 5))
def test_integers_as_numpy(chunks: list[list[int | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.int64()).slice(start)
    assert int_values(column).tolist() == [value or 0 for value in column.to_pylist()]
    assert int_values(column.combine_chunks()).tolist() == int_values(column).tolist()


@PROPERTY
@given(in_chunks(FLOATS), st.integers(0, 5))
def test_floats_as_numpy(chunks: list[list[float | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.float64()).slice(start)
    expected = [np.nan if value is None else value for value in column.to_pylist()]
    np.testing.assert_array_equal(float_values(column), np.array(expected, np.float64))
    np.testing.assert_array_equal(float_values(column.combine_chunks()), np.array(expected, np.float64))


@PROPERTY
@given(in_chunks(STATUSES), st.integers(0, 5))
def test_contains(chunks: list[list[str | None]], start: int) -> None:
    column = pa.chunked_array(chunks, pa.string()).slice(start)
    expected = [value in ("ok", "pruned") for value in column.to_pylist()]
    whole = column.combine_chunks()
    for same in (column, column.dictionary_encode(), whole, whole.dictionary_encode()):
        assert contains(same, frozenset({"ok", "pruned"})).tolist() == expected


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (st.integers(-(2**50), 2**50), pa.timestamp("us", "UTC")),
        (TEXTS, pa.string()),
        (TEXTS, pa.dictionary(pa.int32(), pa.string())),
        (st.binary(max_size=4), pa.binary()),
        (st.booleans(), pa.bool_()),
        (INTEGERS, pa.int64()),
        (FLOATS, pa.float64()),
    ],
    ids=str,
)
def test_python_objects(values: st.SearchStrategy[Any], kind: pa.DataType) -> None:
    @PROPERTY
    @given(in_chunks(values), st.integers(0, 5))
    def check(chunks: list[list[Any]], start: int) -> None:
        column = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind).slice(start)
        assert python_values(column) == column.to_pylist()
        table = pa.table({"a": column, "b": column})
        assert python_rows(table) == table.to_pylist()

    check()


def test_rows_without_columns() -> None:
    assert python_rows(pa.table({"a": [1, 2]}).select([])) == [{}, {}]
    assert python_rows(pa.table({})) == []


@PROPERTY
@given(st.lists(st.integers(0, 8)))
def test_the_last_of_each(index: list[int]) -> None:
    order = last_of_each(np.array(index, np.int64))
    last = {value: position for position, value in enumerate(index)}
    positions = list(range(len(index))) if order is None else order.tolist()
    assert [(index[position], position) for position in positions] == sorted(last.items())


# ---- cost ------------------------------------------------------------------------------------------------------


def test_none_of_this_imports_pandas() -> None:
    pytest.importorskip("pandas")
    script = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from umbel.storage.values import columns as c\n"
        "batch = pa.record_batch({'a': c.strings(['x', None]), 'b': c.floats([1.0, None]), 'c': c.coded(['y', 'y']),\n"
        "                         'd': c.booleans([True, False]), 'e': c.timestamps([0.0, 1.0]),\n"
        "                         'f': c.integers([1, None]), 'g': c.inferred([1, 'x'])})\n"
        "table = pa.Table.from_batches([batch])\n"
        "assert len(c.python_rows(table)) == 2 and c.contains(table['c'], frozenset('y')).all()\n"
        "assert c.int_values(table['f']).sum() == 1 and len(c.float_values(batch.column('b'))) == 2\n"
        "assert c.empty_table(table.schema).num_rows == 0\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
