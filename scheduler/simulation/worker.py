"""How does a simulated worker stand at a given time? It behaves as `umbel.runtime.executors.worker` does.

Leases run in order, one element after another; an answer says how far they have come; a revocation leaves the element
in hand. No element is an event: where a lease stands follows from the running sums of its node's seconds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from umbel.scheduler.graph import NodeSpec, ShapeId
from umbel.scheduler.protocol import Lease, LeaseId, Reported, Retry, WorkerId
from umbel.scheduler.simulation.setup import Seconds

__all__ = ["ElementTimes", "RunningLease", "SimulatedWorker"]


class ElementTimes:
    """What the elements of one node do: how long each takes, which fail, and which kill or silence their worker."""

    __slots__ = ("_failing", "_failing_at", "fatal", "poison", "seconds", "silent", "spec", "sums")

    def __init__(
        self,
        spec: NodeSpec,
        seconds: Seconds,
        element_s: float,
        *,
        failing: Mapping[int, int],
        poison: Sequence[int],
        fatal: Sequence[int],
        silent: Sequence[int],
    ) -> None:
        self.spec = spec
        self.seconds = seconds
        #: ``sums[b] - sums[a]`` seconds pass from the start of element a to that of element b.
        sums = np.concatenate(([0.0], np.cumsum(seconds + element_s)))
        self.sums = array("d", sums.tobytes())
        self._failing = dict(failing)
        self._failing_at = sorted(failing)
        #: Elements that kill their worker, and those of them that take the whole machine along.
        self.poison = sorted({*poison, *fatal})
        self.fatal = frozenset(fatal)
        self.silent = frozenset(silent)

    def first_poison(self, start: int, stop: int) -> int | None:
        """The first element of a range that kills its worker."""
        at = bisect_left(self.poison, start)
        return self.poison[at] if at < len(self.poison) and self.poison[at] < stop else None

    def failures(self, start: int, stop: int, attempt: int) -> tuple[tuple[int, ...], tuple[Retry, ...]]:
        """Which elements of a range fail for good at this attempt, and which are to be tried again."""
        if not self._failing_at:
            return (), ()
        low, high = bisect_left(self._failing_at, start), bisect_left(self._failing_at, stop)
        bad = [element for element in self._failing_at[low:high] if attempt <= self._failing[element]]
        if attempt <= self.spec.retry.retries:
            return (), tuple(Retry(element, attempt) for element in bad)
        return tuple(bad), ()


class RunningLease:
    """A lease at a worker."""

    __slots__ = ("began", "collected", "ended", "lease", "opened", "speed", "stop", "times")

    def __init__(self, lease: Lease, times: ElementTimes, speed: float) -> None:
        self.lease = lease
        self.times = times
        self.speed = speed
        self.stop = lease.stop
        #: When its first element began; None: it has not.
        self.began: float | None = None
        self.ended = False
        #: Elements before this have been reported …
        self.collected = lease.start
        #: … at this time; or it began then.
        self.opened = 0.0

    def time_at(self, element: int) -> float:
        """When ``element`` begins, or the one before it ends. The lease has begun."""
        assert self.began is not None
        sums = self.times.sums
        return self.began + (sums[element] - sums[self.lease.start]) / self.speed

    def position(self, now: float) -> int:
        """The element in hand; the lease's end if there is none any more."""
        if self.ended:
            return self.stop
        if self.began is None:
            return self.lease.start
        start, sums = self.lease.start, self.times.sums
        reached = sums[start] + (now - self.began) * self.speed
        if reached < sums[start]:
            return start
        return max(start, min(bisect_right(sums, reached, start, self.stop + 1) - 1, self.stop - 1))

    def shorten(self, stop: int, now: float) -> None:
        """End at ``stop``, or after the element in hand if that is later."""
        if not self.ended:
            begun = self.lease.start if self.began is None else self.position(now) + 1
            self.stop = max(min(self.stop, stop), begun)

    def is_silent(self, now: float) -> bool:
        """True if the element in hand lets the worker answer nothing."""
        silent = self.times.silent
        return bool(silent) and self.began is not None and not self.ended and self.position(now) in silent


class SimulatedWorker:
    """One worker. The simulator moves it; `poll_at` and the like are its state between events."""

    __slots__ = (
        "alive",
        "joined",
        "leases",
        "machine",
        "name",
        "news",
        "number",
        "outgoing",
        "poll_at",
        "running",
        "shape",
        "speed",
        "version",
        "weight",
    )

    def __init__(self, number: int, shape: ShapeId, weight: float) -> None:
        self.number = number
        self.name = WorkerId(f"w{number}")
        self.shape = shape
        #: CPUs that it holds.
        self.weight = weight
        self.speed = 1.0
        #: Number of the machine that it runs on; None: it has no place yet.
        self.machine: int | None = None
        self.alive = True
        #: The driver knows that it is ready.
        self.joined = False
        #: Leases not reported to their end, in the order in which they run.
        self.leases: list[RunningLease] = []
        self.running: RunningLease | None = None
        #: When the poll that waits here arrived; None: it is under way.
        self.poll_at: float | None = None
        self.news = False
        #: Changes whenever what was planned for this worker no longer holds.
        self.version = 0
        #: The driver's: commands that go with the next message to this worker.
        self.outgoing: list[Lease | tuple[LeaseId, int]] = []

    def next_lease(self) -> RunningLease | None:
        """The first lease that has not begun."""
        for held in self.leases:
            if held.began is None:
                return held
        return None

    def collect(self, now: float) -> tuple[list[Reported], bool]:
        """What it answers, as the runtime's `Worker.poll` does; and whether an element overran its limit."""
        reports: list[Reported] = []
        for held in list(self.leases):
            if held is not self.leases[0] and held.stop == held.lease.stop:
                continue  # not begun, and not revoked
            report, overrun = _collect(self.name, held, now)
            reports.append(report)
            if overrun:
                return reports, True
            if held.ended or held.collected >= held.stop:
                self.leases.remove(held)
        return reports, False


def _collect(name: WorkerId, held: RunningLease, now: float) -> tuple[Reported, bool]:
    lease, begin = held.lease, held.collected
    position = held.position(now)
    limit_s = held.times.spec.timeout_s
    overrun = (
        limit_s is not None
        and held.began is not None
        and not held.ended
        and now - held.time_at(position) > limit_s
        and position < held.stop
    )
    if overrun:
        position += 1
    busy_s = 0.0
    if position > begin:
        busy_s, held.opened = now - held.opened, now
    held.collected = position
    if position == begin:
        return Reported(name, lease.id, begin, position, held.stop), False
    failed, retries = held.times.failures(begin, position, lease.attempt)
    if overrun:
        element = position - 1
        failed = tuple(e for e in failed if e != element)
        retries = tuple(r for r in retries if r.element != element)
        if lease.attempt <= held.times.spec.retry.retries:
            retries = (*retries, Retry(element, lease.attempt))
        else:
            failed = (*failed, element)
    return Reported(name, lease.id, begin, position, held.stop, failed, retries, busy_s), overrun
