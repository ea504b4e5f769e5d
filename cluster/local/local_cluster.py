"""A Ray cluster of several nodes on this machine, for trying things out: started, watched and ended by process ids.

Each node is a `ray start --block` of its own, so one can be killed to see what happens. Everything listens on the
loopback interface only, and asks for a token that is made for this cluster.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from umbel.cluster.local.node import LOOPBACK_ONLY
from umbel.scheduler.errors import ExecutorError

__all__ = ["LocalCluster"]

#: Seconds that a node gets to start, and to end.
_START_S = 90.0
_END_S = 20.0
#: Bytes of shared memory that a node's object store has at least, as Ray wants it, and at most.
_STORE_LEAST, _STORE_MOST = 80 * 2**20, 2 * 2**30


class LocalCluster:
    """The cluster; it lives as long as the ``with`` block.

    Args:
        nodes: how many, the head included.
        cpus: of each; None: this machine's, shared out, one at least.
        gpus: of each, whether there are any or not.
        dashboard: whether jobs can be submitted.
    """

    def __init__(self, nodes: int, *, cpus: int | None = None, gpus: int = 0, dashboard: bool = True) -> None:
        self._nodes = nodes
        self._amounts = [
            f"--num-cpus={cpus or max(1, (os.cpu_count() or 1) // nodes)}",
            f"--num-gpus={gpus}",
            f"--object-store-memory={_store_bytes(nodes)}",
        ]
        self._dashboard = dashboard
        self._folder = Path()
        self._processes: list[subprocess.Popen[bytes]] = []
        #: What a process needs to use the cluster.
        self.environment: dict[str, str] = {}

    def __enter__(self) -> LocalCluster:
        self._folder = Path(tempfile.mkdtemp(prefix="umbel-", dir="/tmp"))  # sockets need a short path
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def wait(self) -> str | None:
        """Wait until the user has had enough (None), or a node has ended by itself (which)."""
        try:
            while True:
                for place, process in enumerate(self._processes):
                    if process.poll() is not None:
                        return f"node {place} ({'head' if place == 0 else 'worker'}), status {process.returncode}"
                time.sleep(0.2)
        except KeyboardInterrupt:
            return None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of each node, the head first."""
        return tuple(process.pid for process in self._processes)

    def _start(self) -> None:
        token = self._folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        port, client_port, dashboard_port = _free_ports(3)
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            **LOOPBACK_ONLY,
        }
        if self._dashboard:
            self.environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard_port}"
        self._spawn(
            "--head",
            f"--port={port}",
            f"--ray-client-server-port={client_port}",
            f"--include-dashboard={self._dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard_port}",
        )
        self._wait_for(1)
        for _ in range(self._nodes - 1):
            self._spawn(f"--address=127.0.0.1:{port}")
        self._wait_for(self._nodes)

    def _spawn(self, *arguments: str) -> None:
        place = len(self._processes)
        command = [
            *(sys.executable, "-m", "umbel.cluster.local.node", "--block", "--node-ip-address=127.0.0.1"),
            *("--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={_free_ports(1)[0]}"),
            *(f"--temp-dir={self._folder / str(place)}", "--disable-usage-stats", *self._amounts, *arguments),
        ]
        if place:
            command.remove("--disable-usage-stats")  # it is the head that would tell
        with (self._folder / f"node-{place}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env={**_without_ray(os.environ), **self._of_nodes()},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches only this process, which ends them in order
                    preexec_fn=_end_with_parent,  # noqa: PLW1509 - no threads are about
                )
            )

    def _of_nodes(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name not in LOOPBACK_ONLY}

    def _wait_for(self, nodes: int) -> None:
        """Wait until so many nodes have joined; asked from a process of its own, which has the cluster's token."""
        deadline = time.monotonic() + _START_S
        asked = f"wait_for_nodes({self.environment['RAY_ADDRESS']!r}, {nodes}, {_START_S})"
        asking = subprocess.Popen(
            [sys.executable, "-c", f"from umbel.cluster.local.waiting import wait_for_nodes; {asked}"],
            env={**_without_ray(os.environ), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while asking.poll() is None:
                for place, process in enumerate(self._processes):
                    if process.poll() is not None:
                        raise self._failed(place)
                if time.monotonic() > deadline + 5:
                    raise self._failed(len(self._processes) - 1)
                time.sleep(0.05)
            if asking.returncode != 0:
                raise self._failed(len(self._processes) - 1)
        finally:
            asking.kill()
            asking.wait()

    def _failed(self, place: int) -> ExecutorError:
        said = (self._folder / f"node-{place}.log").read_text(errors="replace").strip()
        return ExecutorError(
            "a node of the cluster has not started",
            got=f"node {place}: {said[-1000:] or 'it said nothing'}",
            expected="room for it on this machine",
        )

    def _end(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _END_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _store_bytes(nodes: int) -> int:
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return _STORE_LEAST
    return min(_STORE_MOST, max(_STORE_LEAST, int(0.5 * found.f_bavail * found.f_frsize / nodes)))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _without_ray(environment: os._Environ[str]) -> dict[str, str]:
    """The environment without what points to another cluster."""
    others = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")
    return {name: value for name, value in environment.items() if name not in others}


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, however that ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
