"""How long do a graph's elements take, going by what an earlier run measured?

An element that the earlier run had (same node, same group, same trial) takes what it took there. Others take what one
of their group took, or, in a group that is new, what the trials of some group took: drawn at random, from a seed. It
must not know what the durations are wanted for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from umbel.runtime.driver.plan import PlannedNode
from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.graph.sizes import Sizes
from umbel.scheduler.errors import UsageError
from umbel.scheduler.simulation.setup import Seconds, lognormal_seconds, philox
from umbel.storage.runs.graph_record import SweepRecord
from umbel.storage.runs.run import Run
from umbel.storage.values.columns import float_values, int_values, python_values

__all__ = ["MeasuredRun", "given_seconds"]

#: Gaps between two elements of a worker above this, in seconds, are waiting and not overhead.
LONGEST_GAP_S = 0.02
#: Gaps that are needed to tell a mean.
LEAST_GAPS = 20
#: Rows that never ran: lost with their worker, or failed before they began.
NOT_RUN = frozenset({"lost"})
COLUMNS = ("seconds", "status", "attempt", "started", "worker")


@dataclass(frozen=True, slots=True)
class _Times:
    """What one node's elements took: positions and seconds, in order of position."""

    at: npt.NDArray[np.int64]
    seconds: Seconds


class MeasuredRun:
    """The times of an earlier run.

    Args:
        run: the run; what it has finished so far counts.
        seed: from it follow the times of elements that the run did not have.
    """

    def __init__(self, run: Run, seed: int = 0) -> None:
        self.name = run.name
        self._run = run
        self._record = run.graph
        self._seed = seed
        self._gaps: list[npt.NDArray[np.float64]] = []

    def value(self, name: str) -> object:
        """What a node returned.

        Raises:
            UmbelError: it has not ended well, or there is no such node.
        """
        return self._run.value(name)

    def seconds(self, planned: PlannedNode, sizes: Sizes) -> Seconds | None:
        """For each element of a node the seconds that it takes; None if the run tells nothing of such a node.

        Args:
            planned: the node.
            sizes: how many elements it has, and a sweep's groups.

        Costs reading the node's rows, and memory for its elements.
        """
        before = self._record.nodes.get(planned.name)
        node, size = planned.node, sizes.size(planned.id)
        if before is None or (before.sweep is not None) != isinstance(node, Sweep):
            return None
        times = self._times(planned.name)
        if not len(times.at):
            return None
        chance = philox(self._seed, planned.id)
        if isinstance(node, Sweep) and before.sweep is not None:
            return _sweep_seconds(node, sizes.groups(planned.id), before.sweep, times, chance)
        seconds = chance.choice(times.seconds, size)
        if before.size in (size, None) and times.at[-1] < size:
            seconds[times.at] = times.seconds
        return np.asarray(seconds, np.float64)

    def overhead_s(self) -> float | None:
        """The mean time between two elements of one worker, in seconds, of the nodes asked for so far; None: unknown.

        Costs nothing that `seconds` has not spent.
        """
        gaps = np.concatenate([np.zeros(0), *self._gaps])
        gaps = gaps[(gaps >= 0) & (gaps <= LONGEST_GAP_S)]
        return float(np.mean(gaps)) if len(gaps) >= LEAST_GAPS else None

    def _times(self, name: str) -> _Times:
        rows = self._run.elements(name, COLUMNS)
        counter = "trial" if "trial" in rows.column_names else "element"
        at, seconds = int_values(rows[counter]), float_values(rows["seconds"])
        status = python_values(rows["status"])
        ran = np.array([s not in NOT_RUN for s in status], np.bool_) & (int_values(rows["attempt"]) > 0)
        ran &= np.isfinite(seconds)
        self._gaps.append(_gaps(python_values(rows["worker"]), int_values(rows["started"]) / 1e6, seconds))
        return _Times(at[ran], seconds[ran])


def _gaps(workers: list[str], started: npt.NDArray[np.float64], seconds: Seconds) -> npt.NDArray[np.float64]:
    """The time between the end of one element and the start of the next on the same worker."""
    names = {name: number for number, name in enumerate(dict.fromkeys(workers))}
    which = np.array([names[name] for name in workers], np.int64)
    order = np.lexsort((started, which))
    gaps = started[order][1:] - (started + seconds)[order][:-1]
    return np.asarray(gaps[which[order][1:] == which[order][:-1]], np.float64)


def _sweep_seconds(
    node: Sweep, groups: Sequence[Mapping[str, object]], before: SweepRecord, times: _Times, chance: np.random.Generator
) -> Seconds:
    """The seconds of a sweep's trials, group by group."""
    trials, names = node.source.trials, before.group_names
    known = {tuple(group): place for place, group in enumerate(before.groups)}
    bounds = np.searchsorted(times.at, np.arange(max(1, len(before.groups)) + 1) * before.trials)
    measured = [place for place in range(len(bounds) - 1) if bounds[place] < bounds[place + 1]]
    seconds = np.empty(len(groups) * trials)
    for group, keys in enumerate(groups):
        key = _key(keys, names)
        place = None if key is None else known.get(key, None if names else 0)
        start, stop = (bounds[place], bounds[place + 1]) if place is not None else (0, 0)
        there = start < stop
        if not there:  # a new group is like some other one
            place = measured[int(chance.integers(len(measured)))]
            start, stop = bounds[place], bounds[place + 1]
        row = chance.choice(times.seconds[start:stop], trials)
        if there:
            trial = times.at[start:stop] - (place or 0) * before.trials
            fits = trial < trials
            row[trial[fits]] = times.seconds[start:stop][fits]
        seconds[group * trials : (group + 1) * trials] = row
    return seconds


def _key(keys: Mapping[str, object], names: tuple[str, ...]) -> tuple[object, ...] | None:
    return tuple(keys[name] for name in names) if set(keys) == set(names) else None


def given_seconds(planned: PlannedNode, size: int, mean_s: float, spread: float, seed: int) -> Seconds:
    """Durations that were not measured: log-normal around a mean.

    Args:
        planned: the node.
        size: how many elements it has.
        mean_s: mean seconds of an element.
        spread: standard deviation of the logarithm; 0: all alike.
        seed: from it follow the durations.

    Raises:
        UsageError: a number is out of range.
    """
    if not (0 <= mean_s < float("inf")):
        raise UsageError(
            f"the mean time of {planned.name!r} is not a duration",
            got=repr(mean_s),
            expected="seconds ≥ 0",
            hint="for example --seconds 30",
        )
    if not (0 <= spread <= 3):
        raise UsageError(
            "the spread of durations is out of range",
            got=repr(spread),
            expected="a standard deviation of their logarithm between 0 and 3",
            hint="0.3 is usual for one model on one machine; 1 has a heavy tail",
        )
    return lognormal_seconds(size, mean_s, spread, seed, planned.id)
