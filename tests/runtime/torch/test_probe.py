"""What can't be trained as one is refused, and it is said whose fault it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import umbel
from tests.runtime.small_networks import ACTIVATIONS, configs, data, net
from umbel.torch import fit_many


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
