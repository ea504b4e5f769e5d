"""How do Arrow's columns become NumPy arrays and back without importing pandas?

`ChunkedArray.to_numpy` and `pyarrow.array` import pandas, when it is installed, to ask whether it is involved; that
takes longer than reading 100,000 rows. These go by way of the buffers. It must not know what the columns mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["contains", "empty_table", "float_values", "int_column", "int_values", "last_of_each"]


def int_values(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of integers; nulls become 0."""
    return _values(column.cast(pa.int64()), np.dtype(np.int64), np.int64(0))


def float_values(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of numbers; nulls become NaN."""
    return _values(column.cast(pa.float64()), np.dtype(np.float64), np.float64(np.nan))


def int_column(values: npt.NDArray[np.int64]) -> pa.Array:
    """A NumPy array as a column without nulls; shares its memory."""
    values = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def empty_table(schema: pa.Schema) -> pa.Table:
    """A table without rows (`Schema.empty_table` imports pandas too)."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def contains(column: pa.ChunkedArray, wanted: frozenset[str]) -> npt.NDArray[np.bool_]:
    """For each row of a column of text, whether it is one of some few values; nulls are not."""
    found = [np.zeros(0, np.bool_)]
    for chunk in column.chunks:
        encoded = chunk.dictionary_encode()
        is_wanted = np.array([value in wanted for value in encoded.dictionary.to_pylist()] + [False], np.bool_)
        codes = encoded.indices.cast(pa.int64())
        found.append(is_wanted[_chunk_values(codes, np.dtype(np.int64), np.int64(-1))])
    return np.concatenate(found)


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


def _values(column: pa.ChunkedArray, dtype: np.dtype[Any], null: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(_chunk_values(chunk, dtype, null) for chunk in column.chunks)])


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
