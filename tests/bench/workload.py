"""The sweeps that are measured, the work that their trials do, and Ray as the arms start it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import umbel
from umbel.runtime.executors.ray_cluster import connect

__all__ = [
    "GROUPS",
    "LINEAGE",
    "calibrated_rounds",
    "model_sweep",
    "noop",
    "noop_sweep",
    "run",
    "spin",
    "spin_sweep",
    "start_ray",
]

GROUPS = 200
#: The columns of the no-op trials.
LINEAGE = [
    *("run", "sweep", "trial", "country"),
    *("config_rate", "config_depth", "config_kind", "metric_score"),
    *("status", "error", "steps", "attempt", "seed", "started", "seconds"),
    *("host", "worker", "code", "data", "key", "model", "model_at", "reused_from"),
]


def noop(config: dict[str, Any]) -> float:
    """A trial that costs nothing: what is left is the cost of running it."""
    return 1.0


def spin(config: dict[str, Any]) -> dict[str, float]:
    """A fixed amount of real work on one core, and how much processor time it took by the thread's own clock."""
    began = time.thread_time()
    score = _work(config["rounds"])
    return {"score": float(score), "cpu_s": time.thread_time() - began}


def _work(rounds: int) -> int:
    state = 1
    for _ in range(rounds):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    return state


def calibrated_rounds(target_s: float) -> int:
    """How many rounds of work take this much processor time here, by the best of a few tries."""
    rounds = 100_000
    best = min(_process_time(rounds) for _ in range(20))
    return round(rounds * target_s / best)


def _process_time(rounds: int) -> float:
    began = time.process_time()
    _work(rounds)
    return time.process_time() - began


def noop_sweep(trials: int) -> umbel.Sweep:
    """No-ops over 200 groups in a space of three dimensions; ``trials`` in all."""
    return _sweep(noop, trials, {})


def with_model(config: dict[str, Any]) -> umbel.Result:
    """A no-op that returns a model of some 300 bytes, unlike any other trial's."""
    return umbel.Result(1.0, model={"rate": config["rate"], "weights": [config["rate"] * n for n in range(32)]})


def model_sweep(trials: int) -> umbel.Sweep:
    """The same with a model from each trial, all of them kept."""
    return _sweep(with_model, trials, {}, keep="all")


def spin_sweep(trials: int, rounds: int) -> umbel.Sweep:
    """The same with `spin`, each trial doing this many rounds."""
    return _sweep(spin, trials, {"rounds": rounds})


def _sweep(fn: Callable[..., Any], trials: int, constants: dict[str, Any], keep: str = "best") -> umbel.Sweep:
    from ray import tune

    if trials % GROUPS:
        raise ValueError(f"{trials} trials can't be shared evenly by {GROUPS} groups")
    return umbel.sweep(
        fn,
        space={
            "rate": tune.loguniform(1e-4, 1.0),
            "depth": tune.randint(1, 12),
            "kind": tune.choice(["ridge", "tree", "mean"]),
            **constants,
        },
        over={"country": [f"C{number:03d}" for number in range(GROUPS)]},
        trials=trials // GROUPS,
        metric="score",
        keep=keep,
    )


def run(sweep: umbel.Sweep, store: str, name: str, *, fresh: bool = True) -> float:
    """Run it without a display on the Ray that is up; returns the seconds of the call."""
    began = time.perf_counter()
    umbel.run(sweep, store=store, name=name, progress="quiet", fresh=fresh)
    return time.perf_counter() - began


def start_ray() -> None:
    """Start Ray for this process as `umbel.run` would, and let it settle."""
    connect("local")
    time.sleep(2.0)
