"""Fused trials are what each would be alone, and say what they can't do."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import umbel
from tests.runtime.torch_alone import Alone, train_alone
from umbel.runtime.torch.fit import LOSSES
from umbel.torch import fit_many

#: What the docstring of fit_many promises in float64; relative to the size of what is compared.
TOLERANCE = 1e-6

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}


def data(rows: int, inputs: int = 3, outputs: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=made, dtype=torch.float64)
    return x, torch.sin(x.sum(1, keepdim=True)).expand(rows, outputs) + 0.1 * torch.randn(
        rows, outputs, generator=made, dtype=torch.float64
    )


def net(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


def configs(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"lr": 0.002 * (i + 1), "seed": 10 + i, **more} for i in range(count)]


def assert_same(fitted: Any, trial: int, alone: Alone, tolerance: float = TOLERANCE) -> None:
    assert fitted.steps[trial] == alone.steps
    np.testing.assert_allclose(fitted.history[: alone.steps, trial], alone.history, rtol=tolerance, atol=tolerance)
    assert np.isnan(fitted.history[alone.steps :, trial]).all()
    np.testing.assert_allclose(fitted.loss[trial], alone.loss, rtol=tolerance, atol=tolerance)
    own, its = fitted.state_dict(trial), alone.module.state_dict()
    assert list(own) == list(its)
    for name, values in its.items():
        assert own[name].shape == values.shape
        torch.testing.assert_close(own[name], values, rtol=tolerance, atol=tolerance)


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


# ---- data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4])
def test_groups_of_unequal_length_are_what_each_is_alone(batch_size: int | None) -> None:
    sets = [data(rows, seed=rows) for rows in (11, 5, 8)]
    trials, groups = configs(6), [0, 1, 2, 2, 1, 0]
    fitted = fit_many(net, sets, trials, "mse", steps=20, groups=groups, batch_size=batch_size, dtype="float64")
    for trial, config in enumerate(trials):
        own = sets[groups[trial]]
        assert_same(fitted, trial, train_alone(net, own, config, F.mse_loss, "adam", 20, batch_size=batch_size))
    later = torch.stack([data(4, seed=50 + group)[0] for group in range(3)])
    predicted = fitted.predict(later, groups=True)
    for trial in range(6):
        expected = fitted.module(trial)(later[groups[trial]]).detach().numpy()
        np.testing.assert_allclose(predicted[trial], expected, rtol=1e-9)


def test_stacked_groups_and_columns_and_early_stopping() -> None:
    x, y = (torch.stack(parts) for parts in zip(*(data(9, seed=s) for s in range(4)), strict=True))
    columns = {"lr": np.geomspace(1e-3, 0.3, 4), "seed": np.arange(4), "momentum": 0.9}
    fitted = fit_many(net, (x, y), columns, "mse", "sgd", 60, groups=np.arange(4), patience=2, dtype="float64")
    for trial in range(4):
        config = {"lr": float(columns["lr"][trial]), "seed": trial, "momentum": 0.9}  # type: ignore[index]
        assert_same(fitted, trial, train_alone(net, (x[trial], y[trial]), config, F.mse_loss, "sgd", 60, patience=2))


def test_rows_of_weight_zero_are_as_if_absent_even_if_they_are_nan() -> None:
    x, y = data(12)
    weights = np.ones(12)
    weights[[2, 7]] = 0
    absent = torch.from_numpy(weights > 0)
    spoilt = torch.where(absent[:, None], x, torch.nan)
    for batch_size in (None, 4):
        both: dict[str, Any] = {"batch_size": batch_size, "dtype": "float64"}
        fitted = fit_many(net, (spoilt, y), configs(3), "mse", steps=15, weights=weights, **both)
        without = fit_many(net, (x[absent], y[absent]), configs(3), "mse", steps=15, **both)
        np.testing.assert_allclose(fitted.history, without.history, rtol=1e-9)
        np.testing.assert_allclose(fitted.loss, without.loss, rtol=1e-9)


def test_whole_numbers_stay_whole_and_several_inputs_are_passed() -> None:
    class Two(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.names, self.linear = nn.Embedding(5, 3), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor, name: torch.Tensor) -> Any:
            return self.linear(torch.cat([x, self.names(name)], dim=1))

    x, _ = data(10)
    name, kind = torch.arange(10) % 5, torch.arange(10) % 3
    fitted = fit_many(lambda config: Two(), (x, name, kind), configs(2), "cross_entropy", steps=10, dtype="float64")
    for trial, config in enumerate(configs(2)):
        assert_same(fitted, trial, train_alone(lambda c: Two(), (x, name, kind), config, F.cross_entropy, "adam", 10))
    assert fitted.predict(x, name).shape == (2, 10, 3)


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


def percentage(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Not finite where the target is zero."""
    return ((output - target) / target).abs().mean()


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_loss_that_is_not_finite_at_zero_takes_groups_of_unequal_length(batch_size: int | None) -> None:
    sets = [(x, y.abs() + 1) for x, y in (data(rows, seed=rows) for rows in (7, 3, 5))]
    trials = configs(3)
    both: dict[str, Any] = {"batch_size": batch_size}
    fitted = fit_many(net, sets, trials, percentage, steps=10, validation=sets, dtype="float64", **both)
    for trial, config in enumerate(trials):
        assert_same(fitted, trial, train_alone(net, sets[trial], config, percentage, "adam", 10, **both))
    np.testing.assert_array_equal(fitted.validation_loss, fitted.loss)


def test_rows_of_weight_zero_may_have_a_target_at_which_the_loss_is_not_finite() -> None:
    x, y = data(8)
    weights = np.ones(8)
    weights[[0, 5]] = 0
    y = torch.where(torch.from_numpy(weights > 0)[:, None], y.abs() + 1, 0)
    fitted = fit_many(net, (x, y), configs(2), percentage, steps=10, weights=weights, dtype="float64")
    own = x[weights > 0], y[weights > 0]
    for trial, config in enumerate(configs(2)):
        assert_same(fitted, trial, train_alone(net, own, config, percentage, "adam", 10))


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


# ---- dropout ---------------------------------------------------------------------------------------------------


def dropping(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 16), nn.Tanh(), nn.Dropout(config["dropout"]), nn.Linear(16, 1), nn.Dropout(config["dropout"] / 2)
    )


def test_dropout_without_a_rate_changes_nothing() -> None:
    given_data, trials = data(10), configs(3, dropout=0.0)
    fitted = fit_many(dropping, given_data, trials, "mse", steps=10, dtype="float64")
    for trial, config in enumerate(trials):
        assert_same(fitted, trial, train_alone(dropping, given_data, config, F.mse_loss, "adam", 10))


def test_a_trials_dropout_does_not_depend_on_who_is_beside_it() -> None:
    given_data = data(10)
    trials = [{"seed": 4, "dropout": 0.0}, {"seed": 5, "dropout": 0.3}, {"seed": 6, "dropout": 0.6}]
    together = fit_many(dropping, given_data, trials, "mse", steps=20, dtype="float64")
    for trial, config in enumerate(trials):
        single = fit_many(dropping, given_data, [config], "mse", steps=20, dtype="float64")
        np.testing.assert_allclose(single.history[:, 0], together.history[:, trial], rtol=1e-9)
    assert len(set(together.history[0])) == 3


class Gate(nn.Module):  # type: ignore[misc]
    """Lets ones through dropout twice, so that the loss is the mean of what was kept."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.scale, self.drop = nn.Parameter(torch.ones(())), nn.Dropout(rate)

    def forward(self, x: torch.Tensor) -> Any:
        return self.scale * self.drop(x)


def test_units_are_dropped_at_each_trials_rate_and_independently() -> None:
    ones, steps, rates = torch.ones(50, 20), 40, [0.1, 0.5, 0.5, 0.9, 1.0]
    trials = [{"lr": 0.0, "seed": i, "dropout": rate} for i, rate in enumerate(rates)]
    kept: list[np.ndarray] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> Any:
        return output.mean()

    found = fit_many(lambda c: Gate(c["dropout"]), (ones, ones), trials, loss, "sgd", steps)
    units = steps * 1000
    for trial, rate in enumerate(rates):
        kept.append(found.history[:, trial])
        if rate == 1:
            assert (kept[-1] == 0).all()
            continue
        spread = np.sqrt(rate / (1 - rate) / units)
        assert abs(kept[-1].mean() - 1) < 4 * spread  # what is kept is scaled up: the mean stays
        per_step = np.sqrt(rate / (1 - rate) / 1000)
        assert kept[-1].std() == pytest.approx(per_step, rel=0.5)  # neither the same units each step, nor fewer
    assert abs(np.corrcoef(kept[1], kept[2])[0, 1]) < 0.6  # seeds differ
    assert (found.loss == 1).all()  # evaluated without dropout


def test_training_with_dropout_is_in_distribution_what_it_is_alone() -> None:
    given_data = data(16)
    trials = [{"lr": 0.02, "seed": i, "dropout": 0.4} for i in range(150)]
    fitted = fit_many(dropping, given_data, trials, "mse", steps=30)
    alone = np.array(
        [train_alone(dropping, given_data, c, F.mse_loss, "adam", 30, dtype=torch.float32).loss for c in trials]
    )
    # the starts are the same, so the pairs' differences tell
    differences = fitted.loss - alone
    assert abs(differences.mean()) < 4 * differences.std() / np.sqrt(len(trials))
    assert np.std(fitted.loss) == pytest.approx(np.std(alone), rel=0.4)


# ---- what is refused -------------------------------------------------------------------------------------------


class Branching(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.linear(x)
        return y if y.sum() > 0 else -y


class Noisy(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(F.dropout(x, 0.5))


class Recurrent(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(3, 2)


class Scaled(nn.Module):  # type: ignore[misc]
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.linear, self.lr = config, nn.Linear(3, 1), config["lr"]

    def forward(self, x: torch.Tensor) -> Any:
        return self.config.get("scale", 1.0) * self.linear(x)


def test_a_config_kept_by_the_module_may_differ_in_what_training_takes() -> None:
    fitted = fit_many(Scaled, data(5), configs(3), "mse", steps=2)
    assert np.isfinite(fitted.loss).all()


class OwnNorm(nn.Module):  # type: ignore[misc]
    """Its forward pass reads what it keeps, by way of another method."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.linear, self.eps, self.config = nn.Linear(3, 1), config.get("eps", 0.0), config

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x / (self.eps + self.config.get("momentum", 1.0))

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(self.scaled(x))


class Applied(nn.Module):  # type: ignore[misc]
    """Applies a function that it was given."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(3, 1), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(self.function(x))


def closed(config: dict[str, Any]) -> nn.Module:
    eps = config["eps"]
    return Applied(lambda x: x + eps)


def attending(config: dict[str, Any]) -> nn.Module:
    return nn.TransformerEncoderLayer(3, 1, 4, dropout=config["dropout"])


#: By the key that a layer reads though an optimizer's setting has its name, or a trial's seed: what makes the layer.
READ_BY_LAYERS: dict[str, tuple[str, Callable[[dict[str, Any]], nn.Module], tuple[Any, Any]]] = {
    "batch norm": ("momentum", lambda c: nn.Sequential(net(c), nn.BatchNorm1d(1, momentum=c["momentum"])), (0.1, 0.5)),
    "layer norm": ("eps", lambda c: nn.Sequential(nn.LayerNorm(3, eps=c["eps"]), net(c)), (1e-8, 0.1)),
    "attention": ("dropout", attending, (0.0, 0.5)),
    "own eps": ("eps", OwnNorm, (0.0, 0.5)),
    "own config": ("momentum", OwnNorm, (0.5, 0.9)),
    "closure": ("eps", closed, (0.0, 0.5)),
    "partial": ("eps", lambda c: Applied(functools.partial(F.layer_norm, normalized_shape=(3,), eps=c["eps"])), (0, 1)),
}


@pytest.mark.parametrize("name", READ_BY_LAYERS)
def test_what_layers_read_may_not_differ_whatever_its_name(name: str) -> None:
    key, make, values = READ_BY_LAYERS[name]
    trials = [{"lr": 0.1 * (i + 1), "seed": i, key: value} for i, value in enumerate(values)]
    with pytest.raises(umbel.UsageError, match=f"config key '{key}' changes what the module does"):
        fit_many(make, data(6), trials, "mse", "sgd", steps=2)


def hidden(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(3, config.get("hidden", 4)), nn.Tanh(), nn.Linear(config.get("hidden", 4), 1))


def activated(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 1), ACTIVATIONS[config["activation"]]())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "shapes": (
        {"make_module": hidden, "configs": [{"lr": 0.1, "hidden": 4}, {"lr": 0.2, "hidden": 8}]},
        r"config key 'hidden' changes the shapes of the module[^$]*0.weight is \(4, 3\) in one and \(8, 3\)[^$]*by=",
    ),
    "structure": (
        {"make_module": activated, "configs": [{"activation": "tanh"}, {"activation": "relu"}]},
        r"config key 'activation' changes what the module does[^$]*Tanh in one and ReLU",
    ),
    "attributes": (
        {"make_module": Scaled, "configs": [{"lr": 1, "scale": 1.0}, {"lr": 1, "scale": 2.0}]},
        "config key 'scale' changes what",
    ),
    "branches": ({"make_module": lambda c: Branching()}, "does not support the forward pass of Branching"),
    "random numbers": ({"make_module": lambda c: Noisy()}, "forward pass of Noisy[^$]*random"),
    "recurrent": ({"make_module": lambda c: Recurrent()}, "memory is a LSTM"),
    "parametrized": (
        {"make_module": lambda c: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 1)))},
        "weight_norm[^$]*0 is a ParametrizedLinear",
    ),
    "other dropout": ({"make_module": lambda c: nn.Sequential(net(c), nn.AlphaDropout(0.1))}, "1 is a AlphaDropout"),
    "lazy": ({"make_module": lambda c: nn.LazyLinear(1)}, "lazy"),
    "no parameters": ({"make_module": lambda c: nn.Tanh()}, "no parameter to train"),
    "no module": ({"make_module": lambda c: None}, "returned no module[^$]*NoneType"),
    "batch statistics of padding": (
        {"make_module": lambda c: nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)), "weights": np.ones(6)},
        "1 is a BatchNorm1d[^$]*LayerNorm",
    ),
    "the wrong width": ({"data": data(6, inputs=4)}, "can't be applied to the data[^$]*shapes[^$]*float32"),
    "a target without the axis of the output": (
        {"data": (np.ones((6, 3)), np.ones(6))},
        r"differ in shape[^$]*output float32 \(rows, 1\), target float32 \(rows,\)[^$]*y\[:, None\]",
    ),
    "an output without the axis of the target": (
        {"make_module": lambda c: nn.Sequential(net(c), nn.Flatten(0)), "loss": nn.HuberLoss()},
        r"differ in shape[^$]*y\[:, 0\]",
    ),
    "the same where rows have weights": (
        {"data": (np.ones((6, 3)), np.ones(6)), "weights": np.ones(6)},
        "differ in shape",
    ),
    "ignored targets among groups of unequal length": (
        {
            "make_module": lambda c: nn.Linear(3, 2),
            "data": [(np.ones((4, 3)), np.array([0, 1, -100, 1])), (np.ones((3, 3)), np.array([0, 1, 1]))],
            "loss": "cross_entropy",
        },
        r"not the mean over rows[^$]*7 rows[^$]*ignore_index",
    ),
    "a sum with weights": (
        {"loss": nn.MSELoss(reduction="sum"), "weights": np.ones(6)},
        "not the mean over rows",
    ),
    "a loss's class": ({"loss": nn.MSELoss}, r"the loss is a class[^$]*MSELoss\(\)"),
    "a module": ({"make_module": nn.Linear(3, 1)}, "no function that makes a module[^$]*a Linear"),
    "a function of nothing": ({"make_module": lambda: nn.Linear(3, 1)}, "can't be called with a config"),
    "no rows": ({"data": (np.ones((0, 3)), np.ones((0, 1)))}, "data has no rows"),
    "lr of a trial of a sweep": (
        {"configs": umbel.Configs([{"lr": 0.1}, {"lr": -1}], trials=[40, 41])},
        "lr of trial 41 is out of range",
    ),
    "a loss a row": ({"loss": nn.MSELoss(reduction="none")}, "not one number"),
    "unknown loss": ({"loss": "mape"}, "no such loss[^$]*'mse'"),
    "unknown optimizer": ({"optimizer": "lion"}, "no such optimizer[^$]*'adamw'"),
    "unknown type": ({"dtype": "int8"}, "no such type of numbers"),
    "unknown device": ({"device": "abacus"}, "no such device"),
    "steps": ({"steps": -1}, "steps is no such number"),
    "patience": ({"patience": 0}, "patience is no such number[^$]*from 1"),
    "lr": ({"configs": [{"lr": 0.1}, {"lr": -1}]}, "lr of trial 1 is out of range"),
    "betas": ({"configs": [{"betas": (0.9, 1)}]}, "betas of trial 0[^$]*below 1"),
    "a number for betas": ({"configs": [{"betas": 0.9}]}, "betas of trial 0[^$]*two numbers"),
    "seed": ({"configs": [{"seed": 0.5}]}, "seed of trial 0[^$]*0.5"),
    "no configs": ({"configs": []}, "there are no configs"),
    "no columns": ({"configs": {"lr": 0.1}}, "no column"),
    "unequal columns": ({"configs": {"lr": [0.1], "seed": [1, 2]}}, "differ in length"),
    "no configs at all": ({"configs": 3}, "neither a list of dicts"),
    "a list as data": ({"data": [np.ones(3), np.ones(3)]}, "not a list of pairs"),
    "one array": ({"data": np.ones((3, 3))}, "not inputs and a target"),
    "unequal rows": ({"data": (np.ones((3, 3)), np.ones((4, 1)))}, "don't fit each other[^$]*groups="),
    "groups": ({"data": (np.ones((2, 4, 3)), np.ones((2, 4, 1))), "groups": [0, 2]}, "groups does not say[^$]*0 to 1"),
    "weights": ({"weights": np.ones(5)}, "weights don't fit"),
    "words": ({"data": (np.array(["a"]), np.ones(1))}, "not numeric"),
    "stop": ({"stop": lambda *said: [1, 2]}, "stop did not say which[^$]*2 booleans"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    change, message = REFUSED[name]
    arguments = {"make_module": net, "data": data(6), "configs": configs(2), "loss": "mse", "steps": 2, **change}
    with pytest.raises(umbel.UsageError, match=message):
        fit_many(**arguments)


def test_predictions_of_inputs_that_do_not_fit_are_refused() -> None:
    fitted = fit_many(net, data(6), configs(2), "mse", steps=1)
    with pytest.raises(umbel.UsageError, match=r"can't be applied to these inputs[^$]*\(4, 7\)"):
        fitted.predict(np.ones((4, 7)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_absent_is_told() -> None:
    with pytest.raises(umbel.UsageError, match="CUDA is asked for, and there is none"):
        fit_many(net, data(6), configs(2), "mse", device="cuda")


def test_errors_of_make_module_say_which_trial() -> None:
    def make(config: dict[str, Any]) -> nn.Module:
        raise KeyError("width")

    with pytest.raises(KeyError) as caught:
        fit_many(make, data(6), configs(2), "mse")
    assert "make_module of trial 0" in caught.value.__notes__[0]


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
