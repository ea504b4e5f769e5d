"""What does an adaptive search cost beside the same searches one after another?

Measured: 200 groups x 100 trials of a cheap objective by TPE, on a Ray that is up; and the same 200 studies by Optuna
in one process, from the same seeds. Must hold: at most 1.15 times Optuna's time / the number of workers; and each
group's best value is the same. Told beside it: how near to that bound Optuna itself comes in as many processes as there
are cores, which is what the machine allows.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.machine import cores
from tests.bench.measurement import Measurement, at_least, at_most
from tests.bench.workload import noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 600.0
GROUPS = 200
TRIALS = 100
NAME = "adaptive"


def objective(config: dict[str, Any]) -> float:
    """A cheap valley, elsewhere in each group."""
    place = config["group"] / GROUPS
    kind = {"a": 0.0, "b": 0.3, "c": 0.1}[config["kind"]]
    return float((config["x"] - place) ** 2 + (config["y"] + 0.5 * place) ** 2 + 0.05 * config["k"] + kind)


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    groups = GROUPS // divisor
    ours = isolated(drive, groups=groups, store=str(isolated.folder / "adaptive-store"))
    serial = isolated(drive_optuna, groups=list(range(groups)))
    parallel = isolated(drive_optuna_on_all_cores, groups=groups)
    same = sum(left == right for left, right in zip(ours["best"], serial["best"], strict=True))
    bound_s = serial["seconds"] / cores()
    return [
        Measurement(
            f"{groups} studies of {TRIALS} trials by TPE / Optuna's time on one core over {cores()}",
            ours["seconds"] / bound_s,
            "x",
            at_most(1.15),
            f"{ours['seconds']:.1f} s; Optuna alone {serial['seconds']:.1f} s",
        ),
        Measurement(
            "the same by Optuna in a process for each core / Optuna's time on one core over the cores",
            parallel["seconds"] / bound_s,
            "x",
            note=f"{parallel['seconds']:.1f} s, without the start of the processes",
        ),
        Measurement("groups whose best value is that of Optuna alone", same / groups, "", at_least(1.0)),
    ], {"umbel": ours, "optuna": serial, "optuna on all cores": parallel, "groups": groups}


def sweep(groups: int) -> umbel.Sweep:
    """All studies."""
    from ray import tune

    return umbel.sweep(
        objective,
        space={
            "x": tune.uniform(0, 1),
            "y": tune.uniform(-1, 1),
            "k": tune.randint(0, 10),
            "kind": tune.choice(["a", "b", "c"]),
        },
        over={"group": list(range(groups))},
        trials=TRIALS,
        metric="loss",
        search="tpe",
        name=NAME,
    )


def drive(groups: int, store: str) -> dict[str, Any]:
    """Umbel's time, and the best value of each group."""
    os.environ["OMP_NUM_THREADS"] = "1"
    start_ray()
    run(noop_sweep(2_000), store, "warm-up")
    seconds = run(sweep(groups), store, "measured")
    best = umbel.open_store(store).run("measured").best()
    return {"seconds": seconds, "best": best["metric_loss"].to_pylist()}


def drive_optuna(groups: list[int]) -> dict[str, Any]:
    """The same by Optuna alone."""
    import optuna

    from umbel.scheduler.identity import group_key
    from umbel.scheduler.search.adaptive import study_seed

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best: list[float] = []
    began = time.perf_counter()
    for group in groups:

        def value(trial: optuna.Trial, group: int = group) -> float:
            config = {
                "x": trial.suggest_float("x", 0, 1),
                "y": trial.suggest_float("y", -1, 1),
                "k": trial.suggest_int("k", 0, 9),
                "kind": trial.suggest_categorical("kind", ["a", "b", "c"]),
            }
            return objective({**config, "group": group})

        seed = study_seed(0, NAME, group_key({"group": group}))
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(value, n_trials=TRIALS)
        best.append(study.best_value)
    return {"seconds": time.perf_counter() - began, "best": best}


def drive_optuna_on_all_cores(groups: int) -> dict[str, Any]:
    """The same by Optuna alone, the groups dealt out to one process a core that have imported all they need."""
    os.environ["OMP_NUM_THREADS"] = "1"
    count = cores()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        list(pool.map(drive_optuna, [[0]] * count * 4))
        began = time.perf_counter()
        list(pool.map(drive_optuna, [list(range(first, groups, count)) for first in range(count)]))
        return {"seconds": time.perf_counter() - began}
