"""Do large values pass from task to task without the driver, and how much do they cost beside plain Ray?

Measured: 16 arrays of 64 MB (1 GB in all), each made by one task and read by another, on a Ray that is up: by Umbel,
which also makes each durable in the store, and by plain Ray tasks, which pass references and store nothing. Must hold:
the driver's peak memory grows by at most 64 MB. The ratio of the times is told beside it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import umbel
from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.memory import peak_mb
from tests.bench.workload import noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 240.0
VALUES = 16
ITEMS = 8_000_000

Array = npt.NDArray[np.float64]


def make_array(seed: int, items: int) -> Array:
    """Stands for loading a group's data."""
    return np.full(items, float(seed))


def first(values: Array) -> float:
    """Stands for what is made of them."""
    return float(values[0])


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    values = max(2, VALUES // divisor)
    ours = isolated(drive, values=values, store=str(isolated.folder / "values-store"))
    plain = isolated(drive_plain_ray, values=values)
    in_all_mb = values * ITEMS * 8 / 1e6
    return [
        Measurement(
            f"growth of the driver's peak memory while {in_all_mb:,.0f} MB pass between tasks",
            ours["growth_mb"],
            "MB",
            at_most(64),
            f"{ours['seconds']:.2f} s",
        ),
        Measurement(
            "time / plain Ray's, which stores nothing",
            ours["seconds"] / plain["seconds"],
            "x",
            None,
            f"{plain['seconds']:.2f} s",
        ),
    ], {"umbel": ours, "ray": plain, "values": values, "in_all_mb": in_all_mb}


def drive(values: int, store: str) -> dict[str, Any]:
    """Umbel's time and memory."""
    start_ray()
    run(noop_sweep(2_000), store, "warm-up")
    before_mb = peak_mb()
    node = umbel.task(first).map(umbel.task(make_array).map(range(values), ITEMS))
    began = time.perf_counter()
    found = umbel.run(node, store=store, name="values", progress="quiet")
    seconds = time.perf_counter() - began
    growth_mb = peak_mb() - before_mb
    if found.value(node) != list(range(values)):
        raise AssertionError("the values were not passed on as they were")
    return {"seconds": seconds, "growth_mb": growth_mb}


def drive_plain_ray(values: int) -> dict[str, Any]:
    """Plain Ray's time."""
    import ray

    start_ray()
    make, read = ray.remote(make_array), ray.remote(first)
    ray.get([read.remote(make.remote(seed, 10)) for seed in range(4)])
    began = time.perf_counter()
    found = ray.get([read.remote(make.remote(seed, ITEMS)) for seed in range(values)])
    seconds = time.perf_counter() - began
    if found != list(range(values)):
        raise AssertionError("the values were not passed on as they were")
    return {"seconds": seconds}
