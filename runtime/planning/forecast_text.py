"""How is a forecast shown to people? As lines, with a chart of blocks in the terminal, or as a picture.

Makes texts and pictures of what it is given; it must not forecast anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from umbel.runtime.driver.rates import format_count, format_duration
from umbel.scheduler.errors import UsageError
from umbel.scheduler.words import counted

if TYPE_CHECKING:
    from umbel.runtime.planning.forecast import Forecast

__all__ = ["chart", "describe", "print_forecast", "save_chart"]

#: Eighths of a character cell, from nothing to all of it.
BLOCKS = " ▁▂▃▄▅▆▇█"


def describe(forecast: Forecast) -> list[tuple[str, str]]:
    """A forecast as pairs of what and how much."""
    gpus = f" and {forecast.gpus:g} GPUs" if forecast.gpus else ""
    slots = f"{forecast.slots:g} CPUs" if forecast.slots != 1 else "1 CPU"
    over = forecast.makespan_s / forecast.lower_bound_s - 1 if forecast.lower_bound_s else 0.0
    rows = [
        ("machines", f"{format_count(forecast.nodes)} × {slots}{gpus}"),
        ("work", f"{counted(forecast.elements, 'element')}, {_hours(forecast.core_hours, 'core-hour')}"),
        ("times from", forecast.source),
        ("makespan", f"{format_duration(forecast.makespan_s)}, {over:.1%} over the lower bound"),
        ("start-up", format_duration(forecast.startup_s)),
        ("utilisation", f"{forecast.mean_utilisation:.1%}"),
        ("machine time", _hours(forecast.node_hours, "node-hour")),
    ]
    if forecast.cost is not None:
        rows.append(("cost", f"{forecast.cost:,.2f}"))
    if forecast.nodes_lost or forecast.run_again:
        rows.append(
            (
                "losses",
                f"{counted(forecast.nodes_lost, 'machine')}, {counted(forecast.run_again, 'run')} repeated",
            )
        )
    rows.append(
        ("driver", f"{forecast.driver_load:.0%} busy, {forecast.peak_messages_per_s:,.0f} messages/s at the peak")
    )
    return rows


def _hours(amount: float, unit: str) -> str:
    return f"{amount:,.1f} {unit}s" if amount >= 1 else f"{amount:.3f} {unit}s"


def print_forecast(forecast: Forecast) -> None:
    """Print a forecast and its chart."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for what, how_much in describe(forecast):
        table.add_row(what, how_much)
    console.print(table)
    console.print()
    console.print(chart(forecast, width=max(20, min(72, console.width - 8))), highlight=False)


def chart(forecast: Forecast, width: int = 64, height: int = 6) -> str:
    """Busy CPUs over time, of all that there may be: ``height`` lines of blocks and two of axis."""
    total_s = forecast.startup_s + forecast.makespan_s
    most = forecast.nodes * forecast.slots
    label_width = max(3, len(f"{most:g}"))
    lines = [" " * (label_width + 1) + "CPUs busy"]
    columns = [level / most if most else 0.0 for level in _columns(forecast, total_s, width)]
    for row in range(height, 0, -1):
        label = {height: f"{most:g}", 1: "0"}.get(row, "")
        cells = (BLOCKS[round(8 * min(1.0, max(0.0, level * height - (row - 1))))] for level in columns)
        lines.append(f"{label:>{label_width}} {''.join(cells)}".rstrip())
    lines.append(" " * (label_width + 1) + "─" * width)
    lines.append(" " * (label_width + 1) + "0" + format_duration(total_s).rjust(width - 1))
    return "\n".join(lines)


def _columns(forecast: Forecast, total_s: float, width: int) -> list[float]:
    """The mean number of busy CPUs in each of ``width`` equal parts of the time."""
    busy = [cpus * share for cpus, share in zip(forecast.cpus, forecast.utilisation, strict=True)]
    if not busy or total_s <= 0:
        return [0.0] * width
    ends = np.minimum(np.arange(len(busy) + 1) * forecast.bin_s, total_s)
    sums = np.concatenate(([0.0], np.cumsum(busy * np.diff(ends))))
    edges = np.interp(np.linspace(0.0, total_s, width + 1), ends, sums)
    return [float(part) for part in np.diff(edges) / (total_s / width)]


def save_chart(forecast: Forecast, path: str) -> None:
    """Draw utilisation over time into a file; its ending says which format (png, svg, pdf).

    Raises:
        UsageError: matplotlib is not installed, or the file can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "a chart can't be drawn: matplotlib is not installed",
            hint="pip install matplotlib, or leave out --chart for a chart in the terminal",
        ) from None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    end = (forecast.startup_s + forecast.makespan_s) / 60
    times = [at * forecast.bin_s / 60 for at in range(len(forecast.cpus))] + [end]
    busy = [cpus * share for cpus, share in zip(forecast.cpus, forecast.utilisation, strict=True)]
    there, busy = [*forecast.cpus, *forecast.cpus[-1:]], [*busy, *busy[-1:]]
    axes.fill_between(times[-len(busy) :], busy, step="post", alpha=0.35, label="busy")
    axes.step(times[-len(there) :], there, where="post", linewidth=1, label="there")
    axes.set(xlabel="minutes", ylabel="CPUs", ylim=(0, None), xlim=(0, end or 1))
    axes.legend(frameon=False)
    axes.set_title(
        f"{counted(forecast.elements, 'element')} on {format_count(forecast.nodes)} × {forecast.slots:g} CPUs: "
        f"{format_duration(forecast.makespan_s)}"
    )
    try:
        figure.savefig(Path(path), dpi=144)
    except (OSError, ValueError) as error:
        raise UsageError(
            "the chart can't be written", got=f"{path}: {error}", expected="a file ending in .png, .svg or .pdf"
        ) from None
