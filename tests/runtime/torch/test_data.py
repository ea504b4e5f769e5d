"""Fused trials train on the rows of their groups: of unequal length, weighted, in batches, of several inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.runtime.small_networks import assert_same, configs, data, net
from tests.runtime.torch_alone import train_alone
from umbel.torch import fit_many


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
