"""What do groups gain by learning from one another, and by sharing a budget? On the example's real data.

Measured: the example's countries (every second of 182), its space and split, five seeds, on a Ray that is up: the best
trial of each country after so many trials a country on average, by random search, by TPE country by country, by TPE
with ``transfer=True``, and by that with one budget over all. A search's first n trials are those of a shorter one, so
one run gives all columns; of the shared budget it is the first n times countries that were begun.

- Normalised regret: (best so far - best that any arm ever found) / (median of random search - that), 0 is perfect; the
  mean over countries.
- Rank: place among the arms with as many trials, 1 is best; the mean over countries.
- Held-out skill, as the example judges: 1 - mean MASE of the winners on five years that no trial has seen / that of the
  mean drift.

Each is told as mean and standard deviation over the seeds. Nothing is promised but the goal is told: the regret with
transfer after 37 trials over that of TPE after 110.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import umbel
from tests.bench.isolation import Isolated
from tests.bench.machine import ROOT
from tests.bench.measurement import Measurement
from tests.bench.workload import run, start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 1800.0
SEEDS = 5
EVERY = 2
COLUMNS = (10, 20, 37, 55, 110)
#: By arm: what `umbel.sweep` is given, and the trials a country.
ARMS: dict[str, tuple[dict[str, Any], int]] = {
    "random": ({"search": "random"}, 110),
    "TPE": ({"search": "tpe"}, 110),
    "TPE + transfer": ({"search": "tpe", "transfer": True}, 55),
    "TPE + transfer + budget": ({"search": "tpe", "transfer": True, "budget": True}, 37),
}


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    seeds = SEEDS if divisor == 1 else 1
    found = isolated(drive, every=EVERY * divisor, seeds=seeds, store=str(isolated.folder / "transfer-store"))
    table = _table(found)
    measurements = [
        Measurement(f"{arm}: normalised regret after 37 trials", row["regret"]["37"][0], "", None, _told(row))
        for arm, row in table.items()
    ]
    ratio = table["TPE + transfer"]["regret"]["37"][0] / table["TPE"]["regret"]["110"][0]
    shared = table["TPE + transfer + budget"]["regret"]["37"][0] / table["TPE"]["regret"]["110"][0]
    note = f"with the shared budget {shared:.2f} x; 1 is the goal"
    measurements.append(Measurement("regret with transfer after 37 trials / of TPE after 110", ratio, "x", None, note))
    return measurements, {"table": table, "countries": len(found["countries"]), "seconds": found["seconds"]}


def _told(row: dict[str, dict[str, tuple[float, float]]]) -> str:
    return "; ".join(
        f"{what} " + ", ".join(f"{count}: {mean:.3f}±{spread:.3f}" for count, (mean, spread) in columns.items())
        for what, columns in row.items()
    )


def drive(every: int, seeds: int, store: str) -> dict[str, Any]:
    """All arms, one after another: by arm, seed, country and column the best metric, and the held-out error of it."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    start_ray()
    gdp, panel = _example()
    countries = list(panel.training)[::every]
    best: dict[str, list[Any]] = {}
    held: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    reference: list[list[float]] = []
    for arm, (given, trials) in ARMS.items():
        for seed in range(seeds):
            name = f"{arm.replace(' ', '').replace('+', '-')}-{seed}"
            sweep = _sweep(gdp, panel, countries, seed, given, trials)
            seconds[arm] = seconds.get(arm, 0.0) + run(sweep, store, name)
            rows = umbel.open_store(store).run(name).trials()
            metric, errors, all_of_them = _columns(gdp, panel, countries, rows, trials)
            best.setdefault(arm, []).append(metric)
            held.setdefault(arm, []).append(errors)
            if arm == "random":
                reference.append(all_of_them)
    return {
        "best": best,
        "held": held,
        "median": np.mean(reference, axis=0).tolist(),
        "drift": [_drift(panel, country) for country in countries],
        "countries": countries,
        "seconds": seconds,
    }


def _example() -> tuple[Any, Any]:
    folder = str(Path(ROOT) / "examples")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return import_module("gdp"), import_module("gdp_data").panel()


def _sweep(gdp: Any, panel: Any, countries: list[str], seed: int, given: dict[str, Any], trials: int) -> umbel.Sweep:
    counted: dict[str, Any] = {"trials": trials}
    if "budget" in given:
        counted = {"budget": trials * len(countries), "floor": 10, "trials": None}
    return umbel.sweep(
        gdp.backtest,
        space=gdp.SPACE,
        over={"country": countries},
        data=[panel.training[country] for country in countries],
        metric="mase",
        seed=seed,
        name="backtest",
        **{**given, **counted},
    )


def _columns(gdp: Any, panel: Any, countries: list[str], rows: Any, trials: int) -> tuple[Any, Any, list[float]]:
    """By country and column the best metric and its held-out error; and by country the median of all trials."""
    table = rows.to_pylist()
    begun = sorted(table, key=lambda row: row["started"])
    shared = len({sum(row["country"] == country for row in table) for country in countries[:10]}) > 1
    places = {country: number for number, country in enumerate(countries)}
    best: list[list[float]] = [[] for _ in countries]
    held: list[list[float]] = [[] for _ in countries]
    by_country: list[list[dict[str, Any]]] = [[] for _ in countries]
    for row in table:
        by_country[places[row["country"]]].append(row)
    for count in COLUMNS:
        if count > trials:
            break
        early = {row["trial"] for row in begun[: count * len(countries)]}
        for place, (country, all_rows) in enumerate(zip(countries, by_country, strict=True)):
            taken = [row for row in all_rows if row["trial"] in early] if shared else all_rows[:count]
            winner = min(taken or all_rows[:1], key=lambda row: row["metric_mase"])
            config = {name: winner[f"config_{name}"] for name in gdp.SPACE}
            best[place].append(winner["metric_mase"])
            held[place].append(_held(gdp, panel, country, config))
    return best, held, [float(np.median([row["metric_mase"] for row in each])) for each in by_country]


def _held(gdp: Any, panel: Any, country: str, config: dict[str, Any]) -> float:
    series, after = panel.training[country], panel.held_out[country]
    return float(gdp.mase(after, gdp.fit(config, series).predict(len(after)), series.growth))


def _drift(panel: Any, country: str) -> float:
    forecasting = import_module("forecasting")
    series, after = panel.training[country], panel.held_out[country]
    return float(forecasting.mase(after, forecasting.mean_drift(series.growth, len(after)), series.growth))


def _table(found: dict[str, Any]) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """By arm, measure and column: mean and standard deviation over seeds."""
    best = {arm: np.array(each) for arm, each in found["best"].items()}  # seeds x countries x columns
    floor = np.min([each.min(axis=(0, 2)) for each in best.values()], axis=0)
    unit = np.maximum(np.array(found["median"]) - floor, 1e-12)
    drift = float(np.mean(found["drift"]))
    table: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for arm, values in best.items():
        row: dict[str, dict[str, tuple[float, float]]] = {"regret": {}, "rank": {}, "skill": {}}
        for place, count in enumerate(COLUMNS[: values.shape[2]]):
            regret = ((values[:, :, place] - floor) / unit).mean(1)
            others = [each[:, :, place] for each in best.values() if each.shape[2] > place]
            mine = values[:, :, place]
            rank = sum((other < mine) + 0.5 * (other == mine) for other in others) + 0.5
            held = np.array(found["held"][arm])[:, :, place]
            skill = 1 - held.mean(1) / drift
            for name, each in (("regret", regret), ("rank", rank.mean(1)), ("skill", skill)):
                row[name][str(count)] = (float(each.mean()), float(each.std(ddof=1)) if len(each) > 1 else 0.0)
        table[arm] = row
    return table
