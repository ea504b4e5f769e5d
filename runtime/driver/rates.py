"""How fast does a run go, how long will it take, and how is that said to people?

Pure: the time is an argument. It must not know where numbers come from or where texts go.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["RateMeter", "format_count", "format_duration", "format_rate"]


class RateMeter:
    """How fast it goes at present: completions over the last seconds, or over the last few if they are rare.

    Args:
        window_s: how far back to look.
        least: look further back until this many completions are seen.

    >>> meter = RateMeter(window_s=10)
    >>> [meter.add(now, done) for now, done in [(0, 0), (1, 50), (2, 100)]]
    [None, 50.0, 50.0]
    >>> meter.eta_s(total=1100)
    20.0
    """

    def __init__(self, window_s: float = 10.0, least: int = 10) -> None:
        self._window_s = window_s
        self._least = least
        #: (time, done); the last is the present. The number kept is bounded by the spacing below and by `least`.
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float | None:
        """Note that ``done`` are done at ``now``; returns the rate per second, None while it is unknown."""
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()  # counted anew
        if len(samples) >= 2:
            before, last = samples[-2], samples[-1]
            if now - before[0] < self._window_s / 32 or before[1] == last[1] == done:
                samples.pop()
        samples.append((now, done))
        while len(samples) > 2:
            time_s, count = samples[1]
            if now - time_s < self._window_s or done - count < self._least:
                break
            samples.popleft()
        return self.rate_per_s

    @property
    def rate_per_s(self) -> float | None:
        """The present rate; None before the first completion."""
        if len(self._samples) < 2:
            return None
        (start_s, before), (now, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now - start_s) if now > start_s and done > before else None

    def eta_s(self, total: int) -> float | None:
        """Seconds until ``total`` are done at the present rate; None while that is unknown."""
        rate = self.rate_per_s
        return max(0, total - self._samples[-1][1]) / rate if rate else None


def format_count(count: int) -> str:
    """A count for people.

    >>> format_count(20020)
    '20,020'
    """
    return f"{count:,}"


def format_duration(seconds: float | None) -> str:
    """A duration for people, to two units at most.

    >>> [format_duration(s) for s in (0.25, 4.21, 59.6, 125, 7500, 180000, None)]
    ['0.25 s', '4.2 s', '1 min 00 s', '2 min 05 s', '2 h 05 min', '2 d 02 h', '?']
    """
    if seconds is None or not math.isfinite(seconds):
        return "?"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def format_rate(rate_per_s: float) -> str:
    """A rate for people, in the unit that needs no leading zeros.

    >>> [format_rate(rate) for rate in (1234.5, 2.5, 0.05, 0.001)]
    ['1,234/s', '2.5/s', '3.0/min', '3.6/h']
    """
    for rate, unit in ((rate_per_s, "s"), (rate_per_s * 60, "min")):
        if rate >= 1:
            return f"{rate:,.0f}/{unit}" if rate >= 100 else f"{rate:.1f}/{unit}"
    return f"{rate_per_s * 3600:.1f}/h"
