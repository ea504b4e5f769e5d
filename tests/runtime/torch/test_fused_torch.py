"""`umbel.torch.fit_many` within sweeps: trials as they would be alone, pruned by the sweep; mistakes told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray import tune

import umbel
import umbel.torch
from tests.runtime.small_graphs import run

SPACE = {"lr": tune.loguniform(1e-3, 1e-1), "hidden": [2, 4]}


def make_net(config: dict[str, Any]) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(3, config["hidden"]), nn.Tanh(), nn.Linear(config["hidden"], 1))


def some_data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    made = np.random.default_rng(rows)
    inputs = made.normal(size=(rows, 3))
    return inputs, np.sin(inputs.sum(1, keepdims=True))


def a_sweep(fn: Any, **changed: Any) -> umbel.Sweep:
    given: dict[str, Any] = {
        "space": SPACE,
        "over": {"g": ["a", "b"]},
        "data": [some_data(10), some_data(14)],
        "trials": 12,
        "metric": "loss",
        "name": "search",
    }
    return umbel.sweep(fn, **{**given, **changed})


@pytest.mark.parametrize("fuse_groups", [False, True])
def test_each_trial_is_what_it_would_be_alone(fuse_groups: bool, tmp_path: Path) -> None:
    @umbel.fused(by="hidden", fuse_groups=fuse_groups)
    def train(configs: Any, data: Any) -> umbel.Result:
        groups = configs.group if fuse_groups else None
        fitted = umbel.torch.fit_many(
            make_net, data, configs, "mse", steps=20, groups=groups, dtype="float64", device="cpu"
        )
        return umbel.Result({"loss": fitted.loss}, model=fitted.state_dict)

    found = run(a_sweep(train, keep="all"), tmp_path)
    for row in found.trials().to_pylist():
        config = {"lr": row["config_lr"], "hidden": row["config_hidden"]}
        alone = umbel.torch.fit_many(
            make_net,
            some_data(10 if row["g"] == "a" else 14),
            [{**config, "seed": row["seed"]}],
            "mse",
            steps=20,
            dtype="float64",
            device="cpu",
        )
        assert row["metric_loss"] == pytest.approx(float(alone.loss[0]), rel=1e-9)
        weights: Any = found.load_model(row["model"])
        for name, value in alone.state_dict(0).items():
            assert torch.allclose(weights[name], value, atol=1e-9)


def test_the_sweep_prunes_what_is_reported(tmp_path: Path) -> None:
    @umbel.fused(by="hidden", fuse_groups=True)
    def train(configs: Any, data: Any) -> dict[str, Any]:
        fitted = umbel.torch.fit_many(
            make_net,
            data,
            configs,
            "mse",
            steps=27,
            groups=configs.group,
            report="loss",
            check_every=3,
            device="cpu",
        )
        return {"loss": fitted.loss, "steps": fitted.steps}

    prune = umbel.Asha(reduction_factor=3, min_resource=3, max_resource=27)
    rows = run(a_sweep(train, prune=prune), tmp_path).trials().to_pylist()
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    assert {row["steps"] for row in rows} == {3, 9, 27}
    assert all((row["status"] == "ok") == (row["steps"] == 27) == (row["metric_steps"] == 27) for row in rows)


def test_patience_and_stop_go_along_with_it(tmp_path: Path) -> None:
    @umbel.fused(by="hidden")
    def train(configs: Any, data: Any) -> dict[str, Any]:
        def stop(taken: int, trials: np.ndarray, losses: np.ndarray) -> np.ndarray:
            return np.asarray(trials % 2 == 0)

        fitted = umbel.torch.fit_many(
            make_net, data, configs, "mse", steps=9, report="loss", stop=stop, patience=2, min_delta=10, device="cpu"
        )
        assert fitted.steps.tolist() == [1 if place % 2 == 0 else 3 for place in range(len(configs))]
        return {"loss": fitted.loss}

    rows = run(a_sweep(train), tmp_path).trials().to_pylist()
    assert {row["status"] for row in rows} == {"ok"}  # what has ended by itself is not pruned
    assert {row["steps"] for row in rows} == {1, 2}  # reports come after patience


def test_a_config_that_changes_shapes_and_is_not_in_by(tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    @umbel.fused
    def train(configs: Any, data: Any) -> dict[str, Any]:
        with calls.open("a") as file:
            file.write("x")
        return {"loss": umbel.torch.fit_many(make_net, data, configs, "mse", steps=2, device="cpu").loss}

    found = run(a_sweep(train), tmp_path / "store")
    assert calls.read_text() == "xx"  # once a group, not once a trial
    error = found.failures().to_pylist()[0]["error"]
    assert "config key 'hidden' changes the shapes of the module" in error
    assert "@umbel.fused(by=('hidden',))" in error
    assert found.failures().num_rows == 24


def test_one_trial_s_mistake_is_one_trial_s(tmp_path: Path) -> None:
    @umbel.fused(by="hidden")
    def train(configs: Any, data: Any) -> dict[str, Any]:
        given = {**dict(configs.items()), "lr": np.where(configs.trials == 5, -1.0, configs["lr"])}
        return {"loss": umbel.torch.fit_many(make_net, data, given, "mse", steps=2, device="cpu").loss}

    rows = run(a_sweep(train), tmp_path).trials().to_pylist()
    assert [row["trial"] for row in rows if row["status"] == "failed"] == [5]
    assert "lr of trial 0 is out of range" in rows[5]["error"]


def test_reports_of_other_trials_than_the_batch_s(tmp_path: Path) -> None:
    @umbel.fused(by="hidden")
    def train(configs: Any, data: Any) -> Any:
        return umbel.torch.fit_many(make_net, data, configs.rows()[:2], "mse", steps=2, report="loss").loss

    rows = run(a_sweep(train), tmp_path).trials().to_pylist()
    assert "it was given other trials" in rows[0]["error"]

    def alone(config: Any, data: Any) -> Any:
        return umbel.torch.fit_many(make_net, data, [config], "mse", steps=2, report="loss").loss[0]

    rows = run(a_sweep(alone), tmp_path, name="alone").trials().to_pylist()
    assert "only from a fused function" in rows[0]["error"]
    by_hand = umbel.torch.fit_many(make_net, some_data(9), [{"hidden": 2}], "mse", steps=2, report="loss", device="cpu")
    assert by_hand.steps.tolist() == [2]


def test_a_replay_says_how_far_it_is(tmp_path: Path) -> None:
    @umbel.fused(by="hidden")
    def train(configs: Any, data: Any) -> Any:
        return umbel.torch.fit_many(make_net, data, configs, "mse", steps=20, device="cpu").loss

    found = run(a_sweep(train), tmp_path)
    again = umbel.replay(found, 7)
    assert again.largest_difference < 1e-5
    assert again.same == (again.largest_difference == 0)
    assert again.same or "batches of other sizes round otherwise" in again.text()
