"""`umbel serve` and `umbel.serve` on a cluster that runs already, with a store on object storage."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.cluster.served import promote, register
from tests.faults.processes import until
from tests.seaweedfs import S3Server
from umbel.cluster.serving.deploying import check_room
from umbel.cluster.serving.serve import _check_name
from umbel.runtime.graph.task import Resources
from umbel.scheduler.errors import ExecutorError, NotFoundError, UsageError
from umbel.storage.store import Store, open_store

pytestmark = pytest.mark.ray

COMMAND = [sys.executable, "-c", "from umbel.cluster.cli.app import main; main()", "serve", "gdp"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that negative inputs wait for."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def store(s3_server: S3Server, gate: Path) -> Iterator[Store]:
    """A store on S3, and a cluster whose processes know its credentials."""
    import ray

    path = str(gate)

    def waiting(factor: float) -> Any:
        class Waiting:
            def predict(self, inputs: list[float]) -> list[float]:
                end = time.monotonic() + 60
                while inputs[0] < 0 and not Path(path).exists() and time.monotonic() < end:
                    time.sleep(0.01)
                return [factor * value for value in inputs]

        return Waiting()

    with pytest.MonkeyPatch.context() as patched:
        for name, value in s3_server.environment.items():
            patched.setenv(name, value)
        store = open_store(s3_server.url("served"))
        register(store, 1.0, model=waiting)
        promote(store, 1)
        ray.shutdown()  # another module's
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield store
        finally:
            ray.shutdown()


def ask(port: int, inputs: list[float]) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/models/gdp/groups/FRA:predict", json.dumps({"inputs": inputs}))
        reply = connection.getresponse()
        reply.read()
        return reply.status, {name.lower(): text for name, text in reply.getheaders()}
    finally:
        connection.close()


def test_the_command_joins_a_cluster_and_turns_away_what_is_too_much(store: Store, gate: Path, tmp_path: Path) -> None:
    import ray
    from ray import serve

    address = ray.get_runtime_context().gcs_address
    output = tmp_path / "output"
    options = ["--store", store.url, "--address", address, "--port", "0", "--trust"]
    with output.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, *options, "--max-ongoing", "1", "--max-queued", "1"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        until(lambda: "/v1/models/gdp" in output.read_text() or process.poll() is not None, "it listens")
        assert process.poll() is None, output.read_text()
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", output.read_text())[0])
        with pytest.raises(UsageError, match="umbel-gdp, running"):
            _check_name("umbel-gdp")
        found: list[tuple[int, dict[str, str]]] = []
        threads = [threading.Thread(target=lambda: found.append(ask(port, [-1.0]))) for _ in range(6)]
        for thread in threads:
            thread.start()
        until(lambda: bool(found), "one is turned away")  # the others are at work, or wait
        assert found[0][0] == 503
        assert found[0][1]["retry-after"] == "1"
        gate.touch()
        for thread in threads:
            thread.join()
        statuses = sorted(status for status, _ in found)
        assert statuses[0] == 200
        assert set(statuses) == {200, 503}
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
    assert "Traceback" not in output.read_text()
    assert serve.status().applications == {}  # and the cluster goes on


def test_the_handle_predicts_and_stops(store: Store) -> None:
    with umbel.serve("gdp", store=store, trust=True, replicas=2, cpus=0.5, prefix="/models") as server:
        assert server.predict("FRA", [1.0, 2.0], request_id="r")["outputs"] == [2.0, 4.0]
        assert server.predict("FRA", [1.0], request_id="r")["request_id"] == "r"
        assert server.predict({"country": "FRA"}, [1.0])["outputs"] == [2.0]
        with pytest.raises(NotFoundError):
            server.predict({"country": "FR/AN"}, [1.0])
        with pytest.raises(NotFoundError, match="FRA"):
            server.predict("FRAN", [1.0])
        with pytest.raises(UsageError, match=r"inputs\.0"):
            server.predict("FRA", ["x"])
        with pytest.raises(UsageError, match="at most 500"):
            server.predict("FRA", [1.0], key="k" * 501)
        assert server.readiness()[0]
        with urllib.request.urlopen(f"{server.url}/v1/models/gdp") as reply:
            assert reply.status == 200
        url = server.url
    server.stop()  # once more does nothing
    with pytest.raises(OSError, match=r"refused|404"):
        urllib.request.urlopen(f"{url}/healthz")


def test_without_room_it_says_so_and_the_interrupt_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray import serve

    check_room(Resources(cpus=1), 2)
    check_room(Resources(cpus=0), 100)
    with pytest.raises(ExecutorError, match=r"missing: CPU 8 \(largest node: 2\)"):
        check_room(Resources(cpus=8), 1)
    with pytest.raises(ExecutorError, match="2 at most"):
        check_room(Resources(cpus=1), 3)
    with monkeypatch.context() as patched:  # nobody who joins waits for long
        patched.setattr("umbel.cluster.serving.waiting.GIVE_UP_S", 0.0)
        with pytest.raises(ExecutorError, match=r"missing: CPU 8 \(largest node: 2\)"):
            umbel.serve("gdp", store=store, trust=True, cpus=8.0, name="waits for ever")
    said: list[str] = []

    def interrupt(message: Warning | str, *_: object, **__: object) -> None:
        if "replicas wait" in str(message):  # others may warn, too, and from other threads
            said.append(str(message))
            raise KeyboardInterrupt

    holder = ray.remote(num_cpus=2)(threading.Event).remote()
    try:
        ray.get(holder.is_set.remote())
        monkeypatch.setattr("warnings.warn", interrupt)  # any thread may change where warnings are shown
        with pytest.raises(KeyboardInterrupt):
            umbel.serve("gdp", store=store, trust=True, name="waits")
    finally:
        ray.kill(holder)
    assert "replicas wait for 1 CPU each; the cluster has 0 of 2 CPU free" in said[0]
    assert {left.status.value for left in serve.status().applications.values()} <= {"DELETING"}
