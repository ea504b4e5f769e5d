"""What happens next in a simulation, and what chance says.

A queue of actions by virtual time, and random numbers from counter-based streams. Both depend on nothing but the seed
and the order of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

from umbel.scheduler.simulation.setup import Network, philox

__all__ = ["Clock", "Draws", "Wire"]

#: Called with the two arguments that were given along.
Action = Callable[[Any, Any], None]


class Clock:
    """Virtual time and what is planned in it. Of two actions at one time the one planned first comes first."""

    __slots__ = ("_heap", "_sequence", "now")

    def __init__(self) -> None:
        #: Seconds since the start.
        self.now = 0.0
        self._heap: list[tuple[float, int, Action, Any, Any]] = []
        self._sequence = 0

    def at(self, time: float, action: Action, first: Any, second: Any = None) -> None:
        """Plan an action; at once, if ``time`` has passed."""
        self._sequence += 1
        now = self.now
        heappush(self._heap, (time if time > now else now, self._sequence, action, first, second))

    @property
    def next_at(self) -> float:
        """When the next action is due; infinite if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def step(self) -> None:
        """Go to the next action and carry it out."""
        self.now, _, action, first, second = heappop(self._heap)
        action(first, second)


class Draws:
    """Random numbers from one stream of a seed, drawn in blocks."""

    __slots__ = ("exponentials", "uniforms")

    def __init__(self, seed: int, stream: int) -> None:
        one, two = philox(seed, 2 * stream), philox(seed, 2 * stream + 1)
        #: Uniform in [0, 1).
        self.uniforms = _endless(lambda: one.random(4096).tolist())
        #: Exponential with mean 1.
        self.exponentials = _endless(lambda: two.standard_exponential(4096).tolist())


def _endless(block: Callable[[], list[float]]) -> Iterator[float]:
    while True:
        yield from block()


class Wire:
    """How long each message takes."""

    __slots__ = ("_draws", "_network")

    def __init__(self, network: Network, seed: int) -> None:
        self._network = network
        self._draws = Draws(seed, 0)

    @property
    def round_trip_s(self) -> float:
        """Mean seconds there and back."""
        return 2 * (self._network.delay_s + self._network.jitter_s)

    def delay_s(self) -> float:
        """Seconds that the next message takes."""
        network = self._network
        delay_s = network.delay_s + network.jitter_s * next(self._draws.exponentials)
        if network.late and next(self._draws.uniforms) < network.late:
            delay_s += network.late_s * next(self._draws.uniforms)
        return delay_s

    def copy_delay_s(self) -> float | None:
        """Seconds that a copy of the next answer takes; None: there is none."""
        network = self._network
        if not network.doubled or next(self._draws.uniforms) >= network.doubled:
            return None
        return network.delay_s + network.late_s * next(self._draws.uniforms)
