"""Columns built from buffers equal those that pyarrow would build."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.runtime import columns

texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.none() | texts))
def test_strings(values: list[str | None]) -> None:
    assert columns.strings(values).equals(pa.array(values, pa.string()))
    assert columns.coded(values).to_pylist() == values


@given(st.lists(st.none() | st.binary(max_size=8)))
def test_binaries(values: list[bytes | None]) -> None:
    assert columns.binaries(values).equals(pa.array(values, pa.binary()))


@given(st.lists(st.none() | st.floats(allow_nan=False)))
def test_floats(values: list[float | None]) -> None:
    assert columns.floats(values).equals(pa.array(values, pa.float64()))


def test_nan_is_a_value_and_none_is_not() -> None:
    column = columns.floats([math.nan, None])
    assert column.null_count == 1
    assert math.isnan(column[0].as_py())


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_integers(values: list[int | None]) -> None:
    assert columns.optional_integers(values).equals(pa.array(values, pa.int64()))
    whole = [value for value in values if value is not None]
    assert columns.integers(whole).equals(pa.array(whole, pa.int64()))


@given(st.lists(st.booleans()))
def test_booleans(values: list[bool]) -> None:
    assert columns.booleans(values).equals(pa.array(values, pa.bool_()))


@given(st.lists(st.none() | texts, min_size=1, max_size=5), st.data())
def test_dictionaries(values: list[str | None], data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(values) - 1)))
    column = columns.dictionary(np.asarray(indices, np.int32), values)
    assert column.to_pylist() == [values[index] for index in indices]
    column.validate(full=True)


def test_times_are_in_microseconds_and_utc() -> None:
    (time,) = columns.timestamps([1.5]).to_pylist()
    assert time.isoformat() == "1970-01-01T00:00:01.500000+00:00"


def test_making_rows_imports_no_pandas() -> None:
    pytest.importorskip("pandas")
    script = (
        "import sys, numpy as np\n"
        "from umbel.runtime import columns as c\n"
        "import pyarrow as pa\n"
        "pa.record_batch({'a': c.strings(['x', None]), 'b': c.floats([1.0, None]), 'c': c.coded(['y', 'y']),\n"
        "                 'd': c.booleans([True, False]), 'e': c.timestamps([0.0, 1.0])})\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
