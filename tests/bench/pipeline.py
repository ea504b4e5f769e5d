"""Does anything wait that need not? A graph of three stages against the least time that it could take.

Measured: load (200 elements, uneven, one of them very slow) -> sweep (20 trials a group) -> refit (200), on a Ray that
is up. Durations are sleeps, so that the figure tells about scheduling and not about the load of the machine.

- Time from the first element's start to the last one's end / the lower bound: the sum of all durations over the
  workers, or the longest chain (load, the group's trials one after another only if there were one worker, refit),
  whichever is longer. Must be at most 1.05.
- The same graph with barriers, each stage waiting for all of the one before: told beside it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.machine import cores
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 240.0
TRIALS = 20
TRIAL_S = 0.004
REFIT_S = 0.015
SLOW_S = 6.0


def load_s(group: int, groups: int) -> float:
    """How long the load of a group takes: 15 to 75 ms, and one of them `SLOW_S`."""
    return SLOW_S if group == groups // 2 else 0.015 + 0.06 * (group * 37 % 101) / 101


@umbel.task
def load(group: int, groups: int) -> int:
    """Stands for reading a group's data."""
    time.sleep(load_s(group, groups))
    return group


@umbel.task
def gather(values: list[Any]) -> int:
    """Waits for all of a stage."""
    return len(values)


@umbel.task
def after(value: Any, gate: int) -> Any:
    """Hands a value on once a gate is open."""
    return value


def trial(config: dict[str, Any], data: int) -> float:
    """Stands for a fit."""
    time.sleep(TRIAL_S)
    return float(config["x"])


@umbel.task
def refit(best: Any, data: int) -> int:
    """Stands for the last fit of a group."""
    time.sleep(REFIT_S)
    return data


def graph(groups: int, *, barriers: bool) -> Any:
    """The three stages, with or without barriers between them."""
    series: Any = load.map(range(groups), groups)
    if barriers:
        series = after.map(series, gather.bind(series))
    sweep = umbel.sweep(
        trial,
        space={"x": list(range(TRIALS))},
        search="grid",
        over={"group": list(range(groups))},
        data=series,
        metric="m",
    )
    best: Any = sweep.best()
    if barriers:
        best = after.map(best, gather.bind(best))
    return refit.map(best, series)


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    groups = 200 // divisor
    found = isolated(drive, groups=groups, store=str(isolated.folder / "pipeline-store"))
    work_s = sum(load_s(group, groups) for group in range(groups)) + groups * (TRIALS * TRIAL_S + REFIT_S)
    chain_s = SLOW_S + TRIAL_S * TRIALS / cores() + REFIT_S
    bound_s = max(work_s / cores(), chain_s)
    return [
        Measurement(
            "three stages without barriers / lower bound",
            found["flowing_s"] / bound_s,
            "x",
            at_most(1.05),
            f"{found['flowing_s']:.2f} s, at least {bound_s:.2f} s on {cores()} workers",
        ),
        Measurement(
            "the same with barriers / lower bound",
            found["barriers_s"] / bound_s,
            "x",
            None,
            f"{found['barriers_s']:.2f} s",
        ),
    ], {**found, "bound_s": bound_s, "groups": groups}


def drive(groups: int, store: str) -> dict[str, Any]:
    """Both versions, in one process and a Ray of its own."""
    start_ray()
    run(noop_sweep(2_000), f"{store}-warm-up", "warm-up")
    return {
        "flowing_s": _span_s(graph(groups, barriers=False), store, "flowing"),
        "barriers_s": _span_s(graph(groups, barriers=True), store, "barriers"),
    }


def _span_s(target: Any, store: str, name: str) -> float:
    """Seconds from the first element's start to the last one's end."""
    ended = umbel.run(target, store=str(Path(store)), name=name, progress="quiet", fresh=True)
    starts, stops = [], []
    for node in ("load", "trial", "refit"):
        rows = ended.elements(node, ["started", "seconds"]).to_pylist()
        starts += [row["started"].timestamp() for row in rows]
        stops += [row["started"].timestamp() + row["seconds"] for row in rows]
    return float(max(stops) - min(starts))
