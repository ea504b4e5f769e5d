"""Which trials of each group are the best so far: kept by the driver as results arrive, in O(groups × k).

The rule is the same wherever a best trial is chosen: only trials that ended well, only finite metrics, the lowest (mode
"min") or highest (mode "max"), and of equals the one with the lowest index. Trials that were pruned come after all that
ran to their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.storage.columns import contains, float_values, int_values, integers, python_values
from umbel.storage.trial_rows import PRUNED, SUCCEEDED, metric_column

__all__ = ["Candidate", "Selection"]

PREFIX = "metric_"


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A trial that is among the best of its group; the order of candidates is that of merit."""

    #: True: it was stopped before its end, so it comes after those that were not.
    pruned: bool
    #: The metric, negated if more is better.
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

    def _keep(
        self, rows: pa.RecordBatch | pa.Table, places: npt.NDArray[np.int64], merits: Sequence[tuple[bool, float, int]]
    ) -> None:
        """Keep the trials at these places, given with their scores and numbers, as far as they are among the best."""
        names = [name for name in rows.schema.names if name.startswith(PREFIX)]
        taken = rows.select([*names, "model"]).take(integers(places))
        *metrics, models = (python_values(column) for column in taken.columns)
        asked = "params" in rows.schema.names
        params = python_values(rows.column("params").take(integers(places))) if asked else [None] * len(models)
        for (pruned, score, trial), values, model, asked_for in zip(
            merits, zip(*metrics, strict=True), models, params, strict=True
        ):
            # A name of its own for each candidate: pickles of several must not tell which came in one batch.
            found = tuple(
                (name.removeprefix(PREFIX), value)
                for name, value in zip(names, values, strict=True)
                if value is not None
            )
            held = self._groups.setdefault(trial // self._trials, [])
            held.append(Candidate(pruned, score, trial, found, model, asked_for))
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
