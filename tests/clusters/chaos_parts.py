"""What tests of chaos share: processes in sight, a run's progress, a program that is started again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet

__all__ = ["BROKER", "WORKER", "Progress", "Sitting", "kill", "left_behind", "pids", "until"]

T = TypeVar("T")

#: How Ray calls the processes of our workers, and that of the broker.
WORKER = "ray::Worker"
BROKER = "ray::BrokerActor"

#: Seconds after which what has not happened will not happen; machines may be slow and do other things too.
DEADLINE_S = 60.0
#: The same for what a run takes.
RUN_DEADLINE_S = 240.0


def until(found: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Look again and again until there is something to be seen.

    Raises:
        AssertionError: there is not, for too long.
    """
    end = time.monotonic() + deadline_s
    while not (result := found()):
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        threading.Event().wait(0.1)
    return result


def pids(title: str) -> list[int]:
    """The processes whose command begins like this; Ray gives each actor's process its class's name."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if command.startswith(title.encode()):
                found.append(int(folder.name))
    return sorted(found)


def kill(pid: int) -> bool:
    """``kill -9``; False if the process has ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def actors_left(state: Any) -> list[str]:
    """The actors that are not dead, by their classes' names. Ray's public list of them needs its dashboard."""
    found = state.actor_table(None).values()
    return [actor["ActorClassName"] for actor in found if actor["State"] != "DEAD"]


def left_behind(state: Any) -> dict[str, list[Any]]:
    """What is left of our workers, after some patience."""
    with suppress(AssertionError):
        until(lambda: not pids(WORKER) and not actors_left(state), "workers end")
    return {"processes": pids(WORKER), "actors": actors_left(state)}


class Progress:
    """How many trials of a run are durable, counted again at every look."""

    def __init__(self, store: Path, run: str = "chaos", sweep: str = "search") -> None:
        self._folder = store / "runs" / run / "trials" / sweep
        self._rows: dict[str, int] = {}

    @property
    def durable(self) -> int:
        """Rows of all segments."""
        for path in self._folder.glob("*.parquet"):
            if path.name not in self._rows:
                self._rows[path.name] = pyarrow.parquet.read_metadata(path).num_rows
        return sum(self._rows.values())


class Sitting:
    """One start of ``chaos_graph.py``; what it says is added to a file."""

    def __init__(self, log: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self._log = log
        script = str(Path(__file__).with_name("chaos_graph.py"))
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, script, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def said(self) -> str:
        """What this and earlier ones have said, the end of it."""
        return self._log.read_text(errors="replace")[-6000:]

    @property
    def goes_on(self) -> bool:
        """True until it has done everything.

        Raises:
            AssertionError: it has ended badly.
        """
        status = self._process.poll()
        assert status in (None, 0), f"the driver ended with status {status}; it said:\n{self.said}"
        return status is None

    def reach(self, progress: Progress, trials: float) -> None:
        """Wait until so many trials are durable, and it goes on."""
        until(lambda: not self.goes_on or progress.durable >= trials, "progress", RUN_DEADLINE_S)
        assert self.goes_on, f"all is done, before anybody saw {trials:,.0f} trials"

    def finish(self) -> None:
        """Wait until it has done everything."""
        until(lambda: not self.goes_on, "the run ends", RUN_DEADLINE_S)

    def kill(self) -> bool:
        """``kill -9``; False if it has ended already."""
        alive = self._process.poll() is None
        self._process.kill()
        self._process.wait()
        return alive
