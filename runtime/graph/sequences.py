"""Which values are lists, so that `map` runs over their elements? Strings, mappings and tables are single values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["as_sequence", "is_sequence", "item"]


def as_sequence(value: object) -> Sequence[Any] | None:
    """A list, tuple, range, one-dimensional array, pandas Series or Index as a sequence; None: it is none of these."""
    if isinstance(value, (list, tuple, range)):
        return value
    kind = _array_kind(value)
    if kind is None:
        return None
    return value.to_pylist() if kind == "pyarrow" else list(value)  # type: ignore[attr-defined, no-any-return, call-overload]


def is_sequence(value: object) -> bool:
    """Whether `as_sequence` takes it for one; costs nothing."""
    return isinstance(value, (list, tuple, range)) or _array_kind(value) is not None


def item(value: Any, place: int) -> Any:
    """One item of what `is_sequence`, as `as_sequence` would give it, without making a list of all.

    Raises:
        IndexError: there are fewer.
    """
    kind = None if isinstance(value, (list, tuple, range)) else _array_kind(value)
    if kind == "pyarrow":
        return value[place].as_py()
    if kind == "pandas":
        part = value[place : place + 1] if type(value).__name__ == "Index" else value.iloc[place : place + 1]
        return part.tolist()[0]
    return value[place]


def _array_kind(value: object) -> str | None:
    module = type(value).__module__.partition(".")[0]
    if module == "numpy" and getattr(value, "ndim", None) == 1:
        return module
    if module == "pandas" and type(value).__name__ in {"Series", "Index"}:
        return module
    if module == "pyarrow" and type(value).__name__.endswith("Array"):
        return module
    return None
