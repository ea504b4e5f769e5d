"""Which configs can a trial have? A space: named dimensions, nested as the config is, each with a domain of values.

This module must not know Ray or Optuna (``umbel.runtime.search.spaces`` converts their domains), nor how values are
drawn (``umbel.scheduler.search.sampling``). The domains, of ``umbel.scheduler.search.domains`` and
``umbel.scheduler.search.numeric``, can be imported from here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from umbel.scheduler.errors import SpaceError
from umbel.scheduler.identity import DigestOf, refuse
from umbel.scheduler.search.domains import Choice, Column, Constant, Domain, Grid
from umbel.scheduler.search.numeric import Integer, LogInteger, LogUniform, Normal, Stepped, Uniform

__all__ = [
    "Choice",
    "Column",
    "Constant",
    "Domain",
    "Grid",
    "Integer",
    "LogInteger",
    "LogUniform",
    "Normal",
    "Path",
    "Space",
    "Stepped",
    "Uniform",
    "column_name",
    "dimension_name",
    "in_dimension",
]

#: The keys that lead to a value in a nested config.
Path: TypeAlias = tuple[str, ...]


def dimension_name(path: Path) -> str:
    """The name of a dimension in messages: its keys with dots between them."""
    return ".".join(map(str, path))


def in_dimension(path: Path, error: SpaceError) -> SpaceError:
    """The same error, naming the dimension that it is about."""
    what = f"dimension {dimension_name(path)!r}: {error.what}"
    return SpaceError(what, got=error.got, expected=error.expected, hint=error.hint)


def column_name(path: Path) -> str:
    """A dimension's column: its keys joined by "_", in the characters that need no quotes (after ``config_``)."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "_".join(path))


@dataclass(frozen=True, slots=True)
class Space:
    """The dimensions of a search, in order; the last one changes fastest on a grid.

    Two spaces with the same dimensions in another order draw the same random trials, but walk another grid.

    Raises:
        SpaceError: no dimension, a key that is not a non-empty string, two dimensions with one path or one column name.
    """

    dimensions: tuple[tuple[Path, Domain], ...]
    #: One name a dimension: its path joined by "_", with "_" for all but ASCII letters and digits; unique even where
    #: a warehouse ignores case.
    column_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        dimensions = tuple((tuple(path), domain) for path, domain in self.dimensions)
        if not dimensions:
            raise SpaceError(
                "the search space is empty",
                got="no dimension",
                expected="at least one name with a domain, a list of choices or a constant",
                hint='for example space={"alpha": tune.loguniform(1e-4, 1e2)}',
            )
        taken: dict[str, Path] = {}
        for path, domain in dimensions:
            _check_path(path)
            if not isinstance(domain, Domain):
                raise in_dimension(path, SpaceError("not a domain", got=domain, expected="a Domain"))
            folded = column_name(path).casefold()
            if folded in taken:
                raise SpaceError(
                    "two dimensions would share one column of the trials table",
                    got=f"{dimension_name(taken[folded])!r} and {dimension_name(path)!r}, both config_{folded}",
                    expected="names that differ after joining nested keys by '_', whatever their case",
                    hint="rename one of them",
                )
            taken[folded] = path
        paths = {path for path, _ in dimensions}
        for path in paths:
            for length in range(1, len(path)):
                if path[:length] in paths:
                    raise SpaceError(
                        "a name is a dimension and holds dimensions too",
                        got=f"{dimension_name(path[:length])!r} and {dimension_name(path)!r}",
                        expected="either a domain or a dict under a name",
                    )
        object.__setattr__(self, "dimensions", dimensions)
        object.__setattr__(self, "column_names", tuple(column_name(path) for path, _ in dimensions))

    @classmethod
    def from_nested(
        cls, tree: Mapping[str, object], to_domain: Callable[[Path, object], Domain | None] | None = None
    ) -> Space:
        """The space of a nested dict of domains.

        Args:
            tree: domains, and dicts of them, by name.
            to_domain: makes the domain of a value, given its path; None means that the value is a nested dict. By
                default, values must be domains already.

        Raises:
            SpaceError: as the class does, and for a value that is neither a domain nor a dict.
        """
        to_domain = _expect_domain if to_domain is None else to_domain

        def walk(path: Path, branch: Mapping[str, object]) -> list[tuple[Path, Domain]]:
            found: list[tuple[Path, Domain]] = []
            for key, value in branch.items():
                here = (*path, key)
                _check_path(here)
                domain = to_domain(here, value)
                if domain is not None:
                    found.append((here, domain))
                elif isinstance(value, Mapping):
                    found.extend(walk(here, value) if value else [(here, Constant({}))])
            return found

        return cls(tuple(walk((), tree)))

    def grid_size(self) -> int:
        """How many trials a grid over the space has: the product of the dimensions' value counts.

        Raises:
            SpaceError: a dimension is continuous; named.
        """
        return math.prod(self.grid_counts())

    def grid_counts(self) -> tuple[int, ...]:
        """How many grid positions each dimension has; raises as :meth:`grid_size`."""
        counts: list[int] = []
        for path, domain in self.dimensions:
            if domain.count is None:
                raise SpaceError(
                    "grid over a continuous domain",
                    got=f"dimension {dimension_name(path)!r}: {domain!r}",
                    expected="domains with finitely many values: choices, integers, or floats with q",
                    hint='list its values (tune.grid_search([…])), quantize it (tune.quniform), or use search="random"',
                )
            counts.append(domain.count)
        return tuple(counts)

    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        """The space as a JSON-able dict, equal for equal spaces only: what a resumed run compares.

        Args:
            digest_of: gives a stable text for values without canonical form (functions, models).

        Raises:
            SpaceError: such a value and no ``digest_of``; names the dimension.
        """
        described: list[dict[str, object]] = []
        for path, domain in self.dimensions:
            try:
                described.append({"path": list(path), **domain.describe(digest_of)})
            except SpaceError as error:
                raise in_dimension(path, error) from None
        return {"dimensions": described}


def _expect_domain(path: Path, value: object) -> Domain | None:
    if isinstance(value, Domain):
        return value
    if isinstance(value, Mapping):
        return None
    raise in_dimension(path, SpaceError("not a domain", got=value, expected="a Domain or a dict of them"))


def _check_path(path: Path) -> None:
    for key in path:
        if not isinstance(key, str) or not key:
            raise SpaceError(
                "a name in the search space is not a non-empty string",
                got=f"{key!r} in {dimension_name(path)!r}",
                expected="non-empty strings as names",
            )
    if not path or not re.search("[A-Za-z0-9]", "_".join(path)):
        raise SpaceError(
            "a name in the search space can't become a column name",
            got=repr(dimension_name(path)),
            expected="a name with at least one ASCII letter or digit",
        )
