"""Forecast the growth of 182 economies: a hyperparameter search for each, judged on years that no trial has seen.

    python examples/gdp.py                      # a local Ray, results in ./umbel-store, chart in ./gdp.png
    python examples/gdp.py --countries 12       # a smaller run, for a first look
    umbel run examples/gdp.py:graph             # the same job from the command line

The question: from the years up to 2012, how does real GDP grow in 2013-2017? For each country a random search tries
110 configurations of a small forecasting model (`forecasting.py`) by rolling-origin backtest within the years up to
2012. The winner is fitted once more on all those years and then judged on the five that were held out, beside two
baselines that are hard to beat with 60 data points: growth stays as it was last (last value), and growth is what it
was on average (mean drift). Errors are errors of growth, a log difference, averaged over the five years and given as
MASE; `forecasting.py` says how that is scaled.

The data are the Penn World Table 9.1 (`data/README.md`); `gdp_data.py` parts the years, `gdp_chart.py` draws.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from forecasting import (
    COVARIATES,
    Floats,
    GrowthModel,
    Series,
    absolute_scale,
    backtest_errors,
    fit,
    last_value,
    mase,
    mean_drift,
)
from gdp_data import panel
from ray import tune

import umbel

SPACE = {
    "window": tune.choice([8, 12, 20, 35, 70]),  # years that the fit sees
    "lags": tune.randint(1, 5),  # years of own growth among the inputs
    "ridge": tune.loguniform(0.5, 100),  # how strongly the regression is held to its prior
    "persistence": tune.uniform(0.0, 0.6),  # how much of a departure from the level survives a year
    "world": tune.uniform(0.0, 0.8),  # weight of the world's growth in the level
    "clip": tune.choice([1.0, 1.5, 2.5]),  # robust standard deviations beyond which a year is pulled in
    "covariates": tune.choice(list(COVARIATES)),
    "trend": tune.choice([False, True]),
}


# --- The tasks ------------------------------------------------------------------------------------------------------


@umbel.task
def load(country: str) -> Series:
    """One country's training years. This, and nothing later, is what trials get."""
    return panel().training[country]


@umbel.task
def load_held_out(country: str) -> Floats:
    """Growth in the five years after the training years: only `refit` gets it, and only to judge."""
    return panel().held_out[country]


def backtest(config: dict[str, Any], data: Series) -> dict[str, float]:
    """One trial, about 2 ms: the errors of a configuration over the last 12 origins within the training years."""
    errors = backtest_errors(config, data)
    return {
        "mase": float(errors.mean()) / absolute_scale(data.growth),
        "rmse": float(np.sqrt(np.square(errors).mean())),
    }


@umbel.task
def refit(best: umbel.Best, data: Series, held_out: Floats) -> umbel.Result:
    """Fit a country's winner on all training years; judge it and the baselines on the held-out ones."""
    model = fit(best.config, data)

    def judge(forecast: Floats) -> float:
        return mase(held_out, forecast, data.growth)

    metrics = {
        "mase": judge(model.predict(len(held_out))),
        "mase_last_value": judge(last_value(data.growth, len(held_out))),
        "mase_mean_drift": judge(mean_drift(data.growth, len(held_out))),
        "training_years": len(data),
    }
    return umbel.Result(metrics, model=model)


@umbel.task
def summarise(fits: list[dict[str, float]], countries: list[str]) -> pa.Table:
    """One row a country: how wrong the winner and the baselines were on the held-out years."""
    rows = [{"country": country, **metrics} for country, metrics in zip(countries, fits, strict=True)]
    return pa.Table.from_pylist(rows)


def graph(countries: Sequence[str] | None = None, trials: int = 110) -> Any:
    """The job as a graph: load -> sweep -> best -> refit -> summarise. All countries, unless some are named."""
    countries = list(panel().training) if countries is None else list(countries)
    series = load.map(countries)
    sweep = umbel.sweep(
        backtest,
        space=SPACE,
        over={"country": countries},
        data=series,
        trials=trials,
        metric="mase",
        mode="min",
        search="random",
        seed=0,
        name="backtest",
    )
    fits = refit.map(sweep.best(), series, load_held_out.map(countries))
    return summarise.bind(fits, countries)


# --- Telling the result ---------------------------------------------------------------------------------------------


def report(summary: pa.Table, best: pa.Table) -> None:
    """Print the model beside the baselines, then the countries where it did best and worst."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    errors = {name: summary[name].to_numpy() for name in ("mase", "mase_last_value", "mase_mean_drift")}
    model, count = errors["mase"], len(summary)
    console = Console()

    first, last = panel().held_out_years
    title = f"Growth forecasts for {first}-{last}, {count} countries"
    overall = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    overall.add_column("forecast")
    for heading in ("mean MASE", "median MASE", "model is better in"):
        overall.add_column(heading, justify="right")
    for label, name in (
        ("winner of the search", "mase"),
        ("last value", "mase_last_value"),
        ("mean drift", "mase_mean_drift"),
    ):
        better = int((model < errors[name]).sum())
        share = "" if name == "mase" else f"{better} of {count} ({better / count:.0%})"
        overall.add_row(label, f"{errors[name].mean():.3f}", f"{np.median(errors[name]):.3f}", share)
    console.print(overall)

    names = [name.removeprefix("config_") for name in best.column_names if name.startswith("config_")]
    configs = {row["country"]: row for row in best.to_pylist()}
    ranked = sorted(summary.to_pylist(), key=lambda row: row["mase"] / row["mase_mean_drift"])
    shown = ranked if count <= 6 else [*ranked[:3], *ranked[-3:]]
    extremes = Table(title="Furthest ahead of and behind mean drift", box=box.SIMPLE_HEAD, title_justify="left")
    extremes.add_column("country")
    for heading in ("MASE", "mean drift"):
        extremes.add_column(heading, justify="right")
    extremes.add_column("winning configuration")
    for row in shown:
        config = {name: configs[row["country"]][f"config_{name}"] for name in names}
        settings = " ".join(f"{name}={_short(value)}" for name, value in config.items())
        name = panel().names[row["country"]]
        extremes.add_row(name, f"{row['mase']:.2f}", f"{row['mase_mean_drift']:.2f}", settings)
    console.print(extremes)


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the job, print the result and draw the chart."""
    parser = argparse.ArgumentParser(description="Forecast the growth of 182 economies and judge it honestly.")
    parser.add_argument("--store", default=os.environ.get("UMBEL_STORE", "umbel-store"), help="directory or URL")
    parser.add_argument("--name", default="gdp", help="the run's name: the same name resumes (default: gdp)")
    parser.add_argument("--trials", type=int, default=110, help="configurations a country (default: 110)")
    parser.add_argument("--countries", type=int, help="only the first N countries by ISO code (default: all 182)")
    parser.add_argument("--executor", choices=["ray", "inline"], default="ray")
    parser.add_argument("--chart", type=Path, default=Path("gdp.png"), help="where the chart goes (default: gdp.png)")
    arguments = parser.parse_args()

    countries = list(panel().training)[: arguments.countries]
    node = graph(countries, arguments.trials)
    run = umbel.run(node, store=arguments.store, name=arguments.name, executor=arguments.executor)
    summary = run.value(node)
    report(summary, run.best())

    print(f"Trials, models and their lineage: run {arguments.name!r} in {arguments.store}")
    if importlib.util.find_spec("matplotlib") is None:
        print("No chart: it needs matplotlib (pip install 'umbel[examples]').")
        return
    from gdp_chart import draw  # here and not above: it takes a second, and workers have no use for it

    models: list[GrowthModel] = [run.load_model(digest) for digest in run.models()["model"].to_pylist()]
    draw(summary, {model.country: model for model in models}, panel(), arguments.chart)
    print(f"Chart: {arguments.chart}")


if __name__ == "__main__":
    main()
