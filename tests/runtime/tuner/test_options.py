"""What Ray Tune's objects mean to `umbel.Tuner`: searches, and what is refused."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import (
    ExperimentPlateauStopper,
    TimeoutStopper,
)

import umbel
from tests.runtime.tuning import curve, fit
from umbel import Tuner, UsageError
from umbel.runtime.tuner.options import Options, read_options


def _options(tune_config: Any = None, run_config: Any = None, space: Any = None) -> Options:
    return read_options(space, tune_config, run_config)


class TestSearches:
    def test_a_mode_alone_searches_by_what_is_returned(self, tmp_path: Path) -> None:
        search = OptunaSearch(sampler=optuna.samplers.TPESampler(seed=3), mode="min")
        grid = fit(
            lambda config: (config["a"] - 1) ** 2,
            {"a": tune.uniform(-3, 3)},
            tmp_path,
            tune.TuneConfig(num_samples=20, search_alg=search),
        )
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3))
        study.optimize(lambda trial: (trial.suggest_float("a", -3, 3) - 1) ** 2, n_trials=20)
        assert [result.config["a"] for result in grid] == [trial.params["a"] for trial in study.trials]
        assert grid.get_best_result().metrics["_metric"] == study.best_value

    def test_optuna_search_is_optuna(self, tmp_path: Path) -> None:
        space = {"a": tune.uniform(-3, 3), "c": tune.choice(["x", "y"]), "n": {"k": tune.randint(1, 5)}, "fixed": 7}

        def loss(config: dict[str, Any]) -> dict[str, float]:
            return {"loss": config["a"] ** 2 + config["n"]["k"] + (config["c"] == "x")}

        search = OptunaSearch(sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=5))
        config = tune.TuneConfig(num_samples=15, metric="loss", mode="min", search_alg=search)
        grid = fit(loss, space, tmp_path, config)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=5))

        def objective(trial: optuna.Trial) -> float:
            config = {
                "a": trial.suggest_float("a", -3, 3),
                "c": trial.suggest_categorical("c", ["x", "y"]),
                "n": {"k": trial.suggest_int("n.k", 1, 4)},
            }
            return loss(config)["loss"]

        study.optimize(objective, n_trials=15)
        assert [result.metrics["loss"] for result in grid] == [trial.value for trial in study.trials]
        assert grid[0].config["fixed"] == 7

    def test_spaces_of_optuna_search(self, tmp_path: Path) -> None:
        def define(trial: optuna.Trial) -> dict[str, Any] | None:
            if trial.suggest_categorical("kind", ["a", "b"]) == "a":
                trial.suggest_float("x", 0, 1)
            return {"extra": 1}

        grid = fit(
            lambda config: {"loss": config.get("x", 2.0) + config["n"]["fixed"]},
            {"n": {"fixed": 3}},
            tmp_path,
            tune.TuneConfig(
                num_samples=8, search_alg=ConcurrencyLimiter(OptunaSearch(define, metric="loss", mode="min"), 2)
            ),
        )
        assert all(("x" in result.config) == (result.config["kind"] == "a") for result in grid)
        assert all(result.config["extra"] == 1 and result.config["n"] == {"fixed": 3} for result in grid)
        listed = {"p/q": optuna.distributions.FloatDistribution(0, 1)}
        options = _options(tune.TuneConfig(search_alg=OptunaSearch(listed, metric="m", mode="min")), space={"b": 1})
        assert [path for path, _ in options.space.dimensions] == [("p", "q"), ("b",)]  # type: ignore[union-attr]

    def test_seeds_and_limits(self) -> None:
        seeded = [
            _options(tune.TuneConfig(search_alg=BasicVariantGenerator(random_state=state, max_concurrent=4))).seed
            for state in (1, 1, 2, np.random.RandomState(1), None)
        ]
        assert seeded[0] == seeded[1] != seeded[2]
        assert seeded[3] > 0
        assert seeded[4] == 0
        limited = tune.TuneConfig(
            search_alg=BasicVariantGenerator(max_concurrent=4), max_concurrent_trials=3, time_budget_s=60
        )
        options = _options(limited, tune.RunConfig(stop=TimeoutStopper(datetime.timedelta(seconds=5))))
        assert (options.workers, options.deadline_s) == (3, 5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("tune_config", "run_config", "names"),
        [
            (
                {"scheduler": PopulationBasedTraining(metric="m", mode="min", hyperparam_mutations={"a": [1]})},
                {},
                "Pop",
            ),
            ({"scheduler": MedianStoppingRule(hard_stop=False)}, {}, "hard_stop=False"),
            ({"search_alg": OptunaSearch(points_to_evaluate=[{"a": 1}])}, {}, r"OptunaSearch\(points_to_evaluate"),
            ({"search_alg": BasicVariantGenerator(constant_grid_search=True)}, {}, "constant_grid_search"),
            ({"search_alg": OptunaSearch(metric=["a", "b"], mode=["min", "max"])}, {}, "several metrics"),
            ({"num_samples": -1}, {}, "num_samples=-1[^$]*time_budget_s"),
            ({"num_samples": 0, "time_budget_s": 1}, {}, "num_samples=0"),
            ({"trial_name_creator": str}, {}, "trial_name_creator"),
            ({"mode": "best"}, {}, "unknown mode"),
            ({"time_budget_s": -1}, {}, "time_budget_s"),
            ({}, {"callbacks": [tune.Callback()]}, "callbacks"),
            ({}, {"progress_reporter": tune.CLIReporter()}, "progress_reporter"),
            ({}, {"log_to_file": True}, "log_to_file"),
            ({}, {"sync_config": tune.SyncConfig(sync_artifacts=True)}, "sync_config"),
            ({}, {"stop": ExperimentPlateauStopper("m")}, "ExperimentPlateauStopper"),
            ({}, {"stop": {"m": "high"}}, "stop condition"),
            ({}, {"stop": 3}, "unknown stop condition"),
            ({}, {"checkpoint_config": tune.CheckpointConfig(num_to_keep=3)}, "num_to_keep=3"),
            ({}, {"checkpoint_config": tune.CheckpointConfig(checkpoint_score_attribute="m")}, "score_attribute"),
        ],
    )
    def test_options_by_name(self, tune_config: Any, run_config: Any, names: str) -> None:
        with pytest.raises(UsageError, match=names):
            _options(tune.TuneConfig(**tune_config), tune.RunConfig(**run_config))

    @pytest.mark.parametrize(
        ("tune_config", "run_config", "names"),
        [
            ({"scheduler": ASHAScheduler()}, {}, "scheduler compares trials[^$]*metric=None"),
            ({"scheduler": ASHAScheduler(), "metric": "m"}, {}, "scheduler compares trials[^$]*mode=None"),
            ({"search_alg": OptunaSearch()}, {}, "search learns from trials[^$]*metric=None"),
            ({"search_alg": OptunaSearch(), "metric": "m"}, {}, "search learns from trials[^$]*mode=None"),
            ({}, {"checkpoint_config": tune.CheckpointConfig(checkpoint_frequency=2)}, "for class trainables"),
            ({}, {"checkpoint_config": tune.CheckpointConfig(checkpoint_at_end=True)}, "for class trainables"),
        ],
    )
    def test_options_that_do_not_go_together(self, tune_config: Any, run_config: Any, names: str) -> None:
        with pytest.raises(UsageError, match=names):
            Tuner(
                curve,
                param_space={"a": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(**tune_config),
                run_config=tune.RunConfig(**run_config),
            )

    def test_other_search_algorithms(self) -> None:
        class HyperOptSearch:
            metric = mode = None

        with pytest.raises(UsageError, match="search_alg=HyperOptSearch"):
            _options(tune.TuneConfig(search_alg=HyperOptSearch()))

    def test_configs_that_are_none(self) -> None:
        with pytest.raises(UsageError, match=r"tune_config is not a tune\.TuneConfig"):
            Tuner(curve, tune_config={"num_samples": 3})
        with pytest.raises(UsageError, match=r"run_config is not a tune\.RunConfig"):
            Tuner(curve, run_config=tune.TuneConfig())

    def test_what_cannot_be_kept(self, tmp_path: Path) -> None:
        lock = threading.Lock()
        with pytest.raises(umbel.CodeError, match="can't be kept"):
            fit(curve, {"a": 1}, tmp_path, stop=lambda trial_id, result: lock.locked())

    def test_two_spaces(self) -> None:
        searched = tune.TuneConfig(search_alg=OptunaSearch(lambda trial: None, metric="m", mode="min"))
        with pytest.raises(UsageError, match="two search spaces"):
            _options(searched, space={"a": tune.uniform(0, 1)})

    def test_trainables(self) -> None:
        for wrong, says in [
            ("registered", "not a trainable"),
            (3, "not a trainable"),
            (dict, "not supported"),
            (lambda: None, "with a config"),
            (tune.with_resources(curve_of(), lambda config: None), "depend on the config"),
            (tune.with_resources(curve_of(), tune.PlacementGroupFactory([{"CPU": 1}, {"CPU": 1}])), "several bundles"),
        ]:
            with pytest.raises(UsageError, match=says):
                Tuner(wrong)

    def test_a_space_that_cannot_be_drawn_is_refused_before_anything_runs(self) -> None:
        with pytest.raises(umbel.SpaceError, match="dimension 'b'"):
            Tuner(curve, param_space={"b": tune.sample_from(lambda spec: spec.config.missing)})
        with pytest.raises(umbel.SpaceError, match="dimension 'a'"):
            Tuner(curve, param_space={"a": [tune.uniform(0, 1)]})


def curve_of() -> Any:
    return lambda config: None
