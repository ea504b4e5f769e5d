"""Which config does a trial get that is to build upon the trials before it? A sampler of Optuna's says, study by study.

The trials of one group are one study. `AdaptiveSearch` describes the search of a sweep and travels with its program;
`GroupStudy` is the study of one group, in the process that runs its trials: it is asked for each trial's params in turn
and told what came of them. From the same seed and the same results follow the same params, so a study can be taken up
anywhere: what was asked before is asked again and told what is known. If that gives other params than those on record
(another version of Optuna, or several workers at one study), the recorded ones are put in their place.

It must not know how results are stored, nor who runs the trials. Optuna is imported when a study begins.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from umbel.scheduler.errors import SpaceError, UsageError
from umbel.scheduler.search.distributions import distributions_text, to_distributions, value_of
from umbel.scheduler.search.sampling import TrialSource
from umbel.scheduler.search.space import Space, dimension_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

__all__ = [
    "SAMPLERS",
    "AdaptiveSearch",
    "CopiedSampler",
    "GroupStudy",
    "KnownTrial",
    "NamedSampler",
    "config_of",
    "study_seed",
]

#: The samplers that have a name, by it: Optuna's class, and the packages that it needs beside Optuna.
SAMPLERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tpe": ("TPESampler", ()),
    "gp": ("GPSampler", ("scipy", "torch")),
    "cmaes": ("CmaEsSampler", ("cmaes",)),
    "nsga2": ("NSGAIISampler", ()),
    "random": ("RandomSampler", ()),  # where a function defines the space
}
Direction: TypeAlias = Literal["minimize", "maximize"]
#: Makes the sampler of a group from its keys and a seed.
MakeSampler = Callable[[Mapping[str, object], int], "BaseSampler"]
#: Suggests what a trial of Optuna's asks for, and may return further values of the config.
Define = Callable[[Any], Mapping[str, object] | None]


def study_seed(seed: int, sweep: str, group_key: str) -> int:
    """The seed of a group's sampler, 0 <= seed < 2**31: a hash of the sweep's seed and name and of the group's key."""
    text = f"{seed} {sweep} {group_key}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 33


@dataclass(frozen=True, slots=True)
class NamedSampler:
    """One of `SAMPLERS`, with Optuna's defaults."""

    name: str

    def __post_init__(self) -> None:
        missing = [package for package in SAMPLERS[self.name][1] if importlib.util.find_spec(package) is None]
        if missing:
            raise UsageError(
                f"search={self.name!r} needs a package that is not installed",
                got=f"no {', '.join(missing)}",
                expected=f"{' and '.join(SAMPLERS[self.name][1])} beside Optuna",
                hint=f"pip install {' '.join(missing)}",
            )

    def __call__(self, group: Mapping[str, object], seed: int) -> BaseSampler:
        """A sampler of its own for a group."""
        import optuna

        sampler: BaseSampler = getattr(optuna.samplers, SAMPLERS[self.name][0])(seed=seed)
        return sampler


@dataclass(frozen=True, slots=True)
class CopiedSampler:
    """A copy of a user's sampler for each group, with the seed that the user gave it."""

    sampler: BaseSampler

    def __call__(self, group: Mapping[str, object], seed: int) -> BaseSampler:
        """A copy."""
        return copy.deepcopy(self.sampler)


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """What is known of a trial of a study."""

    #: Its number in the study.
    number: int
    #: None: they are not known, because its worker was lost.
    params: Mapping[str, Any] | None
    #: One value an objective; None: it failed.
    values: tuple[float, ...] | None
    #: The step at which it was pruned; None: it was not.
    pruned_at: int | None = None
    #: Where its config is from, if not from the sampler (`umbel.scheduler.search.transfer`).
    borrowed_from: str | None = None
    #: True: it has not ended; a worker beside this one runs it.
    running: bool = False


@dataclass(frozen=True, slots=True)
class AdaptiveSearch:
    """The search of one sweep."""

    #: What it is called in records and messages.
    label: str
    make_sampler: MakeSampler
    #: The trials' seeds and how many there are; its space says what is searched, unless `define` does.
    source: TrialSource
    #: "minimize" or "maximize", one an objective.
    directions: tuple[Direction, ...]
    #: None: the space of `source` is searched.
    define: Define | None = None
    #: True: groups lend one another their good configs.
    transfer: bool = False
    #: True: its sampler goes through all that there is, which several could do together only by repeating each other.
    exhaustive: bool = False
    #: Optuna's distributions by the names of the dimensions; none if `define` says.
    distributions: dict[str, BaseDistribution] = field(init=False, repr=False, compare=False)
    #: The same as JSON, as it is recorded with each trial.
    distributions_text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        distributions = {} if self.define is not None else to_distributions(self.source.space)
        object.__setattr__(self, "distributions", distributions)
        object.__setattr__(self, "distributions_text", distributions_text(distributions))

    def study(self, group_key: str, group: Mapping[str, object], salt: int | None = None) -> GroupStudy:
        """The study of a group, without trials.

        Args:
            group_key: the group's canonical text.
            group: the group's keys and values.
            salt: changes the seed, for one of several workers at the same study. A user's sampler is reseeded then, as
                Optuna does where several threads work on a study: with the user's seed all would suggest the same.
        """
        seed = study_seed(self.source.seed, self.source.sweep, group_key if salt is None else f"{group_key} {salt}")
        sampler = self.make_sampler(group, seed)
        if salt is not None and not isinstance(self.make_sampler, NamedSampler):
            sampler.reseed_rng()
        return GroupStudy(self, sampler)

    def config(self, params: Mapping[str, Any], group: Mapping[str, object]) -> dict[str, object]:
        """The config that a trial function is given; see `config_of`."""
        return config_of(params, self.source.space, self.define, group)


class GroupStudy:
    """The trials of one group, as Optuna sees them."""

    def __init__(self, search: AdaptiveSearch, sampler: BaseSampler) -> None:
        import optuna

        self._search = search
        # Optuna tells of every study and trial otherwise; a run tells of its own.
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler, directions=list(search.directions))
        optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
        # A sampler that has tried all there is asks for an end, which only Optuna's own loop knows; here trials count.
        self._study.stop = lambda: None  # type: ignore[method-assign]
        self._open: dict[int, Trial] = {}

    def ask(self, number: int, borrowed: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], str]:
        """The params of the next trial, and the distributions that they are from, as JSON.

        Args:
            number: of the trial.
            borrowed: params that are not the sampler's; of what they lack it says the rest.

        Raises:
            Exception: whatever the sampler or the user's function raises. To the sampler the trial has failed then.
        """
        define = self._search.define
        if borrowed is not None:
            self._study.enqueue_trial(dict(borrowed))
        try:
            if define is None:
                trial = self._study.ask(self._search.distributions)
                drawn_from = self._search.distributions_text
            else:
                trial = self._study.ask()
                define(trial)
                drawn_from = distributions_text(trial.distributions)
        except Exception:
            self._give_up()
            raise
        self._open[number] = trial
        return dict(trial.params), drawn_from

    def _give_up(self) -> None:
        """End the trial that was begun and has no params: nobody is going to run it."""
        from optuna.trial import TrialState

        asked = {trial.number for trial in self._open.values()}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in asked:
                with contextlib.suppress(Exception):  # the sampler's, whose first word counts
                    self._study.tell(trial.number, state=TrialState.FAIL)

    def tell(self, number: int, values: Sequence[float] | None, pruned_at: int | None = None) -> None:
        """What came of a trial that was asked for.

        Args:
            number: of the trial.
            values: None, or a value that is no number: it failed, unless it was pruned before it had any.
            pruned_at: the step at which it had these values when it was pruned; None: it ran to its end.
        """
        from optuna.trial import TrialState

        trial = self._open.pop(number)
        if values is None and pruned_at is not None:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif values is None or any(math.isnan(value) for value in values):
            self._study.tell(trial, state=TrialState.FAIL)
        elif pruned_at is not None and len(values) == 1:
            trial.report(values[0], pruned_at)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, list(values))

    def take_up(self, before: int, known: Sequence[KnownTrial]) -> bool:
        """Ask again for the trials ``[0, before)`` and tell what is known of them; False if they come out otherwise.

        Cost: as asking for them was.
        """
        by_number = {trial.number: trial for trial in known}
        for number in range(before):
            held = by_number.get(number)
            borrowed = held is not None and held.borrowed_from is not None
            try:
                params, _ = self.ask(number, held.params if held is not None and borrowed else None)
            except Exception:
                if held is not None and held.params is not None:
                    return False
                continue  # as it did before
            if held is None:
                continue  # it runs elsewhere
            if held.params is not None and not _equal(params, held.params):
                return False
            self.tell(number, held.values, held.pruned_at)
        return True

    def put(self, known: Sequence[KnownTrial]) -> None:
        """Add trials with the params that are on record; those that run are left open, for samplers that heed them."""
        for trial in sorted(known, key=lambda each: each.number):
            try:
                self.ask(trial.number, trial.params or {})
            except Exception:  # the user's function takes no part of what it said before
                continue
            if not trial.running:
                self.tell(trial.number, trial.values, trial.pruned_at)


def config_of(
    params: Mapping[str, Any], space: Space, define: Define | None, group: Mapping[str, object]
) -> dict[str, object]:
    """The config that a trial function is given for params that a sampler suggested.

    Args:
        params: by name.
        space: what was searched, unless a function defines it.
        define: that function.
        group: the group's keys and values.

    Raises:
        SpaceError: a name is both in the space and a group key, or ``define`` returned no dict.
    """
    config: dict[str, object] = {}
    if define is not None:
        import optuna

        extra = define(optuna.trial.FixedTrial(dict(params)))
        if extra is not None and not isinstance(extra, Mapping):
            raise SpaceError(
                "the function that defines the space did not return a dict",
                got=extra,
                expected="further values of the config by name, or None",
            )
        config = {**params, **(extra or {})}
    else:
        for path, domain in space.dimensions:
            branch = config
            for key in path[:-1]:
                branch = branch.setdefault(key, {})  # type: ignore[assignment]
            branch[path[-1]] = value_of(domain, params.get(dimension_name(path)))
    clash = [name for name in group if name in config]
    if clash:
        raise SpaceError(
            f"{clash[0]!r} is both a group key and in the search space",
            got=repr(clash[0]),
            expected="group keys and params of different names, since both stand in the config",
            hint="rename one of them",
        )
    return {**config, **copy.copy(dict(group))}


def _equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """The same params, to the bit."""
    return {name: repr(value) for name, value in left.items()} == {name: repr(value) for name, value in right.items()}
