"""What do trials of many groups say of a config in another group?

A linear model with a hierarchy, after Perrone et al. 2018, "Scalable hyperparameter transfer learning" (NeurIPS): each
group's outcomes are linear in a few features of the config, and the groups' coefficients are drawn from one normal
distribution, whose mean and covariance are learned from all groups by expectation maximisation (Gelman & Hill 2007,
"Data analysis using regression and multilevel models"). In a new group the mean is what to expect before its first
trial; each outcome there then moves the expectation the way that the groups went in which such configs did as well or
as badly. So groups that correlate with the new one count, and the others don't. What the features can't say is left to
a Gaussian process of the group's own.

Outcomes are made comparable by a robust scale of each group. Lower is better here. It must not know studies or
samplers; the same input gives the same output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Belief", "GroupModel", "axes_of", "comparable", "fit", "improvements", "points"]

Floats = npt.NDArray[np.float64]

#: Outcomes worse than this, in units of the distance from the median to the best, count as this bad.
WORST = 2.0
#: Fewer outcomes than this make no scale.
FEW = 5
#: Choices with more values than this have no features: nothing could be learned of each.
MOST_CHOICES = 24
#: What is believed of coefficients before any data: standard deviation of one; and how many groups that is worth.
SPREAD, PRIOR_GROUPS = 0.3, 10.0
#: Standard deviation, and length scale in the unit cube, of what a group has of its own.
OWN, OWN_LENGTH = 0.35, 0.7
#: Variance of what no model explains, at least.
NOISE = 0.05
#: Rounds of expectation maximisation. The likelihood hardly moves after these.
ROUNDS = 8
#: Units of the target's scale that are weighed, relative to the standard deviation of its outcomes.
SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)


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
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return float((value - self.low) / (self.high - self.low))

    def places(self, drawn: Floats) -> Floats:
        """Where the values (`value`) of many numbers in [0, 1) are on it."""
        if self.choices is not None:
            return np.minimum(np.floor(drawn * len(self.choices)), len(self.choices) - 1)
        if self.step is None or self.log or not self.high > self.low:
            return drawn
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        found: Floats = np.floor(drawn * count) * (self.step / (self.high - self.low))
        return found

    def value(self, place: float) -> Any:
        """The value at a place in [0, 1), each as likely as the space has it."""
        if self.choices is not None:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        if self.step is not None and not self.log:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            number = self.low + min(int(place * count), count - 1) * self.step
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


def comparable(scores: Floats, reference: npt.NDArray[np.bool_]) -> Floats:
    """A group's outcomes on a scale that groups share: 0 is the median and -1 the best of its reference.

    Args:
        scores: less is better; what is not finite failed, and counts as `WORST`, as does what is worse than that.
        reference: the trials whose outcomes make the scale: those that a group's own search chose. What others lent it
            is better than that, the more so the more there were to lend, and would make another scale of each group.
            If these are few, all count.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return np.full(len(scores), WORST)
    basis = scores[finite & reference] if int((finite & reference).sum()) >= FEW else scores[finite]
    best, middle = float(basis.min()), float(np.median(basis))
    unit = middle - best
    scaled = (np.where(finite, scores, math.inf) - middle) / unit if unit > 0 else np.where(finite, 0.0, math.inf)
    return np.minimum(scaled, WORST)


def _features(axes: Sequence[Axis], at: Floats) -> Floats:
    """One; a flag a choice; and of a number itself and its square, centred."""
    columns = [np.ones(len(at))]
    for place, axis in zip(at.T, axes, strict=True):
        if axis.choices is None:
            inner = np.where(np.isnan(place), 0.5, place) * 2 - 1
            columns += [inner, 1.5 * (inner**2 - 1 / 3)]
        elif len(axis.choices) <= MOST_CHOICES:
            columns += [(place == number).astype(np.float64) for number in range(len(axis.choices))]
    return np.array(columns).T


def _own_kernel(axes: Sequence[Axis], left: Floats, right: Floats) -> Floats:
    """Of what a group has of its own: squared exponential in the unit cube, where another choice is one away."""
    squared = np.zeros((len(left), len(right)))
    for number, axis in enumerate(axes):
        a, b = left[:, number, None], right[None, :, number]
        missing = np.isnan(a) | np.isnan(b)
        apart = (a != b).astype(np.float64) if axis.choices is not None else np.square(a - b)
        squared += np.where(missing, (np.isnan(a) != np.isnan(b)).astype(np.float64), apart)
    kernel: Floats = OWN**2 * np.exp(-squared / (2 * OWN_LENGTH**2))
    return kernel


@dataclass(frozen=True, slots=True, eq=False)
class GroupModel:
    """What the groups have in common: how their coefficients are distributed."""

    axes: tuple[Axis, ...]
    mean: Floats
    covariance: Floats
    noise: float

    def expected(self, tried: Floats, outcomes: Floats, at: Floats) -> Floats:
        """What to expect of a lender at points, on the shared scale, given its outcomes there."""
        seen, asked = _features(self.axes, tried), _features(self.axes, at)
        spread = self.covariance @ seen.T
        weights = np.linalg.solve(seen @ spread + self.noise * np.eye(len(seen)), outcomes - seen @ self.mean)
        found: Floats = asked @ (self.mean + spread @ weights)
        return found

    def belief(self, tried: Floats, scores: Floats, at: Floats) -> Belief:
        """What to expect at points in a group, after its own outcomes.

        The group's scale and level are not known: they are those that make its outcomes likeliest.

        Args:
            tried: points, at least one.
            scores: their outcomes, less is better; those that are not finite count as the worst that is.
            at: the points asked about.
        """
        finite = np.isfinite(scores)
        worst = float(scores[finite].max()) if finite.any() else 0.0
        values = np.where(finite, scores, worst)
        seen, asked = _features(self.axes, tried), _features(self.axes, at)
        spread = seen @ self.covariance @ seen.T + _own_kernel(self.axes, tried, tried)
        inverse = np.linalg.inv(spread + NOISE * np.eye(len(seen)))
        before, across = seen @ self.mean, asked @ self.covariance @ seen.T + _own_kernel(self.axes, at, tried)
        deviation = max(float(values.std()), 1e-12)
        weight = inverse.sum()
        best = (-math.inf, 1.0, 0.0, np.zeros(len(seen)))
        for factor in SCALES:
            unit = deviation * factor
            rest = values / unit - before
            level = float((inverse @ rest).sum() / weight)
            pull = inverse @ (rest - level)
            likelihood = -0.5 * float((rest - level) @ pull) - len(seen) * math.log(unit)
            if likelihood > best[0]:
                best = (likelihood, unit, level, pull)
        _, unit, level, pull = best
        variance = OWN**2 + ((asked @ self.covariance) * asked).sum(1) - ((across @ inverse) * across).sum(1)
        return Belief(
            asked @ self.mean + across @ pull, np.sqrt(np.maximum(variance, 1e-9)), values.min() / unit - level
        )


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What is expected at points of one group, and the best that has been seen there, on one scale."""

    mean: Floats
    deviation: Floats
    best: float


def improvements(belief: Belief) -> Floats:
    """The expected improvement upon the best at each point (Jones et al. 1998)."""
    gain = belief.best - belief.mean
    z = gain / belief.deviation
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z.tolist()])
    found: Floats = gain * below + belief.deviation * np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi)
    return found


def fit(axes: Sequence[Axis], groups: Sequence[tuple[Floats, Floats]]) -> GroupModel:
    """Learn how the coefficients of groups are distributed.

    Args:
        axes: the dimensions.
        groups: of each its points, and their outcomes as `comparable` makes them.

    Cost: some milliseconds for 64 groups and 25 features; it grows with the cube of the features.
    """
    designs = [_features(axes, at) for at, _ in groups]
    size = designs[0].shape[1] if designs else len(_features(axes, np.zeros((1, len(axes))))[0])
    start = np.full(size, SPREAD**2)
    start[0] = 1.0
    mean, covariance, noise = np.zeros(size), np.diag(start), 0.1
    squares = np.array([x.T @ x for x in designs]).reshape(-1, size, size)
    products = np.array([x.T @ y for x, (_, y) in zip(designs, groups, strict=True)]).reshape(-1, size)
    totals = np.array([y @ y for _, y in groups])
    count = sum(len(y) for _, y in groups)
    for _ in range(ROUNDS if groups else 0):
        precision = np.linalg.inv(covariance)
        variances = np.linalg.inv(precision + squares / noise)
        means = np.einsum("gij,gj->gi", variances, precision @ mean + products / noise)
        mean = means.mean(0)
        apart = means - mean
        covariance = (PRIOR_GROUPS * np.diag(start) + variances.sum(0) + apart.T @ apart) / (PRIOR_GROUPS + len(groups))
        fitted = np.einsum("gi,gij,gj->g", means, squares, means) - 2 * np.einsum("gi,gi->g", means, products)
        noise = float((totals + fitted + np.einsum("gij,gji->g", variances, squares)).sum() / count)
        noise = max(noise, NOISE)
    return GroupModel(tuple(axes), mean, covariance, noise)
