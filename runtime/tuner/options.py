"""What do the objects that a user of Ray Tune configures a `Tuner` with mean to Umbel?

They are Ray's own (`tune.TuneConfig`, `tune.RunConfig`, an `OptunaSearch`, a scheduler, …), told by the names of their
classes, so that reading them imports nothing of Ray's. What Umbel does not do is refused by its name, here, before
anything runs. It must not know trainables or results.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from umbel.runtime.driver.run import default_store
from umbel.runtime.search.spaces import to_space, tune_space
from umbel.runtime.tuner.trial import NOTHING, StopRule
from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.domains import Constant
from umbel.scheduler.search.pruning import Asha, Hyperband, Median
from umbel.scheduler.search.space import Space

__all__ = ["Options", "read_options"]

#: Retries, and samples, that stand for Tune's "as often as it takes": more than any time budget lets run.
_ENDLESS = 1_000_000
_STOPPERS = ("MaximumIterationStopper", "TrialPlateauStopper", "FunctionStopper", "NoopStopper", "CombinedStopper")


@dataclass(frozen=True, slots=True)
class Options:
    """What `Tuner` was told, in Umbel's terms."""

    space: Space | Callable[..., Any]
    #: As in `umbel.sweep`.
    search: Any
    #: Of each point of the grid, if the search is "tune".
    trials: int
    seed: int
    #: As in `umbel.sweep`.
    prune: Any
    #: None: none was named.
    metric: str | None
    mode: str | None
    rule: StopRule
    workers: int | None
    deadline_s: float | None
    retries: int
    #: Stop at the first failure; "raise": and raise it.
    fail_fast: bool | str
    #: Of class trainables: steps between checkpoints, 0 for none; and whether one is saved at the end.
    checkpoint_frequency: int
    checkpoint_at_end: bool
    store: str
    name: str | None
    quiet: bool


def read_options(param_space: object, tune_config: Any, run_config: Any) -> Options:
    """Read what a Tuner was given.

    Raises:
        UsageError: something in it is not supported, or wrong; it is named.
    """
    for name, config, marks in (
        ("tune_config", tune_config, "num_samples"),
        ("run_config", run_config, "storage_path"),
    ):
        if config is not None and not hasattr(config, marks):
            kind = "tune.TuneConfig" if name == "tune_config" else "tune.RunConfig"
            raise UsageError(f"{name} is not a {kind}", got=config, expected=f"a {kind}")
    _refuse(
        tune_config,
        "TuneConfig",
        trial_name_creator="trials are called by the sweep's name and their index",
        trial_dirname_creator="trials have no folders of their own; Result.path is where checkpoints are",
    )
    metric, mode = _get(tune_config, "metric"), _get(tune_config, "mode")
    search_alg, most = _unwrap(_get(tune_config, "search_alg"))
    scheduler = _get(tune_config, "scheduler")
    metric = metric or _get(search_alg, "metric") or _get(scheduler, "_metric")
    mode = mode or _get(search_alg, "mode") or _get(scheduler, "_mode")
    metric, mode = _check_objective(metric, mode)
    space, search, seed = _search(search_alg, param_space)
    rule, timeout_s = _stop(_get(run_config, "stop"))
    prune, time_attr, last = _scheduler(scheduler)
    if last is not None:
        rule = replace(rule, bounds={**rule.bounds, time_attr: last})
    rule = replace(rule, time_attr=time_attr)
    limits = [n for n in (most, _get(tune_config, "max_concurrent_trials")) if n]
    budget = _get(tune_config, "time_budget_s")
    seconds = [_seconds(each) for each in (budget, timeout_s) if each is not None]
    samples = _samples(_get(tune_config, "num_samples", 1), timed=bool(seconds))
    retries, fail_fast = _failures(_get(run_config, "failure_config"))
    frequency, at_end = _checkpoints(_get(run_config, "checkpoint_config"))
    store = _store(run_config)
    verbose = _get(run_config, "verbose")
    return Options(
        space=space,
        search=search,
        trials=samples,
        seed=seed,
        prune=prune,
        metric=metric,
        mode=mode,
        rule=rule,
        workers=min(limits) if limits else None,
        deadline_s=min(seconds) if seconds else None,
        retries=retries,
        fail_fast=fail_fast,
        checkpoint_frequency=frequency,
        checkpoint_at_end=at_end,
        store=store,
        name=_get(run_config, "name"),
        quiet=verbose is not None and getattr(verbose, "value", verbose) == 0,
    )


def _get(config: Any, name: str, default: Any = None) -> Any:
    found = getattr(config, name, default)
    return default if found is None else found


def _check_kind(argument: str, kind: str, config: object, attribute: str) -> None:
    if config is not None and not hasattr(config, attribute):
        raise UsageError(f"{argument} is not a tune.{kind}", got=config, expected=f"a tune.{kind}")


def _kinds(value: object) -> set[str]:
    """The names of a foreign object's classes."""
    return {cls.__name__ for cls in type(value).__mro__}


def _unsupported(what: str, got: object, expected: str, hint: str | None = None) -> UsageError:
    return UsageError(f"{what} is not supported by umbel.Tuner", got=got, expected=expected, hint=hint)


def _refuse(config: Any, of: str, **hints: str) -> None:
    """Refuse options that are set, with what stands in their place."""
    for name, hint in hints.items():
        value = _get(config, name)
        if value:
            raise _unsupported(f"{of}({name.lstrip('_')}=…)", value, "it left out", hint)


def _samples(samples: object, *, timed: bool) -> int:
    """How many samples there are to be; -1 where time ends them."""
    if samples == -1 and timed:
        return _ENDLESS
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise UsageError(
            f"TuneConfig(num_samples={samples!r}) is not supported",
            got=samples,
            expected="a whole number ≥ 1",
            hint="num_samples=-1 goes with a time_budget_s, which ends the run" if samples == -1 else None,
        )
    return samples


def _check_objective(metric: object, mode: object) -> tuple[str | None, str | None]:
    if isinstance(metric, (list, tuple)) or isinstance(mode, (list, tuple)):
        raise _unsupported("a search for several metrics at once", metric, "one metric, and one mode")
    if mode not in (None, "min", "max"):
        raise UsageError("unknown mode", got=f"mode={mode!r}", expected='"min" or "max"')
    if metric is not None and (not isinstance(metric, str) or not metric):
        raise UsageError("the metric has no name", got=repr(metric), expected="the name of a metric")
    return metric, mode


# ---- search ------------------------------------------------------------------------------------------------


def _unwrap(search_alg: Any) -> tuple[Any, int | None]:
    """A search algorithm without what wraps it, and how many trials it wants at once."""
    most = None
    while search_alg is not None and _kinds(search_alg) & {"ConcurrencyLimiter", "SearchGenerator"}:
        if "ConcurrencyLimiter" in _kinds(search_alg):
            most = min(search_alg.max_concurrent, most or search_alg.max_concurrent)
        search_alg = search_alg.searcher
    if search_alg is not None and "BasicVariantGenerator" in _kinds(search_alg):
        most = search_alg.max_concurrent or most
    return search_alg, most


def _search(search_alg: Any, param_space: object) -> tuple[Space | Callable[..., Any], Any, int]:
    """The space, the search over it, and its seed."""
    given = {} if param_space is None else param_space
    kinds = _kinds(search_alg)
    if search_alg is None or "BasicVariantGenerator" in kinds:
        seed = 0
        if search_alg is not None:
            _refuse(
                search_alg,
                "BasicVariantGenerator",
                _points_to_evaluate="put such configs into a grid_search",
                _constant_grid_search="every point of a grid gets values of its own",
            )
            seed = _seed_of(search_alg)
        return tune_space(given or {NOTHING: True}), "tune", seed
    if "OptunaSearch" not in kinds:
        raise _unsupported(
            f"search_alg={type(search_alg).__name__}",
            type(search_alg).__name__,
            "OptunaSearch, BasicVariantGenerator, or none of them",
            "OptunaSearch(sampler=…) takes any sampler of Optuna's: TPE, GP, CMA-ES, NSGA-II",
        )
    _refuse(
        search_alg,
        "OptunaSearch",
        _points_to_evaluate="enqueue nothing; the sampler begins with points of its own",
        _evaluated_rewards="enqueue nothing; the sampler begins with points of its own",
        _storage="a study is kept with the run: Run.study()",
    )
    sampler, seed = search_alg._sampler, search_alg._seed
    if sampler is None and seed is not None:
        import optuna

        sampler = optuna.samplers.TPESampler(seed=seed)
    return _optuna_space(search_alg._space, given), sampler or "tpe", seed or 0


def _seed_of(generator: Any) -> int:
    """A seed that follows from the random state that a BasicVariantGenerator was given; 0 if it was given none."""
    state = copy.deepcopy(generator._random_state._rng)
    if state is None:
        return 0
    return int(state.integers(2**31) if hasattr(state, "integers") else state.randint(2**31 - 1))


def _optuna_space(own: Any, given: Any) -> Space | Callable[..., Any]:
    """The space of an OptunaSearch: its own, with the constants of param_space beside it, or param_space."""
    if not own:
        return tune_space(given)
    rest = tune_space(given).dimensions if given else ()
    drawn = [".".join(path) for path, domain in rest if not isinstance(domain, Constant)]
    if drawn:
        raise UsageError(
            "there are two search spaces",
            got=f"OptunaSearch(space=…), and domains in param_space: {', '.join(drawn)}",
            expected="one of them",
            hint="leave constants in param_space, and search one space",
        )
    if callable(own):
        return _Defined(own, tuple((path, domain.value) for path, domain in rest if isinstance(domain, Constant)))
    if not isinstance(own, Mapping):
        raise _unsupported("OptunaSearch(space=[…])", own, "a dict of distributions, or a function")
    nested = [(tuple(name.split("/")), domain) for name, domain in own.items()]
    described = [(path, to_space({"x": domain}).dimensions[0][1]) for path, domain in nested]
    return Space((*described, *rest))


@dataclass(frozen=True, slots=True)
class _Defined:
    """A function that defines the space trial by trial, with constants beside what it suggests."""

    define: Callable[[Any], Mapping[str, Any] | None]
    constants: tuple[tuple[tuple[str, ...], Any], ...]

    def __call__(self, trial: Any) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for path, value in self.constants:
            branch = config
            for key in path[:-1]:
                branch = branch.setdefault(key, {})
            branch[path[-1]] = value
        return {**config, **(self.define(trial) or {})}


def _scheduler(scheduler: Any) -> tuple[Any, str, float | None]:
    """What prunes trials, the metric that counts their steps, and the step at which they end; None: none."""
    kinds = _kinds(scheduler)
    name, attr = type(scheduler).__name__, _get(scheduler, "_time_attr", "training_iteration")
    if scheduler is None or name == "FIFOScheduler":
        return None, "training_iteration", None
    if "AsyncHyperBandScheduler" in kinds:
        brackets = scheduler._brackets
        first = min(milestone for milestone, _ in brackets[0]._rungs) if brackets[0]._rungs else scheduler._max_t
        most = int(scheduler._max_t)
        last = most if scheduler._stop_last_trials else None
        if int(first) >= most:
            return None, attr, last
        count = sum(bool(bracket._rungs) for bracket in brackets)
        return Asha(scheduler._reduction_factor, int(first), most, count), attr, last
    if name == "HyperBandScheduler":
        most = int(scheduler._max_t_attr)
        return Hyperband(scheduler._eta, 1, most), attr, most if scheduler._stop_last_trials else None
    if name == "MedianStoppingRule":
        if not scheduler._hard_stop:
            raise _unsupported(
                "MedianStoppingRule(hard_stop=False)", False, "hard_stop=True: what is stopped has ended"
            )
        warmup, interval = math.ceil(scheduler._grace_period), int(scheduler._min_time_slice) or None
        return Median(warmup, interval, scheduler._min_samples_required), attr, None
    raise _unsupported(
        f"scheduler={name}",
        name,
        "ASHAScheduler, HyperBandScheduler, MedianStoppingRule, FIFOScheduler, or none",
        "trials of umbel.Tuner don't exchange their state" if "Population" in name or name.startswith("PB") else None,
    )


# ---- the run -----------------------------------------------------------------------------------------------


def _seconds(budget: Any) -> float:
    if isinstance(budget, timedelta):
        return budget.total_seconds()
    if isinstance(budget, (int, float)) and not isinstance(budget, bool) and budget > 0:
        return float(budget)
    raise UsageError("time_budget_s is not a time", got=repr(budget), expected="seconds > 0, or a timedelta")


def _stop(stop: Any) -> tuple[StopRule, Any]:
    """The stop conditions of a trial, and after how long the whole run stops."""
    if stop is None:
        return StopRule({}), None
    if isinstance(stop, Mapping):
        wrong = [
            name for name, bound in stop.items() if not isinstance(name, str) or not isinstance(bound, (int, float))
        ]
        if wrong:
            raise UsageError(
                "a stop condition is no bound on a metric",
                got={name: stop[name] for name in wrong},
                expected='numbers by metric, nested names joined by "/"',
            )
        return StopRule(dict(stop)), None
    if "Stopper" in _kinds(stop):
        parts = list(stop._stoppers) if "CombinedStopper" in _kinds(stop) else [stop]
        timeouts = [part._timeout_seconds for part in parts if "TimeoutStopper" in _kinds(part)]
        for part in parts:
            if not _kinds(part) & {*_STOPPERS, "TimeoutStopper"}:
                raise _unsupported(
                    f"RunConfig(stop={type(part).__name__}(…))",
                    type(part).__name__,
                    ", ".join((*_STOPPERS, "TimeoutStopper")) + ", a dict, or a function",
                    "a stopper that looks at all trials has no counterpart; for one trial give a function "
                    "fn(trial_id, result)",
                )
        rest = tuple(part for part in parts if "TimeoutStopper" not in _kinds(part))
        return StopRule({}, _Any(rest) if rest else None), min(timeouts) if timeouts else None
    if callable(stop):
        return StopRule({}, stop), None
    raise UsageError(
        "unknown stop condition", got=stop, expected="a dict, a function fn(trial_id, result), or a Stopper"
    )


@dataclass(frozen=True, slots=True)
class _Any:
    """Several stoppers as one."""

    stoppers: tuple[Callable[[str, dict[str, Any]], object], ...]

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return any(bool(stopper(trial_id, result)) for stopper in self.stoppers)


def _failures(config: Any) -> tuple[int, bool | str]:
    most = _get(config, "max_failures", 0)
    return (_ENDLESS if most < 0 else int(most)), _get(config, "fail_fast", False)


def _checkpoints(config: Any) -> tuple[int, bool]:
    _refuse(
        config,
        "CheckpointConfig",
        checkpoint_score_attribute="the last checkpoint of a trial is kept",
    )
    keep = _get(config, "num_to_keep")
    if keep is not None and keep > 1:
        raise _unsupported(f"CheckpointConfig(num_to_keep={keep})", keep, "1, or None: the last one of a trial is kept")
    return int(_get(config, "checkpoint_frequency", 0)), bool(_get(config, "checkpoint_at_end", False))


def _store(config: Any) -> str:
    """The store, once it is sure that the rest of a RunConfig is supported."""
    _refuse(
        config,
        "RunConfig",
        callbacks="read the run while it goes on: umbel show NAME; or export it: umbel export mlflow NAME",
        progress_reporter="umbel.Tuner shows its own progress; verbose=0 is quiet",
        log_to_file="what trials print is kept: umbel logs NAME TRIAL",
        storage_filesystem="give storage_path as a URL: s3://bucket/folder",
    )
    sync = _get(config, "sync_config")
    if sync is not None and sync != type(sync)():
        raise _unsupported(
            "RunConfig(sync_config=…)", sync, "it left out", "the store is written by workers themselves"
        )
    path = _get(config, "storage_path")
    if path is None or _is_default(path):
        return default_store()
    text = str(path)
    return str(Path(text).expanduser()) if text.startswith("~") else text


def _is_default(path: object) -> bool:
    """Whether a storage path is what Ray puts in if none was given."""
    constants = sys.modules.get("ray.train.constants")
    return constants is not None and str(path) == str(constants.DEFAULT_STORAGE_PATH)
