"""Does a large run cost more a trial, or hold more memory, than a smaller one?

Measured: runs of 200,000 and of 1,000,000 no-op trials, each in a driver process of its own on a Ray that is
up, after a small run to warm up: the small size before and after the large one, so that a machine which gets
slower meanwhile is seen. From each the seconds of `umbel.run` and the peak of the driver's resident memory
(``VmHWM``: pages shared with Ray's object store count too).

Must hold: a trial of the large run costs at most 1.2 times one of the small runs (their mean), and the peak
of the large run is at most 64 MB above the lower peak of the small ones.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.memory import peak_mb, resident_mb
from tests.bench.workload import noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 420.0
SMALL = 200_000
LARGE = 1_000_000


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    small, large = SMALL // divisor, LARGE // divisor
    sizes = (small, large, small)
    before, million, after = (
        isolated(drive, trials=trials, store=str(isolated.folder / f"million-{number}"))
        for number, trials in enumerate(sizes)
    )
    small_us = mean(part["seconds"] / small * 1e6 for part in (before, after))
    large_us = million["seconds"] / large * 1e6
    lower = min(before["peak_mb"], after["peak_mb"])
    return [
        Measurement(
            f"cost of a trial, {large:,} against {small:,}",
            large_us / small_us,
            "x",
            at_most(1.2),
            f"{million['seconds']:.1f} s for {large:,}; {large_us:.1f} us a trial against {small_us:.1f}",
        ),
        Measurement(
            "growth of the driver's peak memory",
            million["peak_mb"] - lower,
            "MB",
            at_most(64),
            f"peak {million['peak_mb']:.0f} MB against {lower:.0f}; resident before and after the large run: "
            f"{million['before_mb']:.0f}, {million['after_mb']:.0f} MB",
        ),
    ], {"small_before": before, "large": million, "small_after": after}


def drive(trials: int, store: str) -> dict[str, Any]:
    """One run in this process, its time and its memory in MB (10^6 bytes)."""
    start_ray()
    run(noop_sweep(2_000), store, "warm-up")
    before_mb = resident_mb()
    seconds = run(noop_sweep(trials), store, "measured")
    after_mb, highest_mb = resident_mb(), peak_mb()
    stored = _stored_rows(store)
    if stored != trials:
        raise AssertionError(f"{stored} rows were stored instead of {trials}")
    return {
        "trials": trials,
        "seconds": seconds,
        "before_mb": before_mb,
        "after_mb": after_mb,
        "peak_mb": highest_mb,
    }


def _stored_rows(store: str) -> int:
    import pyarrow.parquet as pq

    files = (Path(store) / "runs" / "measured" / "trials").rglob("*.parquet")
    return sum(int(pq.ParquetFile(file).metadata.num_rows) for file in files)
