"""The rules of pruning once more, as plainly as they can be said: what `umbel.scheduler.search.pruning` is held to.

Nothing here is shared with it. Marks are as rows hold them: dicts with "rung", "step", "value", "of" and, if there was
one, "cutoff".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["asha_goes_on", "asha_rung_steps", "median_goes_on", "replay_asha", "unsound_stops"]


def asha_rung_steps(factor: int, first: int, last: int) -> list[int]:
    """The steps of the rungs, below ``last``."""
    steps = []
    step = first
    while step < last:
        steps.append(step)
        step *= factor
    return steps


def asha_goes_on(value: float, others: Sequence[float], factor: int) -> bool:
    """Whether a trial is in the top 1 / factor of all that came to the rung, or the best of them. Less is better."""
    if math.isnan(value):
        return False
    known = [other for other in others if not math.isnan(other)]
    places = max(1, (len(others) + 1) // factor)
    return sum(other < value for other in known) < places


def median_goes_on(values: Sequence[float], others: Sequence[float], at_least: int) -> bool:
    """Whether the best of a trial's values is no worse than the median of the others'."""
    if math.isnan(values[-1]):
        return False
    best = min(value for value in values if not math.isnan(value))
    return len(others) < at_least or best <= statistics.median(math.inf if math.isnan(o) else o for o in others)


def replay_asha(curves: Iterable[Sequence[float]], factor: int, first: int, last: int) -> list[int]:
    """Run trials of one group one after another, by all they would report at steps 1, 2, …; the last step of each."""
    steps = asha_rung_steps(factor, first, last)
    at_rung: dict[int, list[float]] = {step: [] for step in steps}
    ends = []
    for curve in curves:
        end = len(curve)
        for step in steps:
            if step > len(curve):
                break
            value = curve[step - 1]
            others = list(at_rung[step])
            at_rung[step].append(value)
            if not asha_goes_on(value, others, factor):
                end = step
                break
        ends.append(end)
    return ends


def unsound_stops(trials: Sequence[Mapping[str, Any]], factor: int) -> list[str]:
    """Decisions of one group that the rule does not explain.

    Args:
        trials: the group's rows in the order in which they began: trial, status, worker and marks ("rungs").
        factor: the reduction factor.

    Where one worker ran the whole group, what it knew is what came before, so each decision must follow from that.
    Where several did, how much each knew of the others is not recorded but for the number of trials compared with
    and the cut-off: these must be those of some of the group's trials, and the decision must follow from them.
    """
    wrong = []
    alone = len({row["worker"] for row in trials}) == 1
    everything: dict[int, list[float]] = {}
    for row in trials:
        for mark in row["rungs"]:
            everything.setdefault(mark["rung"], []).append(mark["value"])
    before: dict[int, list[float]] = {}
    for row in trials:
        marks = row["rungs"]
        for place, mark in enumerate(marks):
            value, of = mark["value"], mark["of"]
            stopped = row["status"] == "pruned" and place == len(marks) - 1
            if alone:
                others = before.setdefault(mark["rung"], [])
                right = of == len(others) and stopped != asha_goes_on(value, others, factor)
                others.append(value)
            else:
                right = _could_be(value, of, mark.get("cutoff"), everything[mark["rung"]], factor) and (
                    stopped == (mark.get("cutoff") is not None and value > mark["cutoff"])
                )
            if not right:
                wrong.append(
                    f"trial {row['trial']} at step {mark['step']}: {mark}, {'stopped' if stopped else 'went on'}"
                )
    return wrong


def _could_be(value: float, of: int, cutoff: float | None, values: Sequence[float], factor: int) -> bool:
    """Whether some ``of`` others at the rung have this cut-off."""
    others = list(values)
    others.remove(value)
    places = max(1, (of + 1) // factor)
    if of > len(others) or (cutoff is None) != (places > of):
        return False
    if cutoff is None:
        return True
    not_worse = sum(other <= cutoff for other in others)
    not_better = sum(other >= cutoff for other in others)
    return cutoff in others and not_worse >= places and not_better >= of - places + 1
