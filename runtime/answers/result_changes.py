"""What came of the sweeps of two runs, group by group: better, worse or equal?

By the best trial of each group; with several metrics by its Pareto set, as Zitzler et al. (2003) compare sets: one is
better than another if each trial of the other is matched or dominated by one of its own, and not the other way round.
It must not know why results differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.runtime.answers.statistics import sign_test
from umbel.scheduler.search.pareto import Objective, in_words
from umbel.scheduler.words import counted
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import judged_by
from umbel.storage.values.columns import python_rows

__all__ = ["GroupChange", "SweepChange", "label", "result_changes", "some"]

#: Groups of a sweep that the text shows.
GROUPS_LIMIT = 10
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What came of a group in both runs."""

    group: Mapping[str, Any]
    #: The best metric; with several metrics, how many trials the Pareto set has.
    before: float
    after: float
    #: "better", "worse" or "equal", as the sweep's mode has it; with several metrics also "incomparable".
    verdict: str


@dataclass(frozen=True, slots=True)
class SweepChange:
    """What came of a sweep in both runs."""

    sweep: str
    #: The metric that it is judged by; several in words.
    metric: str
    groups: tuple[GroupChange, ...]
    better: int
    worse: int
    equal: int
    #: Of the exact two-sided sign test over the groups that differ: could it be chance?
    p_value: float
    #: Median of the changes of groups that differ, after less before; None: none does, or there are several metrics.
    median_change: float | None
    #: Trials that ended, and that failed, before and after.
    trials: tuple[int, int]
    failed: tuple[int, int]
    #: Groups with a best trial in one run only.
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    #: With several metrics: groups with trials in each run that no trial of the other matches or dominates.
    incomparable: int = 0
    #: Whether there are several metrics.
    several: bool = False

    @property
    def differs(self) -> bool:
        """Whether a group's best differs or is there in one run only, or other numbers of trials failed."""
        moved = self.better or self.worse or self.incomparable
        return bool(moved or self.only_before or self.only_after or self.failed[0] != self.failed[1])

    @property
    def counts(self) -> str:
        """How many groups are better, worse, equal."""
        incomparable = f", {self.incomparable} incomparable" if self.incomparable else ""
        return f"{self.better} better, {self.worse} worse, {self.equal} equal{incomparable}"

    @property
    def summary(self) -> str:
        """What differs, in a line."""
        parts = [self.counts]
        if self.only_before:
            parts.append(f"{len(self.only_before)} without a result now ({some(list(self.only_before))})")
        if self.only_after:
            parts.append(f"{len(self.only_after)} with a result now only ({some(list(self.only_after))})")
        if self.failed[0] != self.failed[1]:
            parts.append(f"failed trials {self.failed[0]:,} → {self.failed[1]:,}")
        return ", ".join(parts)

    def lines(self) -> list[str]:
        """All of it, for people."""
        change = "" if self.median_change is None else f"; median change of those that differ {self.median_change:+.4g}"
        what = f"Pareto sets by {self.metric}" if self.several else f"best {self.metric}"
        lines = [
            f"results: {self.sweep}, {what} of {counted(len(self.groups), 'group')}: {self.counts}{change}; "
            f"sign test p = {self.p_value:.3g}",
            f"  trials {self.trials[0]:,} → {self.trials[1]:,}, failed {self.failed[0]:,} → {self.failed[1]:,}",
        ]
        moved = sorted((g for g in self.groups if g.verdict != "equal"), key=lambda g: -abs(g.after - g.before))
        unit = " on the front" if self.several else ""
        lines += [
            f"  {label(g.group)}: {g.before:.6g} → {g.after:.6g}{unit} ({g.verdict})" for g in moved[:GROUPS_LIMIT]
        ]
        if len(moved) > GROUPS_LIMIT:
            lines.append(f"  and {len(moved) - GROUPS_LIMIT} more")
        lines += [f"  only before: {some(list(self.only_before), 8)}"] if self.only_before else []
        lines += [f"  only after: {some(list(self.only_after), 8)}"] if self.only_after else []
        return lines


def result_changes(before: Run, after: Run) -> list[SweepChange]:
    """The sweeps that both runs have and that are judged by the same metrics, in the order of the later run.

    Raises:
        StoreError: a store can't be read.
    """
    found = []
    for name in after.sweeps:
        if name in before.sweeps:
            old, new = before.graph.sweep(name).objectives, after.graph.sweep(name).objectives
            if old == new:
                found.append(_sweep_change(before, after, name, new))
    return found


def _sweep_change(before: Run, after: Run, name: str, objectives: tuple[Objective, ...]) -> SweepChange:
    left, right = _best_by_group(before, name), _best_by_group(after, name)
    several = len(objectives) > 1
    groups = []
    for text, (group, new) in right.items():
        if text in left:
            old = left[text][1]
            sign = objectives[0].sign
            was, now = (float(len(each)) if several else sign * float(each[0, 0]) for each in (old, new))
            groups.append(GroupChange(group, was, now, _verdict(old, new)))
    counts = {
        verdict: sum(each.verdict == verdict for each in groups)
        for verdict in ("better", "worse", "equal", "incomparable")
    }
    moved = [each.after - each.before for each in groups if each.verdict != "equal"]
    ended = [run.elements(name, ["status"])["status"].to_pylist() for run in (before, after)]
    return SweepChange(
        name,
        in_words(objectives),
        tuple(groups),
        counts["better"],
        counts["worse"],
        counts["equal"],
        sign_test(counts["better"], counts["worse"]),
        median(moved) if moved and not several and all(map(isfinite, moved)) else None,
        (len(ended[0]), len(ended[1])),
        (_failed(ended[0]), _failed(ended[1])),
        tuple(text for text in left if text not in right),
        tuple(text for text in right if text not in left),
        counts["incomparable"],
        several,
    )


def _verdict(old: Scores, new: Scores) -> str:
    """How one set of scores compares to another; less is better."""
    no_worse, no_better = _covers(new, old), _covers(old, new)
    if no_worse and no_better:
        return "equal"
    return "better" if no_worse else "worse" if no_better else "incomparable"


def _covers(left: Scores, right: Scores) -> bool:
    """Whether each row of the right one is matched or dominated by a row of the left one."""
    return all(bool((left <= row).all(axis=1).any()) for row in right)


def _failed(statuses: Sequence[str]) -> int:
    return sum(status not in ("ok", "pruned") for status in statuses)


def _best_by_group(run: Run, sweep: str) -> dict[str, tuple[dict[str, Any], Scores]]:
    """The scores of each group's best trials, by the group in words."""
    record = run.graph.sweep(sweep)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a group has none shows in the comparison
        best = run.best(sweep)
    scores = judged_by(best, record.objectives)
    found: dict[str, tuple[dict[str, Any], list[Scores]]] = {}
    for row, score in zip(python_rows(best), scores, strict=True):
        group = {name: row[name] for name in record.group_names}
        found.setdefault(label(group), (group, []))[1].append(score)
    return {text: (group, np.asarray(held)) for text, (group, held) in found.items()}


def label(group: Mapping[str, Any]) -> str:
    """A group in words."""
    return ", ".join(f"{key}={value}" for key, value in group.items()) or "(all)"


def some(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
