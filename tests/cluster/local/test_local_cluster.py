"""A cluster on this machine: used, looked at, ended; and the command of a RayJob, run there for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.seaweedfs import BUCKET, S3Server
from umbel.cluster.config.file import from_table
from umbel.cluster.local.local_cluster import LocalCluster
from umbel.cluster.local.waiting import wait_for_nodes
from umbel.cluster.manifests.kinds import documents
from umbel.cluster.manifests.yaml_text import plain
from umbel.scheduler.errors import ExecutorError
from umbel.storage.store import open_store

pytestmark = pytest.mark.ray

assert ray.__version__  # it brings its own psutil along
psutil: Any = import_module("psutil")

JOB = """
import time
from pathlib import Path

import ray

import umbel


def node(x, folder):
    Path(folder, f"began-{x}").touch()
    end = time.monotonic() + 60
    while not Path(folder, f"began-{1 - x}").exists():  # the other runs at the same time, so elsewhere
        assert time.monotonic() < end
        time.sleep(0.05)
    return ray.get_runtime_context().get_node_id()


nodes = umbel.task(node, cpus=2).map([0, 1], str(Path(__file__).parent))


def trial(config):
    return {"loss": config["x"]}


graph = umbel.sweep(trial, space={"x": [3, 1, 2]}, search="grid", metric="loss")
"""
UMBEL = [sys.executable, "-c", "from umbel.cluster.cli.app import main; main()"]
DEADLINE_S = 90.0


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def family(pid: int) -> list[Any]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@pytest.fixture
def nodes() -> int:
    """How many nodes the cluster has."""
    return 2


@pytest.fixture
def started(tmp_path: Path, without_ray: None, nodes: int) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`umbel cluster up --local N`, as a user starts it; gives its process, and the environment that it prints."""
    log = tmp_path / "up.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*UMBEL, "cluster", "up", "--local", str(nodes), "--cpus", "2", "--no-dashboard"],
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while "umbel run" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        lines = [line.split() for line in log.read_text().splitlines()]
        yield process, dict(words[1].split("=", 1) for words in lines if words[:1] == ["export"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)


def test_a_cluster_is_used_and_ended(started: tuple[subprocess.Popen[bytes], dict[str, str]], tmp_path: Path) -> None:
    process, environment = started
    (tmp_path / "job.py").write_text(JOB)
    of_cluster = family(process.pid)
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for each in of_cluster
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() not in (tmp_path / "up.log").read_text()

    run = [*UMBEL, "run", "job.py:nodes", "--name", "nodes", "--store", "store"]
    subprocess.run(run, env=os.environ | environment, cwd=tmp_path, check=True, timeout=DEADLINE_S)
    values: Any = open_store(str(tmp_path / "store")).run("nodes").value("node")
    assert len(set(values)) == 2

    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    _, alive = psutil.wait_procs(of_cluster, DEADLINE_S)
    assert not alive
    assert not token.parent.exists()


@pytest.mark.parametrize("nodes", [1])
def test_a_node_that_ends_by_itself_ends_the_cluster(started: tuple[subprocess.Popen[bytes], dict[str, str]]) -> None:
    process, _ = started
    psutil.Process(process.pid).children()[-1].kill()
    assert process.wait(DEADLINE_S) == 1


def test_the_command_of_a_job_runs_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None, s3_server: S3Server
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    table = {
        "store": f"s3://{BUCKET}/jobs",
        "groups": {"cpu": {"max": 1, "cpus": 1, "memory": "1Gi"}},
        "job": {"target": "job.py:graph", "run": "gdp", "args": ["--progress", "plain"]},
    }
    (main,) = plain(documents(from_table(table), "job"))
    # as KubeRay's submitter does it: the entrypoint as it stands, in a script of the shell's
    submit = f"ray job submit --working-dir . -- {main['spec']['entrypoint']} ;"
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)  # what the pods have from the Secret
    # the command `umbel` of this very checkout
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "umbel").write_text(f"#!{sys.executable}\nfrom umbel.cluster.cli.app import main\nmain()\n")
    (tmp_path / "bin" / "umbel").chmod(0o755)
    paths = f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", paths)
    said = []
    with LocalCluster(1, cpus=2) as cluster:
        token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{cluster.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/")
        for _ in range(2):
            done = subprocess.run(
                ["bash", "-ce", "--", submit],
                env=os.environ | cluster.environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            said.append(done.stdout + done.stderr)
            assert done.returncode == 0, said[-1]
    assert "3 to do" in said[0]
    assert "everything is done already" in said[1]
    assert token not in "".join(said)


def test_waiting_for_what_is_not_there_ends() -> None:
    with pytest.raises(ExecutorError, match="there is no Ray cluster"):
        wait_for_nodes("127.0.0.1:1", 1, 0.3)


def test_a_cluster_that_can_not_start_says_why(monkeypatch: pytest.MonkeyPatch, without_ray: None) -> None:
    nowhere = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}
    monkeypatch.setattr(LocalCluster, "_of_nodes", lambda self: nowhere)
    with pytest.raises(ExecutorError, match="has not started"), LocalCluster(1):
        pass
