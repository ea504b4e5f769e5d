"""What did a fused function return: a number for each trial, by metric, and their models?

It must not know how batches are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.runtime.leases.results import Result
from umbel.scheduler.errors import UsageError

__all__ = ["BatchResults", "read_columns", "read_results"]

Column = npt.NDArray[np.float64]


class BatchResults:
    """The results of the trials of a batch.

    Args:
        metrics: a column by metric.
        model: gives the model of a trial, or None; raises whatever the user's function raises.
    """

    def __init__(self, metrics: dict[str, Column], model: Callable[[int], object] | None) -> None:
        self._lists = {name: column.tolist() for name, column in metrics.items()}
        self.model = model

    def of(self, place: int) -> dict[str, float]:
        """The metrics of one trial."""
        return {name: values[place] for name, values in self._lists.items()}


def read_results(
    returned: Any, reported: Mapping[str, Column], judged_by: Sequence[str], count: int, batch: str
) -> BatchResults:
    """What a function returned for a batch.

    Args:
        returned: arrays by metric name, or an array if the sweep is judged by one metric; or a `Result` of such.
        reported: what it reported last, which counts for what is not returned.
        judged_by: the sweep's metrics.
        count: trials of the batch.
        batch: the batch in words, for errors.

    Raises:
        UsageError: there is not one number a trial, or one of the sweep's metrics is missing.
    """
    model: object = None
    if isinstance(returned, Result):
        returned, model = returned.metrics, returned.model
    metrics = dict(reported)
    if returned is not None or not metrics:
        metrics.update(read_columns(returned, judged_by, count, batch))
    missing = [name for name in judged_by if name not in metrics]
    if missing:
        raise UsageError(
            f"the result of {batch} lacks the sweep's metric {missing[0]!r}",
            got=", ".join(sorted(metrics)) or "no metrics",
            expected=f"{missing[0]!r} among them, an array of {count} numbers",
        )
    return BatchResults(metrics, _models(model, count, batch))


def read_columns(metrics: object, judged_by: Sequence[str], count: int, batch: str) -> dict[str, Column]:
    """Metrics of a batch as columns.

    Raises:
        UsageError: there is not one number a trial.
    """
    if isinstance(metrics, Mapping):
        for name in metrics:
            if not isinstance(name, str) or not name:
                raise UsageError(f"a metric of {batch} has no name", got=repr(name), expected="names such as 'mase'")
        return {name: _column(f"metric {name!r}", value, count, batch) for name, value in metrics.items()}
    if len(judged_by) == 1:
        return {judged_by[0]: _column("the result", metrics, count, batch)}
    raise UsageError(
        f"the result of {batch} is no dict, and the sweep is judged by several metrics",
        got=type(metrics).__name__,
        expected="a dict with " + ", ".join(map(repr, judged_by)),
    )


def _column(what: str, value: Any, count: int, batch: str) -> Column:
    kind = type(value).__name__
    if hasattr(value, "detach"):  # a tensor, on whatever device and of whatever precision
        value = value.detach().cpu().double().numpy()
    try:
        found = np.asarray(value)
        numeric = found.dtype.kind in "biuf" or (found.dtype == object and found.ndim == 1)
        column = found.astype(np.float64) if numeric else None
    except (TypeError, ValueError):
        column = None
    if column is None or column.shape != (count,):
        shape = "" if column is None else f" of shape {column.shape}"
        raise UsageError(
            f"{what} of {batch} is not one number a trial",
            got=f"{kind}{shape}",
            expected=f"an array of shape ({count},), in the order of configs",
            hint="a fused function returns {'loss': array, …}, or umbel.Result({'loss': array}, model=…)",
        )
    return column


def _models(model: Any, count: int, batch: str) -> Callable[[int], object] | None:
    if model is None:
        return None
    if isinstance(model, (list, tuple)):
        if len(model) != count:
            raise UsageError(
                f"there is not one model for each trial of {batch}",
                got=f"{len(model)} models",
                expected=f"{count}, in the order of configs; None for a trial without one",
            )
        return lambda place: model[place]
    if not callable(model):
        raise UsageError(
            f"the models of {batch} are neither a list nor a function",
            got=type(model).__name__,
            expected=f"a list of {count} models, or a function that gives the model of trial i of the batch",
        )
    found: Callable[[int], object] = model
    return found
