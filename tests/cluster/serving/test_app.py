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
        ("/v1/models/gdp/groups/FRA", {"inputs": [1]}, 405),
        ("/v1/models/gdp/groups", {"inputs": [1]}, 405),
        (PREDICT, {"inputs": [1], "key": "\ud800"}, 422),
        (PREDICT, {"inputs": [1], "key": True}, 422),
        ("/v1/models/gdpx/groups/FRA:predict", {"inputs": [1]}, 404),
        ("/v1/models/gdp/groupsFRA:predict", {"inputs": [1]}, 404),
        ("/v1/models/gdp:explain", {}, 404),
        ("/v1/models/gdp:batchPredict", {}, 422),
        ("/v1/models/gdp:batchPredict", {"instances": []}, 422),
        ("/v1/models/gdp:batchPredict", {"instances": [{"group": "FRA", "inputs": [1]}] * 4}, 413),
        ("/v1/models/gdp:outcome", {"outcome": 1}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "r"}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "r", "outcome": None}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "r", "outcome": 10**400}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "\ud800", "outcome": 1}, 422),
        ("/v1/models/gdp:outcome", {"request_id": "x" * 211, "outcome": 1}, 422),
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


def test_what_the_caller_can_ask_for_is_named(store: Store) -> None:
    async def act(client: Client) -> None:
        reply = await client.call("POST", "/v1/models/gdp/groups/FRA", {"inputs": [1]})
        assert reply.headers["allow"] == "GET, HEAD"
        assert "POST /v1/models/gdp/groups/FRA:predict or POST" in reply.content["error"]["hint"]
        reply = await client.call("POST", "/v1/models/gdp", {"inputs": [1]})
        assert "POST /v1/models/gdp:batchPredict" in reply.content["error"]["hint"]
        reply = await client.call("POST", "/v1/models/gdp/groups/FRA:explain", {"inputs": [1]})
        assert "GROUP:outcome" in reply.content["error"]["expected"]
        reply = await client.predict("xyzzy", [1])
        assert "GET /v1/models/gdp/groups lists them" in reply.content["error"]["hint"]
        reply = await client.call("GET", "/v1/models/gdp:batchPredict")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")

    with_client(store, act)


def test_outcomes_name_the_field_that_is_wrong(store: Store) -> None:
    async def act(client: Client) -> None:
        for content, field in (
            ({"request_id": "r", "outcome": None}, "outcome"),
            ({"request_id": "r", "outcome": 10**400}, "outcome"),
            ({"request_id": "r", "outcome": {"a": 1}}, "outcome"),
            ({"request_id": "r", "outcome": ["high"]}, "outcome"),
            ({"request_id": "\ud800", "outcome": 1}, "request_id"),
        ):
            reply = await client.call("POST", "/v1/models/gdp:outcome", content)
            assert reply.content["detail"][0]["loc"] == ["body", field]

    with_client(store, act)


def test_a_key_is_the_same_in_a_header_and_in_a_field(store: Store) -> None:
    async def act(client: Client) -> None:
        placed = []
        for n in range(20):
            key = f"Zoë {n} 東"
            field = await client.call("POST", PREDICT, {"inputs": [1], "key": key})
            header = await client.predict("FRA", [1], x_umbel_key=key.encode().decode("latin-1"))
            assert field.content["alias"] == header.content["alias"], key
            placed.append(field.content["alias"])
            assert (await client.predict("FRA", [1], x_umbel_key=f"Zoë {n}")).status == 200  # as latin-1
        assert set(placed) == {"champion", "challenger"}

    with_client(store, act, split="champion=50,challenger=50")


def test_an_id_that_is_not_ascii_comes_back_as_it_was(store: Store) -> None:
    async def act(client: Client) -> None:
        reply = await client.predict("FRA", [1], x_request_id="é 1".encode().decode("latin-1"))
        assert reply.content["request_id"] == "é 1"
        assert reply.headers["x-request-id"] == "é 1"

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
        batch = {"instances": instances}
        reply = await client.call("POST", "/v1/models/gdp:batchPredict", batch, x_request_id="r")
        assert reply.status == 200
        found = reply.content["predictions"]
        assert [each.get("outputs") for each in found] == [[1.0], None, None, [2.0], None, None]
        assert [each.get("status") for each in found] == [None, 404, 422, None, 422, 422]
        assert [each["request_id"] for each in found] == [f"r~{n}" for n in range(6)]
        single = await client.predict("FRA", [1])
        assert found[3]["digest"] == single.headers["x-umbel-digest"]

    with_client(store, act)


def test_instances_are_checked_as_single_requests_are(store: Store) -> None:
    async def act(client: Client) -> None:
        wrong: list[tuple[Any, int, list[Any]]] = [
            (7, 422, []),
            ({"inputs": [1]}, 422, ["group"]),
            ({"group": "FRA"}, 422, ["inputs"]),
            ({"group": "FRA", "inputs": [1, "x"]}, 422, ["inputs", 1]),
            ({"group": "FRA", "inputs": [1], "input": 1}, 422, ["input"]),
            ({"group": "FRA", "inputs": [1], "key": {"a": 1}}, 422, ["key"]),
            ({"group": "FRA", "inputs": [1], "key": "x" * 501}, 400, ["key"]),
            ({"group": "FRA", "inputs": [1], "key": "\ud800"}, 422, ["key"]),
            ({"group": "\ud800", "inputs": [1]}, 422, ["group"]),
            ({"group": "", "inputs": [1]}, 400, ["group"]),
        ]
        batch = {"instances": [instance for instance, _, _ in wrong]}
        reply = await client.call("POST", "/v1/models/gdp:batchPredict", batch)
        for n, ((_, status, place), found) in enumerate(zip(wrong, reply.content["predictions"], strict=True)):
            assert found["status"] == status, found
            assert found["detail"][0]["loc"] == ["body", "instances", n, *place]

    with_client(store, act)


def test_an_instance_without_a_key_has_that_of_its_batch(store: Store) -> None:
    async def act(client: Client) -> None:
        for n in range(10):
            key = f"user{n}"
            alias = (await client.call("POST", PREDICT, {"inputs": [1], "key": key})).content["alias"]
            instances = [{"group": "FRA", "inputs": [1], **own} for own in ({}, {"key": None}, {"key": key})]
            for batch, headers in (({"key": key}, {}), ({"key": None}, {"x_umbel_key": key})):
                content = {"instances": instances, **batch}
                reply = await client.call("POST", "/v1/models/gdp:batchPredict", content, **headers)
                assert {each["alias"] for each in reply.content["predictions"]} == {alias}

    with_client(store, act, split="champion=50,challenger=50")


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
        for path, methods in described.content["paths"].items():
            expected = {"/healthz": {"200"}, "/readyz": {"200", "503"}}.get(path, {"401", "404"})
            for operation in methods.values():
                assert expected <= set(operation["responses"]), path

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
        batch = {"instances": [{"group": "FRA", "inputs": [1]}, {"group": "XXX", "inputs": [1]}]}
        operation = described["paths"]["/v1/models/gdp:batchPredict"]["post"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        answers = (await client.call("POST", "/v1/models/gdp:batchPredict", batch)).content
        Draft202012Validator({**schema, "components": {"schemas": schemas}}).validate(answers)
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
