"""How fast are trials that cost nothing?

Measured: the seconds of `umbel.run` for 20,000 no-op trials (200 groups x 100, three dimensions), stored with
every lineage column, on a Ray that is up; the median of 3 runs. Beside it, in the same Ray: `ray.get` of
20,000 plain ``@ray.remote`` no-op calls after a warm-up, the median of 3; and Ray Tune on 300 no-op trials of
the same space.

Must hold: at least 10 times the speed of plain calls, and at least 500 times the rate of trials of Ray Tune as it
comes, which keeps its results as we do (its loggers and snapshots), with workers reused from trial to trial (without
that it is 50 times slower here), nothing printed, results in a temporary folder, and a warm-up. The rate of Tune with
loggers and snapshots off, so that it keeps next to nothing, is told beside it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_least
from tests.bench.workload import LINEAGE, noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 240.0
RUNS = 3
TUNE_TRIALS = 300
#: Seconds that Ray gets after a run to end its workers.
SETTLE_S = 1.0


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    trials = 20_000 // divisor
    found = isolated(drive, trials=trials, tune_trials=TUNE_TRIALS // divisor, folder=str(isolated.folder))
    umbel_s, plain_s = median(found["umbel_s"]), median(found["plain_s"])
    rate = trials / umbel_s
    tune_rate, bare_rate = (found["tune_trials"] / found[name] for name in ("tune_s", "tune_bare_s"))
    return [
        Measurement(f"{trials:,} no-op trials", umbel_s, "s", None, f"median of {_spread(found['umbel_s'])} s"),
        Measurement(
            "speed against plain Ray calls",
            plain_s / umbel_s,
            "x",
            at_least(10),
            f"plain: {_spread(found['plain_s'])} s",
        ),
        Measurement(
            "rate against Ray Tune's",
            rate / tune_rate,
            "x",
            at_least(500),
            f"{rate:,.0f} a second; Tune: {tune_rate:.1f} ({found['tune_trials']} trials)",
        ),
        Measurement(
            "rate against Ray Tune's without loggers and snapshots",
            rate / bare_rate,
            "x",
            None,
            f"Tune: {bare_rate:.1f} a second",
        ),
    ], found


def _spread(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def drive(trials: int, tune_trials: int, folder: str) -> dict[str, Any]:
    """All of it in one process and one Ray."""
    start_ray()
    store = str(Path(folder) / "noop-store")
    run(noop_sweep(trials // 10), store, "warm-up")
    umbel_s = []
    for number in range(RUNS):
        time.sleep(SETTLE_S)
        umbel_s.append(run(noop_sweep(trials), store, f"run-{number}"))
    for number in range(RUNS):
        _check_stored(store, f"run-{number}", trials)
    _plain_calls(trials // 10)
    plain_s = [_plain_calls(trials) for _ in range(RUNS)]
    _tune(2, folder)
    tune_s = _tune(tune_trials, folder)
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000"
    return {
        "trials": trials,
        "umbel_s": umbel_s,
        "plain_s": plain_s,
        "tune_trials": tune_trials,
        "tune_s": tune_s,
        "tune_bare_s": _tune(tune_trials, folder),
    }


def _check_stored(store: str, name: str, trials: int) -> None:
    """Speed counts only if all rows are there, whole."""
    import umbel

    table = umbel.open_store(store).run(name).trials()
    if table.column_names != LINEAGE or table.column("trial").to_pylist() != list(range(trials)):
        raise AssertionError(f"the run {name!r} did not store what it should: {table.num_rows} rows of {table.schema}")
    empty = [column for column in LINEAGE if table.column(column).null_count]
    if empty != ["error", "steps", "data", "model", "model_at", "reused_from"]:
        raise AssertionError(f"columns with nulls: {empty}")


def _plain_calls(count: int) -> float:
    import ray

    def identity(number: int) -> int:
        return number

    plain = ray.remote(identity)
    ray.get([plain.remote(number) for number in range(100)])  # the function is known and workers are up
    began = time.perf_counter()
    ray.get([plain.remote(number) for number in range(count)])
    return time.perf_counter() - began


def _tune(trials: int, folder: str) -> float:
    from ray import tune

    def objective(config: dict[str, Any]) -> dict[str, float]:
        return {"score": 1.0}

    tuner = tune.Tuner(
        objective,
        param_space={
            "rate": tune.loguniform(1e-4, 1.0),
            "depth": tune.randint(1, 12),
            "kind": tune.choice(["ridge", "tree", "mean"]),
        },
        tune_config=tune.TuneConfig(num_samples=trials, metric="score", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(Path(folder) / "tune"), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    if len(results) != trials or results.num_errors:
        raise AssertionError(f"Ray Tune ended {len(results)} of {trials} trials, {results.num_errors} with errors")
    return seconds
