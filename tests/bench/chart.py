"""How does the `noop` arm look? As the picture of the README: `python -m tests.bench.chart RESULTS.json PICTURE`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

__all__ = ["bars", "draw"]

INK, MUTED, UMBEL, OTHERS = "#1f2430", "#6b7280", "#0f6fb8", "#c9ced6"


def bars(details: dict[str, Any]) -> list[tuple[str, float]]:
    """What is compared, and the seconds that all trials take it. Of Tune a few hundred were measured."""
    trials, sample = details["trials"], details["tune_trials"]
    return [
        ("Umbel: every trial stored,\nwith its lineage", statistics.median(details["umbel_s"])),
        ("plain Ray calls:\nnothing stored", statistics.median(details["plain_s"])),
        ("Ray Tune without\nloggers and snapshots", details["tune_bare_s"] / sample * trials),
        ("Ray Tune", details["tune_s"] / sample * trials),
    ]


def draw(results: Path, picture: Path) -> None:
    """Draw the `noop` arm of a JSON document that `make bench` has written.

    Raises:
        KeyError: the document has no such arm.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    document = json.loads(results.read_text(encoding="utf-8"))
    details = document["arms"]["noop"]["details"]
    shown = bars(details)
    with plt.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}):
        figure, axes = plt.subplots(figsize=(9, 2.9), dpi=150)
        places = range(len(shown))
        seconds = [each for _, each in shown]
        axes.barh(places, seconds, color=[UMBEL, *[OTHERS] * (len(shown) - 1)], height=0.62)
        axes.set_xscale("log")
        axes.set_xlim(0.1, max(seconds) * 6)
        axes.invert_yaxis()
        axes.set_yticks(places, [name for name, _ in shown])
        axes.tick_params(axis="both", length=0, colors=INK)
        axes.xaxis.set_visible(False)
        for side in ("top", "right", "bottom", "left"):
            axes.spines[side].set_visible(False)
        for place, each in zip(places, seconds, strict=True):
            told = f"{each:.1f} s" if each < 60 else f"{each / 60:.1f} min"
            axes.text(each * 1.08, place, told, va="center", weight="bold" if place == 0 else "normal")
        cores = document["machine"]["cores"]
        figure.text(
            0.012, 0.93, f"{details['trials']:,} trials that do nothing, on {cores} cores", size=12, weight="bold"
        )
        figure.text(
            0.012,
            0.02,
            f"Logarithmic scale. Tune's times follow from {details['tune_trials']} trials.",
            size=8,
            color=MUTED,
        )
        figure.subplots_adjust(left=0.235, right=0.99, top=0.88, bottom=0.07)
        figure.savefig(picture)
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
