"""Are these values distributed as those were? Descriptions small enough to keep, and two distances from them.

* The population stability index (PSI), over the tenths of the earlier values or over categories: a symmetric relative
  entropy, of which 0.1 is read as some change and 0.2 or more as much (N. Siddiqi, "Credit Risk Scorecards", 2006). Of
  few values it is large by chance: without any change it is about chi-square times ``1/n + 1/m`` (B. Yurdakul,
  "Statistical properties of population stability index", 2018), so a bar below that would find drift everywhere.
* The Kolmogorov–Smirnov distance, the largest difference of the distribution functions, at the hundredths of the
  earlier values; between these it can be larger by 1 % at most.

Functions of numbers. It must not know where they come from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "Categories",
    "Distance",
    "Numbers",
    "chi_square_quantile",
    "describe_categories",
    "describe_numbers",
    "distance_of_categories",
    "distance_of_numbers",
    "kolmogorov_tail",
    "psi",
]

#: Categories that are counted each by itself; all others together.
MAX_CATEGORIES = 100
#: What all others together are called.
OTHERS = "…"
#: The chance that the PSI of unchanged values is above the bar that their number raises.
_NOISE = 0.001


@dataclass(frozen=True, slots=True)
class Numbers:
    """A description of numbers."""

    #: How many there are, and how many are missing (NaN) beside these.
    count: int
    absent: int
    mean: float
    minimum: float
    maximum: float
    #: The nine inner tenths.
    deciles: tuple[float, ...]
    #: Values at the hundredths, each once; and which share of the numbers is at most, or below, each of them.
    values: tuple[float, ...]
    at_most: tuple[float, ...]
    below: tuple[float, ...]

    @property
    def missing(self) -> float:
        """The share that is missing."""
        return self.absent / max(1, self.count + self.absent)


@dataclass(frozen=True, slots=True)
class Categories:
    """A description of categories: the most frequent ones with their counts, and all others as `OTHERS`."""

    count: int
    absent: int
    counts: dict[str, int]

    @property
    def missing(self) -> float:
        """The share that is missing."""
        return self.absent / max(1, self.count + self.absent)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far values are from a description."""

    psi: float
    #: What the PSI is above by chance once in a thousand times, though nothing has changed.
    psi_noise: float
    #: The Kolmogorov–Smirnov distance, and the chance of one so large; None for categories.
    ks: float | None = None
    ks_p_value: float | None = None


def describe_numbers(values: npt.ArrayLike) -> Numbers:
    """Describe numbers; NaN is missing.

    >>> describe_numbers([1, 2, 2, 4]).values
    (1.0, 2.0, 4.0)
    """
    given = np.asarray(values, np.float64).ravel()
    there = np.sort(given[~np.isnan(given)])
    absent = len(given) - len(there)
    if not len(there):
        nan = math.nan
        return Numbers(0, absent, nan, nan, nan, (), (), (), ())
    hundredths = np.quantile(there, np.linspace(0, 1, 101), method="inverted_cdf")
    points = np.unique(hundredths)
    finite = there[np.isfinite(there)]
    return Numbers(
        len(there),
        absent,
        float(finite.mean()) if len(finite) else math.nan,
        float(there[0]),
        float(there[-1]),
        tuple(hundredths[10:100:10].tolist()),
        tuple(points.tolist()),
        tuple((np.searchsorted(there, points, side="right") / len(there)).tolist()),
        tuple((np.searchsorted(there, points, side="left") / len(there)).tolist()),
    )


def describe_categories(values: Iterable[str | None]) -> Categories:
    """Describe categories; None is missing."""
    found = Counter(values)
    absent = found.pop(None, 0)
    kept = sorted(found.items(), key=lambda item: (-item[1], str(item[0])))
    counts = {str(name): count for name, count in kept[:MAX_CATEGORIES]}
    others = sum(count for _, count in kept[MAX_CATEGORIES:])
    if others:
        counts[OTHERS] = counts.get(OTHERS, 0) + others
    return Categories(sum(counts.values()), absent, counts)


def distance_of_numbers(before: Numbers, values: npt.ArrayLike) -> Distance:
    """How far numbers are from a description. Missing ones count as a part of their own in the PSI."""
    given = np.asarray(values, np.float64).ravel()
    there = np.sort(given[~np.isnan(given)])
    known = dict(zip(before.values, before.at_most, strict=True))
    edges = [edge for edge in sorted(set(before.deciles)) if known[edge] < 1.0]
    shares = np.diff([0.0, *(known[edge] for edge in edges), 1.0]) if before.count else np.zeros(0)
    inside = np.diff([0, *np.searchsorted(there, edges, side="right"), len(there)]) if before.count else np.zeros(0)
    expected = [*(shares * before.count), float(before.absent)]
    actual = [*inside.astype(np.float64), float(len(given) - len(there))]
    found, noise = _psi_of_counts(expected, actual)
    if not len(there) or not before.count:
        return Distance(found, noise)
    points = np.asarray(before.values)
    ks = max(
        float(np.abs(np.searchsorted(there, points, side="right") / len(there) - np.asarray(before.at_most)).max()),
        float(np.abs(np.searchsorted(there, points, side="left") / len(there) - np.asarray(before.below)).max()),
    )
    scale = math.sqrt(len(there) * before.count / (len(there) + before.count))
    return Distance(found, noise, ks, kolmogorov_tail(scale * ks))


def distance_of_categories(before: Categories, values: Iterable[str | None]) -> Distance:
    """How far categories are from a description; those that it does not name count together."""
    found = Counter(values)
    missing = found.pop(None, 0)
    named = [name for name in before.counts if name != OTHERS]
    others = sum(count for name, count in found.items() if name not in before.counts or name == OTHERS)
    expected = [*(float(before.counts[name]) for name in named), before.counts.get(OTHERS, 0), float(before.absent)]
    actual = [*(float(found[name]) for name in named), others, missing]
    return Distance(*_psi_of_counts(expected, actual))


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """The population stability index of two lists of counts; half a count is added to each, so that none is zero.

    >>> round(psi([500, 500], [900, 100]), 2)
    0.88
    """
    before, now = np.asarray(expected, np.float64) + 0.5, np.asarray(actual, np.float64) + 0.5
    before, now = before / before.sum(), now / now.sum()
    return float(np.sum((now - before) * np.log(now / before)))


def _psi_of_counts(expected: Sequence[float], actual: Sequence[float]) -> tuple[float, float]:
    """The PSI over the parts that either has, and what it may be by chance."""
    pairs = [(was, now) for was, now in zip(expected, actual, strict=True) if was or now]
    was, now = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    if len(pairs) < 2 or not was or not now:
        return (0.0, 0.0) if was and now else (math.inf, 0.0)
    noise = chi_square_quantile(1 - _NOISE, len(pairs) - 1) * (1 / was + 1 / now)
    return psi([pair[0] for pair in pairs], [pair[1] for pair in pairs]), noise


def chi_square_quantile(probability: float, degrees: int) -> float:
    """A quantile of the chi-square distribution, to about 1 % in its upper half (Wilson and Hilferty 1931)."""
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + NormalDist().inv_cdf(probability) * math.sqrt(part)) ** 3)


def kolmogorov_tail(x: float) -> float:
    """The chance that Kolmogorov's statistic is above ``x``, for many values (N. Smirnov 1948).

    >>> round(kolmogorov_tail(1.3581), 4)
    0.05
    """
    if x < 0.2:
        return 1.0
    terms = (2.0 * (1 if k % 2 else -1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(1.0, max(0.0, math.fsum(terms))))
