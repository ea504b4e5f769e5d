"""Sweeps of fused functions that several modules of tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ray import tune

import umbel
from umbel.runtime.graph.nodes import Sweep

SPACE = {"lr": tune.uniform(0, 1), "width": [4, 8]}
GROUPS = {"g": ["a", "b", "c"]}


def a_sweep(fn: Callable[..., Any], **changed: Any) -> Sweep:
    """A sweep of 3 × 20 trials, with some arguments changed, or left out where they are ``...``."""
    given: dict[str, Any] = {"space": SPACE, "over": GROUPS, "trials": 20, "metric": "loss", "name": "search"}
    return umbel.sweep(fn, **{name: value for name, value in (given | changed).items() if value is not ...})


def rows_of(found: umbel.Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.trials().to_pylist()
    return rows


@umbel.fused(by="width")
def train(configs: Any, data: Any = 1.0) -> dict[str, Any]:
    assert isinstance(configs.common["width"], int)
    assert (configs["width"] == configs.common["width"]).all()
    return {"loss": configs["lr"] * data, "batch": np.full(len(configs), len(configs)), "seed": configs.seeds}


def one(config: dict[str, Any], data: Any = 1.0) -> dict[str, Any]:
    return {"loss": config["lr"] * data, "seed": umbel.trial().seed}


EPOCHS = 12


@umbel.fused(max_batch=8)
def learn(configs: Any) -> dict[str, Any]:
    rate, alive = configs["lr"], np.ones(len(configs), bool)
    for epoch in range(1, EPOCHS + 1):
        losses = np.abs(rate - 0.3) + np.sin(1000 * rate) / epoch + 1 / epoch
        alive = umbel.report({"loss": np.where(alive, losses, np.nan)}, step=epoch)
    return {"loss": np.where(alive, losses, -1)}
