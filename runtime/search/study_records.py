"""What is known of the trials of each study of a sweep? The driver keeps it for whoever goes on with one.

A study's trials are forgotten once all of them have ended, unless other groups learn from them
(`umbel.runtime.search.lending`). It must not know samplers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.search.lending import Lending
from umbel.scheduler.search.adaptive import KnownTrial
from umbel.storage.runs.trial_rows import SUCCEEDED, metric_column
from umbel.storage.values.columns import int_values, python_values

__all__ = ["StudyRecords", "study_records"]


def study_records(sweep: Sweep) -> StudyRecords:
    """For the studies of a sweep with an adaptive search."""
    assert sweep.search is not None
    lending = Lending(sweep.search, sweep.source.trials, sweep.lent) if sweep.search.transfer else None
    return StudyRecords(sweep.source.trials, sweep.metrics, lending)


class StudyRecords:
    """The studies of one sweep.

    Args:
        trials: how many a group.
        metrics: what the search is told.
        lending: what else is told of them, if groups learn from one another.
    """

    def __init__(self, trials: int, metrics: Sequence[str], lending: Lending | None = None) -> None:
        #: What other groups learn of them; None: nothing.
        self.lending = lending
        self._trials = trials
        self._columns = [metric_column(metric) for metric in metrics]
        self._groups: dict[int, dict[int, KnownTrial]] = {}
        self._complete: set[int] = set()
        #: By worker, the group of the trial in hand, and what is known of it.
        self._under_way: dict[str, tuple[int, KnownTrial]] = {}

    def note(self, worker: str, under_way: tuple[int, str] | None) -> None:
        """A worker says which trial it has in hand, and the params as JSON; None: none that others should know of."""
        if under_way is None:
            self._under_way.pop(worker, None)
            return
        group, number = divmod(under_way[0], self._trials)
        self._under_way[worker] = group, KnownTrial(number, json.loads(under_way[1]), None, running=True)

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the trials table into account: trial, status, params, steps, and the metrics if there are."""
        names = rows.schema.names
        columns = [
            python_values(rows.column(name)) if name in names else [None] * rows.num_rows
            for name in ("status", "params", "steps", "borrowed_from", "distributions", *self._columns)
        ]
        for trial, status, params, steps, origin, drawn_from, *told in zip(
            int_values(rows.column("trial")).tolist(), *columns, strict=True
        ):
            group, number = divmod(trial, self._trials)
            if group in self._complete:
                continue
            values = tuple(map(float, told)) if None not in told and status in SUCCEEDED else None
            known = self._groups.setdefault(group, {})
            pruned_at = steps or 0 if status == "pruned" else None
            decoded = None if params is None else json.loads(params)
            known[number] = KnownTrial(number, decoded, values, pruned_at, origin)
            if self.lending is not None:
                self.lending.add(group, known[number], drawn_from)
            if len(known) == self._trials:
                del self._groups[group]
                self._complete.add(group)

    def known(self, group: int) -> tuple[KnownTrial, ...]:
        """What is known of a group's trials, in order, those under way included."""
        under_way = {trial.number: trial for its, trial in self._under_way.values() if its == group}
        return tuple(trial for _, trial in sorted({**under_way, **self._groups.get(group, {})}.items()))
