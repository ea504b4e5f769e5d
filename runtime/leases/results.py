"""What user functions return and receive besides plain values: a trial's result, and a group's best trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Best", "Result", "Sourced"]


@dataclass(frozen=True, slots=True)
class Result:
    """Metrics together with the model that earned them.

    Args:
        metrics: a number, or numbers by name; of a fused function arrays, with a number a trial.
        model: any object; it is stored as an artifact of the run, and its digest stands in the row's ``model``. Of a
            fused function a list with a model (or None) a trial, or a function of a trial's place in the batch, called
            for those that are kept.
    """

    metrics: float | Mapping[str, Any]
    model: object = None


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value that came from outside, with what is to be noted of where it came from; as a task's result, the value."""

    value: object
    #: Plain data, without credentials.
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of a group: what `Sweep.best()` hands to the next node.

    The best is the trial with the lowest (mode "min") or highest (mode "max") finite metric; of equals, the first.
    """

    #: The group's keys, ``{"country": "DEU"}``.
    group: dict[str, object]
    #: The config that the trial was given, group keys included.
    config: dict[str, object]
    #: The metric that the sweep is judged by.
    value: float
    #: All metrics of the trial.
    metrics: dict[str, float]
    #: Index of the trial in its sweep.
    trial: int
    seed: int
    #: Digest of the trial's stored model, if it has one.
    model: str | None = field(default=None)
