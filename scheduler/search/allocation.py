"""How is one budget of trials spent on many groups? Each gets a floor, and the rest goes where it improves most.

What one trial more is expected to gain a group is extrapolated from its outcomes so far. If their good end is
exponential, with scale ``s``, then the best of n independent draws improves by ``s`` with each e-fold of n (extreme
value theory: de Haan & Ferreira 2006), that is by ``s ln((n + 1) / n)`` with the next. ``s`` is estimated by the mean
excess over the best fifth of the outcomes, which is its maximum likelihood there, in units of the distance from their
median to the best, so that groups of any scale compare; and half of it is what the groups have on average, since a
single group's is uncertain. A group with many trials gains little by more, so none is starved, and where nothing varies
nothing is spent. (How much the best improved of late predicts worse: it is mostly luck, and says that luck is used up.
Measured: `docs/decisions/0017-learning-across-groups.md`.)

Trials are released in instalments, and only as many as the workers need: what is decided later is decided knowing
more. A group that has begun an instalment ends it first, so an interrupted run goes on as it would have. It must not
know engines, leases or rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from umbel.scheduler.intervals import IntervalSet

__all__ = ["Allocation"]

#: Weight of a group's own outcomes in what its further trials are expected to gain; the rest is the groups' mean.
OWN = 0.5


@dataclass(slots=True)
class _Group:
    #: Trials that are ready and not released.
    held: IntervalSet = field(default_factory=IntervalSet)
    #: Released and not ended.
    open: set[int] = field(default_factory=set)
    #: What came of those that ended, by trial; less is better, not finite: it failed.
    scores: dict[int, float] = field(default_factory=dict)
    #: What `slope` makes of these; None: it is to be made anew.
    slope: float | None = None

    @property
    def taken(self) -> int:
        return len(self.open) + len(self.scores)


class Allocation:
    """The budget of one sweep.

    Args:
        trials: the most that one group may get; trial i belongs to group i // trials.
        budget: trials of all groups together.
        floor: trials that each group gets first.
        groups: how many there are. If they can't all have the floor, it is less.
    """

    def __init__(self, trials: int, budget: int, floor: int, groups: int) -> None:
        self._trials = trials
        self.budget = min(budget, groups * trials)
        self._floor = max(1, min(floor, trials, self.budget // max(1, groups)))
        self._groups = [_Group() for _ in range(groups)]
        #: Groups that have not been heard of: their floor is kept for them.
        self._silent = set(range(groups))
        #: Groups that became ready, and may be below their floor.
        self._fresh: list[int] = []
        #: Trials that have ended; trials that are released and have not; groups that have such.
        self.spent = self._open = self._busy = 0

    # ---- what is known -------------------------------------------------------------------------------------

    def ready(self, start: int, stop: int) -> None:
        """Trials ``[start, stop)`` could run."""
        while start < stop:
            group = start // self._trials
            end = min(stop, (group + 1) * self._trials)
            self._groups[group].held.add(start, end)
            self._silent.discard(group)
            self._fresh.append(group)
            start = end

    def ended(self, trial: int, score: float) -> None:
        """A trial has ended; of one that ended before (and is tried again, or was read back twice) the last counts.

        Args:
            trial: its index.
            score: less is better; not finite: it failed.
        """
        group = self._groups[trial // self._trials]
        if trial not in group.scores:
            self.spent += 1
        if trial in group.open:
            group.open.remove(trial)
            self._open -= 1
            self._busy -= not group.open
        group.scores[trial] = score
        if len(group.scores) == self._trials:
            self._silent.discard(trial // self._trials)
        group.slope = None

    def dropped(self, start: int, stop: int) -> None:
        """Trials ``[start, stop)``, not ready yet, never will be, since what they need failed; they cost nothing."""
        self._silent -= set(range(start // self._trials, (stop - 1) // self._trials + 1))

    # ---- what follows --------------------------------------------------------------------------------------

    def release(self, workers: int) -> list[tuple[int, int]]:
        """The trials that are to run now, as ranges, so that each of some workers has work."""
        released: list[tuple[int, int]] = []
        for number in self._fresh:  # the floors are for sure
            if self._groups[number].taken < self._floor:
                released += self._take(number, self._floor - self._groups[number].taken, kept=0)
        self._fresh.clear()
        while self._busy < 2 * workers - 1:  # one behind each that runs, but for the one that has just ended
            chosen = self._most_promising()
            if chosen is None:
                break
            released += self._take(chosen, self._instalment(self._groups[chosen].taken), kept=self._kept())
        return released

    def rest(self) -> list[tuple[int, int]]:
        """The ready trials that will never run, as ranges, once that is known; told once."""
        if self._silent or self.budget > self.spent + self._open:
            return []
        rest = [part for group in self._groups for part in group.held]
        for group in self._groups:
            group.held = IntervalSet()
        return rest

    def _kept(self) -> int:
        """What is kept for the floors of groups that are not ready."""
        return sum(max(0, self._floor - self._groups[number].taken) for number in self._silent)

    def _take(self, number: int, count: int, kept: int) -> list[tuple[int, int]]:
        """Release trials of a group, as far as the budget goes, less what is kept for others."""
        group = self._groups[number]
        count = min(count, self.budget - self.spent - self._open - kept)
        idle = not group.open
        taken: list[tuple[int, int]] = []
        while count > 0 and group.held:
            start, stop = group.held.first()
            stop = min(stop, start + count)
            group.held.remove(start, stop)
            group.open.update(range(start, stop))
            self._open += stop - start
            count -= stop - start
            taken.append((start, stop))
        self._busy += idle and bool(group.open)
        return taken

    def _instalment(self, taken: int) -> int:
        """How many trials follow so many: a third of them, or the rest of the instalment that has begun."""
        upto = self._floor
        while upto <= taken:
            upto += max(1, upto // 3)
        return upto - taken

    def _begun(self, taken: int) -> bool:
        """Whether so many trials are no whole instalments."""
        upto = self._floor
        while upto < taken:
            upto += max(1, upto // 3)
        return taken != upto

    def _most_promising(self) -> int | None:
        """The group whose next trials are expected to gain most; of equals the first. None: there is none."""
        if self.budget - self.spent - self._open - self._kept() <= 0:
            return None
        free = [number for number, group in enumerate(self._groups) if group.held and not group.open]
        for number in free:
            if self._begun(self._groups[number].taken):
                return number
        slopes = [self._slope(group) for group in self._groups if group.scores]
        mean = sum(slopes) / len(slopes) if slopes else 0.0
        best: tuple[float, int] | None = None
        for number in free:
            group = self._groups[number]
            slope = OWN * self._slope(group) + (1 - OWN) * mean
            gain = slope * math.log1p(1 / max(1, group.taken))  # a trial's, at the present rate
            if best is None or gain > best[0]:
                best = gain, number
        return None if best is None else best[1]

    def _slope(self, group: _Group) -> float:
        if group.slope is None:
            group.slope = slope(group.scores.values())
        return group.slope


def slope(scores: Iterable[float]) -> float:
    """By how much the best is expected to improve as the trials become e times as many, in units of median - best.

    Args:
        scores: less is better; not finite: it failed.
    """
    values = np.sort(np.fromiter(scores, np.float64))
    values = values[np.isfinite(values)]
    if len(values) < 4:
        return 1.0  # nothing is known: as much as there is to gain
    best, middle = float(values[0]), float(np.median(values))
    if not middle > best:
        return 0.0
    count = max(2, len(values) // 5)
    return float(values[count] - values[:count].mean()) / (middle - best)
