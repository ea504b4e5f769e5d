"""Which bits do exp, log and the normal quantile have? The same ones on every machine.

A trial's config is part of its identity, and a run may start on one kind of processor and resume on another.
NumPy picks its ``exp`` and ``log`` by the instruction set it finds, and C libraries differ too: in the last bit, but
one bit makes another trial. These three use only operations that IEEE 754 rounds in one way (``+ - * /``, ``sqrt``,
rounding to integers, scaling by powers of two), each as a ufunc call of its own, so that no compiler can fuse two.
``exp`` is within 2 units in the last place of the true value, ``log`` within 4, and the quantile within the 1e-15
(relative) of its published algorithm.

This module must not know what a search space is.

Cost: 15 to 60 passes over the array, each about 1 ns a value and 0.5 microseconds a call.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "exp", "log", "normal_quantile"]

Floats = npt.NDArray[np.float64]

# ln 2 in two parts: the high one has 21 trailing zero bits, so that its product with an exponent is exact (fdlibm).
_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_PER_LN2: Final = float.fromhex("0x1.71547652b82fep+0")

# 1/n!, highest first: the remainder of degree 14 over |r| <= ln(2)/2 is 4e-18.
_EXP_TERMS: Final = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
# 2/(2n+1), highest first: log(m) = 2 atanh(s), s = (m-1)/(m+1); the remainder over |s| <= 0.172 is 1e-18.
_LOG_TERMS: Final = tuple(2.0 / (2 * n + 1) for n in range(10, -1, -1))
_SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")

# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988),
# PPND16: numerators and denominators of three rational functions, highest power first.
_CENTRE_NUMERATOR: Final = (
    2.50908_09287_30122_6727e3,
    3.34305_75583_58812_8105e4,
    6.72657_70927_00870_0853e4,
    4.59219_53931_54987_1457e4,
    1.37316_93765_50946_1125e4,
    1.97159_09503_06551_4427e3,
    1.33141_66789_17843_7745e2,
    3.38713_28727_96366_6080e0,
)
_CENTRE_DENOMINATOR: Final = (
    5.22649_52788_52854_5610e3,
    2.87290_85735_72194_2674e4,
    3.93078_95800_09271_0610e4,
    2.12137_94301_58659_5867e4,
    5.39419_60214_24751_1077e3,
    6.87187_00749_20579_0830e2,
    4.23133_30701_60091_1252e1,
    1.0,
)
_TAIL_NUMERATOR: Final = (
    7.74545_01427_83414_07640e-4,
    2.27238_44989_26918_45833e-2,
    2.41780_72517_74506_11770e-1,
    1.27045_82524_52368_38258e0,
    3.64784_83247_63204_60504e0,
    5.76949_72214_60691_40550e0,
    4.63033_78461_56545_29590e0,
    1.42343_71107_49683_57734e0,
)
_TAIL_DENOMINATOR: Final = (
    1.05075_00716_44416_84324e-9,
    5.47593_80849_95344_94600e-4,
    1.51986_66563_61645_71966e-2,
    1.48103_97642_74800_74590e-1,
    6.89767_33498_51000_04550e-1,
    1.67638_48301_83803_84940e0,
    2.05319_16266_37758_82187e0,
    1.0,
)
_FAR_NUMERATOR: Final = (
    2.01033_43992_92288_13265e-7,
    2.71155_55687_43487_57815e-5,
    1.24266_09473_88078_43860e-3,
    2.65321_89526_57612_30930e-2,
    2.96560_57182_85048_91230e-1,
    1.78482_65399_17291_33580e0,
    5.46378_49111_64114_36990e0,
    6.65790_46435_01103_77720e0,
)
_FAR_DENOMINATOR: Final = (
    2.04426_31033_89939_78564e-15,
    1.42151_17583_16445_88870e-7,
    1.84631_83175_10054_68180e-5,
    7.86869_13114_56132_59100e-4,
    1.48753_61290_85061_48525e-2,
    1.36929_88092_27358_05310e-1,
    5.99832_20655_58879_37690e-1,
    1.0,
)


def _polynomial(x: Floats, terms: tuple[float, ...]) -> Floats:
    """Horner's rule, highest power first."""
    total = np.full_like(x, terms[0])
    for term in terms[1:]:
        np.multiply(total, x, out=total)
        np.add(total, term, out=total)
    return total


def exp(x: Floats) -> Floats:
    """e to the power of each x, for finite x whose result is finite."""
    power = np.rint(x * _PER_LN2)
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    return np.ldexp(_polynomial(rest, _EXP_TERMS), power.astype(np.int32))


def log(x: Floats) -> Floats:
    """The natural logarithm of each x, for finite x > 0."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    power = exponent.astype(np.float64) - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return power * _LN2_HIGH + (s * _polynomial(s * s, _LOG_TERMS) + power * _LN2_LOW)


def normal_quantile(u: Floats) -> Floats:
    """The value below which a share u of the standard normal distribution lies, for 0 < u < 1 (AS 241)."""
    q = u - 0.5
    near = 0.180625 - q * q
    value = q * _polynomial(near, _CENTRE_NUMERATOR) / _polynomial(near, _CENTRE_DENOMINATOR)
    outside = np.flatnonzero(near < 0.0)
    if outside.size:
        tail = u[outside]
        r = np.sqrt(-log(np.minimum(tail, 1.0 - tail)))
        middle = r - 1.6
        far = r - 5.0
        size = np.where(
            r <= 5.0,
            _polynomial(middle, _TAIL_NUMERATOR) / _polynomial(middle, _TAIL_DENOMINATOR),
            _polynomial(far, _FAR_NUMERATOR) / _polynomial(far, _FAR_DENOMINATOR),
        )
        value[outside] = np.copysign(size, q[outside])
    return value
