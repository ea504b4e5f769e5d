"""How many requests, and how many bytes, does a run cost on object storage?

Measured: 20,000 no-op trials on SeaweedFS, a real S3 server, without models and with a model from each trial (a pickled
dict of some 300 bytes, all kept). All processes' requests go through a proxy that counts them and lets them pass; those
of looking at the results afterwards are told too.

Must hold: at most 100 objects written without models; at most one more PUT for every 50 models; a request of any kind
for every 50 trials at most.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import model_sweep, noop_sweep, start_ray
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.seaweedfs import S3Server, seaweedfs

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 240.0
MODELS_A_PUT = 50


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    trials = 20_000 // divisor
    found = isolated(drive, trials=trials, folder=str(isolated.folder))
    plain, models, reading = found["plain"], found["models"], found["reading"]
    return [
        Measurement(f"objects written for {trials:,} trials", plain["PUT"], "objects", at_most(100), _note(plain)),
        Measurement(
            f"objects written for {trials:,} trials with models",
            models["PUT"],
            "objects",
            at_most(100 + trials / MODELS_A_PUT),
            _note(models),
        ),
        Measurement("requests in all, without models", plain["requests"], "objects", at_most(trials / 50)),
        Measurement("requests in all, with models", models["requests"], "objects", at_most(trials / 50 * 2)),
        Measurement("requests for trials, best and one model", reading["requests"], "objects", None, _note(reading)),
    ], found


def _note(part: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in part.items() if kind.isupper())
    return f"{kinds}; {part['sent_MB']:.1f} MB sent, {part['received_MB']:.1f} MB received; {part['seconds']:.1f} s"


def drive(trials: int, folder: str) -> dict[str, Any]:
    """Both runs, in one Ray."""
    start_ray()
    with seaweedfs(Path(folder) / "s3") as server, faulty_proxy(server, rate=0.0) as (proxy, through):
        plain = _counted(proxy, lambda: _run(through, noop_sweep(trials), "plain"))
        models = _counted(proxy, lambda: _run(through, model_sweep(trials), "models"))
        reading = _counted(proxy, lambda: _read(through, trials))
    return {"plain": plain, "models": models, "reading": reading}


def _run(server: S3Server, sweep: umbel.Sweep, name: str) -> None:
    umbel.run(
        sweep,
        store=server.url("bench"),
        storage_options=server.storage_options,
        name=name,
        progress="quiet",
        fresh=True,
    )


def _read(server: S3Server, trials: int) -> None:
    run = umbel.open_store(server.url("bench"), server.storage_options).run("models")
    table, best = run.trials(), run.best()
    if table.num_rows != trials or table["model"].null_count or not best.num_rows:
        raise AssertionError(
            f"{table.num_rows} of {trials} trials are stored, {table['model'].null_count} without model"
        )
    run.load_model(best["model"][0].as_py())


def _counted(proxy: FaultyProxy, action: Any) -> dict[str, Any]:
    """The requests that something makes, by kind; bytes and seconds."""
    proxy.forget()
    began = time.perf_counter()
    action()
    return {
        **dict(proxy.requests),
        "requests": proxy.requests.total(),
        "sent_MB": proxy.sent_bytes / 1e6,
        "received_MB": proxy.received_bytes / 1e6,
        "seconds": time.perf_counter() - began,
    }
