"""What a function can ask and tell while it runs as a trial: `trial()` and `report()`.

One trial runs at a time in a worker, on one thread, so its context is kept a thread: user code that starts threads of
its own passes on what it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import UsageError

if TYPE_CHECKING:
    from umbel.runtime.fused.context import BatchContext
    from umbel.runtime.leases.checkpoints import TrialCheckpoints
    from umbel.runtime.search.pruning import Judged

__all__ = [
    "TrialContext",
    "TrialPruned",
    "check_judgeable",
    "checked_step",
    "current",
    "mark_as_worker",
    "report",
    "says_pruned",
    "trial",
]


def says_pruned(error: BaseException) -> bool:
    """Whether a function said by raising this that its trial is not worth going on with: ``optuna.TrialPruned``."""
    return any(kind.__name__ == "TrialPruned" and kind.__module__.startswith("optuna.") for kind in type(error).__mro__)


class TrialPruned(BaseException):
    """Ends a trial that is not worth going on with; no `Exception`, so that code which catches those lets it by."""


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
    #: Names of the metrics that the sweep is judged by.
    metrics: tuple[str, ...]
    #: What `report` was given last, by metric.
    reported: dict[str, float] = field(default_factory=dict)
    #: The step of the last report.
    step: int | None = None
    #: Judges the trial at its reports; None: it is not pruned.
    course: Judged | None = None
    #: True once it was told to stop.
    pruned: bool = False
    #: Makes `state` when it is first needed; None: nothing is kept.
    open_state: Callable[[int], TrialCheckpoints] | None = None
    #: Those of the trial that is running, once it has saved or asked for one.
    state: TrialCheckpoints | None = None

    @property
    def metric(self) -> str:
        """Name of the metric that the sweep is judged by; of several the first."""
        return self.metrics[0]

    @property
    def checkpoint(self) -> Any:
        """What an earlier attempt at this trial saved last with `report`; None: there is none, so begin anew.

        Earlier attempts are those that failed, were lost with their worker or preempted, or were under way when the
        driver ended. Files come as a `Path` into a temporary folder that is there while the trial runs. Cost: one look
        at the store when it is first asked for.

        Raises:
            StoreError: the store can't be read.
        """
        found = self._open()
        return None if found is None else found.last

    def advance(self, step: object) -> None:
        """Take note of a step.

        Raises:
            UsageError: it is no whole number, or lies before the last one.
        """
        self.step = checked_step(step, self.step)

    def judge(self, course: Judged, metrics: Mapping[str, float], step: object) -> None:
        """Decide whether the trial goes on.

        Raises:
            TrialPruned: it does not.
            UsageError: the report lacks what it is to be judged by.
        """
        check_judgeable(metrics, step, self.metric)
        assert self.step is not None
        if self.pruned or course.report(self.step, metrics[self.metric]):
            self.pruned = True
            raise TrialPruned

    def _open(self) -> TrialCheckpoints | None:
        if self.state is None and self.open_state is not None:
            self.state = self.open_state(self.index)
        return self.state

    def save(self, value: object) -> None:
        """Make a checkpoint durable; `report` does it."""
        found = self._open()
        if found is not None:
            found.save(value)


def checked_step(step: object, before: int | None) -> int:
    """A step of a report.

    Raises:
        UsageError: it is no whole number, or lies before the last one.
    """
    try:
        found = index(step)  # type: ignore[arg-type]
    except TypeError:
        found = -1
    if found < 0 or isinstance(step, bool):
        raise UsageError("the step of a report is not a whole number", got=f"step={step!r}", expected="0, 1, 2, …")
    if before is not None and found < before:
        raise UsageError(
            "the steps of a trial's reports go backwards",
            got=f"step={found} after step={before}",
            expected="steps that never fall from report to report",
            hint="count epochs or rounds over the whole trial",
        )
    return found


def check_judgeable(metrics: Mapping[str, object], step: object, metric: str) -> None:
    """Raise UsageError if a report lacks what trials are pruned by."""
    if step is None or metric not in metrics:
        raise UsageError(
            "a report lacks what this sweep's trials are pruned by",
            got=f"metrics: {', '.join(sorted(metrics)) or 'none'}; step={step!r}",
            expected=f"the metric {metric!r} and a step",
            hint=f"umbel.report({{{metric!r}: …}}, step=epoch)",
        )


#: True in processes that run leases for a driver elsewhere.
in_worker = False


class _Current(threading.local):
    context: TrialContext | BatchContext | None = None


current = _Current()


def trial() -> TrialContext:
    """The trial that is running: its sweep, group, index, seed and attempt.

    Raises:
        UsageError: no trial is running on this thread, or many at once are (`umbel.fused`).
    """
    context = current.context
    if context is not None and not isinstance(context, TrialContext):
        raise UsageError(
            "umbel.trial() tells of one trial, and a fused function runs many at once",
            got=f"a batch of {context.count} trials",
            expected="what the function is given: configs.seeds, configs.trials, and the group keys as columns",
        )
    if context is None:
        raise UsageError(
            "umbel.trial() was called outside a trial",
            expected="a call from the function that a sweep runs, on its own thread",
            hint="pass what you need as arguments, or call it inside the function given to umbel.sweep",
        )
    return context


def report(
    metrics: float | Mapping[str, Any] | None = None,
    step: int | None = None,
    checkpoint: object = None,
    *,
    trials: Any = None,
) -> Any:
    """Report the metrics reached so far; the last report counts as the result of a trial that returns None.

    Outside a trial (the function called by hand, as plain Python) it does nothing.

    Args:
        metrics: a number (the sweep's metric), or numbers by name; None: no news. In a fused function (`umbel.fused`)
            arrays by name, with a number a trial.
        step: how far the trial is (an epoch, a round): whole numbers that never fall. In a sweep that prunes
            (``prune=``) the trial may end here, as ``pruned``, by an exception that is no `Exception`; `finally` and
            `with` do their work. Deciding costs microseconds and asks nobody.
        checkpoint: the trial's state, from which the next attempt goes on if this one does not come to its end
            (``umbel.trial().checkpoint``): anything that can be pickled, or a `Path` to a file or folder. It is durable
            on return; only a trial's last one is kept. Cost: one write to the store, so not more often than every few
            seconds. Not for fused functions.
        trials: in a fused function, the places in the batch of the trials that are reported of; None: all of them.

    Returns:
        None; in a fused function an array of booleans, True for trials that go on. What is reported of a trial that was
        to stop is ignored. When none goes on, the function ends here.

    Raises:
        UsageError: the metrics are not numbers, the step falls, or, if the sweep prunes, the step or the sweep's metric
            is missing.
        CodeError: the checkpoint can't be pickled.
        StoreError: the checkpoint can't be written.
    """
    context = current.context
    if not isinstance(context, TrialContext):
        from umbel.runtime.fused.context import report_by_hand

        if context is None:
            return report_by_hand(metrics)
        return context.report(metrics, step, trials, checkpoint)
    if trials is not None:
        raise UsageError("trials= of a report is for fused functions", expected="umbel.report(metrics, step=…)")
    from umbel.runtime.leases.metrics import named_metrics  # costs a look-up once it is there

    named = None if metrics is None else named_metrics(metrics, context.metrics)
    if step is not None:
        context.advance(step)
    if named is not None:
        context.reported.update(named)
        if context.course is not None:
            context.judge(context.course, named, step)
    if checkpoint is not None:
        context.save(checkpoint)
    return None


def mark_as_worker() -> None:
    """Note that this process runs leases for a driver elsewhere."""
    global in_worker  # noqa: PLW0603 - a fact about the process
    in_worker = True
