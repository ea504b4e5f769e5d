"""How does a trainable of Ray Tune's, a function or a class, run as a trial of Umbel's?

`run_function` and `run_class` are what `umbel.Tuner` gives to a sweep, with their first arguments bound: they give the
trainable what it expects of Tune, end it when a stop condition is met, and hand back the last report, with the history
of all reports in the place of a model. It must not know the driver.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from numbers import Number, Real
from typing import Any

from umbel.runtime.leases.context import TrialContext, TrialPruned, report, trial
from umbel.runtime.leases.results import Result
from umbel.runtime.tuner.history import History, columns_of, flat
from umbel.runtime.tuner.session import TrialEnded, TuneSession, Workplace, installed
from umbel.scheduler.errors import UsageError

__all__ = ["NOTHING", "RETURNED", "StopRule", "run_class", "run_function"]

#: Stands for a param_space without dimensions.
NOTHING = "nothing_to_tune"
#: What Tune calls a number that is returned.
RETURNED = "_metric"


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a trial has run long enough.

    Args:
        bounds: it ends when one of these metrics, by its flat name, is this or more.
        function: it ends when ``function(trial_id, result)`` is true.
        time_attr: the metric by which steps are counted.
    """

    bounds: Mapping[str, float]
    function: Callable[[str, dict[str, Any]], object] | None = None
    time_attr: str = "training_iteration"

    def ends(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends with this report."""
        if result.get("done"):
            return True
        found = flat(result)
        missing = [name for name in self.bounds if name not in found]
        if missing:
            warnings.warn(f"the stop condition on {missing[0]!r} is never met: it is not reported", stacklevel=2)
        if any(name in found and found[name] >= bound for name, bound in self.bounds.items()):
            return True
        return self.function is not None and bool(self.function(trial_id, result))

    def step(self, result: Mapping[str, Any]) -> int | None:
        """How far the trial is, in whole steps; None: the report does not say."""
        value = flat(result).get(self.time_attr)
        return int(float(value)) if isinstance(value, Real) and math.isfinite(value) else None


def run_function(
    trainable: Callable[..., Any], rule: StopRule, config: dict[str, Any], data: Mapping[str, Any] | None = None
) -> Result:
    """One trial of a function.

    Args:
        trainable: ``fn(config, **data)``; reports by `ray.tune.report`, returns or yields.
        rule: when it ends.
        config: its config.
        data: what `ray.tune.with_parameters` was given.
    """
    context = trial()
    config.pop(NOTHING, None)
    history = History(context.index)
    workplace = Workplace(context)
    session = TuneSession(context, workplace, history, functools.partial(_on_report, context, history, rule, config))
    try:
        with installed(session):
            returned = trainable(config, **(data or {}))
            _take_output(session, returned)
    except (TrialEnded, TrialPruned):
        pass  # with a result that says so
    finally:
        workplace.close()
    return _result(history)


def _on_report(
    context: TrialContext, history: History, rule: StopRule, config: dict[str, Any], result: dict[str, Any]
) -> None:
    report(columns_of(result), step=rule.step(result))
    if rule.ends(history.trial_id, {**result, "config": config}):
        raise TrialEnded


def _take_output(session: TuneSession, output: Any) -> None:
    """What a function returned, as Tune reads it."""
    if isinstance(output, Generator):
        for each in output:
            _take_output(session, each)
    elif isinstance(output, Mapping):
        if output:
            session.report(output)
    elif isinstance(output, Number):
        session.report({RETURNED: output})
    elif output is not None:
        raise UsageError(
            "a trainable returned neither a dict nor a number",
            got=f"{type(output).__name__}: {output!r:.100}",
            expected="a dict of metrics, a number, or nothing if it calls tune.report",
        )


def _result(history: History) -> Result:
    """What the trial comes to: its last report."""
    if history.last:
        history.last["done"] = True
    return Result({"training_iteration": float(history.count), **columns_of(history.last)}, model=history)


def run_class(
    trainable: Any,
    rule: StopRule,
    frequency: int,
    at_end: bool,
    config: dict[str, Any],
    data: Mapping[str, Any] | None = None,
) -> Result:
    """One trial of a `ray.tune.Trainable`.

    Args:
        trainable: the class.
        rule: when it ends, unless ``step`` says ``done``.
        frequency: how many steps there are between checkpoints; 0: there are none.
        at_end: whether one is saved at the end.
        config: its config.
        data: what `ray.tune.with_parameters` was given, for ``setup``.
    """
    from ray.train._internal.checkpoint_manager import _TrainingResult
    from ray.tune import Checkpoint
    from ray.tune.result import TRIAL_INFO

    context = trial()
    config.pop(NOTHING, None)
    history = History(context.index)
    workplace = Workplace(context)
    session = TuneSession(context, workplace, history, lambda result: None)
    made = trainable.__new__(trainable)
    # It would make itself a folder in the home directory.
    made._setup_logdir = lambda: setattr(made, "_logdir", session.trial_dir)
    if data:
        made.setup = functools.partial(trainable.setup, made, **data)
    saved = workplace.saved()
    try:
        made.__init__(config={**config, TRIAL_INFO: _TrialInfo(session)})
        try:
            if saved is not None:
                files, earlier = saved
                history.go_on_from(earlier)
                made.restore(_TrainingResult(checkpoint=Checkpoint.from_directory(files), metrics=earlier.last))
            ended = due = False
            while not ended:
                result = history.add(made.train())
                ended = rule.ends(history.trial_id, {**result, "config": config})
                due = bool(frequency and history.count % frequency == 0) or (ended and at_end)
                if due:
                    _save(made, workplace, history)
                report(columns_of(result), step=rule.step(result))
        except TrialPruned:  # with a result that says so
            if at_end and not due:
                _save(made, workplace, history)
        finally:
            made.stop()
    finally:
        workplace.close()
    return _result(history)


def _save(made: Any, workplace: Workplace, history: History) -> None:
    """Have a class trainable save itself, and make that durable."""
    files = workplace.empty_folder("save")
    made.save(str(files))
    workplace.save(files, history)


@dataclass(frozen=True, slots=True)
class _TrialInfo:
    """What a Trainable asks of the trial it runs in."""

    session: TuneSession

    @property
    def trial_name(self) -> str:
        return self.session.trial_name

    @property
    def trial_id(self) -> str:
        return self.session.trial_id

    @property
    def trial_resources(self) -> Any:
        return self.session.trial_resources

    @property
    def experiment_name(self) -> str:
        return self.session.experiment_name
