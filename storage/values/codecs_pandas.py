"""Which Parquet bytes stand for a pandas frame or series, if any do faithfully?

Apart from the other codecs, so that they don't import pandas. A frame is written and read back; unless index, columns,
dtypes and values all come back as they were, the answer is None and the caller pickles.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow as pa

from umbel.storage.values.codecs import read_parquet, write_parquet

__all__ = ["decode_pandas", "encode_pandas"]

_FRAME = b"frame"
_SERIES = b"series"
#: The name of a series, as JSON: it may be None, which no column can be called.
_SERIES_NAME = b"umbel.series_name"
#: Objects that are equal only if they are interchangeable; lists, for one, come back from Arrow as arrays.
_PLAIN = (str, bytes, bool, int, float, type(None))


def encode_pandas(value: Any, kind_key: bytes) -> bytes | None:
    """Encode a DataFrame or Series as Parquet; None: it is neither, or would not come back as it is.

    Args:
        value: any object of pandas.
        kind_key: the key of the schema metadata that says what it was.
    """
    if type(value) is pd.DataFrame:
        frame, extra = value, {kind_key: _FRAME}
    elif type(value) is pd.Series and (value.name is None or type(value.name) is str):
        frame = value.to_frame(name="value" if value.name is None else value.name)
        extra = {kind_key: _SERIES, _SERIES_NAME: json.dumps(value.name).encode()}
    else:
        return None
    if frame.attrs or value.attrs or not value.flags.allows_duplicate_labels:
        return None
    try:
        table = pa.Table.from_pandas(frame, preserve_index=None)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **extra})
        data = write_parquet(table)
        back = _to_frame(read_parquet(data))
        return data if _same(back, frame) else None
    except Exception:  # whatever pandas or Arrow find wrong with it, pickle can take it
        return None


def decode_pandas(table: pa.Table, kind: bytes) -> object:
    """The frame or series that a table of `encode_pandas` stands for."""
    frame = _to_frame(table)
    if kind == _FRAME:
        return frame
    name = json.loads(table.schema.metadata[_SERIES_NAME])
    return frame.iloc[:, 0].rename(name)


def _to_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _same(back: pd.DataFrame, frame: pd.DataFrame) -> bool:
    if not _same_index(back.index, frame.index) or not _same_index(back.columns, frame.columns):
        return False
    if list(back.dtypes) != list(frame.dtypes) or not back.equals(frame):
        return False
    positions = [i for i, dtype in enumerate(frame.dtypes) if _holds_objects(dtype)]
    return all(_same_objects(back.iloc[:, i], frame.iloc[:, i]) for i in positions)


def _same_index(back: pd.Index[Any], index: pd.Index[Any]) -> bool:
    if type(back) is not type(index) or list(back.names) != list(index.names) or not back.equals(index):
        return False
    if isinstance(index, pd.MultiIndex):
        return all(_same_index(back.get_level_values(i), index.get_level_values(i)) for i in range(index.nlevels))
    if getattr(back, "freq", None) != getattr(index, "freq", None) or back.dtype != index.dtype:
        return False
    return not _holds_objects(index.dtype) or _same_objects(back, index)


def _holds_objects(dtype: Any) -> bool:
    kind = dtype.categories.dtype if isinstance(dtype, pd.CategoricalDtype) else dtype
    return bool(kind.kind == "O")


def _same_objects(back: Any, column: Any) -> bool:
    return all(_same_object(a, b) for a, b in zip(back, column, strict=True))


def _same_object(a: object, b: object) -> bool:
    both_nan = a != a and b != b  # noqa: PLR0124
    return type(a) is type(b) and isinstance(b, _PLAIN) and (a == b or both_nan)
