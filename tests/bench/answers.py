"""How long does it take to ask a store what was made from what?

Measured: a run of 1,000 trials over 200 groups, with models, is made once and copied under 999 other names. Then all
that was made from its code is looked for (found in every run), and from the data of one group; the median of 3 each, on
a local disk. The lineage of a trial, and the difference between two runs, are told beside it.

Must hold: at most 1 s for either search.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import umbel
from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import GROUPS

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 120.0
TIMES = 3
COUNTRIES = [f"C{number:03d}" for number in range(GROUPS)]


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    runs = 1000 // divisor
    part = isolated(make_and_ask, runs=runs, store=str(isolated.folder / "answers-store"))
    note = f"found in {part['code_runs']:,} runs, {part['trials']:,} trials, {part['models']:,} models"
    return [
        Measurement(f"what was made from some code, {runs:,} runs", part["code_s"], "s", at_most(1.0), note),
        Measurement(f"what was made from the data of a group, {runs:,} runs", part["data_s"], "s", at_most(1.0)),
        Measurement("lineage of a trial", part["lineage_s"], "s"),
        Measurement("difference between two runs", part["diff_s"], "s"),
    ], part


@umbel.task
def load(country: str) -> list[float]:
    """The data of a group."""
    return [float(letter) for letter in country.encode()]


def fit(config: dict[str, Any], data: list[float]) -> umbel.Result:
    """A trial with a small model."""
    return umbel.Result(config["level"] * data[-1], model=(config, data))


def make_and_ask(runs: int, store: str) -> dict[str, Any]:
    """Make the runs, then ask."""
    data = load.map(COUNTRIES)
    sweep = umbel.sweep(
        fit,
        space={"level": [5, 4, 3, 2, 1]},
        over={"country": COUNTRIES},
        data=data,
        search="grid",
        metric="loss",
        name="fit",
    )
    first = umbel.run(sweep, store=store, name="run-0", executor="inline", progress="quiet")
    _copy(Path(store), first, runs)
    opened = umbel.open_store(store)
    code = next(entry["code"] for entry in first.record["graph"]["nodes"] if entry["name"] == "fit")
    group = first.elements("load")["digest"][7].as_py()
    found = opened.downstream(code)
    if len(found.runs) != runs or len(opened.downstream(group).runs) != runs:
        raise AssertionError("not every run was found")
    return {
        "code_s": _median_s(lambda: opened.downstream(code)),
        "data_s": _median_s(lambda: opened.downstream(group)),
        "lineage_s": _median_s(lambda: opened.run("run-0").lineage(17)),
        "diff_s": _median_s(lambda: umbel.diff(opened.run("run-0"), opened.run("run-1"))),
        "code_runs": len(found.runs),
        "trials": sum(use.trials for use in found.uses),
        "models": sum(use.models for use in found.uses),
    }


def _copy(store: Path, run: umbel.Run, runs: int) -> None:
    """Copy a run under other names."""
    (mentions,) = (path for path in (store / "mentions").iterdir() if path.is_file())
    for number in range(1, runs):
        name = f"run-{number}"
        shutil.copytree(store / "runs" / run.id, store / "runs" / name)
        record = {**run.record, "id": name, "name": name}
        (store / "runs" / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
        shutil.copy(mentions, mentions.with_name(mentions.name.replace(f"{run.id}~", f"{name}~")))


def _median_s(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return median(times)
