"""Fused trials are what each would be alone, and say what they can't do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import umbel
from tests.runtime.small_networks import ACTIVATIONS, TOLERANCE, assert_same, configs, data, dropping, net
from tests.runtime.torch_alone import train_alone
from umbel.runtime.torch.fit import LOSSES
from umbel.torch import fit_many


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    optimizer = draw(st.sampled_from(["sgd", "adam", "adamw"]))
    widths = draw(st.lists(st.integers(1, 9), min_size=0, max_size=3))
    norm = draw(st.sampled_from([None, "layer", "batch"]))
    rows = draw(st.integers(4, 20))

    def config() -> dict[str, Any]:
        found: dict[str, Any] = {"seed": draw(st.integers(0, 2**63)), "lr": draw(st.floats(1e-4, 3e-2))}
        if draw(st.booleans()):
            found["weight_decay"] = draw(st.sampled_from([0.0, 1e-3, 0.1]))
        if optimizer == "sgd":
            found["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        elif draw(st.booleans()):
            found["betas"] = (draw(st.floats(0, 0.95)), draw(st.floats(0.5, 0.999)))
        return found

    return {
        "optimizer": optimizer,
        "widths": widths,
        "activation": draw(st.sampled_from(sorted(ACTIVATIONS))),
        "norm": norm,
        "bias": draw(st.booleans()),
        "rows": rows,
        "outputs": draw(st.integers(1, 2)),
        # a minibatch of one row has no variance
        "batch_size": draw(st.one_of(st.none(), st.integers(2, 12).filter(lambda b: norm != "batch" or rows % b != 1))),
        "loss": draw(st.sampled_from(["mse", "huber"])),
        "configs": [config() for _ in range(draw(st.integers(1, 4)))],
        "steps": draw(st.integers(0, 25)),
    }


@settings(max_examples=40)
@given(problems())
def test_each_trial_is_what_it_would_be_alone(problem: dict[str, Any]) -> None:
    def make(config: dict[str, Any]) -> nn.Module:
        layers: list[nn.Module] = []
        before = 3
        for width in problem["widths"]:
            layers.append(nn.Linear(before, width, bias=problem["bias"]))
            if problem["norm"] is not None and width > 1:
                layers.append(nn.LayerNorm(width) if problem["norm"] == "layer" else nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[problem["activation"]]())
            before = width
        return nn.Sequential(*layers, nn.Linear(before, problem["outputs"]))

    given_data = data(problem["rows"], outputs=problem["outputs"])
    loss = LOSSES[problem["loss"]]
    settings_of_both: dict[str, Any] = {"batch_size": problem["batch_size"]}
    fitted = fit_many(
        make,
        given_data,
        problem["configs"],
        problem["loss"],
        problem["optimizer"],
        problem["steps"],
        dtype="float64",
        **settings_of_both,
    )
    for trial, config in enumerate(problem["configs"]):
        alone = train_alone(make, given_data, config, loss, problem["optimizer"], problem["steps"], **settings_of_both)
        assert_same(fitted, trial, alone)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_in_float32_losses_agree_too(optimizer: str) -> None:
    given_data, trials = data(30), configs(5, weight_decay=0.01)
    fitted = fit_many(net, given_data, trials, "mse", optimizer, 100)
    assert fitted.loss.dtype == np.float32
    for trial, config in enumerate(trials):
        alone = train_alone(net, given_data, config, F.mse_loss, optimizer, 100, dtype=torch.float32)
        np.testing.assert_allclose(fitted.loss[trial], alone.loss, rtol=1e-4)


def test_bfloat16_is_near() -> None:
    given_data, trials = data(30), configs(3)
    exact = fit_many(net, given_data, trials, "mse", steps=50)
    coarse = fit_many(net, given_data, trials, "mse", steps=50, dtype=torch.bfloat16)
    assert coarse.loss.dtype == np.float32
    np.testing.assert_allclose(coarse.loss, exact.loss, rtol=0.05)
    assert coarse.state_dict(0)["0.weight"].dtype == torch.float32
    assert coarse.predict(given_data[0]).dtype == np.float32


# ---- early stopping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_trials_stop_when_they_would_alone(held: bool, batch_size: int | None) -> None:
    given_data = data(20)
    trials = [{"lr": lr, "seed": i, "momentum": 0.9} for i, lr in enumerate(np.geomspace(0.01, 0.8, 12).tolist())]
    options: dict[str, Any] = {"patience": 2, "check_every": 2, "batch_size": batch_size}
    options["validation"] = data(15, seed=5) if held else None
    fitted = fit_many(net, given_data, trials, "mse", "sgd", 60, dtype="float64", **options)
    assert len(set(fitted.steps)) > 3  # some early, so that the batch was made smaller more than once
    for trial, config in enumerate(trials):
        alone = train_alone(net, given_data, config, F.mse_loss, "sgd", 60, **options)
        assert_same(fitted, trial, alone)
        if held:
            assert fitted.validation is not None
            assert fitted.validation_loss is not None
            checks = len(alone.validation)
            np.testing.assert_allclose(fitted.validation[:checks, trial], alone.validation, rtol=TOLERANCE)
            assert np.isnan(fitted.validation[checks:, trial]).all()
            np.testing.assert_allclose(fitted.validation_loss[trial], alone.validation[-1], rtol=TOLERANCE)


def test_stop_ends_the_trials_that_it_names() -> None:
    seen: list[tuple[int, list[int]]] = []

    def halve(step: int, trials: np.ndarray, losses: np.ndarray) -> np.ndarray:
        seen.append((step, trials.tolist()))
        slower: np.ndarray = losses > np.median(losses)
        return slower

    given_data, trials = data(20), configs(8)
    fitted = fit_many(net, given_data, trials, "mse", steps=40, stop=halve, check_every=10, dtype="float64")
    assert [(step, len(left)) for step, left in seen] == [(10, 8), (20, 4), (30, 2), (40, 1)]
    assert sorted(fitted.steps) == [10, 10, 10, 10, 20, 20, 30, 40]
    for trial, config in enumerate(trials):
        assert_same(fitted, trial, train_alone(net, given_data, config, F.mse_loss, "adam", int(fitted.steps[trial])))


def test_all_may_stop() -> None:
    fitted = fit_many(net, data(9), configs(3), "mse", steps=50, stop=lambda step, trials, losses: losses == losses)
    assert fitted.steps.tolist() == [1, 1, 1]
    assert fitted.history.shape == (1, 3)


# ---- what comes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_padding_of_an_embedding_is_not_trained(batch_size: int | None, grouped: bool) -> None:
    def make(config: dict[str, Any]) -> nn.Module:
        return nn.Sequential(nn.Embedding(5, 2, padding_idx=1), nn.Flatten(), nn.Linear(6, 1))

    rng = np.random.default_rng(4)
    words, target = rng.integers(0, 5, size=(9, 3)), rng.normal(size=(9, 1))
    rates = [{"lr": 0.1, "seed": seed} for seed in range(3)]
    given: Any = [(words, target)] * 3 if grouped else (words, target)
    fitted = fit_many(make, given, rates, "mse", "sgd", steps=6, batch_size=batch_size, dtype="float64")
    for trial, config in enumerate(rates):
        torch.manual_seed(config["seed"])
        module = make(config).double()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        order = torch.Generator().manual_seed(config["seed"])
        left: list[torch.Tensor] = []
        for _ in range(6):
            left = left or list(torch.randperm(9, generator=order).split(batch_size or 9))
            rows = left.pop(0)
            optimizer.zero_grad()
            nn.functional.mse_loss(module(torch.as_tensor(words)[rows]), torch.as_tensor(target)[rows]).backward()
            optimizer.step()
        own = fitted.state_dict(trial)
        assert not own["0.weight"][1].any()
        for name, values in module.state_dict().items():
            torch.testing.assert_close(own[name], values, rtol=1e-6, atol=1e-9)


def test_state_dicts_load_and_predictions_are_the_modules() -> None:
    given_data = data(10)
    fitted = fit_many(net, tuple(part.numpy() for part in given_data), configs(3), nn.MSELoss(), steps=5)
    assert len(fitted) == 3
    x = given_data[0].float()
    for trial in range(3):
        loaded = net({})
        loaded.load_state_dict(fitted.state_dict(trial))
        np.testing.assert_allclose(fitted.predict(x)[trial], loaded(x).detach(), rtol=1e-5, atol=1e-6)
        assert F.mse_loss(fitted.module(trial)(x), given_data[1].float()).item() == pytest.approx(fitted.loss[trial])
    with pytest.raises(umbel.NotFoundError, match="no such trial"):
        fitted.state_dict(3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_tied_frozen_and_unused_parameters(optimizer: str) -> None:
    class Odd(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 1)
            self.again = self.first
            self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
            self.unused = nn.Parameter(torch.randn(2))
            self.register_buffer("shift", torch.randn(3))

        def forward(self, x: torch.Tensor) -> Any:
            return self.last(self.again(torch.tanh(self.first(x) + self.shift)) * self.frozen)

    given_data, trials = data(10), configs(3, weight_decay=0.1)
    fitted = fit_many(lambda config: Odd(), given_data, trials, "mse", optimizer, 10, patience=9, dtype="float64")
    for trial, config in enumerate(trials):
        assert_same(fitted, trial, train_alone(lambda c: Odd(), given_data, config, F.mse_loss, optimizer, 10))
    assert fitted.predict(given_data[0]).shape == (3, 10, 1)
    assert fitted.module(1).unused.tolist() == fitted.state_dict(1)["unused"].tolist()


def test_a_trial_that_diverges_takes_none_with_it() -> None:
    given_data, calm = data(20), configs(4)
    wild = [*calm[:2], {"lr": 1e30, "seed": 1}, *calm[2:]]
    alone = fit_many(net, given_data, calm, "mse", "sgd", 30)
    beside = fit_many(net, given_data, wild, "mse", "sgd", 30)
    assert np.isnan(beside.loss[2])
    np.testing.assert_allclose(np.delete(beside.loss, 2), alone.loss, rtol=1e-5)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit_many(net, data(5), configs(2), "mse", steps=2, batch_size=2).module(0)
    assert torch.equal(torch.rand(4), expected)


def test_no_result_depends_on_who_is_beside_it() -> None:
    given_data, trials = data(20), configs(4)
    together = fit_many(net, given_data, trials, "mse", steps=30, batch_size=6)
    for trial, config in enumerate(trials):
        single = fit_many(net, given_data, [config], "mse", steps=30, batch_size=6)
        np.testing.assert_allclose(single.loss[0], together.loss[trial], rtol=1e-4)


# ---- elsewhere -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch_size", [None, 7])
def test_cuda_gives_what_the_cpu_gives(batch_size: int | None) -> None:
    trials = [{"seed": i, "dropout": 0.2 * (i % 2), "lr": 0.01} for i in range(6)]
    options: dict[str, Any] = {"steps": 30, "batch_size": batch_size, "dtype": "float64", "patience": 5}
    there = fit_many(dropping, data(20), trials, "mse", device="cuda", **options)
    here = fit_many(dropping, data(20), trials, "mse", device="cpu", **options)
    assert there.steps.tolist() == here.steps.tolist()
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-6)
    assert there.state_dict(0)["0.weight"].device.type == "cpu"


@pytest.mark.ray  # runs a compiler
def test_compiled_training_is_the_same() -> None:
    trials = [{"seed": i, "dropout": 0.3 * (i % 2), "lr": 0.01, "weight_decay": 0.01} for i in range(6)]

    def slow_half(step: int, left: np.ndarray, losses: np.ndarray) -> np.ndarray:
        even: np.ndarray = left % 2 == 0
        return even

    options: dict[str, Any] = {"steps": 12, "dtype": "float64", "stop": slow_half, "check_every": 5}
    plain = fit_many(dropping, data(20), trials, "mse", "adamw", **options)
    compiled = fit_many(dropping, data(20), trials, "mse", "adamw", compile=True, **options)
    assert compiled.steps.tolist() == plain.steps.tolist() == [5, 12] * 3
    np.testing.assert_allclose(compiled.loss, plain.loss, rtol=TOLERANCE)


def test_importing_it_loads_no_torch_and_its_absence_is_told() -> None:
    code = (
        "import sys, umbel, umbel.torch\n"
        "assert 'torch' not in sys.modules\n"
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "umbel.torch.find_spec = lambda name: None if name == 'torch' else found(name)\n"
        "try:\n    umbel.torch.fit_many\n"
        "except umbel.UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'umbel[torch]'" in done.stdout
