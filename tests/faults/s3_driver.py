"""The program that the test of object storage runs: 200 groups whose data lie in the store, 100 trials each."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from ray import tune

import umbel

GROUPS = 200
TRIALS = 100


@umbel.task
def load(group: int) -> np.ndarray:
    return np.full(10_000, float(group))  # 80 kB: written and read by the workers themselves


def trial(config: dict[str, Any], data: np.ndarray) -> umbel.Result:
    assert data[0] == config["group"]
    return umbel.Result({"loss": config["x"] + data[0]}, model={"x": config["x"], "group": config["group"]})


def graph() -> umbel.Sweep:
    groups = list(range(GROUPS))
    return umbel.sweep(
        trial,
        space={"x": tune.uniform(0, 1)},
        over={"group": groups},
        data=load.map(groups),
        trials=TRIALS,
        metric="loss",
        keep="all",
        name="sweep",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("options", type=json.loads)
    parser.add_argument("address")
    given = parser.parse_args()
    umbel.run(
        graph(), store=given.store, storage_options=given.options, address=given.address, name="run", progress="plain"
    )
