"""Run by `test_gcs_fault_tolerance.py` in namespaces of its own: the head of a cluster dies and comes back, twice.

The cluster's tables lie in a Redis server. The head, the node on which the driver runs, and a third one live in process
namespaces of their own, as on three machines: when the first process of a namespace ends, all in it end at once. Prints
as JSON what was done, and what was left behind. The runs are left in the folders ``store`` and ``undisturbed``.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]

from tests.clusters.chaos_graph import GROUPS
from tests.clusters.chaos_parts import Progress, Sitting, left_behind, until

PORT = 6379
ADDRESS = f"127.0.0.1:{PORT}"
TRIALS = 300
#: All that runs in a process namespace of its own ends with the process that this starts.
MACHINE = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "bash", "-c"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ray_start(*options: str) -> str:
    """The command that starts a node. All machines share a network here, so each takes ports of its own."""
    ports = [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    size = ["--num-cpus=2", "--object-store-memory=100000000"]
    return shlex.join(["ray", "start", *options, *ports, *size, "--disable-usage-stats"])


def machine(name: str, ray_options: list[str], then: str) -> list[str]:
    """The command that starts a node on a machine of its own, as far as processes and Ray's files go."""
    folder = Path(name).absolute()
    folder.mkdir()
    mounted = f"mount --bind {shlex.quote(str(folder))} /tmp/ray"
    return [*MACHINE, f"{mounted} && {ray_start(*ray_options)} {then}; exit $?", "bash"]


class Node:
    """A node on a machine of its own."""

    def __init__(self, name: str, *options: str) -> None:
        with Path(f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(machine(name, list(options), "--block"), stdout=log, stderr=log)

    def lose(self) -> None:
        """Have its machine vanish in an instant."""
        self._process.kill()
        self._process.wait()


def lose_head(head: Node) -> None:
    head.lose()
    until(lambda: not accepts_connections(), "the head is gone")


def start_head(number: int) -> Node:
    """Start a head on a new machine, at the old one's address."""
    head = Node(f"head-{number}", "--head", f"--port={PORT}", "--include-dashboard=false")
    until(accepts_connections, "the head listens")
    return head


def accepts_connections() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def start_redis(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    port = free_port()
    os.environ["RAY_REDIS_ADDRESS"] = f"127.0.0.1:{port}"
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder), "--logfile", str(folder / "log")]
    server = subprocess.Popen(["redis-server", "--bind", "127.0.0.1", "--port", str(port), *quiet])
    until((folder / "log").exists, "Redis starts")
    return server


def main() -> None:
    size = ["--trials", str(TRIALS)]
    Sitting(Path("undisturbed.log"), "undisturbed", *size).finish()
    os.environ.update(
        CHAOS_PACE_S="0.01",
        CHAOS_COUNT=str(Path("begun").absolute()),
        RAY_AUTH_MODE="disabled",
        # A head may take its time to come back on a machine that has too much to do.
        RAY_gcs_rpc_server_reconnect_timeout_s="180",
        RAY_health_check_period_ms="1000",
        RAY_health_check_timeout_ms="2000",
        RAY_health_check_failure_threshold="3",
    )
    redis = start_redis(Path("redis").absolute())
    head, other = start_head(0), Node("other", f"--address={ADDRESS}")
    store = Path("store").absolute()
    began, events = time.monotonic(), []
    beside = machine("beside", [f"--address={ADDRESS}"], '&& "$@"')
    sitting = Sitting(Path("driver.log"), str(store), "--address", ADDRESS, *size, prefix=beside)
    progress = Progress(store)

    def note(what: str) -> None:
        events.append(f"{time.monotonic() - began:6.1f} s: {what} at {progress.durable:,} trials")
        print(events[-1], file=sys.stderr, flush=True)

    for number, share in enumerate((0.2, 0.6), 1):
        sitting.reach(progress, share * GROUPS * TRIALS)
        lose_head(head)
        note("head lost")
        head = start_head(number)
        note("head back")
    sitting.finish()
    note("done")
    state = GlobalState()
    state._initialize_global_state(
        GcsClientOptions.create(ADDRESS, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    )
    told: dict[str, Any] = {"events": events, "store": str(store), "trials begun": Path("begun").stat().st_size}
    told["heads lost"] = number
    told["left behind"] = left_behind(state)
    for node in (other, head):
        node.lose()
    redis.kill()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
