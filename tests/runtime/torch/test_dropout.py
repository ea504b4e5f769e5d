"""Dropout of fused trials: each at its own rate, by its own random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.runtime.small_networks import assert_same, configs, data, dropping
from tests.runtime.torch_alone import train_alone
from umbel.torch import fit_many


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
