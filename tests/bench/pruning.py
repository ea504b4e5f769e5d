"""What does pruning save, and what does it cost? Small networks for the example's countries, with and without.

Measured: the same sweep, the same seeds, on a Ray that is up: networks trained for 81 epochs
(`tests.bench.learning_curves`) without pruning, and with `umbel.Asha(reduction_factor=3, min_resource=10,
max_resource=81)`.

- The epochs that the pruned trials took / those of all trials to their end. Must be at most 1/3.
- The best metric of a group with pruning / without, the mean over groups and seeds. Must be at most 1.01.
- Recorded verdicts that the reference implementation of the rule (`tests.scheduler.reference_pruning`) can't explain.
  Must be none.
- What one report at a rung costs the trial, with a thousand others there, and one between rungs. Told only.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from statistics import fmean
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.learning_curves import EPOCHS, METRIC, countries, growth_of, space, train
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import run, start_ray
from tests.scheduler.reference_pruning import unsound_stops

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 600.0
SEEDS = 3
GROUPS = 40
TRIALS = 60
#: Chosen on other seeds than those that are measured.
FACTOR, FIRST = 3, 10


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    groups = GROUPS // divisor
    found = isolated(drive, groups=groups, store=str(isolated.folder / "pruning-store"))
    whole, pruned = found["whole"], found["pruned"]
    ratios = [pruned["best"][key] / best for key, best in whole["best"].items()]
    same = sum(ratio == 1.0 for ratio in ratios)
    return [
        Measurement(
            "epochs with pruning / without",
            pruned["epochs"] / whole["epochs"],
            "x",
            at_most(0.333),
            f"{pruned['epochs']:,} of {whole['epochs']:,}; {pruned['seconds']:.1f} s, not {whole['seconds']:.1f} s",
        ),
        Measurement(
            "best metric with pruning / without, mean over groups",
            fmean(ratios),
            "x",
            at_most(1.01),
            f"the same trial wins in {same} of {len(ratios)} groups; {max(ratios):.3f} x at worst",
        ),
        Measurement(
            "verdicts that the rule does not explain",
            float(len(pruned["unsound"])),
            "verdicts",
            at_most(0),
            f"of {pruned['verdicts']:,}, {pruned['shared']} in groups that several workers shared",
        ),
        Measurement("a report at a rung, 1,000 trials there", found["rung_us"], "µs"),
        Measurement("a report between rungs", found["between_us"], "µs"),
    ], found


def drive(groups: int, store: str) -> dict[str, Any]:
    """Both arms, in one process and a Ray of its own."""
    start_ray()
    rule = umbel.Asha(reduction_factor=FACTOR, min_resource=FIRST, max_resource=EPOCHS)
    run(_sweep(2, 0, None), store, "warm-up")
    rung_us, between_us = _report_us(rule)
    return {
        "whole": _arm(groups, store, "whole", None),
        "pruned": _arm(groups, store, "pruned", rule),
        "rung_us": rung_us,
        "between_us": between_us,
    }


def _sweep(groups: int, seed: int, rule: umbel.Asha | None) -> umbel.Sweep:
    codes = countries(groups)
    return umbel.sweep(
        train,
        space=space(),
        over={"country": codes},
        data=[growth_of(code) for code in codes],
        trials=TRIALS,
        metric=METRIC,
        seed=seed,
        prune=rule,
        name="curves",
    )


def _arm(groups: int, store: str, name: str, rule: umbel.Asha | None) -> dict[str, Any]:
    best: dict[str, float] = {}
    unsound: list[str] = []
    epochs = verdicts = shared = 0
    seconds = 0.0
    for seed in range(SEEDS):
        seconds += run(_sweep(groups, seed, rule), store, f"{name}-{seed}")
        ended = umbel.open_store(store).run(f"{name}-{seed}")
        for row in ended.best().to_pylist():
            best[f"{row['country']}-{seed}"] = row[f"metric_{METRIC}"]
        by_country: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in sorted(ended.trials().to_pylist(), key=lambda row: row["started"]):
            epochs += row["steps"]
            row["rungs"] = json.loads(row.get("rungs") or "[]")
            by_country[row["country"]].append(row)
        for rows in by_country.values():
            here = sum(len(row["rungs"]) for row in rows)
            verdicts += here
            shared += here * (len({row["worker"] for row in rows}) > 1)
            if rule is not None:
                unsound += unsound_stops(rows, FACTOR)
    return {
        "best": best,
        "epochs": epochs,
        "seconds": seconds,
        "unsound": unsound[:20],
        "verdicts": verdicts,
        "shared": shared,
    }


def _report_us(rule: umbel.Asha) -> tuple[float, float]:
    """Microseconds of a report at the first rung, and of one right after it."""
    from umbel.scheduler.search.standings import Standings

    known = Standings(rule, "min", 2_000)
    for trial in range(1_000):
        known.course(trial).report(FIRST, trial * 0.618 % 1)
    courses = [known.course(trial) for trial in range(1_000, 2_000)]
    began = time.perf_counter()
    for course in courses:
        course.report(FIRST, course.trial * 0.618 % 1)
    middle = time.perf_counter()
    for course in courses:
        course.report(FIRST + 1, 0.0)
    return (middle - began) * 1e3, (time.perf_counter() - middle) * 1e3
