"""How alike are outcomes at two points of a space? A kernel with a length scale a dimension, and the likeliest one.

It must not know studies or samplers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from umbel.scheduler.search.axes import Axis, Floats

__all__ = ["Kernel", "likeliest", "squared_distances"]

#: What is believed of a kernel's rates, amplitude and noise before any data, as logarithms; the standard deviation is
#: that of a rate's.
RATE, AMPLITUDE, KERNEL_NOISE, RATE_SPREAD = math.log(2.0), math.log(0.3), math.log(0.03), 1.5
#: The noise is not taken to be less: a kernel matrix must have an inverse.
LEAST_NOISE = math.log(1e-3)
#: Rounds over all of a kernel's numbers, and the first step of each, as a logarithm.
CLIMBS, FIRST_STEP = 5, 1.2


def squared_distances(axes: Sequence[Axis], left: Floats, right: Floats) -> list[Floats]:
    """Between points, in the unit cube: a matrix an axis. Another choice is one away, as is a param from none."""
    return [_along(axis, a, b) for axis, a, b in zip(axes, left.T, right.T, strict=True)]


def _along(axis: Axis, left: Floats, right: Floats) -> Floats:
    a, b = left[:, None], right[None, :]
    found: Floats = (a != b).astype(np.float64) if axis.choices is not None else np.square(a - b)
    if np.isnan(left).any() or np.isnan(right).any():
        found = np.where(np.isnan(a) | np.isnan(b), (np.isnan(a) != np.isnan(b)).astype(np.float64), found)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A squared exponential, with a length scale an axis."""

    #: How fast outcomes change along each axis: 1 / its squared length scale.
    rates: Floats
    amplitude: float
    noise: float

    @classmethod
    def of(cls, logs: Floats) -> Kernel:
        """From the logarithms of its numbers: the rates, the amplitude, the noise."""
        return cls(np.exp(logs[:-2]), math.exp(logs[-2]), math.exp(logs[-1]))

    @classmethod
    def unlearned(cls, axes: Sequence[Axis]) -> Kernel:
        """The one to begin with."""
        return cls.of(_start(axes))

    def __call__(self, along: Iterable[Floats]) -> Floats:
        """Its matrix, for the squared distances along each axis."""
        apart = sum(rate * each for rate, each in zip(self.rates.tolist(), along, strict=True))
        found: Floats = self.amplitude * np.exp(-0.5 * apart)
        return found


def _start(axes: Sequence[Axis]) -> Floats:
    return np.array([RATE] * len(axes) + [AMPLITUDE, KERNEL_NOISE])


def likeliest(
    axes: Sequence[Axis], distances: Sequence[Sequence[Floats]], values: Sequence[Floats], beside: Sequence[Floats]
) -> Kernel:
    """The kernel under which the outcomes of several groups are likeliest, together.

    By coordinates, in steps that shrink: at most ten likelihoods for each of its numbers, without their gradients.

    Args:
        axes: the dimensions.
        distances: of each group between its points (`squared_distances`).
        values: their outcomes, around a level of each group's own.
        beside: covariances of these that are known, added to the kernel's.
    """
    logs, steps = _start(axes), np.full(len(axes) + 2, FIRST_STEP)

    def unlikely(tried: Floats) -> float:
        kernel = Kernel.of(tried)
        doubt = 0.5 * float(np.square(tried[:-2] - RATE).sum()) / RATE_SPREAD**2
        return doubt + sum(
            _unlikely(kernel(apart) + more + kernel.noise * np.eye(len(each)), each)
            for apart, each, more in zip(distances, values, beside, strict=True)
        )

    best = unlikely(logs)
    for _ in range(CLIMBS):
        for number in range(len(logs)):
            for step in (steps[number], -steps[number]):
                tried = logs.copy()
                tried[number] += step
                tried[-1] = max(tried[-1], LEAST_NOISE)
                if (found := unlikely(tried)) < best - 1e-3:
                    best, logs = found, tried
                    break
            else:
                steps[number] /= 2
    return Kernel.of(logs)


def _unlikely(covariance: Floats, values: Floats) -> float:
    """The negative logarithm of the likelihood of outcomes around a level of their own, up to a constant."""
    root = np.linalg.cholesky(covariance)
    left = np.linalg.solve(root, np.array([values, np.ones(len(values))]).T)
    rest, ones = left.T
    rest = rest - ones * (ones @ rest) / (ones @ ones)
    return 0.5 * float(rest @ rest) + float(np.log(np.diag(root)).sum())
