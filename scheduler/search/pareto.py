"""Which trials does no other beat, where trials are judged by several metrics at once? The Pareto set.

A trial dominates another if it is no worse in every objective and better in one. What no other dominates is the Pareto
set; trials that are equal in all objectives are in it together. It must not know trials, groups or rows: only values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Front", "Objective", "in_words", "non_dominated"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric that trials are judged by."""

    metric: str
    #: "min" if less is better, "max" if more is.
    mode: str

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that less is better."""
        return 1.0 if self.mode == "min" else -1.0


def in_words(objectives: Sequence[Objective]) -> str:
    """The metrics for people: ``"mape and latency_s"``."""
    names = [each.metric for each in objectives]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def non_dominated(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows no other row dominates.

    Args:
        values: one row a trial, one column an objective; less is better, all finite.

    Cost: for n rows, of which f are in the set, and m columns O(n log n) if m is 1 or 2, else O(n log n + f n m), in
    arrays. After sorting by the first column, then the second, …, a row can be dominated by rows before it only (Kung,
    Luccio & Preparata 1975), so the least that is left is always in the set.
    """
    if not len(values):
        return np.zeros(0, np.bool_)
    # Zeros of one sign, so that equal rows are the same to the last bit.
    distinct, which = np.unique(values + 0.0, axis=0, return_inverse=True)
    if values.shape[1] == 1:
        kept = np.zeros(len(distinct), np.bool_)
        kept[0] = True
    elif values.shape[1] == 2:
        second = distinct[:, 1]
        kept = np.ones(len(distinct), np.bool_)
        kept[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    else:
        kept = np.zeros(len(distinct), np.bool_)
        left = np.arange(len(distinct))
        while len(left):
            kept[left[0]] = True
            better = (distinct[left] < distinct[left[0]]).any(axis=1)  # than this one, in some column
            left = left[better]
    found: npt.NDArray[np.bool_] = kept[which.reshape(-1)]
    return found


class Front:
    """The Pareto set of values that come one by one."""

    def __init__(self) -> None:
        self._held: list[tuple[float, ...]] = []

    def add(self, values: Sequence[float]) -> bool:
        """Take one more into account (finite; less is better); False if one that was seen before dominates it.

        Cost: a comparison with each of the set.
        """
        new = tuple(values)
        if any(_dominates(held, new) for held in self._held):
            return False
        self._held = [held for held in self._held if held != new and not _dominates(new, held)]
        self._held.append(new)
        return True


def _dominates(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return left != right and all(a <= b for a, b in zip(left, right, strict=True))
