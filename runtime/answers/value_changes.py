"""In what do two values differ? In a few words: types, shapes, columns, and how far numbers have moved.

Tables, data frames, arrays, dicts, lists and single values; of anything else only that it differs. It must not know
where the values come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.scheduler.words import counted

__all__ = ["describe_change", "distance"]

#: Columns that are described one by one.
_COLUMNS = 6


def describe_change(before: object, after: object) -> list[str]:
    """What differs, a line each; never raises.

    >>> describe_change([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    ['1 of 3 items differ, largest difference 1 (at 2: 3 → 4)']
    """
    try:
        return _describe(before, after) or ["the values look the same, but their content differs"]
    except Exception as error:  # values of any type, with code of their own
        return [f"can't be compared: {type(error).__name__}"]


def distance(before: object, after: object) -> float:
    """How far two values are apart, for putting the farthest first: the sum of relative differences of numbers, and
    one for each other part that differs; 0 if it can't be told. Never raises."""
    try:
        return _distance(before, after)
    except Exception:  # as above
        return 0.0


def _distance(before: Any, after: Any) -> float:
    if _is_number(before) and _is_number(after):
        before, after = np.asarray([before], np.float64), np.asarray([after], np.float64)
    left, right = _table(before), _table(after)
    if left is not None and right is not None:
        before, after = left.to_pydict(), right.to_pydict()
    if isinstance(before, np.ndarray) and before.dtype.kind in "iufb" and before.shape == getattr(after, "shape", None):
        scale = float(np.nanmean(np.abs(before))) if before.size else 0.0
        moved = np.abs(np.asarray(after, np.float64) - np.asarray(before, np.float64)) / (scale or 1.0)
        return float(moved[np.isfinite(moved)].sum())
    if _type_name(before) != _type_name(after):
        return 1.0
    if isinstance(before, (list, tuple)) and len(before) == len(after) and all(map(_is_number, (*before, *after))):
        return _distance(np.asarray(before, np.float64), np.asarray(after, np.float64))
    parts = before if isinstance(before, Mapping) else _attributes(before)
    if parts:
        others = after if isinstance(after, Mapping) else _attributes(after)
        common = [key for key in parts if key in others]
        return float(len(parts) + len(others) - 2 * len(common)) + sum(_distance(parts[k], others[k]) for k in common)
    if isinstance(before, (list, tuple)):
        return abs(len(before) - len(after)) + sum(map(_distance, before, after))
    return 0.0 if _equal(before, after) else 1.0


def _describe(before: Any, after: Any) -> list[str]:
    left, right = _table(before), _table(after)
    if left is not None and right is not None:
        return _tables(left, right)
    if _type_name(before) != _type_name(after) and not (_is_number(before) and _is_number(after)):
        return [f"a {type(before).__name__} became a {type(after).__name__}"]
    if isinstance(before, np.ndarray):
        return _arrays(before, after, "values")
    if isinstance(before, Mapping):
        return _mappings(before, after)
    left_parts, right_parts = _attributes(before), _attributes(after)
    if left_parts and right_parts:
        return _mappings(left_parts, right_parts)
    if isinstance(before, (list, tuple)):
        return _sequences(before, after)
    return [] if _equal(before, after) else [f"{_short(before)} → {_short(after)}"]


def _type_name(value: object) -> tuple[str, str]:
    """A type by its name: classes that travelled by value are made anew each time."""
    return type(value).__module__, type(value).__qualname__


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object of a class of the user's; empty for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    state = getattr(value, "__dict__", None)
    return dict(state) if isinstance(state, dict) else {}


def _table(value: Any) -> pa.Table | None:
    if isinstance(value, pa.Table):
        return value
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns"):
        return pa.Table.from_pandas(value)
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_frame"):
        return pa.Table.from_pandas(value.to_frame("value" if value.name is None else str(value.name)))
    return None


def _tables(before: pa.Table, after: pa.Table) -> list[str]:
    found = []
    if before.num_rows != after.num_rows:
        found.append(f"{counted(before.num_rows, 'row')} became {after.num_rows:,}")
    names = after.column_names
    gone = [name for name in before.column_names if name not in names]
    new = [name for name in names if name not in before.column_names]
    found += [f"columns gone: {', '.join(gone)}"] if gone else []
    found += [f"columns new: {', '.join(new)}"] if new else []
    changed = 0
    for name in names:
        if name in new:
            continue
        left, right = before[name], after[name]
        if left.type != right.type:
            found.append(f"column {name}: {left.type} became {right.type}")
        elif not left.equals(right):
            lines = _columns(left, right, name)
            changed += bool(lines)
            found += lines if changed <= _COLUMNS else []
    if changed > _COLUMNS:
        found.append(f"and {changed - _COLUMNS} more columns differ")
    return found


def _columns(before: pa.ChunkedArray, after: pa.ChunkedArray, name: str) -> list[str]:
    kind = before.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if numeric:
        left, right = (column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in (before, after))
        if len(left) == len(right):
            return [f"column {name}: {line}" for line in _arrays(left, right, "values")]
        return [f"column {name}: mean {_mean(left)} → {_mean(right)}"]
    left_values, right_values = before.to_pylist(), after.to_pylist()
    if len(left_values) == len(right_values):
        return [f"column {name}: {line}" for line in _sequences(left_values, right_values, "values")]
    distinct = [len(set(map(str, values))) for values in (left_values, right_values)]
    return [f"column {name}: {distinct[0]:,} → {distinct[1]:,} distinct values"]


def _mean(values: Any) -> str:
    return f"{np.nanmean(values):.6g}" if np.isfinite(values).any() else "none"


def _arrays(before: Any, after: Any, what: str) -> list[str]:
    if before.dtype != after.dtype:
        return [f"{before.dtype} became {after.dtype}"]
    if before.shape != after.shape:
        return [f"shape {before.shape} became {after.shape}"]
    if before.dtype.kind not in "iufb":
        count = int((before != after).sum())
        return [f"{count:,} of {before.size:,} {what} differ"] if count else []
    left, right = before.astype(np.float64).ravel(), after.astype(np.float64).ravel()
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    differ = np.flatnonzero(~same)
    if not len(differ):
        return []
    moved = np.abs(right[differ] - left[differ])
    where = int(differ[np.nanargmax(moved)]) if np.isfinite(moved).any() else int(differ[0])
    size = float(abs(right[where] - left[where]))
    at = f" (at {where}: {left[where]:.6g} → {right[where]:.6g})"
    return [f"{len(differ):,} of {before.size:,} {what} differ, largest difference {size:.4g}{at}"]


def _mappings(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[str]:
    found = []
    gone, new = [key for key in before if key not in after], [key for key in after if key not in before]
    found += [f"keys gone: {', '.join(map(_short, gone[:_COLUMNS]))}"] if gone else []
    found += [f"keys new: {', '.join(map(_short, new[:_COLUMNS]))}"] if new else []
    differ = [key for key in before if key in after and not _equal(before[key], after[key])]
    for key in differ[:_COLUMNS]:
        found += [f"{_short(key)}: {line}" for line in _describe(before[key], after[key])]
    return found + ([f"and {len(differ) - _COLUMNS} more keys differ"] if len(differ) > _COLUMNS else [])


def _sequences(before: Sequence[Any], after: Sequence[Any], what: str = "items") -> list[str]:
    if len(before) != len(after):
        return [f"{len(before):,} {what} became {len(after):,}"]
    if all(map(_is_number, before)) and all(map(_is_number, after)):
        return _arrays(np.asarray(before, np.float64), np.asarray(after, np.float64), what)
    differ = [place for place, pair in enumerate(zip(before, after, strict=True)) if not _equal(*pair)]
    if not differ:
        return []
    first = differ[0]
    at = f"(at {first}: {_short(before[first])} → {_short(after[first])})"
    return [f"{len(differ):,} of {len(before):,} {what} differ {at}"]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _equal(before: Any, after: Any) -> bool:
    if _type_name(before) != _type_name(after):
        return False
    own = isinstance(before, (Mapping, list, tuple)) or dataclasses.is_dataclass(before)
    if own or type(before) is not type(after):
        return not _describe(before, after)  # comparing them by == would compare the arrays that they may hold
    same = before == after
    if isinstance(same, np.ndarray):
        return before.shape == after.shape and bool(same.all())
    return bool(same) or (isinstance(before, float) and np.isnan(before) and np.isnan(after))


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
