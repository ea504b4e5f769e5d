"""What is a fused function given? The configs of a batch of trials, as columns.

Pure NumPy; it must not know how batches are formed or run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from umbel.scheduler.errors import UsageError

__all__ = ["Configs"]


class Configs:
    """The configs of the trials of a batch, as columns: ``configs["lr"]`` is an array with the rate of each trial.

    Like a data frame of pandas: ``len(configs)`` is the number of trials, iterating gives the names, ``configs[name]``
    a column, and ``configs[i]`` the config of trial i as the plain dict that it would be given alone. Columns of
    numbers and truth values are arrays of those, all others of objects. Changing them changes no record.

    Args:
        rows: the configs, one dict a trial, all with the same names.
        by: names whose values all trials share; they stand in `common` too.
        seeds: one a trial; 0, 1, 2, … otherwise.
        group: for each trial the place of its group's data in ``data``; 0 otherwise.
        trials: indices of the trials in their sweep; 0, 1, 2, … otherwise.

    Raises:
        UsageError: there is no trial, or they differ in a name of ``by``.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        by: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
        group: Sequence[int] | None = None,
        trials: Sequence[int] | None = None,
    ) -> None:
        if not len(rows):
            raise UsageError("a batch has no trials", got="0", expected="at least one config")
        count = len(rows)
        self._rows = [dict(row) for row in rows]
        self._columns: dict[str, np.ndarray] = {}
        #: The values of the names that the batch was formed by, which all its trials share.
        self.common: dict[str, Any] = {name: rows[0][name] for name in by}
        #: A number for seeding random generators for each trial: ``umbel.trial().seed`` of a trial alone.
        self.seeds: npt.NDArray[np.int64] = np.asarray(range(count) if seeds is None else seeds, np.int64)
        #: For each trial, which element of ``data`` is its group's, with ``fuse_groups=True``; else zeros.
        self.group: npt.NDArray[np.int64] = np.asarray([0] * count if group is None else group, np.int64)
        #: Indices of the trials in their sweep.
        self.trials: npt.NDArray[np.int64] = np.asarray(range(count) if trials is None else trials, np.int64)
        for name, value in self.common.items():
            if any(row[name] != value for row in rows):
                raise UsageError(
                    f"trials of a batch differ in {name!r}", got=repr([row[name] for row in rows[:8]]), expected="one"
                )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows[0])

    def __contains__(self, name: object) -> bool:
        return name in self._rows[0]

    @overload
    def __getitem__(self, name: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, name: int) -> dict[str, Any]: ...
    def __getitem__(self, name: str | int) -> np.ndarray | dict[str, Any]:
        """A column by its name, or the config of a trial by its place."""
        if not isinstance(name, str):
            return dict(self._rows[name])
        column = self._columns.get(name)
        if column is None:
            if name not in self._rows[0]:
                raise KeyError(name)
            column = self._columns[name] = _column([row[name] for row in self._rows])
        return column

    def get(self, name: str, default: Any = None) -> Any:
        """A column, or the default if there is no such name."""
        return self[name] if name in self else default  # noqa: SIM401 - this is what it is made of

    def keys(self) -> list[str]:
        """The names: those of the space, then the group keys."""
        return list(self._rows[0])

    def items(self) -> list[tuple[str, np.ndarray]]:
        """The names with their columns."""
        return [(name, self[name]) for name in self]

    def rows(self) -> list[dict[str, Any]]:
        """The configs, one dict a trial."""
        return [dict(row) for row in self._rows]

    def __repr__(self) -> str:
        return f"<Configs of {len(self)} trials: {', '.join(self)}>"


def _column(values: list[Any]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds <= {bool} or kinds <= {int, float}:
        try:
            return np.asarray(values)
        except OverflowError:  # whole numbers beyond 64 bits
            pass
    column = np.empty(len(values), object)
    for place, value in enumerate(values):  # a list of lists of equal length would become a matrix otherwise
        column[place] = value
    return column
