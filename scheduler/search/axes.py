"""Where is a config in its space? The dimensions, as numbers that models can compute with.

It must not know groups, studies or samplers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Floats", "axes_of", "points"]

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a space."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    #: Of a choice, its values; their order means nothing.
    choices: tuple[Any, ...] | None = None
    #: Of numbers in steps, how far apart they are.
    step: float | None = None
    whole: bool = False

    def place(self, params: Mapping[str, Any]) -> float:
        """Where a config is on it: 0 to 1, or the number of its choice; NaN: it has no such param."""
        if self.name not in params:
            return math.nan
        value = params[self.name]
        if self.choices is not None:
            found = [number for number, choice in enumerate(self.choices) if _same(choice, value)]
            return float(found[0]) if found else math.nan
        if not self.high > self.low:
            return 0.5
        # A function that defines the space may give a param other bounds from trial to trial.
        inside = min(max(value, self.low), self.high)
        if self.log:
            return (math.log(inside) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return float((inside - self.low) / (self.high - self.low))

    @property
    def _steps(self) -> int | None:
        """How many numbers there are, evenly spaced; None: they are not."""
        if self.step is None or self.log or not self.high > self.low:
            return None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def coarseness(self) -> float:
        """The share of [0, 1) that stands for one value (`value`); 0: for each other number another."""
        return 1 / self._steps if self._steps else 0.0

    def places(self, drawn: Floats) -> Floats:
        """Where the values (`value`) of many numbers in [0, 1) are on it."""
        if self.choices is not None:
            return np.minimum(np.floor(drawn * len(self.choices)), len(self.choices) - 1)
        if self.log and self.whole and self.high > self.low:
            low, high = self.low - 0.5, self.high + 0.5
            value = np.clip(np.round(low * np.exp(drawn * math.log(high / low))), self.low, self.high)
            return np.asarray(np.log(value / self.low) / math.log(self.high / self.low), np.float64)
        if self._steps is None or self.step is None:
            return drawn
        found: Floats = np.floor(drawn * self._steps) * (self.step / (self.high - self.low))
        return found

    def numbers(self, places: Floats) -> Floats:
        """Numbers in [0, 1) whose values are at these places; NaN: there is no value."""
        if self.choices is not None:
            return (places + 0.5) / len(self.choices)
        if self._steps is not None and self.step is not None:
            found: Floats = (np.round(places * ((self.high - self.low) / self.step)) + 0.5) / self._steps
            return found
        if self.log and self.whole and self.high > self.low:
            value = self.low * np.exp(places * math.log(self.high / self.low))
            places = np.log(value / (self.low - 0.5)) / math.log((self.high + 0.5) / (self.low - 0.5))
        return np.minimum(places, np.nextafter(1, 0))

    def value(self, place: float) -> Any:
        """The value at a place in [0, 1), each as likely as the space has it."""
        if self.choices is not None:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        if self._steps is not None and self.step is not None:
            number = self.low + min(int(place * self._steps), self._steps - 1) * self.step
        elif self.log:
            low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
            number = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        else:
            number = self.low + place * (self.high - self.low)
        number = min(max(number, self.low), self.high)
        return round(number) if self.whole else number


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def axes_of(distributions: Mapping[str, Mapping[str, Any]]) -> tuple[Axis, ...]:
    """The dimensions, of Optuna's distributions as it writes them as JSON."""
    axes: list[Axis] = []
    for name, each in distributions.items():
        about = each["attributes"]
        if "choices" in about:
            axes.append(Axis(name, choices=tuple(about["choices"])))
        else:
            low, high, step = float(about["low"]), float(about["high"]), about["step"]
            whole = each["name"] == "IntDistribution"
            axes.append(Axis(name, low, high, bool(about["log"]), None, None if step is None else float(step), whole))
    return tuple(axes)


def points(axes: Sequence[Axis], configs: Sequence[Mapping[str, Any]]) -> Floats:
    """Configs as points: a row each, a column an axis."""
    rows = [[axis.place(params) for axis in axes] for params in configs]
    return np.array(rows, np.float64).reshape(len(rows), len(axes))
