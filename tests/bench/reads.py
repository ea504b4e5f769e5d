"""How long does it take to look at a large store, and at a large run?

Measured on a local store: `Store.runs` over 1,000 runs; `Run.best` over 1,000,000 no-op trials; and running those
again, which finds that all is done, in a warm process. `Store.runs` is told for SeaweedFS too, a real S3 server on this
machine.

Must hold: at most 1 s to list 1,000 runs; at most 5 s each for the best of 1,000,000 trials and for resuming them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import GROUPS, noop_sweep, run, start_ray
from tests.seaweedfs import seaweedfs
from umbel.storage.runs.ownership import Ownership
from umbel.storage.store import Store

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 300.0
TIMES = 3


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    runs, trials = 1_000 // divisor, 1_000_000 // divisor
    listed = isolated(list_runs, runs=runs, folder=str(isolated.folder))
    large = isolated(drive, trials=trials, store=str(isolated.folder / "large"))
    return [
        Measurement(f"list {runs:,} runs", median(listed["local_s"]), "s", at_most(1.0)),
        Measurement(f"list {runs:,} runs on S3", median(listed["s3_s"]), "s"),
        Measurement(f"best of {trials:,} trials", median(large["best_s"]), "s", at_most(5.0)),
        Measurement(f"resume of {trials:,} done trials", median(large["resume_s"]), "s", at_most(5.0)),
    ], {"runs": listed, "large": large}


def _times(action: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return seconds


def list_runs(runs: int, folder: str) -> dict[str, Any]:
    """Make runs of one small sweep, as `umbel.run` would record them, and list them."""
    local = umbel.open_store(str(Path(folder) / "many"))
    _fill(local, runs)
    with seaweedfs(Path(folder) / "s3") as server:
        remote = umbel.open_store(server.url("many"), server.storage_options)
        _fill(remote, runs)
        return {"local_s": _times(lambda: _list(local, runs)), "s3_s": _times(lambda: _list(remote, runs))}


def _list(store: Store, runs: int) -> None:
    found = store.runs()
    if len(found) != runs or {run.status for run in found} != {"done"}:
        raise AssertionError(f"{len(found)} runs were listed instead of {runs}")


def _fill(store: Store, runs: int) -> None:
    sweep = {"group_names": ["country"], "groups": [[f"C{n}"] for n in range(GROUPS)], "trials": 100}
    nodes = [{"name": "s", "kind": "sweep", "size": GROUPS * 100, "sweep": {**sweep, "metric": "score", "mode": "min"}}]
    about = {"created": "2026-01-02T03:04:05+00:00", "user": "ada", "host": "here", "command": ["job.py"]}
    for number in range(runs):
        name = f"run-{number:04}"
        store.create_run({"id": name, "name": name, **about, "graph": {"nodes": nodes}})
        Ownership.acquire(store.objects, name).release("done")
        store.end_run(name, {"status": "done", "counts": {"total": GROUPS * 100, "failed": 0}})


def drive(trials: int, store: str) -> dict[str, Any]:
    """Make the large run, look at it, and run it again."""
    start_ray()
    made_s = run(noop_sweep(trials), store, "large")
    found = umbel.open_store(store).run("large")
    if found.best().num_rows != GROUPS:
        raise AssertionError("some groups have no best trial")
    return {
        "made_s": made_s,
        "best_s": _times(lambda: umbel.open_store(store).run("large").best()),
        "resume_s": _times(lambda: run(noop_sweep(trials), store, "large")),
    }
