"""What can a fused function tell while it runs? The metrics of all its trials at a step; and is told which go on.

The counterpart of `umbel.runtime.leases.context` for a batch of trials. It must not know how batches are formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from umbel.runtime.fused.results import read_columns
from umbel.runtime.leases.context import TrialPruned, check_judgeable, checked_step, current
from umbel.runtime.search.pruning import Judged
from umbel.scheduler.errors import UsageError

__all__ = ["BatchContext", "report_by_hand", "reporter"]

Mask = npt.NDArray[np.bool_]


class BatchContext:
    """The trials of a batch that is running.

    Args:
        count: how many there are.
        metrics: the sweep's metrics.
        batch: the batch in words, for errors.
        courses: judge its trials at their reports; None: nothing is pruned.
    """

    def __init__(self, count: int, metrics: Sequence[str], batch: str, courses: Sequence[Judged] | None) -> None:
        self.count = count
        self.metrics = metrics
        self.batch = batch
        self.courses = courses
        #: False: the trial was to stop.
        self.alive: Mask = np.ones(count, bool)
        #: What was reported last of each trial, by metric; NaN: nothing.
        self.reported: dict[str, npt.NDArray[np.float64]] = {}
        #: The last step of each trial; -1: none was reported.
        self.steps: npt.NDArray[np.int64] = np.full(count, -1)
        self._step: int | None = None

    @property
    def pruned(self) -> bool:
        """True once all trials were to stop."""
        return not self.alive.any()

    def reported_of(self, place: int) -> dict[str, float] | None:
        """What was reported last of a trial."""
        return {name: float(column[place]) for name, column in self.reported.items()} or None

    def report(self, metrics: object, step: object, trials: object = None, checkpoint: object = None) -> Mask:
        """See `umbel.report`.

        Raises:
            TrialPruned: no trial goes on.
            UsageError: there is not one number a trial, the step falls, or something is missing to judge by.
        """
        if checkpoint is not None:
            raise UsageError(
                "a fused function can't save checkpoints: its trials end one by one, and the batch is not run again",
                got="checkpoint=…",
                expected="umbel.report(metrics, step=…)",
            )
        if self.pruned:
            raise TrialPruned
        places = self._places(trials)
        columns = {} if metrics is None else read_columns(metrics, self.metrics, len(places), self.batch)
        if step is not None:
            self._step = checked_step(step, self._step)
        here = self.alive[places]
        going = places[here]
        for name, column in columns.items():
            known = self.reported.setdefault(name, np.full(self.count, np.nan))
            known[going] = column[here]
        if self._step is not None and step is not None:
            self.steps[going] = self._step
        if columns and self.courses is not None:
            check_judgeable(columns, step, self.metrics[0])
            self._judge(going.tolist(), columns[self.metrics[0]][here].tolist())
        return self.alive[places]

    def _judge(self, going: list[int], values: list[float]) -> None:
        assert self._step is not None
        assert self.courses is not None
        for place, value in zip(going, values, strict=True):
            self.courses[place].announce(self._step, value)
        for place, value in zip(going, values, strict=True):
            self.courses[place].announce_rank(self._step, value)
        for place, value in zip(going, values, strict=True):
            if self.courses[place].report(self._step, value):
                self.alive[place] = False
        if self.pruned:
            raise TrialPruned

    def _places(self, trials: object) -> npt.NDArray[np.int64]:
        if trials is None:
            return np.arange(self.count)
        places = np.asarray(trials)
        whole = places.ndim == 1 and (places.dtype.kind in "iu" or not len(places))
        if not whole or (len(places) and not (places.min() >= 0 and places.max() < self.count)):
            raise UsageError(
                f"trials= of a report are no places in {self.batch}",
                got=repr(trials),
                expected=f"an array of whole numbers from 0 to {self.count - 1}",
            )
        return places.astype(np.int64)


def report_by_hand(metrics: object) -> Mask | None:
    """What `umbel.report` returns outside a sweep: a fused function that is called by hand goes on with all trials."""
    values = next(iter(metrics.values()), None) if isinstance(metrics, Mapping) else metrics
    shape: tuple[int, ...] = tuple(getattr(values, "shape", ()))
    return np.full(shape, True) if len(shape) == 1 else None


def reporter(metric: str, count: int) -> Callable[[int, np.ndarray, np.ndarray], Mask] | None:
    """For `umbel.torch.fit_many`: reports losses to the sweep whose fused function runs, and says which trials stop.

    Args:
        metric: what losses are called in the sweep.
        count: trials that are fitted.

    Returns:
        A function of (steps taken, trials, losses); None outside a sweep.

    Raises:
        UsageError: what runs is no fused function, or it is not all its trials that are fitted.
    """
    context = current.context
    if context is None:
        return None
    if not isinstance(context, BatchContext):
        raise UsageError(
            "fit_many reports trials to the sweep only from a fused function",
            got=f"report={metric!r} in a function that runs one trial",
            expected="@umbel.fused above the sweep's function, or no report=",
        )
    if context.count != count:
        raise UsageError(
            f"fit_many can't report {context.batch}: it was given other trials",
            got=f"{count} configs",
            expected=f"all {context.count} of the batch, in their order",
            hint="stop= with umbel.report(…, trials=…) reports some of them",
        )
    batch = context

    def stopping(taken: int, trials: np.ndarray, losses: np.ndarray) -> Mask:
        return ~batch.report({metric: losses}, taken, trials)

    return stopping
