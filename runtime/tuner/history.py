"""What did a trial that was written for Ray Tune report, when, and how do its metrics stand over all reports?

A trial's history is kept with its row, as its model. It is bounded: of very many reports every second, fourth, … is
kept, always with the first and the last; what is said of all of them (lowest, highest, mean) counts all. It must not
know who asks.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real
from typing import Any

__all__ = ["HISTORY_LIMIT", "Course", "History", "columns_of", "flat", "numbers_of"]

#: Reports of a trial that are kept.
HISTORY_LIMIT = 1000
#: What is filled in and says nothing about the trial that its row does not say already.
_FILLED_IN = frozenset(
    {
        *(
            "done",
            "timestamp",
            "time_this_iter_s",
            "time_total_s",
            "time_since_restore",
            "iterations_since_restore",
            "pid",
        ),
    }
)


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested metrics by their names joined with "/", as Tune does."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}/"))
        else:
            found[f"{prefix}{name}"] = value
    return found


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers, NumPy's and scalar tensors too, by their flat names."""
    found: dict[str, float] = {}
    for name, value in flat(metrics).items():
        if isinstance(value, Real) or (getattr(value, "shape", None) == () and hasattr(value, "item")):
            try:
                found[name] = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
    return found


def columns_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a report that get columns in the trials table: its own, and the iteration."""
    return {name: value for name, value in numbers_of(result).items() if name not in _FILLED_IN}


@dataclass(slots=True)
class Course:
    """One metric over all reports of a trial."""

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=10))

    def add(self, value: float) -> None:
        """Take the next report's value into account."""
        self.count += 1
        self.total += value
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.latest.append(value)

    def score(self, scope: str, mode: str) -> float:
        """One number for all: Tune's scopes "last", "avg", "last-5-avg", "last-10-avg" and "all"."""
        if scope == "last":
            return self.latest[-1]
        if scope == "avg":
            return self.total / self.count
        if scope == "all":
            return self.low if mode == "min" else self.high
        latest = list(self.latest)[-5:] if scope == "last-5-avg" else list(self.latest)
        return sum(latest) / len(latest)


class History:
    """The reports of one trial.

    Args:
        index: the trial's index in its sweep.
    """

    def __init__(self, index: int) -> None:
        self.trial_id = f"{index:05d}"
        #: Reports, oldest first; all of them, or of each `stride` one.
        self.rows: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.courses: dict[str, Course] = {}
        #: The same for all rows.
        self.place = {"pid": os.getpid(), "hostname": socket.gethostname(), "trial_id": self.trial_id}
        self.count = 0
        self._stride = 1
        self._seconds = 0.0
        self._seconds_before = 0.0
        self._count_before = 0
        self._since = time.perf_counter()

    def go_on_from(self, earlier: History) -> None:
        """Go on where an earlier attempt saved its last checkpoint; what was reported since then does not count."""
        place, since = self.place, self._since
        self.__dict__.update(earlier.__dict__)
        self.place, self._since = place, since
        self._seconds_before, self._count_before = earlier._seconds, earlier.count

    def add(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Take a report, and return it with all that Tune fills in."""
        now = time.perf_counter()
        took, self._since = now - self._since, now
        self.count += 1
        self._seconds += took
        moment = datetime.now()
        row = {
            "training_iteration": self.count,
            "time_this_iter_s": took,
            "time_total_s": self._seconds,
            "time_since_restore": self._seconds - self._seconds_before,
            "iterations_since_restore": self.count - self._count_before,
            "timestamp": int(moment.timestamp()),
            "date": f"{moment:%Y-%m-%d_%H-%M-%S}",
            "done": False,
            **{name: value for name, value in metrics.items() if name not in ("config", *self.place)},
        }
        self.last = row
        for name, value in numbers_of(row).items():
            self.courses.setdefault(name, Course()).add(value)
        if (self.count - 1) % self._stride == 0:
            self.rows.append(row)
            if len(self.rows) > HISTORY_LIMIT:
                self.rows = self.rows[::2]
                self._stride *= 2
        return {**row, **self.place}

    def all_rows(self) -> list[dict[str, Any]]:
        """The reports that are kept, the last of all among them."""
        last = [] if not self.last or (self.rows and self.rows[-1] is self.last) else [self.last]
        return [{**row, **self.place} for row in (*self.rows, *last)]

    def __getstate__(self) -> dict[str, Any]:
        # The last row as one of the rows, or not at all: being the same object does not survive.
        rows = self.rows[:-1] if self.rows and self.rows[-1] is self.last else self.rows
        return {**self.__dict__, "rows": rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.last and (self.count - 1) % self._stride == 0:
            self.rows = [*self.rows, self.last]
