"""How much of the machine do trials of 10 ms get, and how soon is what they find safe?

Measured: one run of 20,000 trials, each a fixed amount of work that takes 10 ms of one core's time
(calibrated once, before the run, by processor time; no sleeping, no looking at the clock), on a Ray that is
up.

- Overhead: wall time x cores / the sum of the trials' ``seconds``. Must be at most 1.03.
- Objects: all that the run wrote into its store in its first 2 minutes, those deleted later included (see
  `tests.bench.object_watch`). At most 100.
- Undurable: for each trial, the time from its end (``started + seconds``) to the moment when the segment that
  holds it was durable; the longest of all. At most 3 s.
- Resume of this run, which has many segments: at most 1.5 s.

A trial's ``seconds`` include waiting for a core: if the driver takes one away from a trial, that is hidden in
the first ratio. So the ratio to the processor time inside trials is told as well; nothing is promised about
it, for on a busy machine it says how busy.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.machine import cores
from tests.bench.measurement import Measurement, at_most
from tests.bench.object_watch import ObjectWatch, watch_objects
from tests.bench.workload import calibrated_rounds, noop_sweep, run, spin_sweep, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 300.0
TARGET_S = 0.010
#: The number of objects is promised for runs of up to this many seconds.
PROMISED_RUN_S = 120.0


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    trials = 20_000 // divisor
    found = isolated(
        drive, trials=trials, rounds=calibrated_rounds(TARGET_S), store=str(isolated.folder / "cpu10ms-store")
    )
    offered_s = found["wall_s"] * cores()
    return [
        Measurement(
            "wall time x cores / time in trials",
            offered_s / found["trial_s"],
            "x",
            at_most(1.03),
            f"{found['wall_s']:.1f} s on {cores()} cores, {found['trial_s']:.1f} s in {trials:,} trials "
            f"({found['trial_s'] / trials * 1e3:.2f} ms each)",
        ),
        Measurement(
            "wall time x cores / processor time in trials",
            offered_s / found["cpu_s"],
            "x",
            None,
            f"{found['cpu_s']:.1f} s of processor time ({found['cpu_s'] / trials * 1e3:.2f} ms each)",
        ),
        Measurement(
            "objects written in the first 2 minutes",
            found["objects"],
            "objects",
            at_most(100),
            f"{found['objects_in_all']} in all, {found['segments']} of them segments of trials",
        ),
        Measurement(
            "finished work undurable, at longest",
            found["undurable_max_s"],
            "s",
            at_most(3.0),
            f"{found['undurable_mean_s']:.2f} s on average",
        ),
        Measurement(
            f"resume, run of {found['segments']} segments",
            found["resume_s"],
            "s",
            at_most(1.5),
            "`umbel.run` in a warm process",
        ),
    ], found


def drive(trials: int, rounds: int, store: str) -> dict[str, Any]:
    """The run, in one process and a Ray of its own."""
    start_ray()
    run(noop_sweep(2_000), f"{store}-warm-up", "warm-up")
    sweep = spin_sweep(trials, rounds)
    with watch_objects() as watch:
        wall_s = run(sweep, store, "measured")
    rows = _rows(Path(store), watch)
    if len(rows) != trials:
        raise AssertionError(f"{len(rows)} rows were stored instead of {trials}")
    undurable = [durable_at - started - seconds for durable_at, started, seconds, _ in rows]
    return {
        "trials": trials,
        "rounds": rounds,
        "wall_s": wall_s,
        "trial_s": sum(seconds for _, _, seconds, _ in rows),
        "cpu_s": sum(cpu_s for _, _, _, cpu_s in rows),
        "first_trial_after_s": min(started for _, started, _, _ in rows) - watch.began,
        "last_trial_before_s": watch.began + wall_s - max(started + seconds for _, started, seconds, _ in rows),
        "objects": watch.count(Path(store), PROMISED_RUN_S),
        "objects_in_all": watch.count(Path(store)),
        "segments": len({durable_at for durable_at, *_ in rows}),
        "undurable_max_s": max(undurable),
        "undurable_mean_s": fmean(undurable),
        "resume_s": run(sweep, store, "measured"),
    }


def _rows(store: Path, watch: ObjectWatch) -> list[tuple[float, float, float, float]]:
    """Of each trial: when it was durable and when it started (since the epoch), its seconds, its processor time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for file in sorted((store / "runs" / "measured" / "trials").rglob("*.parquet")):
        durable_at = watch.durable_at[file.relative_to(store).as_posix()]
        table = pq.read_table(file, columns=["started", "seconds", "metric_cpu_s"])
        started = table.column("started").cast(pa.int64()).to_pylist()
        columns = (table.column(name).to_pylist() for name in ("seconds", "metric_cpu_s"))
        rows += [(durable_at, at / 1e6, seconds, cpu_s) for at, seconds, cpu_s in zip(started, *columns, strict=True)]
    return rows
