"""Which elements of a range have something in common (done, failed, pending), in memory that grows with the holes.

A million finished trials in one piece cost one pair of integers. Intervals are half-open, ``[start, stop)``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["IntervalSet"]


class IntervalSet:
    """A set of non-negative integers kept as sorted, disjoint, non-adjacent half-open intervals.

    >>> done = IntervalSet([(0, 10), (20, 30)])
    >>> done.add(10, 15)
    >>> list(done)
    [(0, 15), (20, 30)]
    >>> len(done), 12 in done, list(done.gaps(0, 40))
    (25, True, [(15, 20), (30, 40)])

    Look-ups cost O(log n) for n intervals; changes move list tails, O(n) with a tiny constant.
    """

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for start, stop in intervals:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``; what is there already stays."""
        if stop <= start:
            return
        low = bisect_left(self._stops, start)  # first interval that touches or follows
        high = bisect_right(self._starts, stop)  # first interval wholly after
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
            replaced = sum(self._stops[low:high]) - sum(self._starts[low:high])
        else:
            replaced = 0
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]
        self._total += stop - start - replaced

    def add_each(self, numbers: npt.NDArray[np.int64]) -> None:
        """Add single numbers, most of them neighbours, in a few runs.

        >>> done = IntervalSet()
        >>> done.add_each(np.asarray([3, 1, 2, 7]))
        >>> list(done)
        [(1, 4), (7, 8)]
        """
        if not len(numbers):
            return
        ordered = np.sort(numbers, kind="stable")  # nearly sorted already, which this kind makes use of
        cuts = np.flatnonzero(np.diff(ordered) > 1)
        starts = np.concatenate([ordered[:1], ordered[cuts + 1]])
        stops = np.concatenate([ordered[cuts], ordered[-1:]]) + 1
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            self.add(start, stop)

    def remove(self, start: int, stop: int) -> None:
        """Remove ``[start, stop)``; what is not there is ignored."""
        if stop <= start:
            return
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        if low >= high:
            return
        replaced = sum(self._stops[low:high]) - sum(self._starts[low:high])
        starts: list[int] = []
        stops: list[int] = []
        if self._starts[low] < start:
            starts.append(self._starts[low])
            stops.append(start)
        if self._stops[high - 1] > stop:
            starts.append(stop)
            stops.append(self._stops[high - 1])
        self._starts[low:high] = starts
        self._stops[low:high] = stops
        self._total += sum(stops) - sum(starts) - replaced

    def around(self, element: int) -> tuple[int, int] | None:
        """The interval that holds ``element``, or None."""
        at = bisect_right(self._starts, element) - 1
        if at >= 0 and element < self._stops[at]:
            return self._starts[at], self._stops[at]
        return None

    def covers(self, start: int, stop: int) -> bool:
        """True if every element of ``[start, stop)`` is in the set."""
        if stop <= start:
            return True
        held = self.around(start)
        return held is not None and held[1] >= stop

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The parts of the set inside ``[start, stop)``, in order."""
        at = bisect_right(self._stops, start)
        while at < len(self._starts) and self._starts[at] < stop:
            yield max(start, self._starts[at]), min(stop, self._stops[at])
            at += 1

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The parts of ``[start, stop)`` that are not in the set, in order."""
        for held_start, held_stop in self.within(start, stop):
            if start < held_start:
                yield start, held_start
            start = held_stop
        if start < stop:
            yield start, stop

    def from_the_end(self) -> Iterator[tuple[int, int]]:
        """The intervals, last first."""
        return zip(reversed(self._starts), reversed(self._stops), strict=True)

    def first(self) -> tuple[int, int]:
        """The first interval. Raises IndexError when the set is empty."""
        return self._starts[0], self._stops[0]

    def copy(self) -> IntervalSet:
        """An independent copy."""
        twin = IntervalSet()
        twin._starts, twin._stops, twin._total = self._starts[:], self._stops[:], self._total
        return twin

    @property
    def pieces(self) -> int:
        """How many intervals it takes."""
        return len(self._starts)

    def __len__(self) -> int:
        return self._total

    def __bool__(self) -> bool:
        return self._total > 0

    def __contains__(self, element: int) -> bool:
        return self.around(element) is not None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        shown = ", ".join(f"[{start}, {stop})" for start, stop in list(self)[:8])
        more = f", … {self.pieces - 8} more" if self.pieces > 8 else ""
        return f"IntervalSet({shown}{more})"
