"""A real cluster that jobs are submitted to, and a user's commands from a folder that has nothing to do with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import processes_of_session, until

TOKEN = "0123456789abcdef" * 4
BIN = Path(sys.executable).parent


@dataclass
class Head:
    """A head node with token authentication, and the environment of a user who knows the token."""

    address: str
    user: dict[str, str]


@contextmanager
def running_head() -> Iterator[Head]:
    """A cluster of one node, in a folder and on ports of its own; ended with all that it has started."""
    folder = Path(tempfile.mkdtemp(prefix="umbel-", dir="/tmp"))  # a short name: Ray puts sockets there
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UMBEL_"))}
    env = {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    dashboard, agent, client = free_ports(3)
    options = [
        "--port=0",
        "--num-cpus=1",
        "--object-store-memory=200000000",
        f"--temp-dir={folder}/r",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    log = folder / "head.log"
    with log.open("wb") as stream:
        head = subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", *options],
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    # Jobs are led by sessions of their own, so that the head's session does not tell all that there is to end.
    started = {head.pid}
    try:
        until(lambda: "--block" in log.read_text() or head.poll() is not None, "the cluster starts")
        assert head.poll() is None, log.read_text()
        yield Head(f"http://127.0.0.1:{dashboard}", env)
    finally:
        started |= processes_in(folder)
        for session in started:
            try:
                os.killpg(session, signal.SIGKILL)
            except ProcessLookupError:
                continue
        head.wait()
        until(lambda: not processes_of_session(head.pid), "the cluster ends")
        shutil.rmtree(folder, ignore_errors=True)


def processes_in(folder: Path) -> set[int]:
    """The leaders of sessions of processes that work in a folder: drivers of jobs."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cwd").resolve().is_relative_to(folder):
                    found.add(os.getsid(int(entry.name)))
            except OSError:
                continue  # it has just ended, or is none of ours
    return found - {os.getsid(0)}


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Command:
    """A command of umbel's that runs, from a folder that has nothing to do with the project."""

    process: subprocess.Popen[bytes]
    out: Path

    @property
    def said(self) -> str:
        """What it has written so far, to either stream."""
        return self.out.read_text(errors="replace")

    def wait(self, limit_s: float = 60.0) -> int:
        """Its status."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still there after {limit_s} s; it said:\n{self.said}") from None


def start(folder: Path, env: Mapping[str, str], *arguments: str) -> Command:
    """Start ``umbel …`` in a folder."""
    folder.mkdir(exist_ok=True)
    out = folder / f"said-{len(list(folder.glob('said-*')))}"
    with out.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "umbel", *arguments],
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    return Command(process, out)
