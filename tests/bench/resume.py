"""How long does it take to learn that 20,000 trials are done?

Measured: a run of 20,000 no-op trials is made once. Then it is run again: in the same process, and in fresh
ones, from the start of the interpreter to its end, with all imports (Umbel, Ray and ``ray.tune``, whose
domains the sweep uses); the median of 3 each. Then the same sweep is run under other names: all trials are taken over
from the first run.

Must hold: at most 1.5 s to resume, both ways; at most 2 s to take 20,000 trials over.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import umbel
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
        Measurement(f"{trials:,} trials taken over from another run", median(warm["reused_s"]), "s", at_most(2.0)),
    ], {"warm": warm, "fresh": fresh}


def make_and_resume(trials: int, store: str) -> dict[str, Any]:
    """Make the run, then ask for it again."""
    start_ray()
    run(noop_sweep(trials), store, "measured")
    seconds = [run(noop_sweep(trials), store, "measured") for _ in range(TIMES)]
    reused_s = [run(noop_sweep(trials), store, f"reused-{number}", fresh=False) for number in range(TIMES)]
    last = umbel.open_store(store).run(f"reused-{TIMES - 1}").trials()
    if any(not (origin or "").startswith("measured/") for origin in last["reused_from"].to_pylist()):
        raise AssertionError("trials were run that could have been taken over")
    return {"seconds": seconds, "reused_s": reused_s}


def resume(trials: int, store: str) -> dict[str, Any]:
    """What a user's script does when it is started again."""
    return {"seconds": run(noop_sweep(trials), store, "measured")}
