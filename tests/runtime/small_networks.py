"""Small networks, their data, and what it means that a fused trial is what it would be alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.runtime.torch_alone import Alone

#: What the docstring of fit_many promises in float64; relative to the size of what is compared.
TOLERANCE = 1e-6


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


def dropping(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 16), nn.Tanh(), nn.Dropout(config["dropout"]), nn.Linear(16, 1), nn.Dropout(config["dropout"] / 2)
    )


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}
