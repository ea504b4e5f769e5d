"""What comes out of a simulation: totals, and courses over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Level", "Meters", "Simulation", "Timeline", "Traffic"]

#: A timeline that has more bins than this is made coarser.
MAX_BINS = 512


class Timeline:
    """An amount over time, in bins that become wider as time goes on, so that there are at most `MAX_BINS`."""

    __slots__ = ("_bins", "width_s")

    def __init__(self) -> None:
        self.width_s = 1.0
        self._bins: list[float] = [0.0]

    def add(self, start: float, stop: float, amount: float) -> None:
        """Spread ``amount`` evenly over ``[start, stop)`` seconds, or put it at ``start`` if that is empty."""
        width = self.width_s
        last = int(stop / width)
        if last >= len(self._bins):
            while last >= MAX_BINS:
                self._coarsen()
                width = self.width_s
                last = int(stop / width)
            self._bins.extend([0.0] * (last + 1 - len(self._bins)))
        first = int(start / width)
        if first == last or stop <= start:
            self._bins[first] += amount
            return
        rate = amount / (stop - start)
        self._bins[first] += rate * ((first + 1) * width - start)
        for place in range(first + 1, last):
            self._bins[place] += rate * width
        self._bins[last] += rate * (stop - last * width)

    def _coarsen(self) -> None:
        bins = self._bins if len(self._bins) % 2 == 0 else [*self._bins, 0.0]
        self._bins = [a + b for a, b in zip(bins[::2], bins[1::2], strict=True)]
        self.width_s *= 2

    def amounts(self, width_s: float, count: int) -> list[float]:
        """The amounts in ``count`` bins of ``width_s``, which is a multiple of this timeline's own."""
        step = round(width_s / self.width_s)
        return [sum(self._bins[at * step : (at + 1) * step]) for at in range(count)]


class Level:
    """A quantity that changes at times, and its integral."""

    __slots__ = ("_edge", "_part", "_since", "_timeline", "total", "value")

    def __init__(self) -> None:
        self.value = 0.0
        #: Its integral up to the last change.
        self.total = 0.0
        self._since = 0.0
        self._timeline = Timeline()
        #: What belongs to the bin that ends at `_edge` and has not been put there.
        self._part = 0.0
        self._edge = 0.0

    def change(self, by: float, now: float) -> None:
        """It changes by this much now."""
        amount = self.value * (now - self._since)
        self.total += amount
        if now < self._edge:
            self._part += amount
        else:
            self._flush()
            self._timeline.add(self._since, now, amount)
            self._edge = (int(now / self._timeline.width_s) + 1) * self._timeline.width_s
        self.value += by
        self._since = now

    def timeline(self, now: float) -> Timeline:
        """Its integral over time, up to now."""
        self.change(0.0, now)
        self._flush()
        return self._timeline

    def _flush(self) -> None:
        if self._part:
            self._timeline.add(self._since, self._since, self._part)
            self._part = 0.0


class Traffic:
    """Messages and bytes at the driver, both ways.

    Args:
        quiet_bytes: mean size of the messages that come at regular intervals; see `spread`.
    """

    __slots__ = ("_bytes", "_edge", "_messages", "_part_bytes", "_part_messages", "_quiet", "_quiet_bytes", "_since")

    def __init__(self, quiet_bytes: float = 0.0) -> None:
        self._messages, self._bytes, self._quiet = Timeline(), Timeline(), Timeline()
        self._quiet_bytes = quiet_bytes
        self._part_messages, self._part_bytes = 0, 0.0
        self._since = self._edge = 0.0

    def add(self, messages: int, size_bytes: float, now: float) -> None:
        """Messages that are sent or received now."""
        if now >= self._edge:
            self._flush()
            self._since = now
            self._edge = (int(now / self._messages.width_s) + 1) * self._messages.width_s
        self._part_messages += messages
        self._part_bytes += size_bytes

    def spread(self, messages: int, start: float, stop: float) -> None:
        """Messages at regular intervals."""
        self._quiet.add(start, stop, messages)

    def amounts(self, width_s: float, bins: int) -> tuple[list[float], list[float]]:
        """Messages and bytes, in ``bins`` bins of ``width_s``, which must be a multiple of `width_s`."""
        self._flush()
        quiet = self._quiet.amounts(width_s, bins)
        messages = zip(self._messages.amounts(width_s, bins), quiet, strict=True)
        size_bytes = zip(self._bytes.amounts(width_s, bins), quiet, strict=True)
        return [a + b for a, b in messages], [a + b * self._quiet_bytes for a, b in size_bytes]

    @property
    def width_s(self) -> float:
        """The finest bins that there are."""
        return max(self._messages.width_s, self._bytes.width_s, self._quiet.width_s)

    def _flush(self) -> None:
        self._messages.add(self._since, self._since, self._part_messages)
        self._bytes.add(self._since, self._since, self._part_bytes)
        self._part_messages, self._part_bytes = 0, 0.0


@dataclass(slots=True)
class Meters:
    """All that is measured while a simulation runs."""

    traffic: Traffic
    #: CPUs that run leases, CPUs that are there, and machines.
    busy: Level = field(default_factory=Level)
    cpus: Level = field(default_factory=Level)
    machines: Level = field(default_factory=Level)
    #: What machines have, weighted with their speed, from when on.
    available: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)
    useful_core_s: float = 0.0
    lost_core_s: float = 0.0
    driver_busy_s: float = 0.0
    first_grant_s: float | None = None
    events: int = 0
    leases: int = 0
    accepted: int = 0
    run_again: int = 0
    workers_started: int = 0
    workers_lost: int = 0
    machines_lost: int = 0


@dataclass(frozen=True, slots=True)
class Simulation:
    """The outcome of one simulation. Times are in seconds, work in seconds of one CPU."""

    seed: int
    #: From the start to the last result at the driver.
    makespan_s: float
    #: When the first machine was there, and when the first lease was granted.
    first_machine_s: float
    first_grant_s: float
    #: The larger of the two: work over the CPUs that were there, and the longest chain of elements.
    lower_bound_s: float
    work_bound_s: float
    chain_bound_s: float
    #: CPU-seconds: what machines had, what workers spent in leases, and what of that went into accepted results.
    available_core_s: float
    busy_core_s: float
    useful_core_s: float
    #: … and what into runs without one (up to when they were lost).
    lost_core_s: float
    machine_s: float
    #: Width of the bins of the courses below.
    bin_s: float
    #: CPUs that were there, and the share of them that was busy, in each bin.
    cpus: tuple[float, ...]
    utilisation: tuple[float, ...]
    #: Messages and bytes a second at the driver, both ways, in each bin.
    messages_per_s: tuple[float, ...]
    bytes_per_s: tuple[float, ...]
    messages: int
    bytes: int
    #: Seconds in which the driver was busy with answers.
    driver_busy_s: float
    #: What the engine was told and what it granted.
    events: int
    leases: int
    #: Elements that were begun to be run a second time while they ran.
    duplicated: int
    #: Elements whose results were accepted, and runs without an accepted result: lost with a worker, or a rival's.
    accepted: int
    run_again: int
    workers_started: int
    workers_lost: int
    machines_started: int
    machines_lost: int
    #: Digest over all events and commands: two histories are the same if it is.
    digest: str

    @property
    def ratio(self) -> float:
        """Makespan over lower bound."""
        return self.makespan_s / self.lower_bound_s if self.lower_bound_s else 1.0
