"""Which process is this, and does another one still live?

A pid alone is no answer, for pids are reused and containers count their own: a process is named by host, boot, pid
namespace, pid and start time together. It must not know why anybody asks.
"""

from __future__ import annotations

import functools
import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessId", "current_user", "is_alive", "this_process"]


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, named so that no other one is ever taken for it. None: the platform doesn't say."""

    host: str
    #: Differs after every boot.
    boot_id: str | None
    #: Differs between containers of one machine.
    pid_namespace: str | None
    pid: int
    #: Start time in clock ticks since boot, as ``/proc/<pid>/stat`` has it.
    started_ticks: int | None


def this_process() -> ProcessId:
    """The process that asks."""
    pid = os.getpid()
    host, boot_id = _machine()
    return ProcessId(host, boot_id, _pid_namespace(), pid, _started_ticks(pid))


def is_alive(process: ProcessId) -> bool | None:
    """Whether a process still runs; None: that can't be seen from here (another machine, another container)."""
    here = this_process()
    if process.host != here.host or process.boot_id is None or process.boot_id != here.boot_id:
        return None
    if process.pid_namespace != here.pid_namespace or process.started_ticks is None:
        return None
    return _started_ticks(process.pid) == process.started_ticks


def current_user() -> str:
    """The user's login name, or the user id where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


@functools.cache
def _machine() -> tuple[str, str | None]:
    return socket.gethostname(), _text("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link names no path
    except OSError:
        return None


def _started_ticks(pid: int) -> int | None:
    """When a process started; None if it is gone. One that has ended and waits for its parent to notice is gone."""
    stat = _text(f"/proc/{pid}/stat")
    if stat is None:
        return None
    # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError):
        return None
