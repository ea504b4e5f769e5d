"""What a function can ask and tell while it runs as a trial: `trial()` and `report()`.

One trial runs at a time in a worker, on one thread, so its context is kept a thread: user code that starts threads of
its own passes on what it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from umbel.scheduler.errors import UsageError

__all__ = ["TrialContext", "current", "mark_as_worker", "report", "trial"]


@dataclass(slots=True)
class TrialContext:
    """The trial that is running."""

    #: Name of the sweep.
    sweep: str
    #: The group's keys.
    group: Mapping[str, object]
    #: Index of the trial in its sweep.
    index: int
    #: A number for seeding random generators, the same whenever and wherever this trial runs; 0 <= seed < 2**31.
    seed: int
    #: 1 for the first attempt.
    attempt: int
    #: Name of the metric that the sweep is judged by.
    metric: str
    #: What `report` was given last, by metric.
    reported: dict[str, float] = field(default_factory=dict)
    #: The step of the last report.
    step: int | None = None


#: True in processes that run leases for a driver elsewhere.
in_worker = False


class _Current(threading.local):
    context: TrialContext | None = None


current = _Current()


def trial() -> TrialContext:
    """The trial that is running: its sweep, group, index, seed and attempt.

    Raises:
        UsageError: no trial is running on this thread.
    """
    context = current.context
    if context is None:
        raise UsageError(
            "umbel.trial() was called outside a trial",
            expected="a call from the function that a sweep runs, on its own thread",
            hint="pass what you need as arguments, or call it inside the function given to umbel.sweep",
        )
    return context


def report(metrics: float | Mapping[str, float], step: int | None = None) -> None:
    """Report the metrics reached so far; the last report counts as the result of a trial that returns None.

    Outside a trial (the function called by hand, as plain Python) it does nothing.

    Args:
        metrics: a number (the sweep's metric), or numbers by name.
        step: how far the trial is (an epoch, a round).

    Raises:
        UsageError: the metrics are not numbers.
    """
    context = current.context
    if context is None:
        return
    from umbel.runtime.metrics import named_metrics

    context.reported.update(named_metrics(metrics, context.metric))
    context.step = step


def mark_as_worker() -> None:
    """Note that this process runs leases for a driver elsewhere."""
    global in_worker  # noqa: PLW0603 - a fact about the process
    in_worker = True
