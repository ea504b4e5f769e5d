"""Which trials of each group are the best so far: kept by the driver as results arrive, in O(groups × k).

The rule is the same wherever a best trial is chosen: only trials that ended well, only finite metrics, the lowest (mode
"min") or highest (mode "max"), and of equals the one with the lowest index. Trials that were pruned come after all that
ran to their end. With several metrics the best are those that no other of the group dominates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.search.pareto import Objective, non_dominated
from umbel.storage.runs.trial_rows import PRUNED, SUCCEEDED, WHOLE, judged_by, metric_column
from umbel.storage.values.columns import contains, float_values, int_values, integers, python_values

__all__ = ["Candidate", "Fronts", "Selection"]

PREFIX = "metric_"
#: Whether a trial was pruned, its score, and its number: in the order of merit.
Merit: TypeAlias = tuple[bool, float, int]


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A trial that is among the best of its group; the order of candidates is that of merit."""

    #: True: it was stopped before its end, so it comes after those that were not.
    pruned: bool
    #: The metric (of several the first), negated if more is better.
    score: float
    trial: int
    #: All metrics of the trial, as (name, value).
    metrics: tuple[tuple[str, float], ...]
    model: str | None
    #: What an adaptive search suggested, as JSON.
    params: str | None = None


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
        self._column = metric_column(metric)
        self._sign = 1.0 if mode == "min" else -1.0
        self._k = k
        self._groups: dict[int, list[Candidate]] = {}
        self._leader: Candidate | None = None

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the trials table into account; needs trial, status, metric and model columns."""
        names = rows.schema.names
        if rows.num_rows == 0 or self._column not in names:
            return
        trial = int_values(rows.column("trial"))
        score = self._sign * float_values(rows.column(self._column))
        places = np.flatnonzero(np.isfinite(score) & contains(rows.column("status"), SUCCEEDED))
        if not len(places):
            return
        group = trial[places] // self._trials
        pruned = contains(rows.column("status"), PRUNED)
        order = np.lexsort((trial[places], score[places], pruned[places], group))
        places, group = places[order], group[order]
        first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        last = np.append(first[1:], len(group))
        merits = list(zip(pruned[places].tolist(), score[places].tolist(), trial[places].tolist(), strict=True))
        chosen: list[int] = []  # of the places
        for number, start, stop in zip(group[first].tolist(), first.tolist(), last.tolist(), strict=True):
            held = self._groups.get(number, [])
            for i in range(start, min(stop, start + self._k)):
                if len(held) == self._k and merits[i] >= (held[-1].pruned, held[-1].score, held[-1].trial):
                    break  # those after it are worse still
                chosen.append(i)
        if chosen:
            self._keep(rows, places[chosen], [merits[i] for i in chosen])

    def _keep(self, rows: pa.RecordBatch | pa.Table, places: npt.NDArray[np.int64], merits: Sequence[Merit]) -> None:
        """Keep the trials at these places, given with their scores and numbers, as far as they are among the best."""
        for candidate in _candidates(rows, places, merits):
            held = self._groups.setdefault(candidate.trial // self._trials, [])
            held.append(candidate)
            held.sort()
            del held[self._k :]
            if self._leader is None or held[0] < self._leader:
                self._leader = held[0]

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


class Fronts:
    """The Pareto set of each group of one sweep that is judged by several metrics.

    Args:
        trials: how many a group; trial i belongs to group i // trials.
        objectives: what they are judged by.
    """

    def __init__(self, trials: int, objectives: Sequence[Objective]) -> None:
        self._trials = trials
        self._objectives = tuple(objectives)
        #: By group, the trials of its set and their scores, row by row.
        self._groups: dict[int, tuple[list[Candidate], npt.NDArray[np.float64]]] = {}
        self._leader: Candidate | None = None

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the trials table into account; needs trial, status, metric and model columns."""
        if rows.num_rows == 0:
            return
        scores = judged_by(rows, self._objectives)
        whole = contains(rows.column("status"), WHOLE)
        places = np.flatnonzero(np.isfinite(scores).all(axis=1) & whole)
        if not len(places):
            return
        numbers = int_values(rows.column("trial"))
        places = places[np.argsort(numbers[places], kind="stable")]
        groups = numbers[places] // self._trials
        for here in np.split(places, np.flatnonzero(np.diff(groups)) + 1):
            self._join(int(numbers[here[0]]) // self._trials, rows, here, scores[here], numbers[here])

    def _join(
        self,
        group: int,
        rows: pa.RecordBatch | pa.Table,
        places: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
        numbers: npt.NDArray[np.int64],
    ) -> None:
        held, known = self._groups.get(group, ([], scores[:0]))
        every = np.concatenate([known, scores])
        kept = non_dominated(every)
        new = kept[len(held) :]
        merits = [
            (False, score, trial) for score, trial in zip(scores[new, 0].tolist(), numbers[new].tolist(), strict=True)
        ]
        found = [each for each, stays in zip(held, kept, strict=False) if stays]
        found += _candidates(rows, places[new], merits)
        self._groups[group] = found, every[kept]
        best = min(found)
        if self._leader is None or best < self._leader:
            self._leader = best

    def of(self, group: int) -> list[Candidate]:
        """The Pareto set of a group, in the order of the first metric, best first."""
        return sorted(self._groups.get(group, ([], None))[0])

    def value(self, candidate: Candidate) -> float:
        """The first metric of a candidate."""
        return self._objectives[0].sign * candidate.score

    @property
    def leader(self) -> Candidate | None:
        """The trial of all groups that is best by the first metric."""
        return self._leader


def _candidates(
    rows: pa.RecordBatch | pa.Table, places: npt.NDArray[np.int64], merits: Sequence[Merit]
) -> list[Candidate]:
    """The trials at these places, given with their merits."""
    names = [name for name in rows.schema.names if name.startswith(PREFIX)]
    taken = rows.select([*names, "model"]).take(integers(places))
    *metrics, models = (python_values(column) for column in taken.columns)
    asked = "params" in rows.schema.names
    params = python_values(rows.column("params").take(integers(places))) if asked else [None] * len(models)
    found: list[Candidate] = []
    for (pruned, score, trial), values, model, asked_for in zip(
        merits, zip(*metrics, strict=True), models, params, strict=True
    ):
        # A name of its own for each candidate: pickles of several must not tell which came in one batch.
        named = tuple(
            (name.removeprefix(PREFIX), value) for name, value in zip(names, values, strict=True) if value is not None
        )
        found.append(Candidate(pruned, score, trial, named, model, asked_for))
    return found
