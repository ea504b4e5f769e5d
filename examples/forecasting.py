"""How is one country's growth forecast, and how wrong is a forecast? Pure NumPy: no files, no Umbel.

**The model** forecasts growth (log differences of real GDP) 1 to 5 years ahead with one linear equation a horizon.
Growth tends to return to a level, so the equation starts from a prior: growth `h` years ahead is the level plus
`persistence ** h` times the last year's distance from it. A ridge regression on lagged growth, a trend and
covariates then learns what the prior misses, and shrinks to the prior where the data say little (the idea of the
"Minnesota" prior of Litterman 1986). The level is a mix of the country's own mean in the window and the world's mean
of the last 20 years, because countries' growth regresses to the world's (Pritchett and Summers 2014). Unusual years
are pulled in to `clip` robust standard deviations, so that one war or oil find doesn't own the regression.

**Short series** are never an error while they have `FIRST_ORIGIN + 1` years; a configuration that asks for more than
a series has is shrunk:

- the window is at most the years there are;
- lags are at most a quarter of the window's years, and at least one;
- a covariate with a gap inside the window is left out of that fit;
- a horizon with fewer than two (input, target) pairs uses the prior alone;
- the backtest has an origin at each of the last 12 years that leaves at least four years to fit on, and the horizon
  ends where the years end. Seven growth rates give origins after 4, 5 and 6 years, with 3, 2 and 1 years to forecast.

**The measure** is the mean absolute scaled error (MASE) of Hyndman and Koehler (2006), "Another look at measures of
forecast accuracy", International Journal of Forecasting 22(4), 679-688: the mean absolute error divided by the mean
absolute error of the naive one-step forecast within the training years, here the mean absolute change of growth from
one year to the next. It has no unit, so countries can be averaged; 1 is as wrong as "next year grows as this year"
was in the training years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = [
    "COVARIATES",
    "HORIZON",
    "Floats",
    "GrowthModel",
    "Series",
    "absolute_scale",
    "backtest_errors",
    "fit",
    "last_value",
    "mase",
    "mean_drift",
]

Floats = NDArray[np.float64]

#: Years ahead that a model forecasts.
HORIZON = 5
#: Forecast origins of a backtest: the last years of the series, one origin a year.
ORIGINS = 12
#: Growth rates that the first origin of a backtest needs before it.
FIRST_ORIGIN = 4
#: Years of world growth that the level is mixed with.
WORLD_YEARS = 20

#: The sets of covariates that a configuration can name. Growth rates, but for `csh_i`: investment as a share of GDP.
COVARIATES: dict[str, tuple[str, ...]] = {
    "none": (),
    "world": ("world",),
    "investment": ("csh_i", "rnna"),
    "inputs": ("pop", "emp", "rnna"),
    "all": ("world", "csh_i", "rnna", "emp", "pop"),
}


@dataclass(frozen=True)
class Series:
    """One country's consecutive years, oldest first.

    `growth[i]` is the log difference of real GDP from the year before `years[i]`. Each covariate has one value a year,
    NaN where it isn't known. `world`, the growth of the median country, must be among them.
    """

    country: str
    years: NDArray[np.int64]
    growth: Floats
    covariates: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.growth)

    def __getitem__(self, part: slice) -> Series:
        """The years in a slice: `series[:n]` is all that somebody knew `n` years in."""
        return Series(
            self.country,
            self.years[part],
            self.growth[part],
            {name: values[part] for name, values in self.covariates.items()},
        )


@dataclass(frozen=True)
class GrowthModel:
    """A fitted forecaster of one country's growth: numbers only, so that it stores small and loads anywhere."""

    country: str
    #: The last year the model has seen.
    last_year: int
    #: Where growth returns to (log difference a year), and how much of a departure survives a year.
    level: float
    persistence: float
    #: Departure from the level in the last year.
    departure: float
    #: What the regression adds: a row for each horizon, a column for each input, times the inputs of the last year.
    coefficients: Floats
    inputs: Floats
    #: Forecasts stay within the growth that the window has seen.
    bounds: tuple[float, float]

    def predict(self, horizon: int = HORIZON) -> Floats:
        """Growth (log differences) in the `horizon` years after `last_year`; raises ValueError beyond 5 years."""
        if not 1 <= horizon <= len(self.coefficients):
            raise ValueError(f"horizon is {horizon}; this model forecasts 1 to {len(self.coefficients)} years ahead")
        ahead = np.arange(1, horizon + 1)
        path = self.level + self.persistence**ahead * self.departure + self.coefficients[:horizon] @ self.inputs
        return np.clip(path, *self.bounds)


def fit(config: Mapping[str, Any], series: Series) -> GrowthModel:
    """Fit one configuration to all years of a series; about 0.15 ms.

    `config` holds `window` (years), `lags` (years), `ridge` (penalty a row, on standardised inputs), `persistence`
    (0 to 1), `world` (weight of the world's growth in the level, 0 to 1), `clip` (robust standard deviations),
    `covariates` (a key of `COVARIATES`) and `trend` (bool). What a short series can't carry is shrunk: see the top.
    """
    seen = series[-config["window"] :]
    growth = _pull_in(seen.growth, config["clip"])
    world = float(series.covariates["world"][-WORLD_YEARS:].mean())
    level = (1 - config["world"]) * float(growth.mean()) + config["world"] * world

    lags = max(1, min(config["lags"], (len(growth) - 1) // 4))
    inputs = _design(growth, seen.covariates, lags, COVARIATES[config["covariates"]], config["trend"])
    departures = growth[lags - 1 :] - level

    columns = inputs.shape[1]
    coefficients = np.zeros((HORIZON, columns))
    for ahead in range(1, HORIZON + 1):
        known = inputs[:-ahead]
        if len(known) < 2:
            break
        missed = departures[ahead:] - config["persistence"] ** ahead * departures[:-ahead]
        penalty = config["ridge"] * len(known) * np.eye(columns)
        coefficients[ahead - 1] = np.linalg.solve(known.T @ known + penalty, known.T @ missed)

    return GrowthModel(
        country=series.country,
        last_year=int(series.years[-1]),
        level=level,
        persistence=float(config["persistence"]),
        departure=float(departures[-1]),
        coefficients=coefficients,
        inputs=inputs[-1].copy(),
        bounds=(min(level, float(growth.min())), max(level, float(growth.max()))),
    )


def backtest_errors(config: Mapping[str, Any], series: Series) -> Floats:
    """Absolute errors of every forecast from every origin, each fitted only on the years before it; about 2 ms."""
    years = len(series)
    if years <= FIRST_ORIGIN:
        raise ValueError(f"{series.country} has {years} growth rates; a backtest needs {FIRST_ORIGIN + 1}")
    errors = []
    for origin in range(max(FIRST_ORIGIN, years - ORIGINS), years):
        actual = series.growth[origin : origin + HORIZON]
        errors.append(np.abs(fit(config, series[:origin]).predict(len(actual)) - actual))
    return np.concatenate(errors)


def last_value(growth: Floats, horizon: int = HORIZON) -> Floats:
    """The baseline that repeats the last growth rate."""
    return np.full(horizon, growth[-1])


def mean_drift(growth: Floats, horizon: int = HORIZON) -> Floats:
    """The baseline that goes on with the mean growth of all training years."""
    return np.full(horizon, growth.mean())


def absolute_scale(training: Floats) -> float:
    """The MASE's denominator: the mean absolute year-to-year change of growth in the training years."""
    return float(np.abs(np.diff(training)).mean())


def mase(actual: Floats, forecast: Floats, training: Floats) -> float:
    """Mean absolute scaled error of a forecast, scaled by the training years only."""
    return float(np.abs(actual - forecast).mean()) / absolute_scale(training)


def _pull_in(growth: Floats, clip: float) -> Floats:
    """Growth with outliers moved to `clip` robust standard deviations (1.4826 MAD) from the median."""
    median = np.median(growth)
    spread = clip * 1.4826 * np.median(np.abs(growth - median))
    return np.clip(growth, median - spread, median + spread) if spread > 0 else growth


def _design(growth: Floats, covariates: Mapping[str, Floats], lags: int, names: tuple[str, ...], trend: bool) -> Floats:
    """Standardised inputs, a row for each year from the `lags`-th on, holding only what was known in that year."""
    columns = [sliding_window_view(growth, lags)]
    for name in names:
        values = covariates[name][lags - 1 :]
        if not np.isnan(values).any():
            columns.append(values[:, None])
    if trend:
        columns.append(np.arange(len(growth) - lags + 1, dtype=np.float64)[:, None])
    inputs: Floats = np.hstack(columns)
    spread = inputs.std(axis=0)
    # A column that never changes says nothing; three standard deviations keep a freak value from steering a forecast.
    scaled: Floats = (inputs - inputs.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    return scaled.clip(-3.0, 3.0)
