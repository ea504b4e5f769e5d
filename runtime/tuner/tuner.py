"""`umbel.Tuner`: an experiment that was written for Ray Tune, run by Umbel. A user changes one import.

It reads Tune's own objects, makes a sweep of one group of them, runs it, and shows its trials as Tune would. What it
was told is kept with the run, for `Tuner.restore`. It must not know how a trial is run.
"""

from __future__ import annotations

import functools
import os
import secrets
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import cloudpickle

from umbel.runtime.driver.run import run
from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.graph.sweep import sweep
from umbel.runtime.graph.task import Task
from umbel.runtime.tuner.options import Options, read_options
from umbel.runtime.tuner.results import ResultGrid
from umbel.runtime.tuner.trainable import Trainable, read_trainable
from umbel.runtime.tuner.trial import RETURNED, run_class, run_function
from umbel.scheduler.errors import CodeError, NotFoundError, RunStoppedError, UsageError
from umbel.scheduler.identity import group_key
from umbel.storage import layout
from umbel.storage.store import Store, open_store

__all__ = ["Tuner"]

#: What trials are compared by if no metric is named: all report it.
_ANY_METRIC = "training_iteration"


class Tuner:
    """Runs an experiment that was written for `ray.tune.Tuner`, with the same arguments.

    Each trial is a row of a run, resumable like any other; the same experiment under the same name goes on where it
    ended. Configs follow from a seed, so two runs of one experiment try the same ones.

    Args:
        trainable: a function ``fn(config)`` that reports by `ray.tune.report`, returns or yields; or a subclass of
            `ray.tune.Trainable`; with `tune.with_parameters` and `tune.with_resources` around it, if need be.
        param_space: names to domains, constants, or dicts of these.
        tune_config: a `ray.tune.TuneConfig`: num_samples, metric, mode, search_alg (OptunaSearch), scheduler
            (ASHAScheduler, HyperBandScheduler, MedianStoppingRule), max_concurrent_trials, time_budget_s.
        run_config: a `ray.tune.RunConfig`: name, storage_path (the store; default as for `umbel.run`), stop,
            failure_config, checkpoint_config, verbose.
        executor: "ray"; or "inline" for this process without Ray, where breakpoints work.

    Raises:
        UsageError: something that was given is wrong, or not supported; it is named.
    """

    def __init__(
        self,
        trainable: Any,
        *,
        param_space: Any = None,
        tune_config: Any = None,
        run_config: Any = None,
        executor: str = "ray",
    ) -> None:
        self._trainable = read_trainable(trainable)
        self._options = _checked(read_options(param_space, tune_config, run_config), self._trainable)
        self._executor = executor
        self._retry_failed = False
        self._sweep = _sweep_of(self._trainable, self._options)

    def fit(self) -> ResultGrid:
        """Run all trials, or those that are missing, and wait for them. Failed trials don't raise: see `ResultGrid`.

        Raises:
            UmbelError: as `umbel.run`.
            ElementFailedError: a trial failed, and the Tuner was told ``fail_fast="raise"``.
        """
        options = self._options
        if options.name is None:
            name = f"{self._sweep.name}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
            self._options = options = replace(options, name=name)
        assert options.name is not None
        layout.check_name("run", options.name)
        store = open_store(options.store)
        store.prepare()
        if store.load_record(options.name) is None:
            self._keep(store, options.name)
        try:
            run(
                self._sweep,
                store=options.store,
                name=options.name,
                executor=self._executor,
                workers=options.workers,
                progress="quiet" if options.quiet else None,
                deadline_s=options.deadline_s,
                retry_failed=self._retry_failed,
            )
        except RunStoppedError:
            if not options.fail_fast:
                raise
        results = self.get_results()
        if options.fail_fast == "raise" and results.errors:
            raise results.errors[0]
        return results

    def get_results(self) -> ResultGrid:
        """The results of the trials that have ended so far.

        Raises:
            NotFoundError: nothing has been run yet.
        """
        options = self._options
        if options.name is None:
            raise NotFoundError("this Tuner has not run yet", expected="fit() before", hint="or Tuner.restore(path, …)")
        return ResultGrid(open_store(options.store).run(options.name), self._sweep, options.metric, options.mode)

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        trainable: Any,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        *,
        executor: str = "ray",
        **flags: object,
    ) -> Tuner:
        """A Tuner that goes on with an experiment: what has ended stays, what is missing runs, from checkpoints.

        What the experiment was told is read from its store by unpickling: restore from stores whose writers you trust.

        Args:
            path: `ResultGrid.experiment_path`, or the storage path joined with the name.
            trainable: the same as before.
            resume_unfinished: True, the only way there is.
            resume_errored: whether failed trials are tried again, from their checkpoints if they have any.
            executor: as of the class.
            flags: others of Tune's, none of which is supported.

        Raises:
            NotFoundError: there is no experiment.
            UsageError: a flag is not supported.
        """
        for flag, value in {"resume_unfinished": not resume_unfinished, **flags}.items():
            if value:
                raise UsageError(
                    f"Tuner.restore({flag}=…) is not supported by umbel.Tuner",
                    got=f"{flag}={value!r}" if flag in flags else "resume_unfinished=False",
                    expected="a path, a trainable, and resume_errored=True if need be",
                    hint="what is missing runs, from checkpoints if there are any; Tuner.get_results() runs nothing",
                )
        found = _find(path)
        if found is None:
            raise NotFoundError(
                "there is no experiment of umbel.Tuner here",
                got=os.fspath(path),
                expected="ResultGrid.experiment_path, or the storage path joined with the name",
            )
        store, name = found
        tuner = cls.__new__(cls)
        tuner._trainable = read_trainable(trainable)
        told = cloudpickle.loads(store.objects.read(layout.tuner(name)))
        tuner._options = replace(told["options"], store=store.url)
        tuner._executor = executor
        tuner._retry_failed = resume_errored
        tuner._sweep = _sweep_of(replace(tuner._trainable, name=told["sweep"]), tuner._options)
        return tuner

    @classmethod
    def can_restore(cls, path: str | os.PathLike[str]) -> bool:
        """Whether there is an experiment that `restore` can go on with."""
        return _find(path) is not None

    def _keep(self, store: Store, name: str) -> None:
        """Keep what this Tuner was told, for `restore`."""
        place = layout.tuner(name)
        if store.objects.exists(place):
            store.objects.delete(place)  # its run never began
        try:
            told = cloudpickle.dumps({"options": self._options, "sweep": self._sweep.name})
        except Exception as error:  # pickling runs the code of whatever is captured
            raise CodeError(
                "what this Tuner was told can't be kept for Tuner.restore: it can't be pickled",
                got=f"{type(error).__name__}: {error}",
                expected="stop conditions, samplers and values in param_space that can be pickled",
            ) from error
        store.objects.create(place, told)


def _find(path: str | os.PathLike[str]) -> tuple[Store, str] | None:
    """The store of an experiment, and its name there."""
    folder, _, name = os.fspath(path).rstrip("/").rpartition("/")
    for place in dict.fromkeys((folder.removesuffix(f"/{layout.RUNS}") or ".", folder or ".")):
        store = open_store(place)
        found = layout.is_name(name) and store.load_record(name) is not None
        if found and store.objects.exists(layout.tuner(name)):
            return store, name
    return None


def _checked(options: Options, trainable: Trainable) -> Options:
    """Options that go together, and with the trainable.

    Raises:
        UsageError: trials are to be compared, and nobody says by what; or a function is to make checkpoints by itself.
    """
    compares = options.prune is not None or options.search != "tune"
    if compares and options.metric is None and options.mode is not None:
        options = replace(options, metric=RETURNED)  # as Tune has it: what a function that returns a number returned
    if compares and (options.metric is None or options.mode is None):
        raise UsageError(
            "the scheduler compares trials, and nothing says by what"
            if options.search == "tune"
            else "the search learns from trials, and nothing says by what",
            got=f"metric={options.metric!r}, mode={options.mode!r}",
            expected="both, in TuneConfig, the search algorithm or the scheduler",
            hint='TuneConfig(metric="loss", mode="min", …)',
        )
    if not trainable.is_class and (options.checkpoint_frequency or options.checkpoint_at_end):
        raise UsageError(
            "CheckpointConfig(checkpoint_frequency=…, checkpoint_at_end=…) is for class trainables",
            got=f"the function {trainable.name!r}",
            expected="a subclass of tune.Trainable, or CheckpointConfig without them",
            hint="a function saves by itself: tune.report(metrics, checkpoint=…)",
        )
    return options


def _sweep_of(trainable: Trainable, options: Options) -> Sweep:
    if trainable.is_class:
        body = functools.partial(
            run_class, trainable.body, options.rule, options.checkpoint_frequency, options.checkpoint_at_end
        )
    else:
        body = functools.partial(run_function, trainable.body, options.rule)
    task = Task(
        body,
        name=trainable.name,
        resources=trainable.resources,
        retries=options.retries,
        on_failure="stop" if options.fail_fast else "keep going",
        # An experiment of Tune's runs its trials: what an earlier one did has left its checkpoints there.
        cache=False,
    )
    made = sweep(
        task,
        space=cast(Any, options.space),  # a Space is taken as it is
        search=options.search,
        trials=options.trials,
        seed=options.seed,
        metric=options.metric or _ANY_METRIC,
        mode=options.mode or "max",
        prune=options.prune,
        data=trainable.data,
        keep="all",
    )
    if made.search is None:
        made.source.batch(group_key({}), 0, 1)  # a function of tune.sample_from that raises does so here
    return made
