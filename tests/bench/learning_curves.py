"""A real problem with learning curves: a small network for each country, trained by gradient descent on its growth.

The data are the example's (Penn World Table 9.1, see `examples/data/README.md`): a network with one hidden layer is to
say a year's growth of an economy from the growth of the years before, its own and the world's, and is judged on the
last years that trials may see. A trial's metric is its error at its best epoch so far, as of anyone who keeps the best
weights. NumPy only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import umbel
from tests.bench.machine import ROOT

__all__ = ["EPOCHS", "METRIC", "countries", "errors_by_epoch", "growth_of", "space", "train"]

EPOCHS = 81
METRIC = "error"
#: Years at the end of what trials see that the network is judged on.
JUDGED_YEARS = 20
#: Years that a country needs.
LEAST_YEARS = 50
BATCH = 16
#: Robust standard deviations that unusual years are pulled in to.
CLIP = 3.0


def space() -> dict[str, Any]:
    """What is searched."""
    from ray import tune

    return {
        "lags": tune.randint(1, 9),
        "hidden": tune.choice([2, 4, 8, 16, 32]),
        "rate": tune.loguniform(1e-3, 1.0),
        "momentum": tune.uniform(0.0, 0.95),
        "decay": tune.loguniform(1e-4, 0.3),
        "spread": tune.uniform(0.2, 2.0),
    }


def train(config: dict[str, Any], growth: np.ndarray) -> float:
    """One trial: reports after each epoch, and returns the error at the best one."""
    best = math.inf
    for epoch, error in enumerate(errors_by_epoch(config, growth, umbel.trial().seed), 1):
        best = min(best, error)
        umbel.report(best, step=epoch)
    return best


def countries(count: int) -> list[str]:
    """As many countries, spread over the alphabet, of those whose series are long enough."""
    codes = [code for code, series in _panel().training.items() if len(series) >= LEAST_YEARS]
    return codes[:: max(1, len(codes) // count)][:count]


def growth_of(country: str) -> np.ndarray:
    """Growth of the country and of the world, a column a year, in robust standard deviations."""
    series = _panel().training[country]
    return np.stack([_standard(series.growth), _standard(series.covariates["world"])])


def errors_by_epoch(config: Mapping[str, Any], growth: np.ndarray, seed: int) -> Iterator[float]:
    """Train; after each epoch the mean absolute error in the judged years, in units of the naive forecast's error."""
    rng = np.random.default_rng(seed)
    lags, hidden, rate, momentum, decay = (config[name] for name in ("lags", "hidden", "rate", "momentum", "decay"))
    inputs = sliding_window_view(growth[:, :-1], lags, axis=1).transpose(1, 0, 2).reshape(-1, 2 * lags)
    targets = growth[0, lags:]
    x, y = inputs[:-JUDGED_YEARS], targets[:-JUDGED_YEARS]
    judged_x, judged_y = inputs[-JUDGED_YEARS:], targets[-JUDGED_YEARS:]
    naive = np.abs(np.diff(y)).mean()
    w1 = rng.normal(size=(2 * lags, hidden)) * config["spread"] / np.sqrt(2 * lags)
    w2 = rng.normal(size=hidden) * config["spread"] / np.sqrt(hidden)
    weights: list[Any] = [w1, np.zeros(hidden), w2, 0.0]
    speed: list[Any] = [0.0, 0.0, 0.0, 0.0]
    with np.errstate(over="ignore", invalid="ignore"):  # some configs diverge
        for _ in range(EPOCHS):
            order = rng.permutation(len(x))
            for start in range(0, len(x), BATCH):
                rows = order[start : start + BATCH]
                w1, b1, w2, b2 = weights
                inner = np.tanh(x[rows] @ w1 + b1)
                missed = (inner @ w2 + b2 - y[rows]) / len(rows)
                back = np.outer(missed, w2) * (1 - inner**2)
                slopes = (x[rows].T @ back + decay * w1, back.sum(0), inner.T @ missed + decay * w2, missed.sum())
                speed = [momentum * old - rate * slope for old, slope in zip(speed, slopes, strict=True)]
                weights = [weight + change for weight, change in zip(weights, speed, strict=True)]
            w1, b1, w2, b2 = weights
            yield float(np.abs(np.tanh(judged_x @ w1 + b1) @ w2 + b2 - judged_y).mean() / naive)


def _standard(growth: np.ndarray) -> np.ndarray:
    middle = np.median(growth)
    spread = 1.4826 * np.median(np.abs(growth - middle))
    return np.asarray(np.clip((growth - middle) / spread, -CLIP, CLIP))


def _panel() -> Any:
    if str(ROOT / "examples") not in sys.path:
        sys.path.append(str(ROOT / "examples"))
    return import_module("gdp_data").panel()
