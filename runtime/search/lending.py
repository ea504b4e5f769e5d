"""What do the groups of a sweep lend one another? The driver's side of `umbel.scheduler.search.transfer`.

Keeps the trials of all groups, and makes the portfolio that travels with a lease of another. What a group lends is made
once and kept until it has more trials. It must not know leases or the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umbel.scheduler.search.adaptive import AdaptiveSearch, KnownTrial
from umbel.scheduler.search.axes import Axis, axes_of
from umbel.scheduler.search.group_model import Kernels, learn_kernels
from umbel.scheduler.search.transfer import MODEL, Lender, Portfolio, lent_score, make_lender, make_portfolio, teachers

__all__ = ["Lending", "LentGroup"]

#: Kernels that are kept: some kB each.
KEPT = 64


@dataclass(frozen=True, slots=True)
class LentGroup:
    """A group of an earlier run."""

    #: Its trials' params, in order; then what came of them, less is better, and what they are called.
    configs: tuple[Mapping[str, Any], ...]
    scores: tuple[float, ...]
    origins: tuple[str, ...]
    #: Whether they were borrowed themselves.
    guided: tuple[bool, ...]


class Lending:
    """The trials of one sweep, as its groups lend them to one another.

    Args:
        search: of the sweep.
        trials: how many a group.
        others: groups of earlier runs.
    """

    def __init__(self, search: AdaptiveSearch, trials: int, others: Sequence[LentGroup] = ()) -> None:
        self._direction = search.directions[0]
        self._trials = trials
        self._others = others
        self._groups: dict[int, dict[int, KnownTrial]] = {}
        self._distributions: dict[str, Mapping[str, Any]] = json.loads(search.distributions_text)
        self._fixed = search.define is None
        self._seen: set[str] = set()
        self._axes: tuple[Axis, ...] = axes_of(self._distributions)
        #: Kernels by what they were learned of: groups that ask have different teachers, since none teaches itself.
        self._kernels: dict[bytes, Kernels] = {}
        #: By group (of earlier runs: -1, -2, …) how many trials it had when this was made.
        self._lenders: dict[int, tuple[int, Lender | None]] = {}

    def add(self, group: int, trial: KnownTrial, distributions: str | None) -> None:
        """A trial ended; ``distributions`` are those that its params are from, as JSON."""
        if trial.params is None:
            return
        self._groups.setdefault(group, {})[trial.number] = trial
        if self._fixed or distributions is None or distributions in self._seen:
            return
        self._seen.add(distributions)
        new = {name: each for name, each in json.loads(distributions).items() if name not in self._distributions}
        if new:
            self._distributions |= new
            self._axes = axes_of(self._distributions)
            self._lenders.clear()
            self._kernels.clear()

    def portfolio(self, group: int, name_of: Callable[[int], str]) -> Portfolio | None:
        """What the others lend to a group; None: nothing yet.

        Args:
            group: who asks.
            name_of: what a group is called.
        """
        lenders = [self._lender_of_run(number) for number in range(len(self._others))]
        lenders += [self._lender(other, name_of) for other in sorted(self._groups) if other != group]
        found = [lender for lender in lenders if lender is not None]
        return make_portfolio(self._axes, found, self._learned(found)) if found else None

    def _learned(self, lenders: Sequence[Lender]) -> Kernels:
        """The kernels that these teach, learned once."""
        openings = teachers(lenders)
        taught = b"".join(each.tobytes() for opening in openings for each in opening)
        known = self._kernels.get(taught)
        if known is None:
            if len(self._kernels) >= KEPT:
                self._kernels.clear()
            known = self._kernels[taught] = learn_kernels(self._axes, openings)
        return known

    def _lender(self, group: int, name_of: Callable[[int], str]) -> Lender | None:
        known = self._groups[group]
        held = self._lenders.get(group)
        if held is not None and held[0] == len(known):
            return held[1]
        trials = [trial for _, trial in sorted(known.items())]
        first, name = group * self._trials, name_of(group)
        lender = make_lender(
            self._axes,
            [trial.params or {} for trial in trials],
            [lent_score(trial.values, trial.pruned_at, self._direction) for trial in trials],
            [_origin(trial, f"{name}/{first + trial.number}") for trial in trials],
            [trial.borrowed_from is not None for trial in trials],
        )
        self._lenders[group] = len(known), lender
        return lender

    def _lender_of_run(self, number: int) -> Lender | None:
        other = self._others[number]
        if -1 - number not in self._lenders:
            lender = make_lender(self._axes, other.configs, other.scores, other.origins, other.guided)
            self._lenders[-1 - number] = len(other.configs), lender
        return self._lenders[-1 - number][1]


def _origin(trial: KnownTrial, itself: str) -> str:
    """Who tried this config first."""
    return itself if trial.borrowed_from in (None, MODEL) else str(trial.borrowed_from)
