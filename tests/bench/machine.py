"""On what was it measured, and was anything else running meanwhile?"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["busy_share", "cores", "describe_machine"]

ROOT = Path(__file__).resolve().parents[2]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """What a reader needs to compare figures: cores, memory, versions, commit."""
    return {
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "ray": version("ray"),
        "pyarrow": version("pyarrow"),
        "numpy": version("numpy"),
        "umbel": version("umbel"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def busy_share(window_s: float = 1.0) -> float:
    """The share of all cores that is in use, looked at for a moment while this process sleeps: what others take.

    0 where the system doesn't tell (no ``/proc/stat``).
    """
    before = _ticks()
    time.sleep(window_s)
    after = _ticks()
    if before is None or after is None or after[1] == before[1]:
        return 0.0
    return 1.0 - (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Idle and all ticks since the machine started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(number) for number in fields]
    return ticks[3] + ticks[4], sum(ticks)
