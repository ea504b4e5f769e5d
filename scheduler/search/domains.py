"""Which values can one dimension of a search take, and how likely is each? Its domain says.

A domain maps a share u in (0, 1) to a value (its inverse distribution function), whole arrays at a time, and, if it
has finitely many values, an index to a value, which is what a grid walks through. Here are the interface and the
domains of listed values; those of numbers in a range are in ``umbel.scheduler.search.numeric``.

This module must not know Ray or Optuna (``umbel.runtime.search.spaces`` converts their domains), nor where the shares
and indices come from (``umbel.scheduler.search.sampling``), nor what a dimension is called
(``umbel.scheduler.search.space``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from umbel.scheduler.errors import SpaceError
from umbel.scheduler.identity import DigestOf, canonical_json, refuse
from umbel.scheduler.search.elementary import Floats

__all__ = [
    "INT64",
    "Choice",
    "Column",
    "Constant",
    "Derived",
    "Domain",
    "Finite",
    "Grid",
    "Indices",
    "NotDrawnYetError",
    "Pending",
    "typed_column",
]

#: Grid positions, or integer values.
Indices: TypeAlias = npt.NDArray[np.int64]
#: One value a trial: a float64, int64 or bool array, or a list where the values are of other or of mixed types.
Column: TypeAlias = npt.NDArray[Any] | list[object]

#: The bounds of what an int64 column holds.
INT64: Final = np.iinfo(np.int64)


class Domain(ABC):
    """The values that one dimension can take. Immutable; it validates itself when it is made (``SpaceError``)."""

    __slots__ = ()

    @property
    def count(self) -> int | None:
        """How many values a grid over the domain has; None if they can't be listed."""
        return None

    @abstractmethod
    def from_uniform(self, u: Floats) -> Column:
        """The value at each share ``u`` of the distribution, 0 < u < 1."""

    def from_index(self, index: Indices) -> Column:
        """The value at each grid position, 0 <= index < ``count``; only for domains that have a ``count``."""
        raise TypeError(f"{self!r} has no grid")

    @abstractmethod
    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        """The domain as a JSON-able dict; equal for equal domains only.

        Values of any type are given as their canonical text, because JSON's readers and ``==`` confuse 1, 1.0 and True.

        Raises:
            SpaceError: a value has no canonical form and there is no ``digest_of`` (as in ``canonical_json``).
        """


class Finite(Domain):
    """A domain whose values can be listed; each is as likely, unless a subclass says otherwise."""

    __slots__ = ()

    @property
    @abstractmethod
    def count(self) -> int:
        """How many values there are."""

    @abstractmethod
    def from_index(self, index: Indices) -> Column:
        """The value at each grid position, 0 <= index < ``count``."""

    def from_uniform(self, u: Floats) -> Column:
        """The value in whose equal part of (0, 1) each share lies."""
        count = self.count
        # The minimum guards products that round up to the count.
        return self.from_index(np.minimum((u * count).astype(np.int64), count - 1))


@dataclass(frozen=True, slots=True)
class Choice(Finite):
    """One of the values, each as likely; list a value twice to make it twice as likely."""

    #: Any ordered iterable of values is taken; kept as a tuple, with NumPy scalars as Python ones.
    values: Sequence[object]

    def __post_init__(self) -> None:
        values: object = self.values
        if isinstance(values, np.ndarray):
            values = list(values)
        if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not isinstance(values, Iterable):
            raise SpaceError(
                f"{type(self).__name__}: the values are not in a list",
                got=repr(values),
                expected="a list or tuple of values, in an order",
            )
        plain = tuple(_plain(value) for value in values)
        if not plain:
            raise SpaceError(
                f"{type(self).__name__}: there are no values",
                got="an empty list",
                expected="at least one value",
                hint="list the values to choose from, or leave the name out",
            )
        object.__setattr__(self, "values", plain)

    @property
    def count(self) -> int:
        """How many values are listed."""
        return len(self.values)

    def from_index(self, index: Indices) -> Column:
        """The values at these places of the list; a typed array if they are all of one type."""
        array = _as_array(self.values)
        if array is not None:
            return array[index]
        values = self.values
        return [values[i] for i in index.tolist()]

    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        """The kind, and each value's canonical text."""
        return {"kind": type(self).__name__, "values": [canonical_json(value, digest_of) for value in self.values]}


@dataclass(frozen=True, slots=True)
class Grid(Choice):
    """Every one of the values (``tune.grid_search``): only for grid search."""


@dataclass(frozen=True, slots=True)
class Constant(Finite):
    """The same value in every trial; takes no randomness, and is one position on a grid."""

    value: object

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _plain(self.value))

    @property
    def count(self) -> int:
        """One."""
        return 1

    def from_index(self, index: Indices) -> Column:
        """The value, as often as there are positions."""
        array = _as_array((self.value,))
        return [self.value] * len(index) if array is None else np.repeat(array, len(index))

    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        """The kind, and the value's canonical text."""
        return {"kind": "Constant", "value": canonical_json(self.value, digest_of)}


class Pending:
    """Stands in a config for a value that is yet to be computed."""


class NotDrawnYetError(Exception):
    """A function asked for a value of the config that is yet to be computed."""


@dataclass(frozen=True, slots=True)
class Derived(Finite):
    """What a function makes of the rest of a trial's config and of a seed (``tune.sample_from``)."""

    #: ``function(config, seed)``: values that are not computed yet are `Pending` in the config; if it needs one of
    #: them, it raises `NotDrawnYetError` and is called again. It must give the same for the same config and seed.
    function: Callable[[Mapping[str, object], int], object]

    @property
    def count(self) -> int:
        """One: it follows from the others."""
        return 1

    def from_index(self, index: Indices) -> Column:
        """Stand-ins, until the rest of the config is known."""
        return [Pending()] * len(index)

    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        """The kind, and what stands for the function."""
        return {"kind": "Derived", "function": canonical_json(self.function, digest_of)}


def _plain(value: object) -> object:
    """NumPy's scalars as Python's, inside lists, tuples and dicts too: that is what configs promise to hold."""
    match value:
        case np.bool_():
            return bool(value)
        case np.timedelta64():  # an np.integer by inheritance only
            return value
        case np.integer():
            return int(value)
        case np.floating():
            return float(value)
        case np.str_():
            return str(value)
    # Exact types, so that subclasses (named tuples, ordered dicts) stay what they are.
    if type(value) is list:
        return [_plain(member) for member in value]
    if type(value) is tuple:
        return tuple(_plain(member) for member in value)
    if type(value) is dict:
        return {key: _plain(member) for key, member in value.items()}
    return value


def typed_column(values: list[object]) -> Column:
    """Values as a column: a typed array if they are all of one type that has one."""
    plain = [_plain(value) for value in values]
    array = _as_array(plain)
    return plain if array is None else array


def _as_array(values: Sequence[object]) -> npt.NDArray[Any] | None:
    """A typed array if all values are of one type that has one; 1, 1.0 and True never merge."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return None
    if kinds == {int}:
        fits = all(INT64.min <= value <= INT64.max for value in values)  # type: ignore[operator]
        return np.array(values, dtype=np.int64) if fits else None
    if kinds <= {bool, float}:
        return np.array(values)
    return None
