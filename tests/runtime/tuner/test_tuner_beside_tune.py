"""The same experiment under `ray.tune.Tuner` and `umbel.Tuner`, on one Ray: the same configs and results.

In the shapes of the examples in Tune's documentation: functions, classes, checkpoints, ASHA, Optuna, PyTorch, and a
model in NumPy that is fitted to folds of data. Where a config is drawn at random, the two draw different ones, and
what is compared is what does not depend on that.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

import umbel

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

Both = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    kept = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0", "TUNE_MAX_PENDING_TRIALS_PG": "2"}
    before = {name: os.environ.get(name) for name in kept}
    os.environ.update(kept)
    ray.shutdown()  # another module's, without these variables
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Runs an experiment under Tune and under Umbel."""

    def run(
        trainable: Any, space: Any, *, make: Callable[[], dict[str, Any]] = dict, **run_config: Any
    ) -> tuple[Any, Any]:
        found = []
        for tuner in (tune.Tuner, umbel.Tuner):
            place = tmp_path / tuner.__module__.partition(".")[0]
            config = tune.RunConfig(name="same", storage_path=str(place), verbose=0, **run_config)
            made = trainable(place) if getattr(trainable, "needs_place", False) else trainable
            # Processes take seconds to start: there is one, and functions share it.
            options = {"reuse_actors": not isinstance(trainable, type), "max_concurrent_trials": 1, **make()}
            tuned = tuner(made, param_space=space, tune_config=tune.TuneConfig(**options), run_config=config)
            found.append(tuned.fit())
        return found[0], found[1]

    return run


def same_histories(theirs: Any, ours: Any, names: list[str]) -> None:
    """Trial by trial, the same config and the same reports."""
    assert len(theirs) == len(ours)
    assert (theirs.num_errors, theirs.num_terminated) == (ours.num_errors, ours.num_terminated)
    for one, other in zip(theirs, ours, strict=True):
        assert one.config == other.config
        assert (one.error is None) == (other.error is None)
        if one.error is None:
            for name in [*names, "training_iteration"]:
                assert one.metrics_dataframe[name].tolist() == other.metrics_dataframe[name].tolist(), name


def quadratic(config: dict[str, Any]) -> None:
    if config["b"] == 13:
        raise ValueError("unlucky")
    for step in range(5):
        tune.report({"score": (0.1 + config["a"] * step / 100) ** -1 + config["b"] * 0.1, "inner": {"step": step}})


def test_a_function_over_a_grid(both: Both) -> None:
    space = {"a": tune.grid_search([1.0, 5.0, 25.0]), "b": tune.grid_search([0, 13]), "layers": [8, 8]}
    theirs, ours = both(quadratic, space, make=lambda: {"metric": "score", "mode": "min"})
    same_histories(theirs, ours, ["score", "inner/step"])
    best = [grid.get_best_result() for grid in (theirs, ours)]
    assert best[0].config == best[1].config == {"a": 25.0, "b": 0, "layers": [8, 8]}
    for scope in ("all", "avg", "last-5-avg"):
        assert (
            theirs.get_best_result("score", "max", scope).config == ours.get_best_result("score", "max", scope).config
        )
    frames = [grid.get_dataframe().query("score == score") for grid in (theirs, ours)]
    for name in ("score", "inner/step", "training_iteration", "config/a", "config/b"):
        assert frames[0][name].tolist() == frames[1][name].tolist()
    frames = [grid.get_dataframe("score", "max").query("score == score") for grid in (theirs, ours)]
    assert frames[0]["score"].head(3).tolist() == frames[1]["score"].head(3).tolist()


def drawn(config: dict[str, Any]) -> dict[str, Any]:
    return {"loss": config["a"] ** 2 + config["nested"]["b"], "twice": config["nested"]["twice"]}


def test_samples_of_a_grid_with_dependent_values(both: Both) -> None:
    space = {
        "a": tune.uniform(-1, 1),
        "g": tune.grid_search(["p", "q"]),
        "nested": {"b": tune.grid_search([1, 2]), "twice": tune.sample_from(lambda spec: spec.config.a * 2)},
    }
    found = both(drawn, space, make=lambda: {"metric": "loss", "mode": "min", "num_samples": 2})
    points = [[(result.config["g"], result.config["nested"]["b"]) for result in grid] for grid in found]
    assert points[0] == points[1]
    for grid in found:
        assert len({result.config["a"] for result in grid}) == len(grid) == 8
        assert all(result.metrics["twice"] == 2 * result.config["a"] for result in grid)
        best = grid.get_best_result()
        assert best.metrics["loss"] == min(result.metrics["loss"] for result in grid)
        assert best.config["nested"]["b"] == 1


class Momentum(tune.Trainable):  # type: ignore[misc]
    """Gradient descent with momentum, one step a step."""

    def setup(self, config: dict[str, Any], target: float = 0.0) -> None:
        self.x, self.speed, self.target = 10.0, 0.0, target
        self.rate, self.momentum = config["rate"], config["momentum"]

    def step(self) -> dict[str, Any]:
        self.speed = self.momentum * self.speed - self.rate * 2 * (self.x - self.target)
        self.x += self.speed
        return {"distance": abs(self.x - self.target), "done": abs(self.x - self.target) < 0.05}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "state.json").write_text(json.dumps([self.x, self.speed]))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.x, self.speed = json.loads(Path(checkpoint_dir, "state.json").read_text())


def test_a_class_with_stop_conditions_and_checkpoints(both: Both) -> None:
    theirs, ours = both(
        tune.with_parameters(Momentum, target=3.0),
        {"rate": tune.grid_search([0.01, 0.1, 0.4]), "momentum": 0.5},
        make=lambda: {"metric": "distance", "mode": "min"},
        stop={"training_iteration": 12},
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=5, checkpoint_at_end=True),
    )
    same_histories(theirs, ours, ["distance"])
    one, other = theirs.get_best_result(), ours.get_best_result()
    assert one.config == other.config
    states = []
    for result in (one, other):
        with result.checkpoint.as_directory() as folder:
            states.append(json.loads(Path(folder, "state.json").read_text()))
    assert states[0] == states[1]


class FailsOnce:
    """Makes a function that fails at its fifth report, once, and goes on from its checkpoint."""

    needs_place = True

    def __call__(self, place: Path) -> Callable[[dict[str, Any]], None]:
        def train(config: dict[str, Any]) -> None:
            weights, first = np.zeros(2), 0
            checkpoint = tune.get_checkpoint()
            if checkpoint:
                with checkpoint.as_directory() as folder:
                    held = json.loads(Path(folder, "weights.json").read_text())
                weights, first = np.array(held["weights"]), held["epoch"] + 1
            for epoch in range(first, 8):
                weights = weights + config["lr"] * (np.array([1.0, -2.0]) - weights)
                with tempfile.TemporaryDirectory() as folder:
                    Path(folder, "weights.json").write_text(json.dumps({"weights": weights.tolist(), "epoch": epoch}))
                    loss = float(((weights - [1.0, -2.0]) ** 2).sum())
                    tune.report({"loss": loss, "epoch": epoch}, checkpoint=tune.Checkpoint.from_directory(folder))
                marker = place.parent / f"failed-{place.name}-{config['lr']}"
                if epoch == 4 and not marker.exists():
                    marker.touch()
                    raise OSError("the machine is gone")

        return train


def test_checkpoints_carry_a_function_over_a_failure(both: Both) -> None:
    theirs, ours = both(
        FailsOnce(),
        {"lr": tune.grid_search([0.1, 0.5])},
        make=lambda: {"metric": "loss", "mode": "min"},
        failure_config=tune.FailureConfig(max_failures=1),
    )
    same_histories(theirs, ours, ["loss", "epoch"])
    states = []
    for grid in (theirs, ours):
        best = grid.get_best_result()
        assert best.config == {"lr": 0.5}
        states.append(json.loads(Path(best.checkpoint.to_directory(), "weights.json").read_text()))
    assert states[0] == states[1]


def learning_curve(config: dict[str, Any]) -> None:
    for epoch in range(1, 28):
        tune.report({"accuracy": config["width"] / 20 * (1 - 0.9**epoch), "epoch": epoch})


def test_asha_keeps_the_same_best(both: Both) -> None:
    found = both(
        learning_curve,
        {"width": tune.grid_search(list(range(12, 0, -1)))},
        make=lambda: {
            "metric": "accuracy",
            "mode": "max",
            "max_concurrent_trials": 2,
            "scheduler": ASHAScheduler(time_attr="epoch", max_t=9, grace_period=1, reduction_factor=3),
        },
    )
    for grid in found:
        best = grid.get_best_result()
        assert best.config == {"width": 12}
        assert best.metrics["epoch"] == 9
        assert best.metrics["accuracy"] == pytest.approx(0.6 * (1 - 0.9**9))
        assert grid.num_terminated == 12
        ended = [result.metrics["epoch"] for result in grid]
        assert set(ended) <= {1, 3, 9}  # what is stopped, is stopped at a rung
        assert sum(ended) < 12 * 9 / 2


def test_optuna_search_asks_for_the_same(both: Both) -> None:
    theirs, ours = both(
        drawn_by_optuna,
        {"x": tune.uniform(-5, 5), "rate": tune.loguniform(1e-4, 1), "kind": tune.choice(["a", "b", "c"]), "fixed": 1},
        make=lambda: {
            "metric": "loss",
            "mode": "min",
            "num_samples": 8,
            "search_alg": OptunaSearch(sampler=optuna.samplers.TPESampler(seed=7, n_startup_trials=4)),
        },
    )
    same_histories(theirs, ours, ["loss"])
    assert theirs.get_best_result().config == ours.get_best_result().config


def drawn_by_optuna(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": config["x"] ** 2 + abs(np.log10(config["rate"]) + 2) + "abc".index(config["kind"])}


def train_torch(config: dict[str, Any], data: tuple[Any, Any]) -> None:
    import torch

    torch.manual_seed(config["seed"])
    torch.set_num_threads(1)
    x, y = (torch.as_tensor(part) for part in data)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, config["hidden"]), torch.nn.Tanh(), torch.nn.Linear(config["hidden"], 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x).squeeze(-1), y)
        loss.backward()
        optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pt"))
            tune.report({"loss": loss.item()}, checkpoint=tune.Checkpoint.from_directory(folder))


def test_pytorch(both: Both) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5], np.float32)) ** 2
    theirs, ours = both(
        tune.with_resources(tune.with_parameters(train_torch, data=(x, y)), {"cpu": 1}),
        {"lr": tune.grid_search([0.001, 0.05]), "hidden": 4, "seed": 1},
        make=lambda: {"metric": "loss", "mode": "min"},
    )
    same_histories(theirs, ours, ["loss"])
    weights = [
        torch.load(Path(grid.get_best_result().checkpoint.to_directory(), "model.pt")) for grid in (theirs, ours)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def cross_validated(config: dict[str, Any], x: Any, y: Any) -> None:
    """Ridge regression on folds, a report a fold, as with scikit-learn's `partial_fit` and `cross_val_score`."""
    scores = []
    for fold in range(config["folds"]):
        test = np.arange(len(y)) % config["folds"] == fold
        a = x[~test].T @ x[~test] + config["alpha"] * np.eye(x.shape[1])
        error = x[test] @ np.linalg.solve(a, x[~test].T @ y[~test]) - y[test]
        scores.append(float((error**2).mean()))
        tune.report({"mse": float(np.mean(scores)), "fold": fold})


def test_a_model_on_folds(both: Both) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 6))
    y = x @ rng.normal(size=6) + rng.normal(size=120)
    theirs, ours = both(
        tune.with_parameters(cross_validated, x=x, y=y),
        {"alpha": tune.grid_search([1e-3, 1.0, 100.0]), "folds": 4},
        make=lambda: {"metric": "mse", "mode": "min"},
    )
    same_histories(theirs, ours, ["mse", "fold"])
    assert theirs.get_best_result().config == ours.get_best_result().config
