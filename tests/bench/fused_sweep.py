"""The training of `tests.bench.fused` within sweeps: fused, one trial at a time, and one at a time by Ray Tune.

PyTorch is imported with this module, so that no trial pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import umbel
import umbel.torch
from tests.bench.fused import network, some_data, train_alone
from tests.bench.workload import run, start_ray

__all__ = ["drive_sweeps"]


@umbel.fused(max_batch=1000, fuse_groups=True)
def train_many(configs: umbel.Configs, steps: Sequence[int]) -> dict[str, np.ndarray]:
    """A batch; of each trial its loss, and its share of the processor time."""
    torch.set_num_threads(1)
    began_s = time.process_time()
    fitted = umbel.torch.fit_many(network, some_data(), configs, "mse", steps=steps[0], device="cpu")
    each_s = (time.process_time() - began_s) / len(configs)
    return {"loss": fitted.loss, "cpu_s": np.full(len(configs), each_s)}


def train_one(config: dict[str, Any], steps: int) -> dict[str, float]:
    """One trial by plain PyTorch."""
    torch.set_num_threads(1)
    began_s = time.process_time()
    loss = train_alone(some_data(), {**config, "seed": umbel.trial().seed}, steps)
    return {"loss": loss, "cpu_s": time.process_time() - began_s}


def drive_sweeps(fused: int, one_by_one: int, tune_trials: int, steps: int, store: str) -> dict[str, Any]:
    """All three, in a Ray of their own."""
    from ray import tune

    start_ray()
    space = {"lr": tune.loguniform(1e-3, 1e-2)}
    groups = {"group": ["a", "b", "c", "d"]}
    found: dict[str, Any] = {}
    for name, function, trials in (("fused", train_many, fused), ("alone", train_one, one_by_one)):
        sweep = umbel.sweep(
            function,
            space=space,
            over=groups,
            data=steps,
            trials=trials // len(groups["group"]),
            metric="loss",
            name=name,
        )
        found[f"{name}_run_s"] = run(sweep, store, name)
        rows = umbel.open_store(store).run(name).trials().to_pandas()
        if set(rows.status) != {"ok"} or len(rows) != trials:
            raise AssertionError(f"{name}: {rows.status.value_counts().to_dict()}")
        calls = rows.groupby(["worker", "started"]).agg(n=("seconds", "size"), s=("seconds", "sum"))
        began = rows.started.min()
        ended = max(started.timestamp() + s for (_, started), s in calls.s.items())
        found[f"{name}_rate"] = trials / (ended - began.timestamp())
        found[f"{name}_cpu_s"] = median(rows.metric_cpu_s)
        found[f"{name}_batch"] = int(calls.n.max())
    found["tune_s"] = _tune(tune_trials, steps, space, store)
    return found


def _tune(trials: int, steps: int, space: dict[str, Any], folder: str) -> float:
    from ray import tune

    def objective(config: dict[str, Any]) -> dict[str, float]:
        torch.set_num_threads(1)
        return {"loss": train_alone(some_data(), {**config, "seed": 0}, steps)}

    tuner = tune.Tuner(
        objective,
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(Path(folder) / "tune"), verbose=0),
    )
    began_s = time.perf_counter()
    tuner.fit()
    return time.perf_counter() - began_s
