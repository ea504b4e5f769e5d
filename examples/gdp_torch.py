"""Forecast the growth of 182 economies with 20,020 small neural networks, hundreds of which are trained as one.

    python examples/gdp_torch.py                      # a local Ray, results in ./umbel-store
    python examples/gdp_torch.py --countries 12       # a smaller run, for a first look

The question, the data, the years that are held out, the measure and the baselines are those of `gdp.py`; the model is
another. A network sees the last years of a country's growth and the world's and says the next five. For each country a
random search trains 110 of them, on the years before the last 12 that trials may see, and judges their forecasts from
each of those 12. The winner is trained once more on all years up to 2012 and judged on the five that were held out.

`train` gets the configs of many trials as columns (`@umbel.fused`): trials of all countries whose networks have the
same shape become one batch for `umbel.torch.fit_many`.

With 60 years of data a country, a network has little to learn from, and the mean of all years is hard to beat; that is
what the table shows.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from forecasting import FIRST_ORIGIN, HORIZON, ORIGINS, Floats, Series, absolute_scale, last_value, mase, mean_drift
from gdp import load, load_held_out, report
from gdp_data import panel
from numpy.lib.stride_tricks import sliding_window_view
from ray import tune
from torch import nn

import umbel
import umbel.torch

SPACE = {
    "lags": [3, 6],  # years of growth, the country's and the world's, that the network sees
    "hidden": [4, 8, 16],  # its width
    "lr": tune.loguniform(1e-3, 3e-2),
    "weight_decay": tune.loguniform(1e-2, 10),  # how strongly it is held to the mean of the years it was trained on
    "dropout": tune.choice([0.0, 0.2, 0.4]),
}
STEPS = 200
#: What makes networks differ in shape, so that they can't be trained as one.
SHAPE = ("lags", "hidden")


# --- The network ----------------------------------------------------------------------------------------------------


def make_net(config: Mapping[str, Any]) -> nn.Module:
    """A network with one hidden layer."""
    return nn.Sequential(
        nn.Linear(2 * config["lags"], config["hidden"]),
        nn.Tanh(),
        nn.Dropout(config["dropout"]),
        nn.Linear(config["hidden"], HORIZON),
    )


def masked_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared error over the years that there are: targets come with a mask beside them."""
    growth, known = target[..., :HORIZON], target[..., HORIZON:]
    return ((output - growth).square() * known).sum(-1).div(known.sum(-1).clamp(min=1)).mean()


class Scaled:
    """A country's growth in standard deviations of its first `seen` years, about their mean: zero is mean drift."""

    def __init__(self, series: Series, seen: int) -> None:
        self.mean, self.spread = float(series.growth[:seen].mean()), float(series.growth[:seen].std()) or 1.0
        both = np.stack([series.growth, series.covariates["world"]], axis=1)
        middle, spread = both[:seen].mean(axis=0), both[:seen].std(axis=0)
        self._both = (both - middle) / np.where(spread > 0, spread, 1.0)

    def inputs(self, origins: Iterable[int], lags: int) -> Floats:
        """What is known at each origin, a row each; years before the first count as zero."""
        padded = np.concatenate([np.zeros((lags, 2)), self._both])
        windows = sliding_window_view(padded, lags, axis=0).reshape(-1, 2 * lags)
        return windows[list(origins)]

    def targets(self, origins: Iterable[int], years: int) -> Floats:
        """The five years after each origin and, beside them, which of them are among the first `years`."""
        future = np.concatenate([self._both[:years, 0], np.full(HORIZON, np.nan)])
        rows = np.stack([future[origin : origin + HORIZON] for origin in origins])
        return np.hstack([np.nan_to_num(rows), ~np.isnan(rows)])


def training_data(series: Series, lags: int, years: int) -> tuple[Floats, Floats]:
    """Inputs and targets from the first `years` years alone."""
    scaled, origins = Scaled(series, years), range(1, years)
    return scaled.inputs(origins, lags), scaled.targets(origins, years)


# --- The tasks ------------------------------------------------------------------------------------------------------


@umbel.fused(by=SHAPE, fuse_groups=True)
def train(configs: umbel.Configs, data: list[Series]) -> dict[str, Floats]:
    """Many trials of many countries: train on the early years, forecast from each of the last 12."""
    lags = configs.common["lags"]
    firsts = [max(FIRST_ORIGIN, len(series) - ORIGINS) for series in data]
    fitted = umbel.torch.fit_many(
        make_net,
        [training_data(series, lags, first) for series, first in zip(data, firsts, strict=True)],
        configs,
        masked_loss,
        "adamw",
        steps=STEPS,
        groups=configs.group,
    )
    judged = np.zeros((len(data), ORIGINS, 2 * lags))
    actual = np.zeros((len(data), ORIGINS, 2 * HORIZON))
    units = np.zeros(len(data))
    for place, (series, first) in enumerate(zip(data, firsts, strict=True)):
        scaled, origins = Scaled(series, first), range(first, len(series))
        judged[place, : len(origins)] = scaled.inputs(origins, lags)
        actual[place, : len(origins)] = scaled.targets(origins, len(series))
        units[place] = scaled.spread / absolute_scale(series.growth)
    forecasts = fitted.predict(judged, groups=configs.group)
    growth, known = np.split(actual[configs.group], 2, axis=-1)
    errors = (np.abs(forecasts - growth) * known).sum(axis=(1, 2)) / known.sum(axis=(1, 2))
    return {"mase": errors * units[configs.group]}


@umbel.task
def judge(best: list[umbel.Best], data: list[Series], held_out: list[Floats], countries: list[str]) -> pa.Table:
    """Train each country's winner on all training years; one row a country with its and the baselines' errors."""
    shapes: dict[tuple[Any, ...], list[int]] = {}
    for place, each in enumerate(best):
        shapes.setdefault(tuple(each.config[name] for name in SHAPE), []).append(place)
    rows: list[dict[str, Any]] = [{} for _ in best]
    for (lags, *_), places in shapes.items():
        winners = [{**best[place].config, "seed": best[place].seed} for place in places]
        training = [training_data(data[place], lags, len(data[place])) for place in places]
        fitted = umbel.torch.fit_many(make_net, training, winners, masked_loss, "adamw", steps=STEPS)
        last = [Scaled(data[place], len(data[place])).inputs([len(data[place])], lags) for place in places]
        forecasts = fitted.predict(np.stack(last), groups=np.arange(len(places)))[:, 0]
        for place, forecast in zip(places, forecasts, strict=True):
            series, actual = data[place], held_out[place]
            scaled = Scaled(series, len(series))
            model = scaled.mean + scaled.spread * forecast[: len(actual)]
            rows[place] = {
                "country": countries[place],
                "mase": mase(actual, model, series.growth),
                "mase_last_value": mase(actual, last_value(series.growth, len(actual)), series.growth),
                "mase_mean_drift": mase(actual, mean_drift(series.growth, len(actual)), series.growth),
            }
    return pa.Table.from_pylist(rows)


def graph(countries: Sequence[str] | None = None, trials: int = 110) -> Any:
    """The job as a graph: load -> sweep -> best -> judge. All countries, unless some are named."""
    countries = list(panel().training) if countries is None else list(countries)
    series = load.map(countries)
    sweep = umbel.sweep(
        train,
        space=SPACE,
        over={"country": countries},
        data=series,
        trials=trials,
        metric="mase",
        mode="min",
        seed=0,
        name="networks",
    )
    return judge.bind(sweep.best(), series, load_held_out.map(countries), countries)


def main() -> None:
    """Run the job and print the result."""
    parser = argparse.ArgumentParser(description="Forecast the growth of 182 economies with small networks.")
    parser.add_argument("--store", default=os.environ.get("UMBEL_STORE", "umbel-store"), help="directory or URL")
    parser.add_argument("--name", default="gdp-torch", help="the run's name: the same name resumes")
    parser.add_argument("--trials", type=int, default=110, help="networks a country (default: 110)")
    parser.add_argument("--countries", type=int, help="only the first N countries by ISO code (default: all 182)")
    parser.add_argument("--executor", choices=["ray", "inline"], default="ray")
    arguments = parser.parse_args()

    node = graph(list(panel().training)[: arguments.countries], arguments.trials)
    run = umbel.run(node, store=arguments.store, name=arguments.name, executor=arguments.executor)
    report(run.value(node), run.best())
    print(f"Trials and their lineage: run {arguments.name!r} in {arguments.store}")


if __name__ == "__main__":
    main()
