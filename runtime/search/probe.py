"""Can this search find configs in this space? Tried out with one trial, before any trial of the sweep runs.

What a user brings (a sampler, a factory of samplers, a function that defines the space) is asked for one config as it
would be for a group's first trial, so that what it raises is one error and not a failure of every trial. It must not
know sweeps or graphs.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import SpaceError, UmbelError, UsageError
from umbel.scheduler.identity import group_key
from umbel.scheduler.search.adaptive import AdaptiveSearch, CopiedSampler, GroupStudy, NamedSampler, study_seed

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["check_numbers", "one_metric_only", "probe"]


def one_metric_only(label: str, metrics: int) -> UsageError:
    """The error of a search that takes one metric, in a sweep that has several."""
    return UsageError(
        f"search={label!r} takes one metric, and this sweep has several",
        got=f"{metrics} metrics",
        expected='"nsga2", "tpe", "gp", or another sampler for several objectives',
        hint="or one metric that weighs them against each other",
    )


#: Samplers that go through all there is.
_EXHAUSTIVE = frozenset({"GridSampler", "BruteForceSampler"})


def probe(search: AdaptiveSearch, group: Mapping[str, object] | None) -> bool:
    """Ask a search for one config, and throw it away. Cost: a millisecond or two, and one call of a user's function.

    Args:
        search: the search.
        group: the keys of a group; None: they are known only when the sweep runs, so factories can't be tried.

    Returns:
        whether its sampler is known to go through all there is.

    Raises:
        UsageError: it makes no sampler, or the sampler takes one metric only.
        SpaceError: it can't search this space, or not for so many trials.
    """
    make = search.make_sampler
    if isinstance(make, NamedSampler) and search.define is None:
        return False  # what can be wrong has been checked by name
    if group is None and not isinstance(make, (NamedSampler, CopiedSampler)):
        return False
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = _sampler(search, group or {})
            kinds = {cls.__name__ for cls in type(sampler).__mro__}
            _ask(search, sampler, kinds, group or {})
            return bool(kinds & _EXHAUSTIVE)
    finally:
        optuna.logging.set_verbosity(before)


def _sampler(search: AdaptiveSearch, group: Mapping[str, object]) -> BaseSampler:
    try:
        seed = study_seed(search.source.seed, search.source.sweep, group_key(group))
        return search.make_sampler(copy.copy(group), seed)
    except UmbelError:
        raise
    except Exception as error:
        raise UsageError(
            f"the function {search.label!r}, given as search=, makes no sampler",
            got=f"{type(error).__name__}: {error}, for the group {dict(group)!r}",
            expected="a function fn(group) that returns a sampler of Optuna's",
            hint="group is a dict of the group's keys",
        ) from error


def _ask(search: AdaptiveSearch, sampler: BaseSampler, kinds: set[str], group: Mapping[str, object]) -> None:
    numbers_only = "CmaEsSampler" in kinds and getattr(sampler, "_warn_independent_sampling", True)
    if numbers_only:
        check_numbers(search.distributions)
    _check_count(search, sampler, kinds)
    study = GroupStudy(search, sampler)
    try:
        params, drawn_from = study.ask(0)
        if numbers_only:
            check_numbers(_read(drawn_from))
        search.config(params, group)
        study.tell(0, [0.0] * len(search.directions))
    except UmbelError:
        raise
    except Exception as error:
        if len(search.directions) > 1 and "multi-objective" in str(error):
            raise one_metric_only(search.label, len(search.directions)) from error
        raise SpaceError(
            f"search={search.label!r} can't search this space"
            if search.define is None
            else f"the function {_name(search.define)!r}, which defines the space, raises",
            got=f"{type(error).__name__}: {error}",
            expected="params for the first trial of a study",
            hint=None if search.define is not None else 'search="tpe" searches any space',
        ) from error


def check_numbers(distributions: Mapping[str, Any]) -> None:
    """Check that CMA-ES can search Optuna's distributions.

    Raises:
        SpaceError: there are choices among them.
    """
    choices = [name for name, each in distributions.items() if hasattr(each, "choices")]
    if choices:
        raise SpaceError(
            "CMA-ES searches numbers only",
            got=f"choices: {', '.join(choices)}",
            expected="domains of numbers",
            hint='search="tpe" takes choices too; CmaEsSampler(warn_independent_sampling=False) draws them at random',
        )


def _read(distributions: str) -> dict[str, Any]:
    """Optuna's distributions from the text that is recorded with a trial."""
    from optuna.distributions import json_to_distribution

    return {name: json_to_distribution(json.dumps(each)) for name, each in json.loads(distributions).items()}


def _check_count(search: AdaptiveSearch, sampler: Any, kinds: set[str]) -> None:
    """Samplers that go through all there is have nothing to suggest after that."""
    most: int | None = None
    if "GridSampler" in kinds:
        most = getattr(sampler, "_n_min_trials", None)
    elif "BruteForceSampler" in kinds and search.distributions:
        counts = [_count(each) for each in search.distributions.values()]
        most = None if None in counts else prod(each for each in counts if each is not None)
    if most is not None and most < search.source.trials:
        raise SpaceError(
            f"search={search.label!r} goes through all configs that there are, and more trials are asked for",
            got=f"trials={search.source.trials}",
            expected=f"{most} at most: so many configs there are",
            hint=f"trials={most}",
        )


def _count(distribution: Any) -> int | None:
    """How many values a distribution of Optuna's has; None: it goes without steps."""
    if hasattr(distribution, "choices"):
        return len(distribution.choices)
    if distribution.step is None:
        return None
    return int((distribution.high - distribution.low) / distribution.step + 1e-9) + 1


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
