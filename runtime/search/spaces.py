"""What does the search space that a user wrote mean? It is read here, from three dialects, into ``scheduler.space``.

Domains of ``ray.tune``, distributions of Optuna and Umbel's own can be mixed with plain values, nested as the config
is to be. A list, tuple, range or one-dimensional array is a choice; a number, string, boolean, None or date is a
constant. Foreign objects are told by the names of their classes and modules, so that reading a space imports neither
Ray nor Optuna: whoever made one has imported its library.

This module must not know how values are drawn; it refuses what could not be drawn the same way twice.
"""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from umbel.runtime.search.sample_from import SampleFrom
from umbel.scheduler.errors import SpaceError
from umbel.scheduler.search.domains import Derived
from umbel.scheduler.search.space import (
    Choice,
    Constant,
    Domain,
    Grid,
    Integer,
    LogInteger,
    LogUniform,
    Normal,
    Path,
    Space,
    Stepped,
    Uniform,
    in_dimension,
)

__all__ = ["to_space", "tune_space"]

_TUNE: Final = "ray.tune.search.sample"
_OPTUNA: Final = "optuna.distributions"
_EXPECTED: Final = "a ray.tune domain, an Optuna distribution, a list of choices, a constant, or a dict of those"
_SCALARS: Final = (
    bool,
    int,
    float,
    str,
    bytes,
    type(None),
    enum.Enum,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    Decimal,
    np.generic,
)


def to_space(space: object) -> Space:
    """The space that a user wrote.

    Args:
        space: names to domains, nested dicts allowed; or a ``Space``, which is returned as it is.

    Raises:
        SpaceError: not a mapping; nothing in it; a name that is not a string; a value that is no domain, choice or
            constant, naming the dimension; names that would share a column.

    >>> to_space({"model": {"lags": [1, 2, 4], "trend": True}}).column_names
    ('model_lags', 'model_trend')
    """
    if isinstance(space, Space):
        return space
    if not isinstance(space, Mapping):
        raise SpaceError(
            "the search space is not a dict",
            got=_short(space),
            expected="a dict from names to " + _EXPECTED.removesuffix(", or a dict of those"),
            hint='for example space={"alpha": tune.loguniform(1e-4, 1e2)}',
        )
    if _is_grid_search(space):
        raise SpaceError(
            "the search space is a grid_search without a name",
            got=_short(space),
            expected="a dict from names to domains",
            hint='give it a name: space={"lags": tune.grid_search([1, 2, 4])}',
        )
    return Space.from_nested(space, _to_domain)


def tune_space(space: object) -> Space:
    """A ``param_space`` as Ray Tune reads it: what is no domain, lists and objects too, is a constant.

    Raises:
        SpaceError: as `to_space`; a domain inside a list, or an ``{"eval": …}``.
    """
    if not isinstance(space, Mapping):
        raise SpaceError("param_space is not a dict", got=_short(space), expected="a dict from names to domains")
    if _is_grid_search(space):
        return to_space(space)  # which says what is wrong
    return Space.from_nested(space, _to_tune_domain)


def _to_tune_domain(path: Path, value: Any) -> Domain | None:
    foreign = _class_names(value, _TUNE) or _class_names(value, _OPTUNA) or isinstance(value, Domain)
    if foreign or (isinstance(value, Mapping) and _is_grid_search(value)):
        return _to_domain(path, value)
    if isinstance(value, Mapping):
        if set(value) == {"eval"}:
            error = SpaceError('{"eval": …} is not supported', got=_short(value), expected="tune.sample_from(function)")
            raise in_dimension(path, error)
        return None if all(isinstance(key, str) for key in value) else Constant(value)
    try:
        _values(value)
    except SpaceError as error:
        if isinstance(value, np.ndarray):
            return Constant(value)
        raise in_dimension(path, error) from None
    return Constant(value)


def _to_domain(path: Path, value: object) -> Domain | None:
    """The domain of one value; None for a nested dict."""
    try:
        return _convert(value)
    except SpaceError as error:
        raise in_dimension(path, error) from None


def _convert(value: Any) -> Domain | None:
    if isinstance(value, Domain):
        return value
    if isinstance(value, Mapping):
        return Grid(_values(value["grid_search"])) if _is_grid_search(value) else None
    if names := _class_names(value, _TUNE):
        return _from_tune(value, names)
    if names := _class_names(value, _OPTUNA):
        return _from_optuna(value, names)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, _SCALARS):
        return Constant(value)
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, bytearray):
        return Choice(_values(value))
    if callable(value):
        raise SpaceError(
            "a function or class can't be a dimension: what it returns can't be drawn again from a seed",
            got=_short(value),
            expected=_EXPECTED,
            hint="compute it in the trial function from the other values of its config; to choose between functions, "
            "list them: tune.choice([f, g]); to pass one on, wrap it: umbel.Constant(f)",
        )
    raise SpaceError(
        f"a {type(value).__module__}.{type(value).__qualname__} is not a domain",
        got=_short(value),
        expected=_EXPECTED,
        hint="give choices in a list, in an order"
        if isinstance(value, (set, frozenset))
        else "if the object itself is what every trial should get, wrap it: umbel.Constant(value)",
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _class_names(value: object, module: str) -> set[str]:
    """The names of the classes from this module that the value is an instance of."""
    return {cls.__name__ for cls in type(value).__mro__ if cls.__module__ == module}


def _is_grid_search(value: Mapping[Any, Any]) -> bool:
    """Whether this is what ``tune.grid_search`` returns."""
    return set(value) == {"grid_search"}


def _values(values: Any) -> Any:
    """Listed values, none of which may be a domain: that would be a conditional space, which has no columns."""
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise SpaceError(
            f"an array of {values.ndim} dimensions is neither a list of choices nor a constant",
            got=f"an array of shape {values.shape}",
            expected="a list of choices",
            hint="if the array itself is what every trial should get, wrap it: umbel.Constant(value)",
        )
    if isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, (str, bytes)):
        for value in values:
            found = _domain_in(value)
            if found is not None:
                raise SpaceError(
                    "a choice can't be a domain itself" if found is value else "a choice can't hold a domain",
                    got=_short(value),
                    expected="values to choose from",
                    hint="define by run: space=fn, a function fn(trial: optuna.Trial) that suggests what the choice "
                    "needs; or give that domain a name of its own, and let the trial function use it or not",
                )
    return values


def _domain_in(value: Any) -> object | None:
    """A domain that a value is, or holds; None: there is none."""
    if isinstance(value, Domain) or _class_names(value, _TUNE) or _class_names(value, _OPTUNA):
        return value  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        inner: Any = value.values()
        if _is_grid_search(value):
            return value
    elif isinstance(value, (list, tuple)):
        inner = value
    else:
        return None
    return next((found for found in map(_domain_in, inner) if found is not None), None)


# ---- ray.tune ----------------------------------------------------------------------------------------------


def _from_tune(domain: Any, names: set[str]) -> Domain:
    if "Function" in names:
        return Derived(SampleFrom(domain.func, takes_config=bool(domain.pass_config)))
    if "Categorical" in names:
        grid = "Grid" in _class_names(domain.get_sampler(), _TUNE)
        return (Grid if grid else Choice)(_values(domain.categories))
    if names.isdisjoint({"Float", "Integer"}):
        raise SpaceError("this kind of ray.tune domain is not known", got=_short(domain), expected=_EXPECTED)
    sampler = domain.get_sampler()
    q = None
    if "Quantized" in _class_names(sampler, _TUNE):
        q, sampler = sampler.q, sampler.get_sampler()
    kinds = _class_names(sampler, _TUNE)
    if "Float" in names and "Normal" in kinds:
        return Normal(sampler.mean, sampler.sd, q)
    if kinds.isdisjoint({"Uniform", "LogUniform"}):
        raise SpaceError("this kind of ray.tune sampler is not known", got=_short(sampler), expected=_EXPECTED)
    log = "LogUniform" in kinds
    if "Float" in names:
        return (LogUniform if log else Uniform)(domain.lower, domain.upper, q)
    return _tune_integer(_whole(domain.lower), _whole(domain.upper), None if q is None else _whole(q), log=log)


def _tune_integer(lower: Any, upper: Any, q: Any, *, log: bool) -> Domain:
    """tune's randint excludes the upper bound; qrandint, unless q is 1, takes it if it is a multiple of q."""
    kind = LogInteger if log else Integer
    if q is None or q == 1:
        return kind(lower, upper)
    if not all(isinstance(number, (int, np.integer)) for number in (lower, upper, q)) or q < 1:
        raise SpaceError(
            "an integer domain's bounds and q are not all integers, q positive",
            got=f"lower={lower}, upper={upper}, q={q}",
            expected="integers, q >= 1",
        )
    first, last = -(-lower // q) * q, upper // q * q
    if first > last:
        raise SpaceError(
            "no multiple of q lies between the bounds",
            got=f"lower={lower}, upper={upper}, q={q}",
            expected="one or more",
        )
    return kind(first, last + 1, q)


def _whole(number: Any) -> Any:
    """2.0 as 2, which tune takes too; anything else as it is, for the domain to judge."""
    whole = isinstance(number, (float, np.floating)) and math.isfinite(number) and float(number).is_integer()
    return int(number) if whole else number


# ---- Optuna ------------------------------------------------------------------------------------------------


def _from_optuna(distribution: Any, names: set[str]) -> Domain:
    """Optuna's bounds are inclusive; its stepped floats start at the lower bound and are all as likely."""
    if "CategoricalDistribution" in names:
        return Choice(_values(distribution.choices))
    if "FloatDistribution" in names:
        low, high, step = distribution.low, distribution.high, distribution.step
        if distribution.log:
            return LogUniform(low, high)
        return Uniform(low, high) if step is None else Stepped(low, high, step)
    if "IntDistribution" in names:
        if distribution.log:
            return LogInteger(distribution.low, distribution.high + 1)
        return Integer(distribution.low, distribution.high + 1, distribution.step)
    raise SpaceError("this kind of Optuna distribution is not known", got=_short(distribution), expected=_EXPECTED)
