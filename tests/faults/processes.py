"""Drivers as processes of their own, which tests start, signal and wait for, with a deadline for everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

import umbel

T = TypeVar("T")

#: Seconds after which what has not happened will not happen. Long, for machines that do other things too.
DEADLINE_S = 150.0
#: Columns in which two runs of the same trials may differ.
VARYING = ["started", "seconds", "host", "worker", "attempt", "model_at"]


def until(found: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Look again and again until there is something to be seen."""
    end = time.monotonic() + deadline_s
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)


def processes_of_session(session: int) -> dict[int, str]:
    """The processes that live in a session, with their commands."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if int(stat[3]) == session and stat[0] not in ("Z", "X"):
                found[int(folder.name)] = command
    return found


class Driver:
    """One start of the driver."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("driver.py")), *arguments],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._errors.read_text(errors="replace")

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit status; negative: the signal that killed it."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver is still there after {deadline_s} s; it said:\n{self.said}") from None

    def finish(self) -> None:
        """Wait for it to end well."""
        assert self.wait() == 0, self.said

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        self.wait()

    def interrupt(self) -> None:
        """Ctrl-C, as sent to this process alone."""
        self.process.send_signal(signal.SIGINT)

    def clean_up(self) -> None:
        """End whatever is left of its session, so that no test leaves anything behind."""
        for pid in (self.pid, *processes_of_session(self.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


class Scene:
    """A folder in which drivers run the same sweep, what its trials are told, and what they said.

    Args:
        folder: a place of its own.
        env: the drivers' environment.
        options: what every driver is given besides.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], options: list[str]) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.options = options
        self._env = dict(env)
        self._drivers: list[Driver] = []
        (folder / "do").mkdir()

    # ---- what trials do ------------------------------------------------------------------------------------

    def order(self, order: str, *trials: int) -> None:
        """Have trials do something (see `driver.act`)."""
        for trial in trials:
            (self.folder / "do" / str(trial)).write_text(order)

    def go(self) -> None:
        """Let those that wait go on, now and later."""
        (self.folder / "go").touch()

    def started(self) -> list[tuple[int, int, int]]:
        """Trial, attempt and process of every start so far."""
        found = [tuple(map(int, line.split())) for line in self._lines("started")]
        return [(trial, attempt, pid) for trial, attempt, pid in found]

    def ended(self) -> list[int]:
        """The trials that came to their end, as often as they did."""
        return [int(line) for line in self._lines("ended")]

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def forget(self) -> None:
        """Begin new lists of starts and ends."""
        for name in ("started", "ended"):
            (self.folder / name).unlink(missing_ok=True)

    # ---- drivers -------------------------------------------------------------------------------------------

    def start(self, *options: str, store: Path | None = None, env: Mapping[str, str] | None = None) -> Driver:
        """Start a driver."""
        arguments = [str(self.folder), str(store or self.store), *self.options, *options]
        errors = self.folder / f"said-{len(self._drivers)}"
        driver = Driver(arguments, {**self._env, **(env or {})}, errors)
        self._drivers.append(driver)
        return driver

    def clean_up(self) -> None:
        """End all drivers and what they started."""
        for driver in self._drivers:
            driver.clean_up()

    # ---- what is durable -----------------------------------------------------------------------------------

    @property
    def run(self) -> umbel.Run:
        """The run as it is in the store."""
        return umbel.open_store(str(self.store)).run("work")

    def segments(self) -> dict[str, bytes]:
        """The segments of trials that are there, by name."""
        return {path.name: path.read_bytes() for path in sorted(self.store.glob("runs/work/trials/search/*.parquet"))}

    def durable(self) -> list[int]:
        """The trials that are in the store; none if it is not there yet."""
        if not (self.store / "runs" / "work" / "run.json").exists():
            return []
        trials: list[int] = self.run.trials().column("trial").to_pylist()
        return trials

    def undisturbed(self, *options: str) -> pa.Table:
        """The table of a run of the same sweep in which nothing happens."""
        store = self.folder / "undisturbed"
        self.go()
        self.start(*options, store=store).finish()
        return umbel.open_store(str(store)).run("work").trials()


def same_but_where_and_when(left: pa.Table, right: pa.Table) -> bool:
    """Whether two tables differ in nothing but times, places and attempts."""
    return bool(left.drop_columns(VARYING).equals(right.drop_columns(VARYING)))
