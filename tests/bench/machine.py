"""On what was it measured, and was anything else running meanwhile?"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["OthersMeter", "cores", "describe_machine"]

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


class OthersMeter:
    """How much of the machine others use while this process and all that it started (its session) do their work.

    Seen are the other processes that live at the end, their children that have ended, and what a hypervisor keeps for
    itself; a process that ended without its parent waiting for it is missed. Without ``/proc`` nothing is seen.
    """

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._others_s = _others_s()

    def share(self) -> float:
        """The share of all cores since the meter was made, 0 to 1."""
        elapsed_s = time.monotonic() - self._began_s
        return min(1.0, max(0.0, _others_s() - self._others_s) / (elapsed_s * (os.cpu_count() or 1)))


def _others_s() -> float:
    """Processor seconds that the processes of other sessions have used, with their ended children, and stolen ones."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    session = os.getsid(0)
    used = sum(_ticks(entry, session) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return (used + int(fields[8])) / os.sysconf("SC_CLK_TCK")


def _ticks(process: Path, session: int) -> int:
    """Ticks of a process and of its ended children; 0 if it belongs to the session."""
    try:
        fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0  # it has just ended
    return 0 if int(fields[3]) == session else sum(int(number) for number in fields[11:15])
