"""What does `search=` mean? A name, a sampler of Optuna's, a factory of samplers, or a function that defines the space.

Foreign objects are told by the names of their classes, so that reading the argument does not import Optuna: whoever
made a sampler has imported it. It must not know sweeps or graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umbel.runtime.search.probe import check_numbers, one_metric_only, probe
from umbel.scheduler.errors import SpaceError, UsageError
from umbel.scheduler.search.adaptive import (
    SAMPLERS,
    AdaptiveSearch,
    CopiedSampler,
    Define,
    Direction,
    MakeSampler,
    NamedSampler,
)
from umbel.scheduler.search.distributions import check_fits, to_distributions
from umbel.scheduler.search.domains import Constant
from umbel.scheduler.search.pareto import Objective
from umbel.scheduler.search.sampling import MAX_TRIALS, SEARCHES, TrialSource
from umbel.scheduler.search.space import Space

__all__ = ["Factory", "adaptive_search", "is_adaptive", "placeholder_space"]

_KNOWN = ", ".join(f'"{name}"' for name in dict.fromkeys((*SEARCHES, *SAMPLERS)))


def is_adaptive(search: object, space: object) -> bool:
    """Whether a search builds upon results, or the space is defined trial by trial.

    Raises:
        SpaceError: there is no such search.
    """
    if isinstance(search, str):
        if callable(space) and search in SEARCHES and search not in SAMPLERS:
            raise SpaceError(
                f"search={search!r} needs to know the whole space beforehand, and a function defines it trial by trial",
                got=f"search={search!r} and a function as space=",
                expected=", ".join(f'"{name}"' for name in SAMPLERS) + ", or a sampler of Optuna's",
                hint="or a space of ray.tune's domains",
            )
        if search in (*SEARCHES, *SAMPLERS):
            return callable(space) or search not in SEARCHES
    elif isinstance(search, type) and search.__module__.startswith("optuna."):
        raise UsageError(
            "a sampler is needed, not its class",
            got=f"search={search.__name__}",
            expected=f"search={search.__name__}(), with its arguments",
            hint=f"or a function of the group: search=lambda group: {search.__name__}()",
        )
    elif _is_sampler(search) or callable(search):
        return True
    raise SpaceError(
        "there is no such search",
        got=repr(search),
        expected=f"{_KNOWN}, a sampler of Optuna's, or a function",
        hint='search="random" suits every space, search="tpe" learns from the trials before',
    )


def adaptive_search(
    search: Any,
    space: Space | Callable[..., Any],
    *,
    seed: int,
    sweep: str,
    trials: int | None,
    objectives: Sequence[Objective],
    transfer: bool = False,
    group: Mapping[str, object] | None = None,
) -> AdaptiveSearch:
    """The search of a sweep, for which `is_adaptive` is true, or whose groups learn from one another.

    Args:
        search: as of `umbel.sweep`; so are ``seed``, ``trials`` and ``transfer``.
        space: the space, a function that defines it, or `placeholder_space`.
        sweep: the sweep's name.
        objectives: what trials are compared by.
        group: the keys of one group, for which the search is tried out; None: no group is known yet.

    Raises:
        UsageError: ``trials`` is missing or no count, a package is missing, or there are several objectives and the
            sampler takes one only.
        SpaceError: the space is not one that this search can walk.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or not 1 <= trials <= MAX_TRIALS:
        raise UsageError(
            f"search={_label(search)!r} needs a number of trials",
            got=f"trials={trials!r}",
            expected="a whole number ≥ 1",
            hint="for example trials=100, for a hundred in each group",
        )
    define: Define | None = None if isinstance(space, Space) else space
    if not isinstance(search, str) and not _is_sampler(search) and _defines(search):
        if isinstance(space, Space) and space is not _PLACEHOLDER:
            raise UsageError(
                "there are two spaces",
                got=f"space=…, and the function {_label(search)!r} as search=, which takes a trial",
                expected="one of them",
                hint="leave space= out, or give search= a sampler",
            )
        define, search = search, "tpe"
    if isinstance(space, Space) and define is None:
        if space is _PLACEHOLDER:
            raise SpaceError("the search space is missing", expected="space={…}, or a function that takes a trial")
        if isinstance(search, str):
            check_fits(search, space)
            if search == "cmaes":
                check_numbers(to_distributions(space))
        else:
            to_distributions(space)
    directions: tuple[Direction, ...] = tuple("minimize" if each.mode == "min" else "maximize" for each in objectives)
    held = space if isinstance(space, Space) and define is None else _PLACEHOLDER
    source = TrialSource(held, "random", seed, sweep, trials)
    if len(directions) > 1 and search == "cmaes":
        raise one_metric_only(_label(search), len(directions))
    found = AdaptiveSearch(_label(search), _maker(search), source, directions, define, transfer)
    return replace(found, exhaustive=probe(found, group))


#: Stands where a space is asked for and a function defines it.
_PLACEHOLDER = Space(((("defined_by_run",), Constant(True)),))


def placeholder_space() -> Space:
    """The space of a sweep whose trials define it."""
    return _PLACEHOLDER


def _maker(search: Any) -> MakeSampler:
    if isinstance(search, str):
        return NamedSampler(search)
    if _is_sampler(search):
        return CopiedSampler(search)
    return Factory(search)


class Factory:
    """A user's function from a group to a sampler."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, group: Any, seed: int) -> Any:
        """The sampler of a group."""
        sampler = self.make(dict(group))
        if not _is_sampler(sampler):
            raise UsageError(
                f"the function {_label(self.make)!r}, given as search=, did not return a sampler",
                got=sampler,
                expected="an optuna.samplers sampler",
                hint="a function whose parameter is called trial defines the space instead",
            )
        return sampler


def _label(search: object) -> str:
    if isinstance(search, str):
        return search
    return str(getattr(search, "__qualname__", None) or type(search).__name__)


def _is_sampler(value: object) -> bool:
    return any(
        cls.__name__ == "BaseSampler" and cls.__module__.startswith("optuna.samplers") for cls in type(value).__mro__
    )


def _defines(function: Callable[..., Any]) -> bool:
    """Whether a function takes a trial: its parameter is called so, or annotated as one."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    return first is not None and (first.name == "trial" or "Trial" in str(first.annotation))
