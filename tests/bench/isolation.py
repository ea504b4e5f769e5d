"""How is a part of an arm run in a process of its own, under a time limit, with nothing left behind?

`Isolated` starts ``python -m tests.bench.part`` for a module-level function and its keyword arguments (plain
JSON values), in a process group of its own, and gives back what the function returns. When the arm's time is
up, or this process is interrupted, the whole group is ended: the part and the Ray that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.machine import ROOT

__all__ = ["Isolated", "PartError"]

_TAIL = 1500
#: Seconds that a part gets to end by itself after it was asked to.
_GRACE_S = 5.0


class PartError(Exception):
    """A part failed or ran out of time; the text says which and how."""


class Isolated:
    """Runs parts of one arm.

    Args:
        limit_s: seconds for all parts of the arm together.
        folder: where parts may keep files; it outlives them all.
    """

    def __init__(self, limit_s: float, folder: Path) -> None:
        self.folder = folder
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self._seconds = 0.0
        self._weighed_s = 0.0

    def __call__(self, function: Callable[..., Mapping[str, Any]], **arguments: Any) -> dict[str, Any]:
        """What a function returns, and with it two figures.

        ``process_s``: seconds from the start of its process to its end. ``others``: the share of the cores that others
        used meanwhile.

        Raises:
            PartError: it raised, died, or the arm's time is up.
        """
        name = f"{function.__module__}:{function.__qualname__}"
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            answer, log = Path(scratch) / "answer.json", Path(scratch) / "log.txt"
            command = [sys.executable, "-m", "tests.bench.part", name, json.dumps(arguments), str(answer)]
            began = time.perf_counter()
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
                try:
                    code = process.wait(max(0.0, self._deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise PartError(f"not done within the arm's {self._limit_s:g} s") from None
                finally:
                    seconds = time.perf_counter() - began
                    _end(process)
            if code != 0 or not answer.exists():
                raise PartError(f"{name} ended with code {code}:\n{_tail(log)}")
            found: dict[str, Any] = {**json.loads(answer.read_text(encoding="utf-8")), "process_s": seconds}
            self._weighed_s += seconds * found["others"]
            self._seconds += seconds
            return found

    @property
    def others(self) -> float:
        """The share of the cores that others used while parts ran, 0 to 1."""
        return self._weighed_s / self._seconds if self._seconds else 0.0


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-_TAIL:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part that still runs, then what is left of its group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its group bears its number, also after its end
    except ProcessLookupError:
        return
