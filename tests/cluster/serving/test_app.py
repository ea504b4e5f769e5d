"""The HTTP interface: what is answered, and what is refused with which status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.cluster.served import Client, promote, register, scale, serving
from umbel.cluster.serving import app as serving_app
from umbel.storage.store import Store, open_store

PREDICT = "/v1/models/gdp/groups/FRA:predict"
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A model of two versions; nothing of these tests changes it."""
    store = open_store(str(tmp_path_factory.mktemp("served") / "store"))
    register(store, 1.0, groups=["DEU", "FRA", "a/b", "ü %"])
    register(store, 10.0)
    promote(store, 1)
    promote(store, 2, "challenger")
    return store


def with_client(store: Store, act: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with serving(store, **options) as client:
            await act(client)

    asyncio.run(run())


def test_a_prediction_says_which_version_made_it(store: Store) -> None:
    async def act(client: Client) -> None:
        reply = await client.predict("FRA", [1, 2.5], x_request_id="r1")
        assert reply.status == 200
        assert reply.content == {"outputs": [2.0, 5.0], "version": 1, "alias": "champion", "request_id": "r1"}
        assert reply.headers["x-request-id"] == "r1"
        assert reply.headers["x-umbel-version"] == "1"
        assert len(reply.headers["x-umbel-digest"]) == 64
        assert len((await client.predict("FRA", [1])).headers["x-request-id"]) == 32

    with_client(store, act)


def test_groups_are_found_by_canonical_text_or_value(store: Store) -> None:
    async def act(client: Client) -> None:
        for name, factor in (("a/b", 3.0), ("a%2Fb", 3.0), ("ü %25", 4.0), ("ü %", 4.0)):
            assert (await client.predict(name, [1])).content["outputs"] == [factor], name
        reply = await client.predict("FRAN", [1])
        assert reply.status == 404
        assert "FRA" in reply.content["error"]["hint"]
        groups = await client.call("GET", "/v1/models/gdp/groups")
        assert groups.content["groups"][:2] == ["DEU", "FRA"]

    with_client(store, act)


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (PREDICT, b"no json", 400),
        (PREDICT, b"[1, 2]", 400),
        (PREDICT, b"\xff", 400),
        (PREDICT, b'{"inputs": [NaN]}', 400),
        (PREDICT, b'{"inputs": [1e999]}', 400),
        (PREDICT, b'{"inputs": ' + b"[" * 100_000, 400),
        (PREDICT, b"", 400),
        (PREDICT, {}, 422),
        (PREDICT, {"inputs": ["x"]}, 422),
        (PREDICT, {"inputs": [1], "input": 1}, 422),
        (PREDICT, {"inputs": [1], "key": [1]}, 422),
        (PREDICT, {"inputs": [1], "key": "x" * 501}, 400),
        (PREDICT, b'{"inputs": [' + b"1," * 1000 + b"1]}", 413),
        ("/v1/models/gdp/groups/" + "x" * 501 + ":predict", {"inputs": [1]}, 400),
        ("/v1/models/gdp/groups/:predict", {"inputs": [1]}, 400),
        ("/v1/models/gdp/groups/FRA:explain", {"inputs": [1]}, 404),
        ("/v1/models/gdp/groups/FRA", {"inputs": [1]}, 404),
        ("/v1/models/gdpx/groups/FRA:predict", {"inputs": [1]}, 404),
        ("/v1/models/gdp/groupsFRA:predict", {"inputs": [1]}, 404),
        ("/v1/models/gdp:explain", {}, 404),
        ("/v1/models/gdp:batchPredict", {}, 422),
        ("/v1/models/gdp:batchPredict", {"instances": []}, 422),
        ("/v1/models/gdp:batchPredict", {"instances": [{"group": "FRA", "inputs": [1]}] * 4}, 413),
        ("/v1/models/gdp:outcome", {"outcome": 1}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "r"}, 422),
        ("/v1/models/gdp/groups/XXX:outcome", {"request_id": "r", "outcome": 1}, 404),
        ("/readyz", {}, 405),
        ("/v1/models/gdp", {}, 405),
    ],
)
def test_what_cannot_be_meant(store: Store, path: str, content: Any, status: int) -> None:
    async def act(client: Client) -> None:
        reply = await client.call("POST", path, content)
        assert reply.status == status, reply.content
        assert reply.content["error"]["what"]
        assert reply.content["request_id"] == reply.headers["x-request-id"]

    with_client(store, act, max_body_bytes=1500 if status == 413 else 2**20, max_batch=3)


def test_422_names_the_field(store: Store) -> None:
    async def act(client: Client) -> None:
        reply = await client.predict("FRA", [1, "x"])
        assert reply.content["detail"] == [
            {"loc": ["body", "inputs", 1], "msg": "'x' is not of type 'number'", "type": "type"}
        ]

    with_client(store, act)


def test_a_length_that_is_claimed_is_refused_before_it_is_read(store: Store) -> None:
    async def act(client: Client) -> None:
        for claimed in ("9999999999", "9" * 5000, "-1", "x"):
            assert (await client.call("POST", PREDICT, b"", content_length=claimed)).status == 413

    with_client(store, act)


def test_ids_of_requests_that_cannot_be_meant(store: Store) -> None:
    async def act(client: Client) -> None:
        for wrong in ("x" * 201, "a\x01b"):
            reply = await client.predict("FRA", [1], x_request_id=wrong)
            assert reply.status == 400
            assert wrong not in json.dumps(reply.content)

    with_client(store, act)


def test_a_batch_over_many_groups(store: Store) -> None:
    async def act(client: Client) -> None:
        instances = [
            {"group": "DEU", "inputs": [1]},
            {"group": "XXX", "inputs": [1]},
            {"group": "FRA", "inputs": ["x"]},
            {"group": "FRA", "inputs": [1]},
            {"inputs": [1]},
            7,
        ]
        reply = await client.call("POST", "/v1/models/gdp:batchPredict", {"instances": instances}, x_request_id="r")
        assert reply.status == 200
        found = reply.content["predictions"]
        assert [each.get("outputs") for each in found] == [[1.0], None, None, [2.0], None, None]
        assert [each.get("status") for each in found] == [None, 404, 422, None, 422, 422]
        assert [each["request_id"] for each in found] == [f"r~{n}" for n in range(6)]

    with_client(store, act)


def test_a_token_is_asked_for(store: Store) -> None:
    async def act(client: Client) -> None:
        for wrong in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Basic {TOKEN}"}):
            reply = await client.predict("FRA", [1], **wrong)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models/gdp", "/v1/models", "/openapi.json", "/v1/models/gdp/groups", "/nonsense"):
            assert (await client.call("GET", path)).status == 401
        assert (await client.predict("FRA", [1], authorization=f"Bearer {TOKEN}")).status == 200
        for path in ("/healthz", "/readyz"):  # probes carry no token, and tell no secrets
            assert (await client.call("GET", path)).status == 200
        described = await client.call("GET", "/openapi.json", authorization=f"Bearer {TOKEN}")
        assert TOKEN not in json.dumps(described.content)

    with_client(store, act, token=TOKEN)


def test_what_is_served_is_told(store: Store) -> None:
    async def act(client: Client) -> None:
        told = (await client.call("GET", "/v1/models/gdp")).content
        assert told["status"] == "ready"
        assert told["versions"] == [1, 2]
        assert told["aliases"] == {"champion": 1, "challenger": 2}
        assert told["serving"]["champion"]["version"] == 1
        assert told["serving"]["champion"]["run"].startswith("run-")
        assert told["serving"]["challenger"]["version"] == 2
        assert told["split"] == {"champion": 90.0, "challenger": 10.0}
        assert (await client.call("GET", "/v1/models")).content == {"models": ["gdp"]}
        assert (await client.call("GET", "/healthz")).content == {"status": "ok"}
        ready = await client.call("GET", "/readyz")
        assert ready.content == {"status": "ready", "serving": {"champion": 1, "challenger": 2}, "problems": []}
        lineage = (await client.call("GET", "/v1/models/gdp/groups/FRA")).content
        assert lineage["version"] == 1
        assert {thing["kind"] for thing in lineage["lineage"]["things"]} >= {"model", "trial", "config", "code", "run"}

    with_client(store, act, split="champion=90,challenger=10")


def test_the_interface_is_described_with_the_registered_schemas(store: Store) -> None:
    async def act(client: Client) -> None:
        described = (await client.call("GET", "/openapi.json")).content
        schemas = described["components"]["schemas"]
        assert schemas["Inputs"] == {"type": "array", "items": {"type": "number"}}
        assert schemas["Outputs"] == {"type": "array", "items": {"type": "number"}}
        answer = (await client.predict("FRA", [1])).content
        Draft202012Validator({**schemas["Answer"], "components": {"schemas": schemas}}).validate(answer)
        refused = (await client.predict("XXX", [1])).content
        Draft202012Validator(schemas["Error"]).validate(refused)
        for path, methods in described["paths"].items():
            for method in methods:
                found = await client.call(
                    method.upper(), path.replace("{group}", "FRA"), b"" if method == "get" else {}
                )
                assert found.status not in (404, 405), path

    with_client(store, act)


def test_a_model_that_raises_is_the_servers_failure(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    register(store, 1.0, model=lambda factor: scale(factor, fails=True), inputs=None)
    promote(store, 1)

    async def act(client: Client) -> None:
        reply = await client.predict("FRA", [1])
        assert reply.status == 500
        assert reply.content["error"]["got"] == "ZeroDivisionError: no answer"

    with_client(store, act)


def test_a_defect_is_told_without_its_text(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(client: Client) -> None:
        async def broken(*args: Any) -> Any:
            raise RuntimeError("password=secret")

        monkeypatch.setattr(client.server.predictor, "predict", broken)
        reply = await client.predict("FRA", [1])
        assert reply.status == 500
        assert "secret" not in json.dumps(reply.content)

    with_client(store, act)


def test_the_interface_may_lie_under_a_prefix(store: Store) -> None:
    assert serving_app._path({"path": "/gdp/healthz", "root_path": "/gdp"}) == "/healthz"
    assert serving_app._path({"path": "/healthz", "root_path": "/gdp"}) == "/healthz"
    assert serving_app._path({"path": "/gdpx/healthz", "root_path": "/gdp/"}) == "/gdpx/healthz"
    assert serving_app._path({"path": "/healthz", "root_path": ""}) == "/healthz"
