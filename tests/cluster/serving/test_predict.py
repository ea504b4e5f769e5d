"""Which version answers whom, and what is recorded."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.served import Client, damage, look, promote, register, scale, serving, until
from umbel.cluster.serving import asking
from umbel.cluster.serving.predict import _is_large
from umbel.cluster.serving.schema import InputSchema
from umbel.storage.predictions.reader import read_predictions
from umbel.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    register(store, 1.0)
    register(store, 10.0, groups=["FRA", "ITA", "NEW"])
    promote(store, 1)
    promote(store, 2, "challenger")
    return store


async def arm_of(client: Client, key: str | None, group: str = "FRA", **headers: str) -> str:
    if key is not None:
        headers["x_umbel_key"] = key
    reply = await client.predict(group, [1.0], **headers)
    assert reply.status == 200
    return str(reply.content["alias"])


def logged(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_predictions(store.objects, "gdp").to_pylist()
    return rows


def test_a_split_is_sticky_by_the_callers_key(store: Store) -> None:
    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50") as client:
            arms = {f"user{n}": await arm_of(client, f"user{n}") for n in range(40)}
            assert set(arms.values()) == {"champion", "challenger"}
            for key, arm in arms.items():
                assert await arm_of(client, key) == arm
                assert await arm_of(client, key, "ITA") == arm
                reply = await client.call("POST", "/v1/models/gdp/groups/FRA:predict", {"inputs": [1], "key": key})
                assert reply.content["alias"] == arm
            assert {await arm_of(client, None, x_request_id=f"r{n}") for n in range(40)} == {"champion", "challenger"}
        async with serving(store, split="champion=50,challenger=50") as client:  # another replica agrees
            assert {key: await arm_of(client, key) for key in arms} == arms

    asyncio.run(run())


def test_a_split_may_be_sticky_per_group(store: Store) -> None:
    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50", sticky_per_group=True) as client:
            fra = [await arm_of(client, f"user{n}", "FRA") for n in range(40)]
            ita = [await arm_of(client, f"user{n}", "ITA") for n in range(40)]
            assert fra != ita
            assert fra == [await arm_of(client, f"user{n}", "FRA") for n in range(40)]

    asyncio.run(run())


def test_groups_that_one_arm_lacks_are_answered_by_the_other(store: Store) -> None:
    async def run() -> None:
        async with serving(store, split="champion=1,challenger=99") as client:
            assert {await arm_of(client, f"user{n}", "DEU") for n in range(10)} == {"champion"}
            assert {await arm_of(client, f"user{n}", "NEW") for n in range(10)} == {"challenger"}
        rows = logged(store)
        assert {row["share"] for row in rows} == {None}  # nothing was left to chance: it says nothing about the split

    asyncio.run(run())


def test_answers_are_recorded_with_what_ab_needs(store: Store) -> None:
    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50", log_inputs=True) as client:
            replies = [await client.predict("FRA", [1.0], x_umbel_key=f"user{n}") for n in range(20)]
            outcome = {"request_id": replies[0].headers["x-request-id"], "outcome": 3.5}
            assert (await client.call("POST", "/v1/models/gdp/groups/FRA:outcome", outcome)).status == 202
        rows = {row["request_id"]: row for row in logged(store)}
        assert len(rows) == 20
        for reply in replies:
            row = rows[reply.headers["x-request-id"]]
            assert (row["group"], row["version"], row["arm"]) == (
                "FRA",
                reply.content["version"],
                reply.content["alias"],
            )
            assert row["digest"] == reply.headers["x-umbel-digest"]
            assert (row["alias"], row["shadow"], row["share"], row["sampled_at"]) == ("champion", False, 0.5, 1.0)
            assert (row["inputs"], len(row["input_digest"])) == ("[1.0]", 64)
            assert row["latency_s"] > 0
            assert len(row["key_hash"]) == 16
        assert rows[outcome["request_id"]]["outcome"] == 3.5

    asyncio.run(run())


def test_a_shadow_is_recorded_and_answers_nobody(store: Store) -> None:
    async def run() -> None:
        async with serving(store, shadow="challenger") as client:
            for n in range(5):
                reply = await client.predict("FRA", [1.0], x_request_id=f"r{n}")
                assert reply.content["outputs"] == [2.0]
            await client.predict("DEU", [1.0], x_request_id="alone")  # which the challenger does not have
        rows = logged(store)
        assert [(row["output"], row["version"], row["arm"]) for row in rows if row["shadow"]] == [
            ("[10.0]", 2, "challenger")
        ] * 5
        assert sorted(row["request_id"] for row in rows if not row["shadow"]) == ["alone", *(f"r{n}" for n in range(5))]
        assert {row["inputs"] for row in rows} == {None}

    asyncio.run(run())


def test_a_shadow_of_the_same_model_is_not_asked_again(store: Store) -> None:
    promote(store, 1, "challenger")

    async def run() -> None:
        async with serving(store, shadow="challenger") as client:
            await client.predict("FRA", [1.0])
            assert client.server._shadow_cache.loads == 0
        answer, shadow = sorted(logged(store), key=lambda row: bool(row["shadow"]))
        for name in ("output", "latency_s", "version", "digest", "request_id"):
            assert answer[name] == shadow[name]
        assert (answer["arm"], shadow["arm"]) == ("champion", "challenger")

    asyncio.run(run())


def test_a_shadow_neither_holds_nor_evicts_what_answers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def predict(model: Any, given: Any) -> Any:
        answer = model.predict(given)
        if answer[0] >= 10.0:
            assert go.wait(20)
        return answer

    async def run() -> None:
        async with serving(store, shadow="challenger", cached_groups=1) as client:
            monkeypatch.setattr(asking, "predict", predict)
            for _ in range(3):
                assert (await client.predict("FRA", [1.0])).content["outputs"] == [2.0]
            cache, shadows = client.server.cache, client.server._shadow_cache
            await until(lambda: shadows.loads == 1)
            assert (cache.loads, cache.hits) == (1, 2)
            promote(store, 1, "challenger")
            promote(store, 2, "challenger")
            await look(client)
            assert (await client.predict("FRA", [1.0])).status == 200
            assert (cache.loads, cache.hits) == (1, 3)
            go.set()
            await until(lambda: not client.server.predictor._shadows)
        assert [row["output"] for row in logged(store) if row["shadow"]] == ["[10.0]"] * 4

    asyncio.run(run())


def test_large_inputs_are_checked_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes, threads = InputSchema.mistakes, []

    def check(self: InputSchema, inputs: object) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return mistakes(self, inputs)

    monkeypatch.setattr(InputSchema, "mistakes", check)

    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50") as client:
            assert (await client.predict("FRA", [1.0] * 10)).status == 200
            assert (await client.predict("FRA", [1.0] * 1000)).status == 200
            reply = await client.predict("FRA", [1.0] * 1000 + ["x"])
            assert reply.status == 422
            assert reply.content["detail"][0]["loc"] == ["body", "inputs", 1000]
        assert threads == [True, False, False]
        assert len(logged(store)) == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("inputs", "is_large"),
    [
        (1.0, False),
        ([1.0] * 200, False),
        ([1.0] * 201, True),
        ({"rows": [[1.0] * 10] * 18}, False),
        ({"rows": [[1.0] * 10] * 19}, True),
        ("x" * 100_000, True),
    ],
)
def test_what_is_large(inputs: Any, is_large: bool) -> None:
    assert _is_large(inputs) is is_large


def test_inputs_that_are_refused_are_no_answer_of_a_model(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "arrays"))
    for _ in range(2):  # the schema lets rows of any length pass, and NumPy does not
        register(store, 1.0, inputs={"type": "array"}, smoke=np.array([[1.0, 2.0]]))
    promote(store, 1)
    promote(store, 2, "challenger")

    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50") as client:
            for n in range(8):
                reply = await client.predict("FRA", [[1.0], [1.0, 2.0]], x_request_id=f"bad{n}")
                assert reply.status == 422
            assert (await client.predict("FRA", [[1.0, 2.0]], x_request_id="good")).status == 200

    asyncio.run(run())
    assert [row["request_id"] for row in logged(store)] == ["good"]


def test_a_shadow_that_fails_is_recorded_without_output(store: Store) -> None:
    register(store, 1.0, model=lambda factor: scale(factor, fails=True), inputs=None)
    promote(store, 3, "challenger")

    async def run() -> None:
        async with serving(store, shadow="challenger") as client:
            assert (await client.predict("FRA", [1.0])).status == 200
            await until(lambda: not client.server.predictor._shadows)
        assert sorted((row["shadow"], row["output"]) for row in logged(store)) == [(False, "[2.0]"), (True, None)]

    asyncio.run(run())


def test_a_share_of_the_requests_is_logged_answer_and_shadow_alike(store: Store) -> None:
    async def run() -> None:
        async with serving(store, shadow="challenger", log=0.3) as client:
            for n in range(200):
                await client.predict("FRA", [1.0], x_request_id=f"r{n}")
            await until(lambda: not client.server.predictor._shadows)
        rows = logged(store)
        answers = {row["request_id"] for row in rows if not row["shadow"]}
        shadows = {row["request_id"] for row in rows if row["shadow"]}
        assert 30 < len(answers) < 90
        assert shadows == answers
        assert {row["sampled_at"] for row in rows} == {0.3}

    asyncio.run(run())


def test_nothing_is_logged_unless_asked(store: Store) -> None:
    async def run() -> None:
        async with serving(store) as client:
            await client.predict("FRA", [1.0])
        assert logged(store) == []

    asyncio.run(run())


def test_a_model_that_is_damaged_later_is_told_and_tried_again(store: Store) -> None:
    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            assert (await client.predict("FRA", [1.0])).status == 200
            damage(store, store.registry.model("gdp").version(1), "ITA")
            reply = await client.predict("ITA", [1.0])
            assert reply.status == 503
            assert "damaged" in reply.content["error"]["got"]
            damage(store, store.registry.model("gdp").version(1), "ITA")  # once more: as it was
            assert (await client.predict("ITA", [1.0])).status == 200

    asyncio.run(run())


def test_a_load_that_takes_too_long_does_not_hold_a_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from umbel.cluster.serving.versions import ServedVersion

    go = threading.Event()

    async def run() -> None:
        async with serving(store, load_timeout_s=0.02) as client:
            monkeypatch.setattr(ServedVersion, "load", lambda *args: go.wait(10))
            reply = await client.predict("FRA", [1.0])
            assert reply.status == 503
            assert "in time" in reply.content["error"]["what"]
            go.set()

    asyncio.run(run())
