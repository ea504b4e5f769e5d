"""What does a run that is alone on a cluster pay for being ready to share it?

Measured, on a cluster of this machine that is joined: `umbel.run` as it comes, which looks for a broker, starts one
when it has run for a while, and talks to it, against ``share=False``, which does nothing of that; 20,000 no-op trials,
and 2,000 of 10 ms of work, the kinds one after the other and in turns first. No broker is there when a run begins. Told
beside it: the no-op trials with a broker that is there already.

Must hold: at most 1.05 times the time, by the medians.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import calibrated_rounds, noop_sweep, spin_sweep

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 420.0
TARGET_S = 0.010
NOOP_TIMES, SPIN_TIMES = 9, 3
#: Seconds that Ray gets after a run to end its workers.
SETTLE_S = 1.0


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    noops, spins = 20_000 // divisor, 2_000 // divisor
    rounds = calibrated_rounds(TARGET_S)
    found = isolated(drive, noops=noops, spins=spins, rounds=rounds, folder=str(isolated.folder))
    return [
        _ratio(f"{noops:,} no-op trials, shared / not", found["noop"]["shared"], found["noop"]["alone"], judged=True),
        _ratio(
            f"{spins:,} trials of 10 ms, shared / not", found["spin"]["shared"], found["spin"]["alone"], judged=True
        ),
        _ratio(
            "no-op trials, with a broker that is there", found["noop"]["there"], found["noop"]["alone"], judged=False
        ),
    ], found


def _ratio(what: str, shared: list[float], alone: list[float], *, judged: bool) -> Measurement:
    note = f"medians of {median(shared):.2f} and {median(alone):.2f} s, {len(shared)} runs each"
    return Measurement(what, median(shared) / median(alone), "x", at_most(1.05) if judged else None, note)


def drive(noops: int, spins: int, rounds: int, folder: str) -> dict[str, Any]:
    """All of it on one cluster of one node, which listens on the loopback interface."""
    from umbel.cluster.local.local_cluster import LocalCluster

    with LocalCluster(1, dashboard=False) as cluster:
        os.environ.update(cluster.environment)
        from umbel.runtime.executors.ray_cluster import connect

        if connect(cluster.environment["RAY_ADDRESS"]):
            raise AssertionError("this is no cluster that was joined")
        store = str(Path(folder) / "sharing-store")
        kinds = ["alone", "shared", "there"]
        _times(lambda: noop_sweep(noops // 10), f"{store}/warm-up", kinds, 1)
        noop = _times(lambda: noop_sweep(noops), f"{store}/noop", kinds, NOOP_TIMES)
        spin = _times(lambda: spin_sweep(spins, rounds), f"{store}/spin", kinds[:2], SPIN_TIMES)
        import ray

        ray.shutdown()
    return {"noop": noop, "spin": spin}


def _times(sweep: Callable[[], Any], store: str, kinds: list[str], times: int) -> dict[str, list[float]]:
    """Seconds of runs that don't share, that do, and that do with a broker that is there."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(times):
        for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
            if kind == "there":
                _broker_is_there()
            else:
                _no_broker_is_there()
            seconds[kind].append(_run(sweep(), store, f"{kind}-{number}", share=kind != "alone"))
    return seconds


def _run(sweep: Any, store: str, name: str, *, share: bool) -> float:
    import umbel

    time.sleep(SETTLE_S)
    began = time.perf_counter()
    umbel.run(sweep, store=store, name=name, progress="quiet", fresh=True, share=share)
    return time.perf_counter() - began


def _broker_is_there() -> None:
    """And knows what to say."""
    import ray

    from umbel.runtime.sharing.broker import LISTEN_S, start_broker

    ray.get(start_broker().view.remote())
    time.sleep(LISTEN_S)


def _no_broker_is_there() -> None:
    import ray

    from umbel.runtime.sharing.broker import find_broker

    broker = find_broker()
    if broker is not None:
        ray.kill(broker, no_restart=True)
