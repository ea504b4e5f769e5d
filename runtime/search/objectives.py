"""What do ``metric=`` and ``mode=`` of a sweep mean? One objective, or several."""

from __future__ import annotations

from typing import Any

from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.pareto import Objective
from umbel.storage.runs.trial_rows import metric_column

__all__ = ["to_objectives"]

MODES = ("min", "max")


def to_objectives(metric: Any, mode: Any, sweep: str) -> tuple[Objective, ...]:
    """What `umbel.sweep` was given, checked: a metric or a list of them, and a mode for all or a list of as many.

    Args:
        metric: the metric, or metrics.
        mode: the mode, or modes.
        sweep: the sweep's name, for messages.

    Raises:
        UsageError: a metric is missing, two would be one column, or a mode is unknown or missing.
    """
    metrics = list(metric) if isinstance(metric, (list, tuple)) else [metric]
    if not metrics or not all(isinstance(each, str) and each for each in metrics):
        raise UsageError(
            f"the metric of sweep {sweep!r} is missing",
            got=f"metric={metric!r}",
            expected="the name of the metric to compare trials by, or a list of several",
            hint="for example metric=\"mase\", where the function returns a number or {'mase': …}",
        )
    columns: dict[str, str] = {}
    for each in metrics:
        if metric_column(each) in columns:
            raise UsageError(
                f"two metrics of sweep {sweep!r} are the same, or would be in one column",
                got=f"{columns[metric_column(each)]!r} and {each!r}",
                expected="metrics whose names differ in letters, digits or underscores",
                hint="leave one out, or rename it",
            )
        columns[metric_column(each)] = each
    modes = list(mode) if isinstance(mode, (list, tuple)) else [mode] * len(metrics)
    if len(modes) != len(metrics):
        raise UsageError(
            f"sweep {sweep!r} has not as many modes as metrics",
            got=f"metric={metric!r}, mode={mode!r}",
            expected="a mode for each metric, or one for all",
        )
    for each in modes:
        if each not in MODES:
            raise UsageError(
                "unknown mode",
                got=f"mode={mode!r}",
                expected=" or ".join(map(repr, MODES)),
                hint='mode="min" if less of the metric is better, mode="max" if more is',
            )
    return tuple(Objective(name, its) for name, its in zip(metrics, modes, strict=True))
