"""Arrow columns from Python and NumPy values, built from their buffers.

``pyarrow.array`` would do, but its first call imports pandas where that is installed: 0.1 to 0.2 s in every worker,
which is a good part of what a short run takes. These functions do no more than rows need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

__all__ = [
    "binaries",
    "booleans",
    "coded",
    "dictionary",
    "floats",
    "integers",
    "optional_integers",
    "strings",
    "timestamps",
]

_TIMESTAMP = pa.timestamp("us", tz="UTC")


def integers(values: Sequence[int] | np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """Whole numbers, int64 unless ``kind`` says otherwise."""
    kind = kind or pa.int64()
    return _fixed(np.asarray(values, kind.to_pandas_dtype()), kind)


def floats(values: Sequence[float | None] | np.ndarray) -> pa.Array:
    """Numbers as float64, None as null; NaN stays NaN."""
    if isinstance(values, np.ndarray):
        return _fixed(values.astype(np.float64, copy=False), pa.float64())
    missing = [value is None for value in values]
    if not any(missing):
        return _fixed(np.asarray(values, np.float64), pa.float64())
    numbers = np.asarray([0.0 if value is None else value for value in values], np.float64)
    return _fixed(numbers, pa.float64(), missing)


def optional_integers(values: Sequence[int | None]) -> pa.Array:
    """Whole numbers as int64, None as null."""
    missing = [value is None for value in values]
    return _fixed(np.asarray([value or 0 for value in values], np.int64), pa.int64(), missing if any(missing) else None)


def booleans(values: Sequence[bool] | np.ndarray) -> pa.Array:
    """Truth values."""
    bits = np.packbits(np.asarray(values, bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def timestamps(seconds: Sequence[float]) -> pa.Array:
    """Seconds since the epoch as UTC times in microseconds."""
    return _fixed((np.asarray(seconds, np.float64) * 1e6).astype(np.int64), _TIMESTAMP)


def strings(values: Sequence[str | None]) -> pa.Array:
    """Texts, None as null."""
    return _variable([None if value is None else value.encode() for value in values], pa.string())


def binaries(values: Sequence[bytes | None]) -> pa.Array:
    """Bytes, None as null."""
    return _variable(values, pa.binary())


def coded(values: Sequence[str | None]) -> pa.Array:
    """Texts that repeat, as a dictionary; None as null."""
    codes: dict[str, int] = {}
    indices = [0 if value is None else codes.setdefault(value, len(codes)) for value in values]
    missing = [value is None for value in values]
    return _dictionary(np.asarray(indices, np.int32), list(codes), missing if any(missing) else None)


def dictionary(indices: np.ndarray, values: Sequence[str | None]) -> pa.Array:
    """``values[i]`` for each index i, as a dictionary; None as null."""
    if None not in values:
        return _dictionary(indices, values, None)
    missing = np.asarray([value is None for value in values])[indices].tolist()
    return _dictionary(indices, [value or "" for value in values], missing)


def _dictionary(indices: np.ndarray, values: Sequence[str | None], missing: Sequence[bool] | None) -> pa.Array:
    codes = _fixed(indices.astype(np.int32, copy=False), pa.int32(), missing)
    return pa.DictionaryArray.from_arrays(codes, strings(values))


def _fixed(values: np.ndarray, kind: pa.DataType, missing: Sequence[bool] | None = None) -> pa.Array:
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [_validity(missing), pa.py_buffer(values)])


def _variable(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    missing = [value is None for value in values]
    whole = [value or b"" for value in values]
    offsets = np.zeros(len(whole) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, whole), np.int32, len(whole)), out=offsets[1:])
    buffers = [_validity(missing if any(missing) else None), pa.py_buffer(offsets), pa.py_buffer(b"".join(whole))]
    return pa.Array.from_buffers(kind, len(whole), buffers)


def _validity(missing: Sequence[bool] | None) -> pa.Buffer | None:
    if missing is None:
        return None
    return pa.py_buffer(np.packbits(~np.asarray(missing, bool), bitorder="little"))
