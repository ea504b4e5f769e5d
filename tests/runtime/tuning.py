"""Experiments of Ray Tune's shape, run by `umbel.Tuner` in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from umbel import Tuner
from umbel.runtime.tuner.results import ResultGrid


def fit(trainable: Any, space: Any, store: Path, tune_config: Any = None, **run_config: Any) -> ResultGrid:
    config = tune.RunConfig(storage_path=str(store), verbose=0, **{"name": "exp", **run_config})
    return Tuner(trainable, param_space=space, tune_config=tune_config, run_config=config, executor="inline").fit()


def curve(config: dict[str, Any]) -> None:
    for i in range(config.get("steps", 4)):
        tune.report({"loss": config["a"] / (i + 1), "inner": {"step": i}, "note": "text"})
