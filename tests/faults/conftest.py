"""What the tests of faults share: a Ray cluster to join, and scenes in which drivers run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.processes import Scene, processes_of_session, until

NewScene = Callable[..., Scene]


@pytest.fixture(scope="session")
def ray_env() -> Iterator[dict[str, str]]:
    """The environment for all that uses Ray: nothing of the developer's own, and a folder with a short name.

    Ray puts sockets there, and their paths may have 107 characters only.
    """
    folder = tempfile.mkdtemp(prefix="umbel-", dir="/tmp")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UMBEL_"))}
    yield {**env, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    shutil.rmtree(folder, ignore_errors=True)


class Cluster(NamedTuple):
    """A cluster that runs: its address, and the session in which all its processes live."""

    address: str
    session: int


@pytest.fixture(scope="session")
def cluster(ray_env: dict[str, str]) -> Iterator[Cluster]:
    """A cluster with two processors, which drivers join."""
    log = Path(ray_env["RAY_TMPDIR"], "head.log")
    ray = Path(sys.executable).with_name("ray")
    options = ["--port=0", "--num-cpus=2", "--object-store-memory=200000000", "--include-dashboard=false"]
    with log.open("wb") as stream:
        head = subprocess.Popen(
            [ray, "start", "--head", "--block", *options, f"--temp-dir={ray_env['RAY_TMPDIR']}/head"],
            env=ray_env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Cluster(until(lambda: _address(head, log.read_text()), "the cluster starts"), head.pid)
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        until(lambda: not processes_of_session(head.pid), "the cluster ends")


def _address(head: subprocess.Popen[bytes], said: str) -> str:
    assert head.poll() is None, f"ray start has ended:\n{said}"
    found = re.search(r"ray start --address='([^']+)'", said)
    return found[1] if found and "--block" in said else ""


@pytest.fixture
def new_scene(tmp_path: Path, ray_env: dict[str, str]) -> Iterator[NewScene]:
    """Makes scenes: ``new_scene("inline")``, ``new_scene("ray")`` for a Ray of each driver's own, or an address."""
    scenes: list[Scene] = []

    def make(executor: str, *options: str) -> Scene:
        folder = tmp_path / f"scene-{len(scenes)}"
        folder.mkdir()
        where = ["--executor", executor] if executor in ("inline", "ray") else ["--address", executor]
        scenes.append(Scene(folder, ray_env, [*where, *options]))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.clean_up()


@pytest.fixture
def scene(new_scene: NewScene, cluster: Cluster) -> Scene:
    """A scene whose drivers join the cluster."""
    return new_scene(cluster.address)


@pytest.fixture
def inline_scene(new_scene: NewScene) -> Scene:
    """A scene whose drivers run everything themselves."""
    return new_scene("inline")
