"""The program that tests of chaos start, kill and start again: a graph with a sweep of many short trials.

Its results don't depend on where, when or how often anything runs. ``CHAOS_PACE_S`` makes trials last as long as that,
and ``CHAOS_COUNT`` names a file that grows by a byte with every trial that begins.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from ray import tune

import umbel
from umbel.runtime.graph.nodes import Node

GROUPS = 40
TRIALS = 500


def pause(times: float = 1) -> None:
    """Take time. The variable is read here, because the value of a global would be part of the code's fingerprint."""
    time.sleep(times * float(os.environ.get("CHAOS_PACE_S", "0")))


def count() -> None:
    """Note that a trial begins, whatever becomes of it."""
    if (file := os.environ.get("CHAOS_COUNT")) is not None:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, b".")
        os.close(descriptor)


@umbel.task(retries=2)
def load(group: int) -> np.ndarray:
    pause(20)
    return np.random.default_rng(group).normal(size=200).cumsum()


@umbel.task(retries=2)
def trial(config: dict[str, Any], data: np.ndarray) -> dict[str, float]:
    count()
    pause()
    forecast = config["weight"] * data[-config["lag"]] + (1 - config["weight"]) * data[: -config["lag"]].mean()
    return {"error": float(abs(data[-1] - forecast)), "noise": float(umbel.trial().seed % 997)}


@umbel.task(retries=2)
def refit(best: umbel.Best, data: np.ndarray) -> umbel.Result:
    pause(20)
    fitted = float(data.mean() * best.config["weight"])
    return umbel.Result({"fitted": fitted}, model=[fitted, best.config["lag"]])


@umbel.task(retries=2)
def summary(fitted: list[dict[str, float]]) -> float:
    return float(sum(each["fitted"] for each in fitted))


def graph(trials: int = TRIALS) -> Node:
    """load → sweep with data → best → refit → summary."""
    series = load.map(list(range(GROUPS)))
    sweep = umbel.sweep(
        trial,
        space={"weight": tune.uniform(0, 1), "lag": tune.randint(1, 40)},
        over={"group": list(range(GROUPS))},
        data=series,
        trials=trials,
        metric="error",
        keep="none",
        name="search",
    )
    return summary.bind(refit.map(sweep.best(), series))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--address")
    parser.add_argument("--trials", type=int, default=TRIALS)
    chosen = parser.parse_args()
    umbel.run(
        graph(chosen.trials),
        store=chosen.store,
        name="chaos",
        executor="inline" if chosen.address is None else "ray",
        address=chosen.address,
        progress="plain",
    )


if __name__ == "__main__":
    main()
