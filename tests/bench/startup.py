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

from tests.bench.isolation import Isolated, PartError
from tests.bench.measurement import Measurement, at_most

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 60.0
TIMES = 5


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; it has only one size."""
    python = [sys.executable, "-c"]
    help_s = _seconds([str(Path(sys.executable).with_name("umbel")), "--help"])
    import_s = _seconds([*python, "import umbel; umbel.sweep"])
    bare_s = _seconds([*python, "pass"])
    return [
        Measurement("umbel --help", median(help_s), "s", at_most(0.5)),
        Measurement(
            "import umbel, and its sweep",
            median(import_s),
            "s",
            None,
            f"a bare interpreter: {median(bare_s):.2f} s",
        ),
    ], {"help_s": help_s, "import_s": import_s, "bare_s": bare_s}


def _seconds(command: list[str]) -> list[float]:
    return [_time(command) for _ in range(TIMES + 1)][1:]


def _time(command: list[str]) -> float:
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise PartError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr.strip()[-500:]}")
    return time.perf_counter() - began
