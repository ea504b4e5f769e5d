"""How long does one wait for nothing?

Measured: `umbel --help` and, in a fresh interpreter, ``import umbel``, from the start of the process to its
end; the median of 5 after one that fills the caches.

Must hold: `umbel --help` answers within 0.5 s. Of the import nothing is promised.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 60.0
TIMES = 5


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; it has only one size."""
    found = isolated(drive)
    return [
        Measurement("umbel --help", median(found["help_s"]), "s", at_most(0.5)),
        Measurement(
            "import umbel, and its sweep",
            median(found["import_s"]),
            "s",
            None,
            f"a bare interpreter: {median(found['bare_s']):.2f} s",
        ),
    ], found


def drive() -> dict[str, Any]:
    """Start processes one after another; the seconds of each, by kind."""
    python = [sys.executable, "-c"]
    return {
        "help_s": _seconds([str(Path(sys.executable).with_name("umbel")), "--help"]),
        "import_s": _seconds([*python, "import umbel; umbel.sweep"]),
        "bare_s": _seconds([*python, "pass"]),
    }


def _seconds(command: list[str]) -> list[float]:
    return [_time(command) for _ in range(TIMES + 1)][1:]


def _time(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - began
