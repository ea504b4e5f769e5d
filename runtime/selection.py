"""Which trials of each group are the best so far: kept by the driver as results arrive, in O(groups × k).

The rule is the same wherever a best trial is chosen: only trials that ended well, only finite metrics, the lowest (mode
"min") or highest (mode "max"), and of equals the one with the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

__all__ = ["Candidate", "Selection"]

#: Statuses of trials whose metrics count.
GOOD = ("ok", "pruned")
PREFIX = "metric_"


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A trial that is among the best of its group; the order of candidates is that of merit."""

    #: The metric, negated if more is better.
    score: float
    trial: int
    #: All metrics of the trial, as (name, value).
    metrics: tuple[tuple[str, float], ...]
    model: str | None


class Selection:
    """The k best trials of each group of one sweep.

    Args:
        trials: how many a group; trial i belongs to group i // trials.
        metric: the metric to compare by.
        mode: "min" or "max".
        k: how many to keep.
    """

    def __init__(self, trials: int, metric: str, mode: str, k: int = 1) -> None:
        self._trials = trials
        self._metric = metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._k = k
        self._groups: dict[int, list[Candidate]] = {}
        self._leader: Candidate | None = None

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the trials table into account; needs trial, status, metric and model columns."""
        names = rows.schema.names
        if rows.num_rows == 0 or PREFIX + self._metric not in names:
            return
        trial = _numbers(rows.column("trial"), np.int64)
        score = self._sign * _numbers(rows.column(PREFIX + self._metric), np.float64)
        good = np.isfinite(score)
        status = rows.column("status")
        if pa.types.is_dictionary(status.type):
            status = status.cast(pa.string())
        good &= np.asarray(pa.compute.is_in(status, value_set=pa.array(GOOD)))
        places = np.flatnonzero(good)
        if not len(places):
            return
        group = trial[places] // self._trials
        order = np.lexsort((trial[places], score[places], group))
        places, group = places[order], group[order]
        first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        last = np.append(first[1:], len(group))
        metrics = [name for name in names if name.startswith(PREFIX)]
        for start, stop in zip(first.tolist(), last.tolist(), strict=True):
            held = self._groups.setdefault(int(group[start]), [])
            for place in places[start : min(stop, start + self._k)].tolist():
                if len(held) == self._k and not (float(score[place]), int(trial[place])) < (
                    held[-1].score,
                    held[-1].trial,
                ):
                    break
                candidate = self._candidate(rows, place, float(score[place]), int(trial[place]), metrics)
                held.append(candidate)
                held.sort()
                del held[self._k :]
            if held and (self._leader is None or held[0] < self._leader):
                self._leader = held[0]

    def _candidate(
        self, rows: pa.RecordBatch | pa.Table, place: int, score: float, trial: int, metrics: list[str]
    ) -> Candidate:
        values = ((name.removeprefix(PREFIX), rows.column(name)[place].as_py()) for name in metrics)
        found = tuple((name, value) for name, value in values if value is not None)
        return Candidate(score, trial, found, rows.column("model")[place].as_py())

    def of(self, group: int) -> list[Candidate]:
        """The best of a group, best first; empty if no trial of it has succeeded."""
        return self._groups.get(group, [])

    def value(self, candidate: Candidate) -> float:
        """The metric of a candidate."""
        return self._sign * candidate.score

    @property
    def leader(self) -> Candidate | None:
        """The best trial of all groups."""
        return self._leader


def _numbers(column: pa.Array | pa.ChunkedArray, dtype: type[np.generic]) -> np.ndarray:
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype)
