"""How much memory does this process hold, and how much did it at most?"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_mb", "resident_mb"]


def resident_mb() -> float:
    """What it holds now, in MB (10^6 bytes), pages shared with others included."""
    return _status_mb("VmRSS") or peak_mb()


def peak_mb() -> float:
    """The most that it has held, in MB."""
    peak = _status_mb("VmHWM")
    if peak is not None:
        return peak
    # Where there is no /proc: bytes on macOS, KiB elsewhere; and it may stem from the process that started this one.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _status_mb(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 / 1e6 if found else None
