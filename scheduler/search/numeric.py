"""Which numbers can one dimension of a search take? Those of a range, even or log-even, or normally distributed ones.

Bounds and rounding are those of ``ray.tune`` where it has the domain, so that a space means here what it means there.
All arithmetic is reproducible to the bit on every machine (see :mod:`umbel.scheduler.search.elementary`), because
configs are part of a trial's identity.

This module must not know what ``umbel.scheduler.search.domains`` must not know: libraries, dimensions, sources of
randomness.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from umbel.scheduler.errors import SpaceError
from umbel.scheduler.identity import DigestOf, refuse
from umbel.scheduler.search import elementary
from umbel.scheduler.search.domains import INT64, Domain, Finite, Indices
from umbel.scheduler.search.elementary import Floats

__all__ = ["Integer", "LogInteger", "LogUniform", "Normal", "Stepped", "Uniform"]

_EXACT: Final = 2**53  # up to here every integer is a float


class _Number(Domain):
    """What the domains of numbers share: they are described by their fields."""

    __slots__ = ()

    def describe(self, digest_of: DigestOf = refuse) -> dict[str, object]:
        return {"kind": type(self).__name__} | {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Between(_Number):
    """What Uniform and LogUniform share: bounds, and rounding to multiples of q that include both bounds."""

    low: float
    high: float
    q: float | None = None

    def __post_init__(self) -> None:
        low, high = _float(self, "low", self.low), _float(self, "high", self.high)
        _float_range(self, low, high)
        q = None if self.q is None else _float(self, "q", self.q)
        if q is not None:
            _positive(self, "q", q)
            _multiple(self, "low", low, q)
            _multiple(self, "high", high, q)
        _set(self, low=low, high=high, q=q)

    @property
    def count(self) -> int | None:
        if self.q is None:
            return None
        return _multiple(self, "high", self.high, self.q) - _multiple(self, "low", self.low, self.q) + 1

    def from_index(self, index: Indices) -> Floats:
        if self.q is None:
            raise TypeError(f"{type(self).__name__} without q has no grid")
        positions = index + _multiple(self, "low", self.low, self.q)
        return self._within(positions.astype(np.float64) * self.q)

    def _rounded(self, values: Floats) -> Floats:
        if self.q is not None:
            values = np.rint(values / self.q) * self.q
        return self._within(values)

    def _within(self, values: Floats) -> Floats:
        # 3 * 0.1 lies above 0.3; and adding 0.0 turns -0.0, which is another value in canonical text, into 0.0.
        return np.clip(values, self.low, self.high) + 0.0


@dataclass(frozen=True, slots=True)
class Uniform(_Between):
    """A float from low to high, evenly; with q rounded to the nearest multiple of q, both bounds included.

    As in ``tune.quniform`` the bounds must be multiples of q, and come up half as often as the values between them.
    """

    def from_uniform(self, u: Floats) -> Floats:
        """The value at each share, 0 < u < 1, of the range."""
        return self._rounded(self.low + u * (self.high - self.low))


@dataclass(frozen=True, slots=True)
class LogUniform(_Between):
    """A float from low > 0 to high, its logarithm evenly; q as in :class:`Uniform` (``tune.qloguniform``)."""

    def __post_init__(self) -> None:
        _Between.__post_init__(self)  # super() does not work in a slotted dataclass
        _positive(self, "low", self.low)

    def from_uniform(self, u: Floats) -> Floats:
        """The value at each share, 0 < u < 1, of the range's logarithm."""
        return self._rounded(_log_between(u, self.low, self.high))


@dataclass(frozen=True, slots=True)
class Stepped(_Number, Finite):
    """One of low, low + step, low + 2 step, … up to high, each as likely (Optuna's ``step``; the values need not be
    multiples of the step, and the bounds are not rarer, unlike with q).
    """

    low: float
    high: float
    step: float

    def __post_init__(self) -> None:
        low, high, step = (_float(self, name, getattr(self, name)) for name in ("low", "high", "step"))
        _float_range(self, low, high)
        _positive(self, "step", step)
        if not (high - low) / step < _EXACT:
            raise _wrong(self, "the step is too small", f"low={low}, high={high}, step={step}", "under 2**53 steps")
        _set(self, low=low, high=high, step=step)

    @property
    def count(self) -> int:
        """How many steps fit, with ray.tune's tolerance for the last, plus one."""
        steps = (self.high - self.low) / self.step
        return (round(steps) if math.isclose(steps, round(steps)) else math.floor(steps)) + 1

    def from_index(self, index: Indices) -> Floats:
        """The values so many steps above low."""
        values: Floats = np.minimum(self.low + index * self.step, self.high)
        return values + 0.0


@dataclass(frozen=True, slots=True)
class Normal(_Number):
    """A normally distributed float; with q rounded to the nearest multiple of q. Unbounded, so never on a grid."""

    mean: float = 0.0
    sd: float = 1.0
    q: float | None = None

    def __post_init__(self) -> None:
        mean, sd = _float(self, "mean", self.mean), _float(self, "sd", self.sd)
        _positive(self, "sd", sd)
        q = None if self.q is None else _float(self, "q", self.q)
        if q is not None:
            _positive(self, "q", q)
        reach = abs(mean) + 9.0 * sd  # no share is further out than 8.3 standard deviations
        if not reach < math.inf or (q is not None and not reach / q < _EXACT):
            raise _wrong(self, "the values don't fit floats", self, "mean and sd under 1e307, and under 2**53 times q")
        _set(self, mean=mean, sd=sd, q=q)

    def from_uniform(self, u: Floats) -> Floats:
        """The value below which each share, 0 < u < 1, of the distribution lies."""
        values = self.mean + self.sd * elementary.normal_quantile(u)
        if self.q is not None:
            values = np.rint(values / self.q) * self.q
        return values + 0.0


@dataclass(frozen=True, slots=True)
class Integer(_Number, Finite):
    """One of the integers low, low + step, … below high (exclusive, as in ``tune.randint``), each as likely.

    A range wider than 2**52 is drawn from 2**52 equally spaced places.
    """

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        low, high, step = (_int(self, name, getattr(self, name)) for name in ("low", "high", "step"))
        _int_range(self, low, high)
        _positive(self, "step", step)
        _set(self, low=low, high=high, step=step)

    @property
    def count(self) -> int:
        """How many integers lie in the range."""
        return -((self.low - self.high) // self.step)

    def from_index(self, index: Indices) -> Indices:
        """The values so many steps above low."""
        return self.low + index * self.step


@dataclass(frozen=True, slots=True)
class LogInteger(_Number, Finite):
    """One of the multiples of step from low > 0 to below high (exclusive), its logarithm evenly.

    As in ``tune.lograndint`` and ``tune.qlograndint``: a float drawn log-uniformly, in steps, rounded down. Above some
    10**13 the logarithm of a float no longer tells neighbours apart, and not every integer comes up.
    """

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        low, high, step = (_int(self, name, getattr(self, name)) for name in ("low", "high", "step"))
        _positive(self, "low", low)
        _int_range(self, low, high)
        _positive(self, "step", step)
        if high > _EXACT:
            raise _wrong(self, "high is too large", high, "high <= 2**53, where floats still tell integers apart")
        if low % step:
            raise _wrong(self, "low is not a multiple of step", f"low={low}, step={step}", "a multiple of step")
        _set(self, low=low, high=high, step=step)

    @property
    def count(self) -> int:
        """How many integers lie in the range."""
        return -((self.low - self.high) // self.step)

    def from_uniform(self, u: Floats) -> Indices:
        """The value at each share, 0 < u < 1, of the range's logarithm, rounded down."""
        first = self.low // self.step
        steps = _log_between(u, first, first + self.count).astype(np.int64)
        return np.clip(steps, first, first + self.count - 1) * self.step

    def from_index(self, index: Indices) -> Indices:
        """The values so many steps above low."""
        return self.low + index * self.step


# ---- validation and arithmetic -----------------------------------------------------------------------------


def _set(domain: Domain, **values: object) -> None:
    """Store validated values in a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(domain, name, value)


def _wrong(domain: Domain, what: str, got: object, expected: str, hint: str | None = None) -> SpaceError:
    return SpaceError(f"{type(domain).__name__}: {what}", got=got, expected=expected, hint=hint)


def _float(domain: Domain, name: str, value: object) -> float:
    number = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise _wrong(domain, f"{name} is not a finite number", repr(value), "a finite number")
    return number


def _int(domain: Domain, name: str, value: Any) -> int:
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise _wrong(domain, f"{name} is not an integer", repr(value), "an integer")
    if not INT64.min <= number <= INT64.max:
        raise _wrong(domain, f"{name} does not fit 64 bits", number, "an integer from -2**63 to 2**63 - 1")
    return number


def _positive(domain: Domain, name: str, number: float) -> None:
    if not number > 0:
        raise _wrong(domain, f"{name} is not positive", number, f"{name} > 0")


def _float_range(domain: Domain, low: float, high: float) -> None:
    if not low <= high:
        raise _wrong(domain, "low is above high", f"low={low}, high={high}", "low <= high")
    if not math.isfinite(high - low):
        raise _wrong(domain, "the range is too wide", f"low={low}, high={high}", "high - low below 1.8e308")


def _int_range(domain: Domain, low: int, high: int) -> None:
    if not low < high:
        hint = "high itself is not drawn: add one to include it" if low == high else None
        raise _wrong(domain, "the range is empty", f"low={low}, high={high}", "low < high", hint)
    if high - low > INT64.max:
        raise _wrong(domain, "the range is too wide", f"low={low}, high={high}", "high - low < 2**63")


def _multiple(domain: Domain, name: str, bound: float, q: float) -> int:
    """Which multiple of q the bound is, with ray.tune's tolerance (``math.isclose``)."""
    scaled = bound / q
    if not abs(scaled) < _EXACT:
        raise _wrong(domain, "q is too small", f"{name}={bound}, q={q}", "bounds under 2**53 times q")
    if not math.isclose(scaled, round(scaled)):
        raise _wrong(
            domain, f"{name} is not a multiple of q", f"{name}={bound}, q={q}", "bounds that are multiples of q"
        )
    return round(scaled)


def _log_between(u: Floats, low: float, high: float) -> Floats:
    """Evenly in the logarithm; may miss the bounds by their last bits, so the callers clip."""
    log_low, log_high = elementary.log(np.array([low, high])).tolist()
    with np.errstate(over="ignore"):
        return elementary.exp(log_low + u * (log_high - log_low))
