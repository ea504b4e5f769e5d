"""`umbel serve` for real: one server with two replicas, asked by HTTP; the last test interrupts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.served import damage, promote, register
from umbel.cluster.serving.v1 import predictor_pb2 as pb
from umbel.cluster.serving.v1.predictor_pb2_grpc import PredictorStub
from umbel.storage.predictions.reader import read_predictions
from umbel.storage.store import Store, open_store

pytestmark = pytest.mark.ray

TOKEN = "correct-horse-battery-staple"
COMMAND = [sys.executable, "-c", "from umbel.cluster.cli.app import main; main()", "serve", "gdp"]
START_S = 120.0


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    store: Store
    output: Path
    grpc_port: int

    def ask(self, method: str, path: str, content: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            return self.ask_on(connection, method, path, content, **headers)
        finally:
            connection.close()

    def ask_on(
        self, connection: http.client.HTTPConnection, method: str, path: str, content: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        names = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, None if content is None else json.dumps(content), names)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()), {name.lower(): text for name, text in reply.getheaders()}

    def predict(self, group: str, inputs: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        return self.ask("POST", f"/v1/models/gdp/groups/{group}:predict", {"inputs": inputs}, **headers)

    def problems(self) -> list[Any]:
        return list(self.ask("GET", "/readyz")[1]["problems"])

    def serving(self) -> Any:
        return self.ask("GET", "/readyz")[1]["serving"]


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> float:
    """Wait for something; how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + limit_s, "it did not come about in time"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    store = open_store(str(folder / "store"))
    for factor in (1.0, 10.0, 100.0):
        register(store, factor)
    promote(store, 1)
    promote(store, 2, "challenger")
    promote(store, 3, "candidate")
    output = folder / "output"
    options = ["--store", store.url, "--port", "0", "--trust", "--cached-groups", "2", "--poll", "0.3"]
    options += ["--grpc-port", "0"]
    options += ["--split", "champion=80,challenger=20", "--shadow", "candidate", "--token-env", "SERVE_TOKEN"]
    with output.open("w") as file:
        process = subprocess.Popen(
            COMMAND + options,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SERVE_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            text=True,
        )
    try:
        found: list[tuple[str, str]] = []

        def is_up() -> bool:
            assert process.poll() is None, output.read_text()
            line = r"http://127\.0\.0\.1:(\d+)/v1/models/gdp.*\ngRPC at 127\.0\.0\.1:(\d+), application umbel-gdp\n"
            found[:] = re.findall(line, output.read_text())
            return bool(found)

        until(is_up, START_S)
        port, grpc_port = map(int, found[0])
        yield Server(process, port, store, output, grpc_port)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_it_predicts(server: Server) -> None:
    status, told, headers = server.predict("FRA", [1, 2.5], X_Request_ID="first")
    assert status == 200
    factor = {1: 2.0, 2: 20.0}[told["version"]]
    assert told["outputs"] == [factor, 2.5 * factor]
    assert headers["x-request-id"] == "first"
    assert headers["x-umbel-version"] == str(told["version"])
    assert server.predict("FRAN", [1])[0] == 404
    assert server.predict("FRA", ["x"])[1]["detail"][0]["loc"] == ["body", "inputs", 0]
    assert server.ask("GET", "/v1/models/gdp")[1]["versions"] == [1, 2, 3]


def test_it_asks_for_the_token(server: Server) -> None:
    assert server.predict("FRA", [1], Authorization="Bearer nonsense")[0] == 401
    assert server.ask("GET", "/healthz", Authorization="")[0] == 200


def test_nobody_else_can_listen_at_its_port(server: Server) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as other:  # as another Ray Serve does it
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((host, server.port))


def test_it_answers_by_grpc(server: Server) -> None:
    token = [("authorization", f"Bearer {TOKEN}")]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        predictor = PredictorStub(channel)
        request = pb.PredictRequest(group="FRA", inputs_json="[1, 2.5]", key="user0", request_id="by-grpc")
        answer, call = predictor.Predict.with_call(request, metadata=token, timeout=30)
        _, by_http, headers = server.predict("FRA", [1, 2.5], X_Umbel_Key="user0")
        assert json.loads(answer.outputs_json) == by_http["outputs"]
        assert (answer.alias, answer.digest) == (by_http["alias"], headers["x-umbel-digest"])
        assert call.code() is grpc.StatusCode.OK
        instances = [pb.Instance(group=group, inputs_json="[1]") for group in ("DEU", "XXX")]
        batch = predictor.BatchPredict(pb.BatchPredictRequest(instances=instances), metadata=token, timeout=30)
        assert [each.WhichOneof("result") for each in batch.predictions] == ["answer", "error"]
        described = predictor.Describe(pb.DescribeRequest(model="gdp"), metadata=token, timeout=30)
        assert list(described.groups) == ["DEU", "FRA", "ITA"]
        with pytest.raises(grpc.RpcError) as refused:
            predictor.Predict(pb.PredictRequest(group="FRA", inputs_json='["x"]'), metadata=token, timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "inputs.0" in refused.value.details()
        trailing = dict(refused.value.trailing_metadata())
        assert b"inputs_json[0]" in trailing["grpc-status-details-bin"]
        assert trailing["request_id"]
        with pytest.raises(grpc.RpcError) as refused:
            predictor.Predict(pb.PredictRequest(group="FRA", inputs_json="[1]"), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        outcome = pb.RecordOutcomeRequest(request_id="by-grpc", outcome_json="7")
        assert predictor.RecordOutcome(outcome, metadata=token, timeout=30).request_id == "by-grpc"


def test_the_client_of_the_documentation(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    [client] = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "PredictorStub" in block]
    client = client.replace("127.0.0.1:9000", f"127.0.0.1:{server.grpc_port}").replace("AUT", "FRA")
    exec(client, {"token": TOKEN})
    assert re.match(r"\[[\d., ]+\] [12] (champion|challenger) \w{64} \S+\n", capsys.readouterr().out)


def test_callers_stay_where_they_are(server: Server) -> None:
    arms = {f"user{n}": server.predict("FRA", [1], X_Umbel_Key=f"user{n}")[1]["alias"] for n in range(40)}
    assert set(arms.values()) == {"champion", "challenger"}
    assert arms == {key: server.predict("ITA", [1], X_Umbel_Key=key)[1]["alias"] for key in arms}


def test_the_champion_moves_under_load_without_a_failed_request(server: Server) -> None:
    done, failed, seen = threading.Event(), [], set()
    factors = {1: 1.0, 2: 10.0, 3: 100.0}

    def load(worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for n in range(1_000_000):
            if done.is_set():
                break
            place = (n + worker) % 3
            path = f"/v1/models/gdp/groups/{('DEU', 'FRA', 'ITA')[place]}:predict"
            status, told, _ = server.ask_on(connection, "POST", path, {"inputs": [1]})
            if status != 200 or told["outputs"] != [factors[told["version"]] * (place + 1)]:
                failed.append((status, told))
            seen.add(told.get("version"))
        connection.close()

    def is_champion(version: int) -> bool:
        return bool(server.serving()["champion"] == version)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in (3, 1):
            promote(server.store, version)
            assert until(partial(is_champion, version)) < 5.0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert seen == {1, 2, 3}


def test_a_tampered_version_takes_no_traffic(server: Server) -> None:
    version = register(server.store, 1000.0)
    damage(server.store, version, "ITA")
    promote(server.store, version.number)
    until(lambda: bool(server.problems()))
    assert "ITA" in server.problems()[0]["what"]
    assert {server.predict(group, [1])[1]["version"] for group in ("DEU", "FRA", "ITA")} <= {1, 2}
    until(lambda: f"version {version.number} is not served" in server.output.read_text())
    server.store.registry.model("gdp").rollback()
    until(lambda: not server.problems())


def test_the_store_goes_away_and_comes_back(server: Server) -> None:
    groups = ("FRA", "ITA")

    def answers(group: str) -> bool:
        return server.predict(group, [1], X_Umbel_Key="user0")[0] == 200

    folder, away = Path(server.store.url), Path(server.store.url).with_name("away")
    for group in groups:  # in memory, by the champion
        until(partial(answers, group))
    shutil.move(folder, away)
    try:
        until(lambda: bool(server.problems()))
        assert server.ask("GET", "/readyz")[0] == 200
        assert {server.predict(group, [1], X_Umbel_Key="user0")[0] for group in groups} <= {200, 503}
        assert server.ask("GET", "/healthz")[0] == 200
    finally:
        if folder.exists():  # the log made it anew: what it wrote goes where it belongs
            shutil.copytree(folder, away, dirs_exist_ok=True)
            shutil.rmtree(folder)
        shutil.move(away, folder)
    until(lambda: not server.problems())
    until(lambda: server.predict("DEU", [1])[0] == 200)


def test_the_interrupt_ends_it_in_order(server: Server) -> None:
    server.predict("FRA", [1], X_Request_ID="last")
    server.ask("POST", "/v1/models/gdp/groups/FRA:outcome", {"request_id": "last", "outcome": 3.0})
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
    assert server.process.wait(90) == 0
    output = server.output.read_text()
    assert "Traceback" not in output
    assert TOKEN not in output
    logged = read_predictions(server.store.objects, "gdp").to_pylist()
    rows = {(row["request_id"], row["shadow"]): row for row in logged}
    assert rows["last", False]["outcome"] == 3.0
    assert rows["by-grpc", False]["outcome"] == 7.0
    assert rows["last", True]["arm"] == "candidate"
    with pytest.raises(OSError, match="refused"):
        server.ask("GET", "/healthz")
