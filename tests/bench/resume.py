"""How long does it take to learn that a run of 20,000 trials is done?

Measured: a run of 20,000 no-op trials is made once. Then it is run again: in the same process, and in fresh
ones, from the start of the interpreter to its end, with all imports (Umbel, Ray and ``ray.tune``, whose
domains the sweep uses); the median of 3 each.

Must hold: at most 1.5 s, both ways.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import noop_sweep, run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 120.0
TIMES = 3


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    trials, store = 20_000 // divisor, str(isolated.folder / "resume-store")
    warm = isolated(make_and_resume, trials=trials, store=store)
    fresh = [isolated(resume, trials=trials, store=store) for _ in range(TIMES)]
    call_s = median(part["seconds"] for part in fresh)
    return [
        Measurement(f"resume of {trials:,} done trials, warm process", median(warm["seconds"]), "s", at_most(1.5)),
        Measurement(
            f"resume of {trials:,} done trials, fresh process",
            median(part["process_s"] for part in fresh),
            "s",
            at_most(1.5),
            f"{call_s:.2f} s of it in `umbel.run`, the rest start and imports",
        ),
    ], {"warm": warm, "fresh": fresh}


def make_and_resume(trials: int, store: str) -> dict[str, Any]:
    """Make the run, then ask for it again."""
    start_ray()
    run(noop_sweep(trials), store, "measured")
    return {"seconds": [run(noop_sweep(trials), store, "measured") for _ in range(TIMES)]}


def resume(trials: int, store: str) -> dict[str, Any]:
    """What a user's script does when it is started again."""
    return {"seconds": run(noop_sweep(trials), store, "measured")}
