"""How does a space look to Optuna: which distributions are its domains, and which params stand for which values?

It must not know samplers or studies. Optuna is imported when it is needed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import SpaceError
from umbel.scheduler.identity import DigestOf, canonical_json
from umbel.scheduler.search.domains import Choice, Constant, Derived, Domain, Grid
from umbel.scheduler.search.numeric import Integer, LogInteger, LogUniform, Normal, Stepped, Uniform
from umbel.scheduler.search.space import Path, Space, dimension_name, in_dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["check_fits", "distributions_text", "param_of", "place_of", "to_distributions", "value_of"]

_SCALARS = (type(None), bool, int, float, str)


def to_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions for the dimensions of a space, without constants, by their names.

    Raises:
        SpaceError: a domain has no counterpart there.
    """
    return {
        dimension_name(path): _distribution(path, domain)
        for path, domain in space.dimensions
        if not isinstance(domain, Constant)
    }


def distributions_text(distributions: Mapping[str, BaseDistribution]) -> str:
    """Distributions by name as JSON, as they are recorded with each trial."""
    from optuna.distributions import distribution_to_json

    return json.dumps({name: json.loads(distribution_to_json(each)) for name, each in distributions.items()})


def _distribution(path: Path, domain: Domain) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match domain:
        case Grid():
            raise in_dimension(path, _no_counterpart("tune.grid_search", "choices: tune.choice, or a plain list"))
        case Derived():
            raise in_dimension(path, _no_counterpart("tune.sample_from", "a function fn(trial) that defines the space"))
        case Choice():
            plain: Any = range(domain.count) if by_place(domain) else domain.values
            return CategoricalDistribution(tuple(plain))
        case Uniform(low, high, q):
            return FloatDistribution(low, high, step=q)
        case LogUniform(low, high, None):
            return FloatDistribution(low, high, log=True)
        case Stepped(low, high, step):
            return FloatDistribution(low, high, step=step)
        case Integer(low, _, step):
            return IntDistribution(low, low + (domain.count - 1) * step, step=step)
        case LogInteger(low, high, 1):
            return IntDistribution(low, high - 1, log=True)
        case Normal():
            raise in_dimension(path, _no_counterpart("a normal distribution", "tune.uniform over a range"))
        case _:
            raise in_dimension(path, _no_counterpart("a logarithmic scale in steps", "the scale without steps"))


def _no_counterpart(what: str, instead: str) -> SpaceError:
    return SpaceError(
        "Optuna's samplers know no such domain",
        got=what,
        expected=instead,
        hint='or search="random", which draws from it',
    )


def by_place(choice: Choice) -> bool:
    """Whether the choices stand for themselves by their places in the list: Optuna wants plain, distinct ones."""
    plain = all(isinstance(value, _SCALARS) for value in choice.values)
    return not plain or len(set(map(repr, choice.values))) < len(choice.values)


def value_of(domain: Domain, param: Any) -> object:
    """What a config has where a sampler suggested this param."""
    if isinstance(domain, Constant):
        return copy.deepcopy(domain.value)
    if isinstance(domain, Choice) and by_place(domain):
        return copy.deepcopy(domain.values[param])
    return param


def param_of(domain: Domain, stored: object, digest_of: DigestOf) -> tuple[Any] | None:
    """The param that stands for a value as a column of configs has it, in a tuple; None: the domain has no such value.

    Args:
        domain: what it is from.
        stored: the value, see `place_of`.
        digest_of: as of ``canonical_json``, for choices of any type.
    """
    if not isinstance(domain, Choice):
        return None if stored is None else (stored,)
    place = place_of(stored, [canonical_json(value, digest_of) for value in domain.values])
    if place is None:
        return None
    return (place if by_place(domain) else domain.values[place],)


def place_of(stored: object, texts: Sequence[str]) -> int | None:
    """Which choice a value in a column of configs is; None: none of them.

    Args:
        stored: plain, or the canonical text of what is not; in columns of choices of several types everything that is
            no text stands as such a text.
        texts: the canonical texts of the choices.
    """
    for text in (canonical_json(stored), stored):
        if text in texts:
            return texts.index(str(text))
    return None


def check_fits(label: str, space: Space) -> None:
    """Check that a named sampler can search a space.

    Raises:
        SpaceError: it can't.
    """
    distributions = to_distributions(space)
    if not distributions:
        raise SpaceError(
            f"search={label!r} has nothing to search",
            got="constants only",
            expected="at least one dimension with a choice",
            hint='search="random" runs constants as they are',
        )
