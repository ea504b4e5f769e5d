"""Is the difference between two arms real, however often one looks?

A fixed-sample interval is wrong about once in twenty looks; one that is looked at until it says what was hoped for is
wrong far more often. What is here holds at all looks at once:

* `tuning`, `boundary`: the asymptotic confidence sequence of I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and
  A. Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52 (2024),
  2613-2640, theorem 2.2: an estimate ± its standard error times a factor that grows as the square root of the
  logarithm. It needs finite variance and no bound; like the central limit theorem, it holds for large samples.
* `log_evidence`: the e-process that the sequence inverts (H. Robbins's normal mixture), so that ``e ≥ 1/alpha`` exactly
  where the interval leaves out zero.
* `e_bh`: which of many such e-values to believe (R. Wang and A. Ramdas, "False discovery rate control with e-values",
  Journal of the Royal Statistical Society B 84 (2022), 822-852), whatever their dependence.
* `shares_evidence`: whether counts match the shares that they were to have, at every look (M. Lindon and A. Malek,
  "Anytime-valid inference for multinomial count data", NeurIPS 2022).

Functions of numbers, on arrays where it says so. It must not know what a loss, a model or a store is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Difference",
    "Moments",
    "boundary",
    "chi_square_tail",
    "e_bh",
    "log_evidence",
    "moments",
    "paired",
    "running_moments",
    "shares_chi_square",
    "shares_evidence",
    "tuning",
    "unpaired",
]

Numbers: TypeAlias = npt.NDArray[np.float64]
#: How firmly the test of shares believes, under its alternative, that they are near those asked for: 1,000 makes it
#: most sensitive to errors of one or two percentage points, and larger ones are found all the sooner.
CONCENTRATION = 1_000.0
#: Standard deviations below this part of the values' size are taken for rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, mean and unbiased variance of some observations; arrays of equal shape for many samples at once."""

    n: Numbers
    mean: Numbers
    #: 0 where there are fewer than two.
    variance: Numbers


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two means, second arm less first."""

    estimate: Numbers
    standard_error: Numbers
    #: What the factor of `boundary` goes by: the observations of the smaller arm, or the pairs.
    n: Numbers

    def interval(self, alpha: float, rho2: float) -> tuple[Numbers, Numbers]:
        """The bounds of the confidence sequence; infinite where there are fewer than two observations."""
        margin = self.standard_error * boundary(self.n, alpha, rho2)
        margin = np.where(self.n < 2, np.inf, margin)
        return self.estimate - margin, self.estimate + margin

    def log_evidence(self, null: float, rho2: float) -> Numbers:
        """The logarithm of the e-value against the difference being ``null``; 0 where there is nothing to go by."""
        gap = self.estimate - null
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(gap == 0, 0.0, np.abs(gap) / self.standard_error)
        return np.where(self.n < 2, 0.0, log_evidence(z, self.n, rho2))


def moments(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Moments:
    """The moments of one sample; see `running_moments`."""
    found = running_moments(values, weights=weights)
    if not found.n.size:
        return Moments(np.asarray(0.0), np.asarray(0.0), np.asarray(0.0))
    return Moments(found.n[-1], found.mean[-1], found.variance[-1])


def running_moments(
    values: npt.ArrayLike, present: npt.ArrayLike | None = None, weights: npt.ArrayLike | None = None
) -> Moments:
    """The moments after each observation, along the last axis.

    Args:
        values: observations in their order.
        present: which of them count; after one that does not, all is as before it. None: all.
        weights: how much each counts, above 0: the inverse of the share that its arm had then. Number and variance are
            then those of so many observations of equal weight whose mean would be as certain (J. Hájek's estimator, by
            linearisation).
    """
    sample = np.asarray(values, np.float64)
    counts = np.ones(sample.shape, np.bool_) if present is None else np.asarray(present, np.bool_)
    weight = np.where(counts, 1.0 if weights is None else np.asarray(weights, np.float64), 0.0)
    total = np.maximum(np.sum(weight, axis=-1, keepdims=True), 1e-300)
    centre = np.sum(np.where(counts, sample, 0.0) * weight, axis=-1, keepdims=True) / total
    # Sums of what is left once the mean of all is taken away: sums of large squares would lose the digits that matter.
    rest = np.where(counts, sample - centre, 0.0)
    sums, weight_sums = np.cumsum(weight * rest, axis=-1), np.cumsum(weight, axis=-1)
    mean = sums / np.maximum(weight_sums, 1e-300)
    if weights is None:
        n = weight_sums
        squares = np.cumsum(rest * rest, axis=-1) - sums * mean
    else:
        heavy = weight * weight
        heavy_sums = np.cumsum(heavy, axis=-1)
        n = np.square(weight_sums) / np.maximum(heavy_sums, 1e-300)
        spread = np.cumsum(heavy * rest * rest, axis=-1) - 2.0 * mean * np.cumsum(heavy * rest, axis=-1)
        squares = (spread + mean * mean * heavy_sums) / np.maximum(heavy_sums, 1e-300) * n
    several = np.cumsum(counts, axis=-1) > 1
    # Of losses that are all equal the variance is zero, but their means differ by rounding: without a floor far above
    # that and far below anything that matters, two such arms would differ for certain.
    scale = np.abs(centre) + np.max(np.abs(rest), axis=-1, keepdims=True, initial=0.0)
    spread_out = np.maximum(squares / np.where(several, np.maximum(n - 1.0, 1e-9), 1.0), np.square(_ROUNDING * scale))
    variance = np.where(several, spread_out, 0.0)
    return Moments(n, np.where(n > 0, centre + mean, 0.0), variance)


def unpaired(first: Moments, second: Moments) -> Difference:
    """The difference of two arms, each of which had requests of its own.

    The sequence of all requests, each weighed by the inverse of its arm's share, is one of independent terms whose mean
    is the difference. Its standard error is that of Welch's test, or that of Student's, whichever is larger: losses are
    skewed, so an arm of few requests has a mean that is too low just when its variance seems low, too, and by Welch's
    alone an arm with a tenth of the requests wins up to three times as often as it should (docs/experiments.md).
    """
    n1, n2 = np.maximum(first.n, 1.0), np.maximum(second.n, 1.0)
    welch = first.variance / n1 + second.variance / n2
    squares = first.variance * (n1 - 1.0) + second.variance * (n2 - 1.0)
    student = squares / np.maximum(n1 + n2 - 2.0, 1.0) * (1.0 / n1 + 1.0 / n2)
    error = np.sqrt(np.maximum(welch, student))
    return Difference(second.mean - first.mean, error, np.minimum(first.n, second.n))


def paired(differences: Moments) -> Difference:
    """The difference of two arms that answered the same requests, from the moments of the differences."""
    return Difference(
        differences.mean, np.sqrt(differences.variance / np.maximum(differences.n, 1.0)), np.asarray(differences.n)
    )


def tuning(alpha: float, tightest_at: float) -> float:
    """The parameter for which the interval is tightest after so many observations; it is valid at all others, too.

    It must be chosen before the data are seen. Waudby-Smith et al. (2024), appendix B.2, up to 2 %.

    Args:
        alpha: above 0, at most 0.5.
        tightest_at: observations, at least 1.
    """
    log_part = -2.0 * math.log(alpha)
    return (log_part + math.log(log_part) + 1.0) / tightest_at


def boundary(n: npt.ArrayLike, alpha: float, rho2: float) -> Numbers:
    """How many standard errors the confidence sequence reaches to either side, after ``n`` observations.

    >>> [round(float(each), 2) for each in boundary([100, 1_000, 100_000], 0.05, tuning(0.05, 1_000))]
    [3.76, 3.04, 3.58]
    """
    time = np.maximum(np.asarray(n, np.float64), 1e-300) * rho2
    return np.asarray(np.sqrt((1.0 + 1.0 / time) * (np.log1p(time) - 2.0 * math.log(alpha))))


def log_evidence(z: npt.ArrayLike, n: npt.ArrayLike, rho2: float) -> Numbers:
    """The logarithm of the e-value of an estimate that is ``z`` standard errors away after ``n`` observations.

    At least ``-log(alpha)`` exactly where ``abs(z)`` is at least ``boundary(n, alpha, rho2)``.
    """
    time = np.asarray(n, np.float64) * rho2
    squared = np.square(np.asarray(z, np.float64))
    return np.asarray(0.5 * (squared * (time / (1.0 + time)) - np.log1p(time)))


def e_bh(log_e: Sequence[float] | Numbers, alpha: float) -> npt.NDArray[np.bool_]:
    """Which of several e-values to believe, so that no more than a share ``alpha`` of those is expected to be false.

    The e-BH procedure: the k largest, for the largest k for which each is at least ``len(log_e) / (k * alpha)``. It
    needs no independence, and holds when the e-values are those of sequences that were stopped at any time.

    >>> e_bh([math.log(60.0), math.log(35.0), 0.0], 0.05).tolist()
    [True, True, False]
    """
    values = np.asarray(log_e, np.float64)
    order = np.argsort(-values, kind="stable")
    bars = math.log(max(1, len(values))) - np.log(np.arange(1, len(values) + 1)) - math.log(alpha)
    passed = np.flatnonzero(values[order] >= bars - 1e-12)
    believed = np.zeros(len(values), np.bool_)
    if len(passed):
        believed[order[: passed[-1] + 1]] = True
    return believed


# ---- do the arms have the shares that they should have? -----------------------------------------------------------


def shares_evidence(counts: Sequence[int], shares: Sequence[float], concentration: float = CONCENTRATION) -> float:
    """The logarithm of the e-value against counts having been drawn with these shares; holds at every look.

    The Bayes factor of a Dirichlet distribution around the shares against the shares themselves.

    Args:
        counts: how often each arm was chosen.
        shares: how often it should have been, above 0, of sum 1.
        concentration: of the Dirichlet distribution.
    """
    total = float(sum(counts))
    found = math.lgamma(concentration) - math.lgamma(concentration + total)
    for count, share in zip(counts, shares, strict=True):
        prior = concentration * share
        found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return found


def shares_chi_square(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Pearson's chi-square test: how likely counts are to be as far from these shares, for one look planned ahead."""
    total = float(sum(counts))
    if not total:
        return 1.0
    pairs = zip(counts, shares, strict=True)
    statistic = sum((count - total * share) ** 2 / (total * share) for count, share in pairs)
    return chi_square_tail(statistic, len(counts) - 1)


def chi_square_tail(x: float, degrees: int) -> float:
    """The probability that a chi-square variable exceeds ``x``; ``degrees`` of freedom, 0 or more.

    >>> round(chi_square_tail(3.841459, 1), 6), round(chi_square_tail(5.991465, 2), 6)
    (0.05, 0.05)
    """
    if x <= 0 or degrees < 1:
        return 1.0
    half = x / 2.0
    # The recurrence of the upper incomplete gamma function, from 1/2 or 1 up to degrees/2.
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    shape = 0.5 if degrees % 2 else 1.0
    while shape < degrees / 2.0:
        tail += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1.0))
        shape += 1.0
    return min(1.0, tail)
