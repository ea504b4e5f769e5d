from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra import pandas as hpd

from umbel.scheduler.errors import CodeError, StoreCorruptError, StoreError
from umbel.storage.values.codecs import decode, digest_of, encode

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
NESTED = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(NESTED)
def test_plain_values(value: object) -> None:
    encoded = encode(value)
    assert encoded.format == "pickle"
    assert decode(encoded.data) == value
    assert encoded.digest == digest_of(encoded.data)
    assert encode(value) == encoded


@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
def test_arrays(value: np.ndarray[Any, Any]) -> None:
    encoded = encode(value)
    again = decode(encoded.data)
    assert isinstance(again, np.ndarray)
    assert again.dtype == value.dtype
    assert again.shape == value.shape
    assert again.tobytes() == value.tobytes()
    assert encode(again).digest == encoded.digest
    again.flat[:] = again.flat[:]  # it can be written to


def test_arrays_are_npy_unless_they_hold_objects() -> None:
    assert encode(np.arange(3)).format == "npy"
    assert encode(np.asfortranarray(np.ones((2, 3)))).format == "npy"
    for value in (np.array([{}, "x"]), np.ma.masked_array([1, 2], [True, False]), np.float64(1.5)):
        encoded = encode(value)
        assert encoded.format == "pickle"
        assert type(decode(encoded.data)) is type(value)
    tagged = np.zeros(2, np.dtype(np.int8, metadata={"unit": "m"}))
    again = decode(encode(tagged).data)
    assert isinstance(again, np.ndarray)
    assert dict(again.dtype.metadata or {}) == {"unit": "m"}


def test_string_arrays_of_numpy_2() -> None:
    value = np.array(["a", "long" * 20], dtype=np.dtypes.StringDType())
    again = decode(encode(value).data)
    assert isinstance(again, np.ndarray)
    assert again.dtype == value.dtype
    assert again.tolist() == value.tolist()


TABLES = {
    "numbers": pa.table({"a": pa.array([1, None, 3], pa.uint8()), "b": [1.5, float("nan"), None]}),
    "text": pa.table({"a": ["x", None, ""], "b": pa.array(["y"] * 3).dictionary_encode()}),
    "empty": pa.table({"a": pa.array([], pa.int32())}),
    "no columns": pa.table({}),
    "nested": pa.table({"a": [[1, 2], None, []], "b": [{"x": 1.0}, None, {"x": float("nan")}]}),
    "times": pa.table(
        {
            "ns": pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
            "s": pa.array([1, 2], pa.timestamp("s")),
            "day": pa.array([1, 2], pa.date32()),
            "length": pa.array([1, 2], pa.duration("ms")),
            "time": pa.array([1, 2], pa.time32("s")),
        }
    ),
    "metadata": pa.table({"a": [1]}).replace_schema_metadata({"who": "ada"}),
    "field metadata": pa.table([pa.array([1])], schema=pa.schema([pa.field("a", pa.int64(), metadata={"unit": "m"})])),
    "same names": pa.table([pa.array([1]), pa.array(["x"])], names=["a", "a"]),
    "large": pa.table({"a": pa.array(["x"], pa.large_string()), "b": pa.array([b"x"], pa.large_binary())}),
    "half": pa.table({"a": pa.array([np.float16(1.5)], pa.float16())}),
    "decimal": pa.table({"a": pa.array([decimal.Decimal("1.20")])}),
    "null": pa.table({"a": pa.nulls(2)}),
    "chunks": pa.table({"a": pa.chunked_array([[1], [2, 3]])}),
    # Parquet has no words for these.
    "day in ms": pa.table({"a": pa.array([86_400_001], pa.int64()).cast(pa.int64()).view(pa.date64())}),
    "interval": pa.table({"a": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    table = TABLES[name]
    encoded = encode(table)
    again = decode(encoded.data)
    assert isinstance(again, pa.Table)
    assert again.schema.equals(table.schema, check_metadata=True)
    assert repr(again.to_pydict()) == repr(table.to_pydict())
    assert encode(again).digest == encoded.digest


def test_tables_are_parquet() -> None:
    encoded = encode(TABLES["numbers"])
    assert encoded.format == "parquet"
    assert pq.read_table(pa.BufferReader(encoded.data)).num_rows == 3
    assert encode(TABLES["interval"]).format == "pickle"


COLUMNS = [
    hpd.column("i", dtype=np.int64),
    hpd.column("f", elements=st.floats()),
    hpd.column("b", dtype=np.bool_),
    hpd.column("s", elements=st.none() | st.text(st.characters(codec="utf-8"), max_size=3), dtype=object),
    hpd.column("o", elements=st.integers() | st.text(max_size=2) | st.lists(st.integers(), max_size=2), dtype=object),
]
INDEXES = hpd.range_indexes(max_size=4) | hpd.indexes(dtype=np.int64, max_size=4) | hpd.indexes(elements=st.text("ab"))


@settings(max_examples=60, deadline=None)
@given(hpd.data_frames(COLUMNS, index=INDEXES), st.sets(st.sampled_from("ifbso")))
def test_any_frame(frame: pd.DataFrame, chosen: set[str]) -> None:
    frame = frame[sorted(chosen)]
    again = decode(encode(frame).data)
    assert isinstance(again, pd.DataFrame)
    pd.testing.assert_frame_equal(again, frame, check_exact=True, check_freq=True)
    for name in chosen & {"s", "o"}:
        assert [type(value) for value in again[name]] == [type(value) for value in frame[name]]


DAYS = pd.date_range("2020-01-01", periods=3, freq="MS")
FRAMES: dict[str, tuple[str, pd.DataFrame]] = {
    "text": ("parquet", pd.DataFrame({"a": ["x", "y"]})),
    "named index": ("parquet", pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([2000, 2001], name="year"))),
    "steps": ("parquet", pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(10, 14, 2))),
    "two levels": (
        "parquet",
        pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", "n"])),
    ),
    "category": ("parquet", pd.DataFrame({"a": pd.Categorical(["b", "a"], ["b", "a", "c"], ordered=True)})),
    "nullable": ("parquet", pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")})),
    "zone": ("parquet", pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin")})),
    "no rows": ("parquet", pd.DataFrame({"a": pd.Series([], dtype="float32")})),
    "no columns": ("pickle", pd.DataFrame(index=pd.RangeIndex(2))),
    "frequency": ("pickle", pd.DataFrame({"a": [1, 2, 3]}, index=DAYS)),
    "lists": ("pickle", pd.DataFrame({"a": [[1], [2, 3]]})),
    "objects": ("pickle", pd.DataFrame({"a": [1, "x"]})),
    "same names": ("pickle", pd.DataFrame([[1, 2]], columns=["a", "a"])),
    "complex": ("pickle", pd.DataFrame({"a": [1j]})),
    "sparse": ("pickle", pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])})),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    kind, frame = FRAMES[name]
    encoded = encode(frame)
    assert encoded.format == kind
    again = decode(encoded.data)
    assert isinstance(again, pd.DataFrame)
    pd.testing.assert_frame_equal(again, frame, check_exact=True, check_freq=True)
    if kind == "parquet":
        assert encode(again).digest == encoded.digest


def test_attributes_and_integer_columns_survive() -> None:
    frame = pd.DataFrame([[1, 2]], columns=[10, 20])
    frame.attrs["source"] = "pwt"
    again = decode(encode(frame).data)
    assert isinstance(again, pd.DataFrame)
    assert again.attrs == frame.attrs
    pd.testing.assert_frame_equal(again, frame)


@pytest.mark.parametrize("name", [None, "gdp", "value", 3, ("a", 1)])
def test_series(name: Any) -> None:
    series = pd.Series([1.5, np.nan], index=pd.Index(["DEU", "FRA"], name="country"), name=name)
    encoded = encode(series)
    assert encoded.format == ("parquet" if name is None or isinstance(name, str) else "pickle")
    again = decode(encoded.data)
    assert isinstance(again, pd.Series)
    pd.testing.assert_series_equal(again, series)
    assert again.name == name


def test_other_pandas_objects_are_pickled() -> None:
    for value in (pd.Timestamp("2020-01-01"), DAYS, pd.Timedelta(1)):
        assert encode(value).format == "pickle"
        assert pd.Index([decode(encode(value).data)]).equals(pd.Index([value]))


def test_functions_and_classes_of_a_script() -> None:
    factor = 3

    class Model:
        def predict(self, x: int) -> int:
            return factor * x

    again = decode(encode(Model()).data)
    assert again.predict(2) == 6  # type: ignore[attr-defined]


def test_an_unpicklable_value_names_the_culprit() -> None:
    with pytest.raises(CodeError, match=r"its item 'lock', item 0 is a value of type _thread\.lock"):
        encode({"fine": 1, "lock": [threading.Lock()]})


@pytest.mark.parametrize("data", [b"", b"what", b"PAR1", b"PAR1xxxxPAR1", b"\x93NUMPY", b"\x80\x05", b"\x80\x05X"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(StoreCorruptError):
        decode(data)


def test_code_that_is_missing_here() -> None:
    with pytest.raises(StoreError, match="missing here") as caught:
        decode(b"\x80\x05\x8c\x06nosuch\x94\x8c\x01X\x94\x93\x94.")
    assert "nosuch" in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.datetimes(), st.decimals(allow_nan=False))
def test_values_of_the_standard_library(moment: datetime.datetime, number: decimal.Decimal) -> None:
    assert decode(encode((moment, number)).data) == (moment, number)


@pytest.mark.ray
def test_pandas_is_imported_only_for_pandas() -> None:
    script = (
        "import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq\n"
        "from umbel.storage.values.codecs import encode, decode\n"
        "table = pa.Table.from_arrays([pa.nulls(3, pa.int64())], ['a'])\n"
        "for value in (table, np.arange(3.0), {'a': 1}):\n"
        "    decode(encode(value).data)\n"
        "assert 'pandas' not in sys.modules\n"
        "import pandas as pd\n"
        "assert isinstance(decode(encode(pd.DataFrame({'a': [1]})).data), pd.DataFrame)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
