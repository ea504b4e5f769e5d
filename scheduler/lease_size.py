"""How many elements a lease should hold.

Long enough that a lease's fixed cost vanishes, short enough for durability, fairness and an even finish. Three bounds:

- by time: `TARGET_S` of work at the measured time an element, more where there are many workers;
- by share: a fraction of what is left, over the workers ("guided self-scheduling", Polychronopoulos and Kuck 1987,
  IEEE Transactions on Computers C-36(12)), so that leases shrink as the range runs out;
- by floor: never less than `FLOOR_S` of work, under which the round trip would cost more than an even finish gains.

Until something has been measured a lease holds one element: it might take hours.

Elements that are run many at once (`Batched`) are another matter: there a lease is long, whatever they take.
"""

from __future__ import annotations

from math import ceil

from umbel.scheduler.graph import Batched

__all__ = ["FLOOR_S", "TARGET_S", "LeaseSizer"]

#: Seconds of work that a lease aims at.
TARGET_S = 0.5
#: … and at least this for each worker, since a lease is an answer, which takes the driver more than a millisecond:
#: beyond some hundred workers that is what limits them (`docs/scale.md`).
TARGET_PER_WORKER_S = 0.002
#: Seconds of work under which a lease is not cut further.
FLOOR_S = 0.01
#: Share of the remaining work per worker that one lease may take is 1 / this.
SHARE = 2
#: How much an earlier measurement counts when a new one arrives.
FORGET = 0.5


class LeaseSizer:
    """Sizes the leases of one node from the times measured so far."""

    __slots__ = ("_all_count", "_all_seconds", "_count", "_seconds")

    def __init__(self) -> None:
        self._count = 0.0
        self._seconds = 0.0
        self._all_count = 0
        self._all_seconds = 0.0

    def observe(self, count: int, seconds: float) -> None:
        """``count`` elements took ``seconds`` in all."""
        if count > 0:
            self._count = self._count * FORGET + count
            self._seconds = self._seconds * FORGET + max(seconds, 0.0)
            self._all_count += count
            self._all_seconds += max(seconds, 0.0)

    @property
    def mean_s(self) -> float | None:
        """Seconds an element takes, recent ones counting more; None before any was measured."""
        return self._seconds / self._count if self._count else None

    @property
    def overall_s(self) -> float | None:
        """Seconds an element takes, all of them counting alike; None before any was measured."""
        return self._all_seconds / self._all_count if self._all_count else None

    def size(self, pending: int, workers: int, batched: Batched | None = None) -> int:
        """Elements for the next lease when ``pending`` are left for ``workers``."""
        size = self._size(pending, workers)
        if batched is None:
            return size
        share = min(batched.share, ceil(pending / max(workers, 1)))
        return max(1, min(pending, max(size, batched.least, share)))

    def _size(self, pending: int, workers: int) -> int:
        mean_s = self.mean_s
        if mean_s is None:
            return 1
        mean_s = max(mean_s, 1e-9)
        by_share = ceil(pending / (SHARE * max(workers, 1)))
        by_floor = int(FLOOR_S / mean_s)
        by_time = int(max(TARGET_S, TARGET_PER_WORKER_S * workers) / mean_s)
        return max(1, min(pending, by_time, max(by_share, by_floor)))
