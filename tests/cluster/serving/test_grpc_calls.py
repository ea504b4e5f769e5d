"""Calls by gRPC, as Serve's proxy hands them to a replica: what is answered, and what is refused with which code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.cluster.served import Client, promote, register, serving
from umbel.cluster.serving.grpc_calls import GrpcCallers, GrpcCalls
from umbel.cluster.serving.v1 import predictor_pb2 as pb
from umbel.storage.store import Store, open_store

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A model of two versions; nothing of these tests changes it."""
    store = open_store(str(tmp_path_factory.mktemp("served") / "store"))
    register(store, 1.0)
    register(store, 10.0)
    promote(store, 1)
    promote(store, 2, "challenger")
    return store


class Context:
    """What Serve hands along with a call, of which it takes the same back."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:4711", request_id: str = "of-serve", **metadata: str) -> None:
        self._peer = peer
        self._metadata = list(metadata.items())
        self._trailing: list[tuple[str, Any]] = [("request_id", request_id)]
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def trailing_metadata(self) -> list[tuple[str, Any]]:
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, Any]]) -> None:
        self._trailing = [*self._trailing, *metadata]

    def detail(self, kind: Any) -> Any:
        """The detail of one kind, as a client finds it."""
        status = status_pb2.Status.FromString(dict(self._trailing)["grpc-status-details-bin"])
        assert (status.code, status.message) == (self.code.value[0] if self.code else None, self.details)
        found = kind()
        return found if any(each.Unpack(found) for each in status.details) else None


def with_calls(
    store: Store,
    act: Callable[[GrpcCalls, Client], Awaitable[None]],
    callers: GrpcCallers = GrpcCallers.THIS_MACHINE,
    **options: Any,
) -> None:
    async def run() -> None:
        async with serving(store, **options) as client:
            await act(GrpcCalls(client.server, callers), client)

    asyncio.run(run())


def ask(inputs: str = "[1, 2.5]", group: str = "FRA", **more: Any) -> Any:
    return pb.PredictRequest(group=group, inputs_json=inputs, **more)


def test_a_prediction_is_what_http_answers(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        context = Context()
        found = await calls.predict(ask(model="gdp", request_id="r1"), context)
        assert context.code is None
        by_http = await client.predict("FRA", [1, 2.5])
        assert json.loads(found.outputs_json) == by_http.content["outputs"] == [2.0, 5.0]
        assert (found.version, found.alias, found.group, found.request_id) == (1, "champion", "FRA", "r1")
        assert found.digest == by_http.headers["x-umbel-digest"]
        assert (await calls.predict(ask(), Context())).request_id == "of-serve"

    with_calls(store, act)


def test_numbers_stay_what_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def act(calls: GrpcCalls, client: Client) -> None:
        inside = client.server.predictor.predict

        async def watched(group: str, inputs: object, *args: Any) -> Any:
            seen.append(inputs)
            return await inside(group, inputs, *args)

        monkeypatch.setattr(client.server.predictor, "predict", watched)
        await calls.predict(ask("[1, 2.0, 9007199254740993]"), Context())

    with_calls(store, act)
    assert [type(value) for value in seen[0]] == [int, float, int]
    assert seen[0][2] == 2**53 + 1


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (ask(group="FRAN"), "NOT_FOUND", None),
        (ask(model="other"), "NOT_FOUND", None),
        (ask(group=""), "INVALID_ARGUMENT", None),
        (ask(""), "INVALID_ARGUMENT", "inputs_json"),
        (ask("nonsense"), "INVALID_ARGUMENT", "inputs_json"),
        (ask("[NaN]"), "INVALID_ARGUMENT", "inputs_json"),
        (ask("[" * 100_000), "INVALID_ARGUMENT", "inputs_json"),
        (ask('[1, "x"]'), "INVALID_ARGUMENT", "inputs_json[1]"),
        (ask(key="x" * 501), "INVALID_ARGUMENT", "key"),
        (ask(request_id="x" * 201), "INVALID_ARGUMENT", None),
        (ask(f"[{'1,' * 100_000}1]"), "RESOURCE_EXHAUSTED", None),
    ],
)
def test_what_cannot_be_meant(store: Store, request_: Any, code: str, field: str | None) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        context = Context()
        assert await calls.predict(request_, context) == pb.PredictResponse()
        assert context.code is not None
        assert context.code.name == code
        violations = context.detail(error_details_pb2.BadRequest)
        assert (violations and violations.field_violations[0].field) == field
        assert context.detail(error_details_pb2.ErrorInfo).reason == code

    with_calls(store, act, max_body_bytes=150_000)


def test_near_groups_are_named(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        context = Context()
        await calls.predict(ask(group="FRAN"), context)
        assert "no group of this name; got FRAN; " in context.details
        assert "FRA" in context.detail(error_details_pb2.ErrorInfo).metadata["hint"]
        assert context.detail(error_details_pb2.ErrorInfo).metadata["request_id"] == "of-serve"

    with_calls(store, act)


def test_a_server_that_cannot_now_says_when_to_try_again(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        client.server.predictor.snapshot = type(client.server.predictor.snapshot)()
        context = Context()
        await calls.predict(ask(), context)
        assert context.code is grpc.StatusCode.UNAVAILABLE
        assert context.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        assert dict(context.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"

    with_calls(store, act)


def test_a_token_is_asked_for(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        for wrong in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Basic {TOKEN}"}):
            context = Context(**wrong)
            assert await calls.describe(pb.DescribeRequest(), context) == pb.DescribeResponse()
            assert context.code is grpc.StatusCode.UNAUTHENTICATED
            assert TOKEN not in context.details
        assert (await calls.predict(ask(), Context(authorization=f"Bearer {TOKEN}"))).version == 1

    with_calls(store, act, token=TOKEN)


def test_whom_it_answers(store: Store) -> None:
    here = ("ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "ipv6:[::ffff:127.0.0.1]:4711", "unix:")
    elsewhere = ("ipv4:10.0.0.7:4711", "ipv6:%5B2001:db8::1%5D:4711", "ipv6:[::ffff:10.0.0.7]:4711", "", "127.0.0.1")

    async def answers(calls: GrpcCalls, peer: str) -> Any:
        context = Context(peer)
        await calls.predict(ask(), context)
        return context.code

    async def act(calls: GrpcCalls, client: Client) -> None:
        assert {await answers(calls, peer) for peer in here} == {None}
        assert {await answers(calls, peer) for peer in elsewhere} == {grpc.StatusCode.PERMISSION_DENIED}
        everybody = GrpcCalls(client.server, GrpcCallers.ALL)
        assert {await answers(everybody, peer) for peer in here + elsewhere} == {None}
        nobody = GrpcCalls(client.server, GrpcCallers.NOBODY)
        assert {await answers(nobody, peer) for peer in here} == {grpc.StatusCode.UNIMPLEMENTED}

    with_calls(store, act)


def test_a_batch_over_many_groups(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        instances = [
            pb.Instance(group="DEU", inputs_json="[1]"),
            pb.Instance(group="XXX", inputs_json="[1]"),
            pb.Instance(group="FRA", inputs_json='["x"]'),
            pb.Instance(group="FRA", inputs_json="["),
            pb.Instance(group="FRA", inputs_json="[1]", key="x" * 501),
            pb.Instance(group="FRA", inputs_json="[1]"),
        ]
        context = Context()
        found = await calls.batch_predict(pb.BatchPredictRequest(instances=instances, request_id="r"), context)
        assert context.code is None
        outputs = [each.answer.outputs_json for each in found.predictions if each.HasField("answer")]
        assert outputs == ["[1.0]", "[2.0]"]
        errors = {n: each.error for n, each in enumerate(found.predictions) if each.HasField("error")}
        assert {n: error.code for n, error in errors.items()} == {1: 5, 2: 3, 3: 3, 4: 3}
        fields = {n: error.fields[0].field for n, error in errors.items() if error.fields}
        assert fields == {2: "instances[2].inputs_json[0]", 3: "instances[3].inputs_json", 4: "instances[4].key"}
        assert found.predictions[5].answer.request_id == "r~5"
        assert errors[1].request_id == "r~1"
        context = Context()
        await calls.batch_predict(pb.BatchPredictRequest(instances=[]), context)
        assert context.code is grpc.StatusCode.INVALID_ARGUMENT
        context = Context()
        await calls.batch_predict(pb.BatchPredictRequest(instances=instances * 2), context)
        assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED

    with_calls(store, act, max_batch=6)


def test_a_caller_meets_the_same_version_by_http_and_grpc(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        for n in range(20):
            key = f"Zoë {n}"
            by_grpc = await calls.predict(ask(key=key), Context())
            batch = pb.BatchPredictRequest(instances=[pb.Instance(group="ITA", inputs_json="[1]")], key=key)
            [one] = (await calls.batch_predict(batch, Context())).predictions
            by_http = await client.predict("FRA", [1], x_umbel_key=key.encode().decode("latin-1"))
            assert by_grpc.alias == by_http.content["alias"] == one.answer.alias

    with_calls(store, act, split="champion=50,challenger=50")


def test_what_is_served_is_told(store: Store) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        told = await calls.describe(pb.DescribeRequest(model="gdp"), Context())
        assert (told.model, told.ready, list(told.groups)) == ("gdp", True, ["DEU", "FRA", "ITA"])
        assert [(each.alias, each.version) for each in told.serving] == [("champion", 1)]
        assert json.loads(told.status_json)["versions"] == [1, 2]

    with_calls(store, act)


def test_outcomes(store: Store) -> None:
    recorded: list[Any] = []

    async def act(calls: GrpcCalls, client: Client) -> None:
        client.server.outcome = lambda *outcome: recorded.append(outcome)  # type: ignore[method-assign]
        right = pb.RecordOutcomeRequest(request_id="r~1", outcome_json="[1.5, 2]")
        assert (await calls.record_outcome(right, Context())).request_id == "r~1"
        for wrong, code in (
            (pb.RecordOutcomeRequest(request_id="r", outcome_json="null"), grpc.StatusCode.INVALID_ARGUMENT),
            (pb.RecordOutcomeRequest(request_id="r"), grpc.StatusCode.INVALID_ARGUMENT),
            (pb.RecordOutcomeRequest(outcome_json="1"), grpc.StatusCode.INVALID_ARGUMENT),
            (pb.RecordOutcomeRequest(request_id="r", outcome_json="1", group="XXX"), grpc.StatusCode.NOT_FOUND),
        ):
            context = Context()
            await calls.record_outcome(wrong, context)
            assert context.code is code

    with_calls(store, act)
    assert recorded == [("r~1", [1.5, 2])]


def test_a_defect_is_told_without_its_text(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(calls: GrpcCalls, client: Client) -> None:
        async def broken(*args: Any) -> Any:
            raise RuntimeError("password=secret")

        monkeypatch.setattr(client.server.predictor, "predict", broken)
        context = Context()
        await calls.predict(ask(), context)
        assert context.code is grpc.StatusCode.INTERNAL
        assert "secret" not in str(context.trailing_metadata())

    with_calls(store, act)
