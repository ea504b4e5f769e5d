"""How do values become Arrow columns, and columns values, without importing pandas?

`pyarrow.array`, `ChunkedArray.to_numpy`, `Schema.empty_table` and times as Python objects import pandas when it is
installed, to ask whether it is involved: 0.1 to 0.2 s in every worker and every command, which is a good part of what
a short run takes, and more than it takes to read 100,000 rows. These go by way of the buffers. It must not know what
the columns mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "binaries",
    "booleans",
    "coded",
    "contains",
    "dictionary",
    "empty_table",
    "float_values",
    "floats",
    "inferred",
    "int_values",
    "integers",
    "last_of_each",
    "python_rows",
    "python_values",
    "strings",
    "timestamps",
]

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What the 32-bit offsets of a column of texts can reach.
_MAX_VARIABLE_BYTES = 2**31 - 1

Column: TypeAlias = pa.Array | pa.ChunkedArray

# ---- columns from values ---------------------------------------------------------------------------------------


def integers(values: Sequence[int | None] | npt.NDArray[np.integer[Any]], kind: pa.DataType | None = None) -> pa.Array:
    """Whole numbers, int64 unless ``kind`` says otherwise; None as null. Shares an array's memory where it can."""
    kind = kind or pa.int64()
    dtype = np.dtype(kind.to_pandas_dtype())
    if isinstance(values, np.ndarray) or None not in values:
        return _fixed(np.asarray(values, dtype), kind)
    return _fixed(np.asarray([value or 0 for value in values], dtype), kind, [value is None for value in values])


def floats(values: Sequence[float | None] | npt.NDArray[Any]) -> pa.Array:
    """Numbers as float64, None as null; NaN stays NaN. Shares an array's memory where it can."""
    if isinstance(values, np.ndarray):
        return _fixed(values.astype(np.float64, copy=False), pa.float64())
    missing = [value is None for value in values]
    if not any(missing):
        return _fixed(np.asarray(values, np.float64), pa.float64())
    numbers = np.asarray([0.0 if value is None else value for value in values], np.float64)
    return _fixed(numbers, pa.float64(), missing)


def booleans(values: Sequence[bool | None] | npt.NDArray[np.bool_]) -> pa.Array:
    """Truth values, None as null."""
    missing = None
    if not isinstance(values, np.ndarray) and None in values:
        missing = [value is None for value in values]
    bits = np.packbits(np.asarray(values, np.bool_), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [_validity(missing), pa.py_buffer(bits)])


def timestamps(seconds: Sequence[float]) -> pa.Array:
    """Seconds since the epoch as UTC times in microseconds."""
    return _fixed((np.asarray(seconds, np.float64) * 1e6).astype(np.int64), _TIMESTAMP)


def strings(values: Sequence[str | None]) -> pa.Array:
    """Texts, None as null; 2 GiB at the most."""
    return _variable([None if value is None else value.encode() for value in values], pa.string())


def binaries(values: Sequence[bytes | None]) -> pa.Array:
    """Bytes, None as null; 2 GiB at the most."""
    return _variable(values, pa.binary())


def coded(values: Sequence[str | None]) -> pa.Array:
    """Texts that repeat, as a dictionary; None as null."""
    codes: dict[str, int] = {}
    indices = [0 if value is None else codes.setdefault(value, len(codes)) for value in values]
    missing = [value is None for value in values]
    return _dictionary(np.asarray(indices, np.int32), list(codes), missing if any(missing) else None)


def dictionary(indices: npt.NDArray[np.integer[Any]], values: Sequence[str | None]) -> pa.Array:
    """``values[i]`` for each index i, as a dictionary; None as null."""
    if None not in values:
        return _dictionary(indices, values, None)
    missing = np.asarray([value is None for value in values])[indices].tolist()
    return _dictionary(indices, [value or "" for value in values], missing)


def inferred(values: Sequence[object]) -> pa.Array:
    """Plain values of one kind (texts, truth values, whole numbers, numbers) as such, anything else as text.

    None is null; without any value the column is of type null. Numbers that the type can't hold exactly become text.
    """
    kinds = {type(value) for value in values if value is not None}
    given: Any = values
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return booleans(given)
    whole = [value for value in given if type(value) is int]
    if kinds == {int} and min(whole) >= -(2**63) and max(whole) < 2**63:
        return integers(given)
    if kinds <= {int, float} and float in kinds and all(abs(value) <= 2**53 for value in whole):
        return floats(given)
    return strings([None if value is None else str(value) for value in values])


def empty_table(schema: pa.Schema) -> pa.Table:
    """A table without rows."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _dictionary(
    indices: npt.NDArray[np.integer[Any]], values: Sequence[str | None], missing: Sequence[bool] | None
) -> pa.Array:
    codes = _fixed(indices.astype(np.int32, copy=False), pa.int32(), missing)
    return pa.DictionaryArray.from_arrays(codes, strings(values))


def _fixed(values: npt.NDArray[Any], kind: pa.DataType, missing: Sequence[bool] | None = None) -> pa.Array:
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [_validity(missing), pa.py_buffer(values)])


def _variable(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    missing = [value is None for value in values]
    whole = [value or b"" for value in values]
    ends = np.cumsum(np.fromiter(map(len, whole), np.int64, len(whole)))
    if len(ends) and ends[-1] > _MAX_VARIABLE_BYTES:
        raise pa.ArrowCapacityError(f"a column of {ends[-1]} bytes; {_MAX_VARIABLE_BYTES} is the most")
    offsets = np.zeros(len(whole) + 1, np.int32)
    offsets[1:] = ends
    buffers = [_validity(missing if any(missing) else None), pa.py_buffer(offsets), pa.py_buffer(b"".join(whole))]
    return pa.Array.from_buffers(kind, len(whole), buffers)


def _validity(missing: Sequence[bool] | None) -> pa.Buffer | None:
    if missing is None:
        return None
    return pa.py_buffer(np.packbits(~np.asarray(missing, np.bool_), bitorder="little"))


# ---- values from columns ---------------------------------------------------------------------------------------


def int_values(column: Column) -> npt.NDArray[np.int64]:
    """A column of integers; nulls become 0."""
    return _values(column.cast(pa.int64()), np.dtype(np.int64), np.int64(0))


def float_values(column: Column) -> npt.NDArray[np.float64]:
    """A column of numbers; nulls become NaN."""
    return _values(column.cast(pa.float64()), np.dtype(np.float64), np.float64(np.nan))


def contains(column: Column, wanted: frozenset[str]) -> npt.NDArray[np.bool_]:
    """For each row of a column of text, whether it is one of some few values; nulls are not."""
    found = [np.zeros(0, np.bool_)]
    for chunk in _chunks(column):
        encoded = chunk.dictionary_encode()
        is_wanted = np.array([value in wanted for value in encoded.dictionary.to_pylist()] + [False], np.bool_)
        codes = encoded.indices.cast(pa.int64())
        found.append(is_wanted[_chunk_values(codes, np.dtype(np.int64), np.int64(-1))])
    return np.concatenate(found)


def python_values(column: Column) -> list[Any]:
    """A column as Python objects, None for null; times in UTC as `datetime`. Cost: below 0.2 µs a row, times 1 µs."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # ten times faster than value by value
    if column.type == _TIMESTAMP:
        micros = column.cast(pa.int64()).to_pylist()
        return [None if value is None else _EPOCH + timedelta(microseconds=value) for value in micros]
    return column.to_pylist()  # type: ignore[no-any-return]


def python_rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table as a list of rows, values as by `python_values`."""
    names = table.column_names
    columns = [python_values(column) for column in table.columns]
    if not columns:
        return [{} for _ in range(table.num_rows)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def last_of_each(index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The positions of each index's last occurrence, in order of index; None if they are all in order already.

    A row that stands later was written later, and is the truth.
    """
    if len(index) < 2 or bool((np.diff(index) > 0).all()):
        return None
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    kept: npt.NDArray[np.int64] = order[is_last]
    return kept


def _chunks(column: Column) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _values(column: Column, dtype: np.dtype[Any], null: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(_chunk_values(chunk, dtype, null) for chunk in _chunks(column))])


def _chunk_values(chunk: pa.Array, dtype: np.dtype[Any], null: Any) -> npt.NDArray[Any]:
    validity, data = chunk.buffers()
    if not len(chunk):
        return np.zeros(0, dtype)
    values: npt.NDArray[Any] = np.frombuffer(data, dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)
    if not chunk.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    valid = bits[chunk.offset : chunk.offset + len(chunk)].astype(np.bool_)
    filled: npt.NDArray[Any] = np.where(valid, values, null)
    return filled
