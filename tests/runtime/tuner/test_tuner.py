"""`umbel.Tuner` with Ray Tune's own objects, in this process: what it gives back, what it refuses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal import session
from ray.tune.schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
)
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import (
    CombinedStopper,
    MaximumIterationStopper,
    TrialPlateauStopper,
)

import umbel
from tests.runtime.tuning import curve, fit
from umbel import Tuner, UsageError
from umbel.runtime.tuner.options import read_options
from umbel.runtime.tuner.results import ResultGrid
from umbel.scheduler.errors import NotFoundError
from umbel.scheduler.search.pruning import Asha, Hyperband, Median


class TestFunctions:
    def test_the_last_report_counts_and_all_are_rows(self, tmp_path: Path) -> None:
        grid = fit(curve, {"a": tune.grid_search([3.0, 1.0, 2.0])}, tmp_path)
        assert [result.config for result in grid] == [{"a": 3.0}, {"a": 1.0}, {"a": 2.0}]
        assert (len(grid), grid.num_terminated, grid.num_errors, grid.errors) == (3, 3, 0, [])
        best = grid.get_best_result("loss", "min")
        assert best.metrics["loss"] == 0.25
        assert best.metrics["inner"] == {"step": 3}
        assert best.metrics["note"] == "text"
        assert best.metrics["training_iteration"] == 4
        assert best.metrics["done"]
        assert best.metrics["config"] == best.config == {"a": 1.0}
        assert (best.error, best.checkpoint, best.best_checkpoints) == (None, None, [])
        frame = best.metrics_dataframe
        assert frame is not None
        assert frame["loss"].tolist() == [1.0, 0.5, 1 / 3, 0.25]
        assert frame["inner/step"].tolist() == [0, 1, 2, 3]
        table = grid.get_dataframe()
        assert table["config/a"].tolist() == [3.0, 1.0, 2.0]
        assert table["loss"].tolist() == [0.75, 0.25, 0.5]
        assert grid.get_dataframe("loss", "max")["loss"].tolist() == [3.0, 1.0, 2.0]
        assert "ResultGrid: 3 results" in repr(grid)
        assert "loss" in repr(best)

    @pytest.mark.parametrize(("scope", "value"), [("all", 4.0), ("avg", 2.5), ("last", 1.0), ("last-5-avg", 2.5)])
    def test_scopes(self, tmp_path: Path, scope: str, value: float) -> None:
        def falling(config: dict[str, Any]) -> None:
            for i in range(4):
                tune.report({"score": config["a"] * (4 - i)})

        grid = fit(falling, {"a": tune.grid_search([1, -1])}, tmp_path)
        best = grid.get_best_result("score", "max", scope=scope)
        assert best.config == {"a": 1}
        assert best.score("score", scope, "max") == value

    def test_what_a_function_returns_or_yields(self, tmp_path: Path) -> None:
        def yields(config: dict[str, Any]) -> Any:
            yield {"x": 1}
            yield {"x": 2}

        cases: list[tuple[Any, dict[str, Any]]] = [
            (lambda config: {"x": 3}, {"x": 3}),
            (lambda config: 4.5, {"_metric": 4.5}),
            (lambda config: None, {}),
            (yields, {"x": 2}),
        ]
        for i, (function, metrics) in enumerate(cases):
            (result,) = fit(function, None, tmp_path, name=f"returns-{i}")
            assert metrics.items() <= result.metrics.items()
            assert result.config == {}
        (wrong,) = fit(lambda config: "text", {}, tmp_path, name="wrong")
        assert "neither a dict nor a number" in str(wrong.error)

    def test_errors_are_results(self, tmp_path: Path) -> None:
        def odd(config: dict[str, Any]) -> dict[str, float]:
            tune.report({"loss": 5.0})
            if config["a"] % 2:
                raise ValueError("odd")
            return {"loss": 1.0}

        grid = fit(odd, {"a": tune.grid_search([0, 1, 2])}, tmp_path, tune.TuneConfig(metric="loss", mode="min"))
        assert (grid.num_errors, grid.num_terminated) == (1, 2)
        assert "ValueError: odd" in str(grid[1].error)
        assert grid[1].metrics["loss"] == 5.0
        assert grid[1].config == {"a": 1}
        assert grid[1].metrics_dataframe is None
        assert grid.get_best_result().config == {"a": 0}
        assert len(grid.get_dataframe()) == 3
        with pytest.raises(NotFoundError, match="no trial has a finite 'other'"):
            grid.get_best_result("other", "min")
        with pytest.raises(UsageError, match="best result by what"):
            ResultGrid.get_best_result(fit(curve, {"a": tune.grid_search([1, 2])}, tmp_path, name="none"))

    def test_fail_fast_stops(self, tmp_path: Path) -> None:
        def fails(config: dict[str, Any]) -> None:
            raise ValueError("at once")

        space = {"a": tune.grid_search(list(range(500)))}
        grid = fit(fails, space, tmp_path, failure_config=tune.FailureConfig(fail_fast=True))
        assert 1 <= grid.num_errors <= 500
        with pytest.raises(umbel.ElementFailedError, match="at once"):
            fit(fails, space, tmp_path, name="raise", failure_config=tune.FailureConfig(fail_fast="raise"))

    def test_checkpoints_carry_over_failures(self, tmp_path: Path) -> None:
        marker = tmp_path / "failed"

        def train(config: dict[str, Any]) -> None:
            first, checkpoint = 0, tune.get_checkpoint()
            if checkpoint is not None:
                with checkpoint.as_directory() as folder:
                    first = json.loads(Path(folder, "state.json").read_text())["next"]
            for i in range(first, 6):
                work = tmp_path / f"work-{i}"
                work.mkdir(exist_ok=True)
                (work / "state.json").write_text(json.dumps({"next": i + 1}))
                tune.report({"i": i}, checkpoint=tune.Checkpoint.from_directory(work))
                assert tune.get_checkpoint() is not None
                if i == 3 and not marker.exists():
                    marker.touch()
                    raise OSError("once")

        (result,) = fit(train, {}, tmp_path, failure_config=tune.FailureConfig(max_failures=2))
        frame = result.metrics_dataframe
        assert frame is not None
        assert frame["i"].tolist() == list(range(6))
        assert frame["training_iteration"].tolist() == list(range(1, 7))
        assert frame["iterations_since_restore"].tolist() == [1, 2, 3, 4, 1, 2]
        checkpoint = result.checkpoint
        ((same, metrics),) = result.best_checkpoints
        assert metrics["i"] == 5
        assert same.path == checkpoint.path == result.get_best_checkpoint("i", "max").path
        del result, same
        assert json.loads(Path(checkpoint.path, "state.json").read_text()) == {"next": 6}

    def test_what_tune_tells_of_a_trial(self, tmp_path: Path) -> None:
        def asks(config: dict[str, Any]) -> None:
            context = tune.get_context()
            Path(context.get_trial_dir(), "scratch").write_text("x")
            tune.report(
                {
                    "names": [context.get_trial_id(), context.get_trial_name(), context.get_experiment_name()],
                    "cpus": context.get_trial_resources().required_resources["CPU"],
                }
            )

        grid = fit(asks, {"a": tune.grid_search([1, 2])}, tmp_path)
        assert grid[1].metrics["names"] == ["00001", "asks_00001", "asks"]
        assert grid[1].metrics["cpus"] == 1
        assert session.get_session() is None  # none is left behind

    def test_parameters_and_resources(self, tmp_path: Path) -> None:
        def train(config: dict[str, Any], data: list[int], scale: int = 1) -> dict[str, float]:
            return {"sum": sum(data) * config["a"] * scale}

        wrapped = tune.with_resources(tune.with_parameters(train, data=[1, 2], scale=10), {"cpu": 2, "gpu": 0})
        tuner = Tuner(wrapped, param_space={"a": 3})
        assert tuner._sweep.task.resources.cpus == 2
        (result,) = fit(wrapped, {"a": 3}, tmp_path)
        assert result.metrics["sum"] == 90

    def test_sample_from_and_grids(self, tmp_path: Path) -> None:
        space = {
            "a": tune.randint(1, 100),
            "nested": {"b": tune.sample_from(lambda spec: spec.config.a * 2), "g": tune.grid_search([1, 2])},
            "r": tune.sample_from(random.random),
            "layers": [1, 2],
        }
        config = tune.TuneConfig(num_samples=3)
        grid = fit(lambda config: {"x": config["nested"]["b"]}, space, tmp_path, config)
        assert [result.config["nested"]["g"] for result in grid] == [1, 2] * 3
        assert all(result.metrics["x"] == result.config["a"] * 2 for result in grid)
        assert len({result.config["r"] for result in grid}) == 6
        assert grid[0].config["layers"] == [1, 2]
        assert umbel.replay(grid.run, 3).same
        assert umbel.open_store(str(tmp_path)).run("exp").trials()["config_nested_b"].type == "int64"

    def test_the_session_is_there_if_tune_is_imported_late(self, tmp_path: Path) -> None:
        (tmp_path / "late.py").write_text(
            textwrap.dedent("""
                import sys, umbel

                def plain(config):
                    return {"x": 1.0}

                def late(config):
                    from ray import tune
                    tune.report({"x": tune.get_context().get_trial_id()})

                def run(fn, name):
                    class Config:  # told by its attributes
                        storage_path, verbose = sys.argv[1], 0
                    Config.name = name
                    return umbel.Tuner(fn, param_space={"a": 1}, run_config=Config, executor="inline").fit()

                assert run(plain, "plain")[0].metrics["x"] == 1.0
                assert "ray.tune" not in sys.modules and "ray.train" not in sys.modules
                assert run(late, "late")[0].metrics["x"] == "00000"
                assert sys.modules["ray.train._internal.session"]._session is None
            """)
        )
        subprocess.run([sys.executable, "late.py", str(tmp_path / "store")], cwd=tmp_path, check=True, timeout=60)


class Counter(tune.Trainable):  # type: ignore[misc]
    """A class trainable that fails once, if it is told where to note that."""

    def setup(self, config: dict[str, Any], offset: int = 0) -> None:
        self.total = offset
        self.config_seen = config

    def step(self) -> dict[str, Any]:
        self.total += self.config_seen["a"]
        marker = self.config_seen.get("marker")
        if marker is not None and self.iteration == 4 and not Path(marker).exists():
            Path(marker).touch()
            raise OSError("once")
        return {"total": self.total, "id": self.trial_id}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"total": self.total}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.total = checkpoint["total"]

    def cleanup(self) -> None:
        if "ended" in self.config_seen:
            Path(self.config_seen["ended"]).touch()


class TestClasses:
    def test_steps_until_a_bound(self, tmp_path: Path) -> None:
        ended = tmp_path / "ended"
        grid = fit(
            tune.with_parameters(Counter, offset=100),
            {"a": tune.grid_search([1, 2]), "ended": str(ended)},
            tmp_path,
            tune.TuneConfig(metric="total", mode="max"),
            stop={"training_iteration": 5},
        )
        assert [result.metrics["total"] for result in grid] == [105, 110]
        assert [result.metrics["id"] for result in grid] == ["00000", "00001"]
        assert grid.get_best_result().metrics_dataframe["total"].tolist() == [102, 104, 106, 108, 110]  # type: ignore[index]
        assert ended.exists()
        assert grid[0].checkpoint is None

    def test_checkpoints(self, tmp_path: Path) -> None:
        (result,) = fit(
            Counter,
            {"a": 1, "marker": str(tmp_path / "marker")},
            tmp_path,
            stop={"total": 7},
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2, checkpoint_at_end=True),
        )
        frame = result.metrics_dataframe
        assert frame is not None
        assert frame["total"].tolist() == list(range(1, 8))
        assert frame["iterations_since_restore"].tolist() == [1, 2, 3, 4, 1, 2, 3]
        again = Counter({"a": 1})
        again.restore(result.checkpoint)
        assert again.total == 7

    @pytest.mark.parametrize("frequency", [0, 3])
    def test_a_trial_that_the_scheduler_stops_has_a_checkpoint_of_its_end(self, tmp_path: Path, frequency: int) -> None:
        grid = fit(
            Counter,
            {"a": tune.grid_search([2, 1])},
            tmp_path,
            tune.TuneConfig(metric="total", mode="max", scheduler=ASHAScheduler(grace_period=3, max_t=9)),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=frequency, checkpoint_at_end=True),
        )
        assert [result.metrics["training_iteration"] for result in grid] == [9, 3]
        assert grid.run.trials()["status"].to_pylist() == ["ok", "pruned"]
        again = Counter({"a": 1})
        again.restore(grid[1].checkpoint)
        assert again.total == 3

    def test_resources_of_a_class(self) -> None:
        tuner = Tuner(tune.with_resources(tune.with_parameters(Counter, offset=1), {"cpu": 3}), param_space={"a": 1})
        assert tuner._sweep.task.resources.cpus == 3
        assert tuner._trainable.body is Counter
        assert tuner._trainable.data == {"offset": 1}


class TestStops:
    @pytest.mark.parametrize(
        ("stop", "steps"),
        [
            ({"inner/step": 2}, 3),
            ({"training_iteration": 5, "never": 1}, 5),
            (lambda trial_id, result: result["loss"] < 0.3, 4),
            (MaximumIterationStopper(2), 2),
            (CombinedStopper(MaximumIterationStopper(6), TrialPlateauStopper("note", grace_period=99)), 6),
        ],
    )
    @pytest.mark.filterwarnings("ignore:the stop condition on 'never'")
    def test_conditions(self, tmp_path: Path, stop: Any, steps: int) -> None:
        def endless(config: dict[str, Any]) -> None:
            for i in range(100):
                try:
                    tune.report({"loss": 1 / (i + 1), "inner": {"step": i}, "note": 1.0 + i})
                except Exception:
                    raise AssertionError("a stop is no error") from None

        (result,) = fit(endless, {}, tmp_path, stop=stop)
        assert result.metrics["training_iteration"] == steps
        assert result.error is None

    def test_a_time_budget_stops_and_restore_goes_on(self, tmp_path: Path) -> None:
        def slow(config: dict[str, Any]) -> dict[str, float]:
            deadline = time.monotonic() + 0.05
            while time.monotonic() < deadline:
                pass
            return {"x": config["a"]}

        space = {"a": tune.uniform(0, 1)}
        config = tune.TuneConfig(num_samples=12, time_budget_s=0.3, metric="x", mode="max")
        path = tmp_path / "exp"
        assert not Tuner.can_restore(path)
        grid = fit(slow, space, tmp_path, config)
        first = [result.config for result in grid]
        assert 0 < len(first) < 12
        assert grid.run.status == "stopped"
        assert Tuner.can_restore(path)
        assert Tuner.can_restore(grid.experiment_path)
        sittings = 0
        while len(grid) < 12 and sittings < 12:
            tuner = Tuner.restore(path, slow, executor="inline")
            assert len(tuner.get_results()) == len(grid)
            grid = tuner.fit()
            sittings += 1
        assert [result.config for result in grid][: len(first)] == first
        assert grid.get_best_result().config["a"] == max(result.config["a"] for result in grid)

    @pytest.mark.parametrize("search_alg", [None, OptunaSearch()])
    def test_as_many_samples_as_there_is_time_for(self, tmp_path: Path, search_alg: Any) -> None:
        config = tune.TuneConfig(num_samples=-1, time_budget_s=0.5, metric="x", mode="max", search_alg=search_alg)
        grid = fit(lambda config: {"x": config["a"]}, {"a": tune.uniform(0, 1)}, tmp_path, config)
        assert grid.run.status == "stopped"
        assert len(grid) > 12
        assert grid.num_errors == 0

    def test_restore_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no experiment"):
            Tuner.restore(tmp_path / "none", curve)
        with pytest.raises(NotFoundError, match="has not run yet"):
            Tuner(curve).get_results()
        for flag in ({"restart_errored": True}, {"param_space": {"a": 1}}, {"resume_unfinished": False}):
            with pytest.raises(UsageError, match=f"{next(iter(flag))}=…"):
                Tuner.restore(tmp_path, curve, **flag)

    def test_restore_tries_failed_trials_again(self, tmp_path: Path) -> None:
        marker = tmp_path / "mended"

        def train(config: dict[str, Any]) -> None:
            checkpoint = tune.get_checkpoint()
            first = 0 if checkpoint is None else int(Path(checkpoint.path, "i").read_text())
            for i in range(first, 4):
                if i == 2 and config["a"] == 1 and not marker.exists():
                    raise OSError("broken")
                folder = tmp_path / f"work-{i}"
                folder.mkdir(exist_ok=True)
                (folder / "i").write_text(str(i + 1))
                tune.report({"i": i, "first": first}, checkpoint=tune.Checkpoint.from_directory(folder))

        grid = fit(train, {"a": tune.grid_search([0, 1])}, tmp_path)
        assert (grid.num_errors, grid[1].metrics["i"]) == (1, 1)
        assert grid[1].checkpoint is not None
        assert Tuner.restore(tmp_path / "exp", train, executor="inline").fit().num_errors == 1
        marker.touch()
        grid = Tuner.restore(tmp_path / "exp", train, resume_errored=True, executor="inline").fit()
        assert (grid.num_errors, grid[1].metrics["i"], grid[1].metrics["first"]) == (0, 3, 2)


class TestSchedulers:
    def test_asha_prunes(self, tmp_path: Path) -> None:
        def learns(config: dict[str, Any]) -> None:
            for i in range(200):
                tune.report({"loss": config["a"] + 1 / (i + 1)})

        scheduler = ASHAScheduler(max_t=16, grace_period=2, reduction_factor=2)
        config = tune.TuneConfig(num_samples=20, metric="loss", mode="min", scheduler=scheduler)
        grid = fit(learns, {"a": tune.uniform(0, 1)}, tmp_path, config)
        steps = [result.metrics["training_iteration"] for result in grid]
        assert set(steps) <= {2, 4, 8, 16}
        assert min(steps) == 2
        assert grid.num_terminated == 20
        best = min(grid, key=lambda result: result.config["a"])
        assert best.metrics["training_iteration"] == 16
        assert len(best.metrics_dataframe) == 16  # type: ignore[arg-type]
        assert all(len(result.metrics_dataframe) == n for result, n in zip(grid, steps, strict=True))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("scheduler", "rule", "bounds", "attr"),
        [
            (ASHAScheduler(max_t=27, reduction_factor=3), Asha(3, 1, 27), {"training_iteration": 27}, None),
            (ASHAScheduler("epoch", max_t=27, brackets=2), Asha(4, 1, 27, 2), {"epoch": 27}, "epoch"),
            (ASHAScheduler(max_t=9, stop_last_trials=False), Asha(4, 1, 9), {}, None),
            (ASHAScheduler(max_t=5, grace_period=5), None, {"training_iteration": 5}, None),
            (HyperBandScheduler(max_t=81), Hyperband(3, 1, 81), {"training_iteration": 81}, None),
            (MedianStoppingRule(grace_period=2.5, min_samples_required=4), Median(3, None, 4), {}, "time_total_s"),
            (None, None, {}, None),
        ],
    )
    def test_what_schedulers_mean(self, scheduler: Any, rule: Any, bounds: Any, attr: str | None) -> None:
        options = read_options(None, tune.TuneConfig(metric="m", mode="max", scheduler=scheduler), None)
        assert (options.prune, options.rule.bounds) == (rule, bounds)
        assert options.rule.time_attr == (attr or "training_iteration")
