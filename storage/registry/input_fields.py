"""Which fields do the inputs of a model have, whether they are a row of JSON or a table of training data?

Objects have their keys as fields, and inner ones "outer.inner"; rows of numbers have theirs by place ("0", "1", …); a
list of numbers is one field with many values; a list of objects is many objects. It must not know what is made of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.scheduler.errors import UsageError
from umbel.scheduler.statistics.distributions import describe_categories, describe_numbers
from umbel.storage.registry.profiles import Description
from umbel.storage.values.columns import float_values, python_values

__all__ = ["ONLY_FIELD", "as_category", "as_number", "as_table", "describe", "fields_of_rows", "fields_of_table"]

#: What a field is called that has no name.
ONLY_FIELD = "inputs"


def fields_of_rows(rows: Iterable[str]) -> dict[str, list[Any]]:
    """The values of each field over many JSON texts; None where a row that has other fields lacks it."""
    found: dict[str, list[Any]] = {}
    count = 0
    for text in rows:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        for part in _parts(value):
            for name, values in part.items():
                if name not in found:
                    found[name] = [None] * count
                found[name].extend(values)
            for name in found.keys() - part.keys():
                found[name].append(None)
            count += 1
    return found


def _parts(value: Any) -> list[dict[str, list[Any]]]:
    """One part for each object or row that an input holds."""
    if isinstance(value, Mapping):
        part: dict[str, list[Any]] = {}
        _flatten("", value, part)
        return [part]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return [part for each in value for part in _parts(each)]
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return [{str(place): [cell] for place, cell in enumerate(row)} for row in value]
    return [{ONLY_FIELD: value if isinstance(value, list) else [value]}]


def _flatten(prefix: str, value: Mapping[str, Any], part: dict[str, list[Any]]) -> None:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            _flatten(f"{prefix}{name}.", inner, part)
        else:
            part[f"{prefix}{name}"] = inner if isinstance(inner, list) else [inner]


def as_table(rows: object) -> pa.Table:
    """A table as an Arrow table.

    Raises:
        UsageError: it is none.
    """
    try:
        if isinstance(rows, pa.Table):
            return rows
        if hasattr(rows, "__arrow_c_stream__"):  # Polars, DuckDB, pandas of late
            return pa.table(rows)
        if type(rows).__module__.startswith("pandas"):
            return pa.Table.from_pandas(rows, preserve_index=False)
        if isinstance(rows, Mapping):
            return pa.table(dict(rows))
        if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
            return pa.Table.from_pylist([dict(row) for row in rows])
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UsageError("this can't be read as a table", got=str(error)) from error
    raise UsageError(
        "this is no table",
        got=type(rows).__name__,
        expected="an Arrow, pandas or Polars table, a dict of columns, or a list of dicts",
    )


def fields_of_table(table: object) -> tuple[int, dict[str, Any]]:
    """The number of rows, and the values of each field of a table or an array.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(table, np.ndarray):
        columns = table.reshape(len(table), -1).T if table.ndim > 1 else table[None]
        names = [str(place) for place in range(len(columns))] if table.ndim > 1 else [ONLY_FIELD]
        return len(table), {name: column.tolist() for name, column in zip(names, columns, strict=True)}
    rows = as_table(table)
    return rows.num_rows, {name: _values(rows[name]) for name in rows.column_names}


def _values(column: pa.ChunkedArray) -> Any:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return float_values(column)
    values = python_values(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [inner for value in values for inner in (value if value is not None else [None])]
    return values


def describe(values: Any) -> Description:
    """Values as numbers, if most of those that are there are; else as categories."""
    if isinstance(values, np.ndarray):
        return describe_numbers(values)
    there = [value for value in values if value is not None]
    numbers = sum(not math.isnan(as_number(value)) or isinstance(value, float) for value in there)
    if there and numbers * 2 > len(there):
        return describe_numbers([as_number(value) for value in values])
    return describe_categories(map(as_category, values))


def as_number(value: Any) -> float:
    """A number; NaN for what is none, truth values included."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def as_category(value: Any) -> str | None:
    """A text; None for what is missing."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
