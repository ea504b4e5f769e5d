"""How does the result of `gdp.py` look? One PNG: all countries at the left, four of them closely at the right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from forecasting import GrowthModel, last_value, mean_drift

mpl.use("Agg")  # no display is needed, nor looked for

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

if TYPE_CHECKING:
    from gdp_data import Panel

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
MODEL, LAST, DRIFT = "#0f6fb8", "#d97706", "#7b5aa6"
#: Where in the ranking against mean drift the four countries stand that are shown closely: none is picked by hand.
SHOWN_RANKS = (0.1, 0.37, 0.63, 0.9)
#: Years of history before the forecast.
HISTORY = 22


def draw(summary: pa.Table, models: dict[str, GrowthModel], panel: Panel, path: Path) -> None:
    """Write the chart of a `summarise` table and the winners' models, by country, to a PNG file."""
    style = {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    rows = sorted(summary.to_pylist(), key=lambda row: row["mase"] / row["mase_mean_drift"])
    ranks = sorted({min(len(rows) - 1, int(share * len(rows))) for share in SHOWN_RANKS})
    with plt.rc_context(style):
        figure = plt.figure(figsize=(13, 6.6), dpi=150)
        grid = figure.add_gridspec(
            2, 3, width_ratios=[1.35, 1, 1], left=0.055, right=0.985, top=0.8, bottom=0.085, wspace=0.2, hspace=0.42
        )
        _draw_ranking(figure.add_subplot(grid[:, 0]), rows, ranks)
        for place, rank in enumerate(ranks):
            axes = figure.add_subplot(grid[place // 2, 1 + place % 2])
            _draw_country(axes, "ABCD"[place], rows[rank]["country"], models, panel)

        first, last = panel.held_out_years
        figure.text(0.02, 0.945, f"Forecasting growth in {first}-{last}", size=16, weight="bold")
        figure.text(
            0.02,
            0.9,
            f"{len(rows)} countries, one tuned model each; {first}-{last} was never seen by a trial. "
            "Data: Penn World Table 9.1.",
            color=MUTED,
        )
        _draw_key(figure)
        figure.savefig(path, facecolor="white")
        plt.close(figure)


def _draw_ranking(axes: Any, rows: list[dict[str, Any]], ranks: list[int]) -> None:
    """Error relative to each baseline, each sorted on its own: where a curve crosses 1 is the share that is beaten."""
    count = len(rows)
    share = (np.arange(count) + 0.5) / count
    model = np.array([row["mase"] for row in rows])
    axes.axhline(1, color=INK, linewidth=1)
    beaten = []
    for name, colour in (("mase_mean_drift", DRIFT), ("mase_last_value", LAST)):
        ratio = np.sort(model / np.array([row[name] for row in rows]))
        axes.plot(share, ratio, color=colour, linewidth=2.4, solid_capstyle="round")
        beaten.append((float((ratio < 1).mean()), colour, int((ratio < 1).sum())))
    drift = model / np.array([row["mase_mean_drift"] for row in rows])
    axes.fill_between(share, drift, 1, where=drift < 1, color=DRIFT, alpha=0.1, linewidth=0)

    axes.set(yscale="log", ylim=(0.2, 5), xlim=(0, 1))
    axes.yaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("Model's error relative to each baseline's", loc="left", size=10.5, weight="bold")
    axes.set_xlabel("countries, best to worst (A to D are shown at the right)")

    for (where, colour, number), name, height in zip(beaten, ("mean drift", "last value"), (0.27, 0.225), strict=True):
        text = f"better than {name} in {number} of {count} ({where:.0%})"
        axes.text(0.98, height, text, ha="right", color=colour, weight="bold")
    axes.text(0.015, 1.04, "as wrong as the baseline", color=MUTED, size=8.5, va="bottom")
    for letter, rank in zip("ABCD", ranks, strict=False):
        axes.plot(share[rank], drift[rank], "o", color=DRIFT, markeredgecolor="white", markersize=14)
        axes.text(share[rank], drift[rank], letter, color="white", size=8.5, weight="bold", ha="center", va="center")


def _draw_country(axes: Any, letter: str, country: str, models: dict[str, GrowthModel], panel: Panel) -> None:
    """History, what happened, and the three forecasts of it, in percent a year."""
    series, held_out = panel.training[country], panel.held_out[country]
    years = np.concatenate([series.years[-HISTORY:], series.years[-1] + 1 + np.arange(len(held_out))])
    growth = np.concatenate([series.growth[-HISTORY:], held_out])
    ahead = years[-len(held_out) :]

    axes.axvspan(series.years[-1] + 0.5, ahead[-1] + 0.6, color="#f3f4f6", linewidth=0)
    axes.plot(years, 100 * growth, color=INK, linewidth=1.4)
    axes.plot(ahead, 100 * held_out, "o", color=INK, markersize=3.4)
    for forecast, colour, width in (
        (last_value(series.growth, len(held_out)), LAST, 1.6),
        (mean_drift(series.growth, len(held_out)), DRIFT, 1.6),
        (models[country].predict(len(held_out)), MODEL, 2.6),
    ):
        axes.plot(ahead, 100 * forecast, color=colour, linewidth=width, solid_capstyle="round")
    axes.set_xlim(years[0] - 0.5, ahead[-1] + 0.6)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_major_locator(FixedLocator([year for year in years.tolist() if year % 5 == 0]))
    axes.set_title(f"{letter}  {panel.names[country]}", loc="left", size=10.5, weight="bold")


def _draw_key(figure: Any) -> None:
    """One key for the four country panels, above them."""
    where = 0.455
    for label, colour, width in (
        ("growth", INK, 0.075),
        ("model", MODEL, 0.07),
        ("mean drift", DRIFT, 0.095),
        ("last value", LAST, 0.0),
    ):
        figure.add_artist(plt.Line2D([where, where + 0.018], [0.862, 0.862], color=colour, linewidth=2.4))
        figure.text(where + 0.023, 0.862, label, color=colour, va="center", weight="bold")
        where += width
