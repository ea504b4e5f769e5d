"""What came of a `umbel.Tuner`'s trials? Shown as Ray Tune shows it: a `ResultGrid` of results.

Rows of the trials table are read once; a trial's reports and its checkpoint are read when they are asked for. It must
not write, nor know how trials are run.
"""

from __future__ import annotations

import functools
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.tuner.history import Course, History, flat
from umbel.runtime.tuner.session import read_saved
from umbel.runtime.tuner.trial import NOTHING
from umbel.scheduler.errors import ElementFailedError, NotFoundError, UsageError
from umbel.scheduler.identity import group_key
from umbel.storage import layout
from umbel.storage.runs.checkpoints import list_checkpoints, load_checkpoint
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import SUCCEEDED, metric_column
from umbel.storage.values.columns import python_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResultGrid", "TrialResult"]

SCOPES = ("last", "all", "avg", "last-5-avg", "last-10-avg")


class TrialResult:
    """What came of one trial, as `ray.tune.Result` tells it.

    Args:
        run: the run.
        sweep: its sweep.
        row: the trial's row in the trials table.
    """

    def __init__(self, run: Run, sweep: Sweep, row: Mapping[str, Any]) -> None:
        self._run = run
        self._sweep = sweep
        self._row = row
        #: Index of the trial in its sweep.
        self.index: int = row["trial"]

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config that the trial was given."""
        search = self._sweep.search
        if search is None:
            (config,) = self._sweep.source.batch(group_key({}), self.index, self.index + 1).configs()
        elif self._row.get("params") is None:
            config = {}  # the search had none
        else:
            config = search.config(json.loads(self._row["params"]), {})
        config.pop(NOTHING, None)
        return config

    @functools.cached_property
    def _history(self) -> History | None:
        """All that it reported; None: it failed."""
        if self._row.get("model") is None:
            return None
        found = self._run.load_model(self._row["model"])
        assert isinstance(found, History)
        return found

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The last report, with what Tune fills in; of a trial that failed, the numbers in it."""
        if self._history is not None:
            held = {**self._history.last, **self._history.place}
        else:
            named = {name.removeprefix("metric_"): value for name, value in self._row.items() if _is_metric(name)}
            held = {name: value for name, value in named.items() if value is not None}
            held["trial_id"] = f"{self.index:05d}"
        return {**held, "config": self.config}

    @property
    def error(self) -> Exception | None:
        """Why it failed; None: it did not."""
        if self._row["status"] in SUCCEEDED:
            return None
        return ElementFailedError(f"trial {self.index} ended as {self._row['status']}", got=self._row["error"])

    @property
    def path(self) -> str:
        """Where its checkpoints lie."""
        place = layout.checkpoints_folder(self._run.id, self._sweep.name, self.index)
        return f"{self._run.store_url.rstrip('/')}/{place}"

    @functools.cached_property
    def _saved(self) -> tuple[tempfile.TemporaryDirectory[str], Path, History] | None:
        known = list_checkpoints(self._run.objects, self._run.id, self._sweep.name, self.index)
        if not known:
            return None
        folder = tempfile.TemporaryDirectory(prefix="umbel-checkpoint-", ignore_cleanup_errors=True)
        place = load_checkpoint(self._run.objects, known, lambda: folder.name)
        return None if place is None else (folder, *read_saved(Path(str(place))))

    @property
    def checkpoint(self) -> Any:
        """Its last checkpoint, a `ray.tune.Checkpoint`: files in a temporary folder that goes with it."""
        if self._saved is None:
            return None
        from ray.tune import Checkpoint

        checkpoint: Any = Checkpoint.from_directory(self._saved[1])
        checkpoint.umbel_folder = self._saved[0]  # so that the files live as long as any of the two
        return checkpoint

    @property
    def best_checkpoints(self) -> list[tuple[Any, dict[str, Any]]]:
        """The checkpoint that was kept, with the metrics then."""
        if self._saved is None:
            return []
        return [(self.checkpoint, {**self._saved[2].last, "config": self.config})]

    def get_best_checkpoint(self, metric: str, mode: str) -> Any:
        """The checkpoint that was kept, which is the last.

        Raises:
            NotFoundError: there is none, or it came without this metric.
        """
        for checkpoint, metrics in self.best_checkpoints:
            if metric in flat(metrics):
                return checkpoint
        raise NotFoundError(f"trial {self.index} has no checkpoint with the metric {metric!r}")

    @property
    def metrics_dataframe(self) -> pd.DataFrame | None:
        """Its reports, one a row, at most a thousand, evenly spread; None: it failed."""
        if self._history is None:
            return None
        import pandas as pd

        config = flat({"config": self.config})
        return pd.DataFrame([{**flat(row), **config} for row in self._history.all_rows()])

    def score(self, metric: str, scope: str, mode: str) -> float | None:
        """What it is compared by; None: it never reported the metric."""
        value = self._row.get(metric_column(metric))
        if scope == "last" and value is not None:
            return float(value)  # without reading its reports
        if self._history is None:
            return None if value is None else float(value)
        course: Course | None = self._history.courses.get(metric)
        return None if course is None else course.score(scope, mode)

    def __repr__(self) -> str:
        kept = {
            name: value for name, value in self.metrics.items() if name not in ("config", "pid", "hostname", "date")
        }
        return f"Result(metrics={kept}, config={self.config}, error={self.error!r}, path={self.path!r})"


def _is_metric(name: str) -> bool:
    return name.startswith("metric_")


class ResultGrid(Sequence[TrialResult]):
    """The results of all trials that have ended, in order, as `ray.tune.ResultGrid` gives them.

    Args:
        run: the run.
        sweep: its sweep.
        metric: what the Tuner was told to compare trials by, if anything.
        mode: "min" or "max", if it was told.
    """

    def __init__(self, run: Run, sweep: Sweep, metric: str | None, mode: str | None) -> None:
        #: The run, for all that Umbel knows of it.
        self.run = run
        self._metric, self._mode = metric, mode
        self._statuses: list[str] = []
        self._results: list[TrialResult] = []
        for row in python_rows(run.trials(sweep.name)):
            self._statuses.append(row["status"])
            self._results.append(TrialResult(run, sweep, row))

    @property
    def experiment_path(self) -> str:
        """What `Tuner.restore` takes."""
        return f"{self.run.store_url.rstrip('/')}/{layout.run_folder(self.run.id)}"

    @property
    def errors(self) -> list[Exception]:
        """Why trials failed, one each."""
        return [error for error in (result.error for result in self._results) if error is not None]

    @property
    def num_errors(self) -> int:
        """How many trials failed."""
        return sum(status not in SUCCEEDED for status in self._statuses)

    @property
    def num_terminated(self) -> int:
        """How many trials ended without failing, stopped ones among them."""
        return sum(status in SUCCEEDED for status in self._statuses)

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> TrialResult:
        """The best trial; of equals the first.

        Args:
            metric: what to compare by, nested names joined by "/"; None: what the Tuner was told.
            mode: "min" or "max"; None: what the Tuner was told.
            scope: compare the "last" report of each trial, the best of "all", or the mean: "avg", "last-5-avg",
                "last-10-avg".
            filter_nan_and_inf: whether trials whose value is not finite are left out.

        Raises:
            UsageError: there is no metric or mode, or they are unknown.
            NotFoundError: no trial has such a metric.
        """
        metric, mode = metric or self._metric, mode or self._mode
        if len(self) == 1:
            return self[0]
        if metric is None or mode not in ("min", "max"):
            raise UsageError(
                "the best result by what?",
                got=f"metric={metric!r}, mode={mode!r}",
                expected='a metric, and mode="min" or mode="max", here or in TuneConfig',
            )
        if scope not in SCOPES:
            raise UsageError("unknown scope", got=f"scope={scope!r}", expected=", ".join(map(repr, SCOPES)))
        best: tuple[float, TrialResult] | None = None
        for result in self._results:
            value = result.score(metric, scope, mode)
            if value is None or (filter_nan_and_inf and not math.isfinite(value)):
                continue
            if best is None or (value < best[0] if mode == "min" else value > best[0]):
                best = value, result
        if best is None:
            raise NotFoundError(
                f"no trial has a finite {metric!r}", got=f"{len(self)} trials, {self.num_errors} failed"
            )
        return best[1]

    def get_dataframe(self, filter_metric: str | None = None, filter_mode: str | None = None) -> pd.DataFrame:
        """One row a trial: its last report, or the one where a metric was best; and its config (``config/…``).

        Args:
            filter_metric: take the report with the best value of this metric, among those that are kept.
            filter_mode: "min" or "max".

        Raises:
            UsageError: one is given without the other, or the mode is unknown.
        """
        import pandas as pd

        if (filter_metric is None) != (filter_mode is None) or filter_mode not in (None, "min", "max"):
            raise UsageError(
                "a filter needs a metric and a mode",
                got=f"filter_metric={filter_metric!r}, filter_mode={filter_mode!r}",
                expected='both, the mode "min" or "max"',
            )
        rows = []
        for result in self._results:
            frame = None if filter_metric is None else result.metrics_dataframe
            if frame is not None and filter_metric in frame:
                column = frame[filter_metric]
                row = frame.loc[column.idxmin() if filter_mode == "min" else column.idxmax()].to_dict()
            else:
                row = flat(result.metrics)
            rows.append({**row, "logdir": result.path})
        return pd.DataFrame(rows)

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, i: int) -> TrialResult: ...
    @overload
    def __getitem__(self, i: slice) -> list[TrialResult]: ...
    def __getitem__(self, i: int | slice) -> TrialResult | list[TrialResult]:
        return self._results[i]

    def __iter__(self) -> Iterator[TrialResult]:
        return iter(self._results)

    def __repr__(self) -> str:
        return f"<ResultGrid: {len(self)} results, {self.num_errors} errors, at {self.experiment_path}>"
