"""Aliases that move while a model is served: what takes traffic, and what keeps out."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.served import Client, damage, look, promote, register, scale, serving, until
from umbel.cluster.serving import server, versions
from umbel.cluster.serving.server import ModelServer
from umbel.cluster.serving.settings import make_settings
from umbel.cluster.serving.versions import ServedVersion
from umbel.scheduler.errors import StoreUnavailableError
from umbel.storage import layout
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    register(store, 1.0)
    promote(store, 1)
    return store


async def version_of(client: Client, group: str = "FRA") -> int:
    reply = await client.predict(group, [1.0])
    assert reply.status == 200, reply.content
    return int(reply.content["version"])


async def problems(client: Client) -> list[Any]:
    reply = await client.call("GET", "/readyz")
    assert reply.status == 200
    assert reply.content["status"] == ("degraded" if reply.content["problems"] else "ready")
    return list(reply.content["problems"])


def test_a_moved_alias_is_followed_and_rolled_back(store: Store) -> None:
    register(store, 10.0)

    async def run() -> None:
        async with serving(store) as client:
            assert await version_of(client) == 1
            promote(store, 2)
            assert await version_of(client) == 1
            await look(client)
            assert await version_of(client) == 2
            assert (await client.predict("ITA", [1])).content["outputs"] == [30.0]
            store.registry.model("gdp").rollback()
            await look(client)
            assert await version_of(client) == 1

    asyncio.run(run())


def test_what_was_hot_is_there_when_a_version_begins(store: Store) -> None:
    register(store, 10.0)

    async def run() -> None:
        async with serving(store, cached_groups=2) as client:
            for group in ("DEU", "FRA", "ITA"):
                await client.predict(group, [1])
            promote(store, 2)
            await look(client)
            loads = client.server.cache.loads
            for group in ("FRA", "ITA"):
                assert await version_of(client, group) == 2
            assert client.server.cache.loads == loads
            assert await version_of(client, "DEU") == 2
            assert client.server.cache.loads == loads + 1

    asyncio.run(run())


def test_no_request_fails_while_aliases_move_all_the_time(store: Store) -> None:
    register(store, 10.0)
    outputs = {1: [2.0], 2: [20.0]}

    async def ask(client: Client, until_done: asyncio.Event) -> set[int]:
        seen = set()
        while not until_done.is_set():
            reply = await client.predict("FRA", [1])
            assert reply.status == 200
            assert reply.content["outputs"] == outputs[reply.content["version"]]
            seen.add(reply.content["version"])
        return seen

    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            done = asyncio.Event()
            tasks = [asyncio.create_task(ask(client, done)) for _ in range(4)]
            for n in range(20):
                promote(store, 2 - n % 2)
                await look(client)
            done.set()
            assert set().union(*await asyncio.gather(*tasks)) == {1, 2}

    asyncio.run(run())


def test_a_tampered_version_never_takes_traffic(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    version = register(store, 10.0)
    damage(store, version, "ITA")

    async def run() -> None:
        async with serving(store) as client:
            promote(store, 2)
            await look(client)
            for group in ("DEU", "FRA", "ITA"):
                assert await version_of(client, group) == 1
            [problem] = await problems(client)
            assert (problem["alias"], problem["version"]) == ("champion", 2)
            assert "ITA" in problem["what"]
            assert (await client.call("GET", "/v1/models/gdp")).content["problems"] == [problem]
            await look(client)  # it is not said, nor tried, again and again
            assert [record.levelname for record in caplog.records].count("ERROR") == 1
            register(store, 100.0)
            promote(store, 3)
            await look(client)
            assert await version_of(client) == 3
            assert await problems(client) == []

    asyncio.run(run())


def test_a_version_that_fails_its_smoke_test_never_takes_traffic(store: Store) -> None:
    register(store, 10.0, model=lambda factor: scale(factor, fails=True), inputs={"type": "array"})
    # registered without an example; the next version's record names one that these models can't answer
    version = register(store, 10.0)
    good, bad = store.registry.model("gdp").version(3), store.registry.model("gdp").version(2)
    assert bad.smoke is None
    assert good.smoke == version.smoke == [1.0, 2.0]

    class Refusing:
        """The registry, where the bad version has the good one's example."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store.registry.model("gdp"), name)

        def version(self, number: int) -> Any:
            if number == 2:
                bad.__dict__["smoke"] = [1.0, 2.0]
                return bad
            return store.registry.model("gdp").version(number)

    async def run() -> None:
        async with serving(store) as client:
            client.server._watcher._registered = Refusing()
            promote(store, 2)
            await look(client)
            assert await version_of(client) == 1
            [problem] = await problems(client)
            assert "ZeroDivisionError" in problem["what"]

    asyncio.run(run())


def test_a_replica_that_starts_beside_a_bad_version_serves_the_one_before(store: Store) -> None:
    version = register(store, 10.0)
    damage(store, version, "DEU")
    promote(store, 2)

    async def run() -> None:
        async with serving(store) as client:
            assert await version_of(client) == 1
            [problem] = await problems(client)
            assert problem["version"] == 2

    asyncio.run(run())


def test_without_any_good_version_nothing_is_served(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "bad"))
    damage(store, register(store, 1.0), "DEU")
    promote(store, 1)

    async def run() -> None:
        async with serving(store) as client:
            ready = await client.call("GET", "/readyz")
            assert (ready.status, ready.content["status"]) == (503, "not ready")
            reply = await client.predict("FRA", [1])
            assert reply.status == 503
            assert reply.headers["retry-after"] == "1"
            assert (await client.call("GET", "/healthz")).status == 200
            assert (await client.call("GET", "/openapi.json")).status == 200

    asyncio.run(run())


def test_a_store_that_goes_away_and_comes_back(store: Store) -> None:
    folder, away = Path(store.url), Path(store.url).with_name("away")

    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            assert await version_of(client, "FRA") == 1
            shutil.move(folder, away)
            await look(client)
            assert await version_of(client, "FRA") == 1
            [problem] = await problems(client)
            assert problem["alias"] is None
            assert "the store has nothing of 'gdp' any more" in problem["what"]
            lineage = await client.call("GET", "/v1/models/gdp/groups/FRA")
            assert lineage.status == 503
            assert "the store does not answer" in lineage.content["error"]["what"]
            cold = await client.predict("DEU", [1])
            assert cold.status == 503
            assert cold.headers["retry-after"] == "1"
            status = (await client.call("GET", "/v1/models/gdp")).content
            assert status["status"] == "degraded"
            assert "versions" not in status
            shutil.move(away, folder)
            await look(client)
            assert await problems(client) == []
            assert await version_of(client, "DEU") == 1

    asyncio.run(run())


def test_a_store_that_does_not_answer_is_told_of(store: Store) -> None:
    times, go = [0.0], threading.Event()

    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            await client.predict("FRA", [1])
            watcher = client.server._watcher
            watcher._clock = lambda: times[0]
            resolve = watcher._registered.resolve
            watcher._registered.resolve = lambda alias: go.wait(10) and resolve(alias)
            looking = asyncio.create_task(look(client))
            await until(lambda: watcher._asked_at is not None)
            assert await problems(client) == []
            times[0] = 5.0
            [problem] = await problems(client)
            assert "has not answered for 5 s" in problem["what"]
            assert (await client.predict("DEU", [1])).status == 503
            go.set()
            await looking
            assert await problems(client) == []
            assert (await client.predict("DEU", [1])).status == 200

    asyncio.run(run())


def hang_at(monkeypatch: pytest.MonkeyPatch, factor: float) -> threading.Event:
    """Let models that multiply by so much, or more, hang in their smoke test until the event is set."""
    go = threading.Event()

    def predict(model: Any, given: Any) -> Any:
        answer = model.predict(given)
        if answer[0] >= factor:
            assert go.wait(20)
        return answer

    monkeypatch.setattr(versions, "predict", predict)
    return go


def test_trying_a_version_for_long_is_no_silence_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    register(store, 10.0)
    go, times = hang_at(monkeypatch, 10.0), [0.0]

    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            watcher = client.server._watcher
            watcher._clock = lambda: times[0]
            promote(store, 2)
            looking = asyncio.create_task(look(client))
            await until(lambda: "champion" in watcher._moves)
            times[0] = 1000.0
            for group in ("DEU", "FRA", "DEU"):  # none of which is in memory
                assert await version_of(client, group) == 1
            assert await problems(client) == []
            go.set()
            await looking
            assert await version_of(client) == 2

    asyncio.run(run())


def test_a_challenger_that_hangs_does_not_hold_the_champion(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    register(store, 10.0)
    register(store, 100.0)
    promote(store, 1, "challenger")
    go = hang_at(monkeypatch, 100.0)

    async def run() -> None:
        async with serving(store, split="champion=100,challenger=0") as client:
            watcher = client.server._watcher
            watcher._admission._limit_s = 0.1
            promote(store, 3, "challenger")
            promote(store, 2)
            watcher.look()
            await until(lambda: client.server.readiness[1]["serving"] == {"champion": 2, "challenger": 1})
            store.registry.model("gdp").rollback()
            watcher.look()
            await until(lambda: client.server.readiness[1]["serving"] == {"champion": 1, "challenger": 1})
            await look(client)
            [problem] = await problems(client)
            assert (problem["alias"], problem["version"]) == ("challenger", 3)
            assert "no answer within 0.1 s" in problem["what"]
            watcher._clock = lambda: time.monotonic() + 1000.0
            await look(client)  # tried again: what hangs still is not asked once more
            assert "since it was tried before" in (await problems(client))[0]["what"]
            go.set()
            await until(lambda: not watcher._admission._stuck[3].are_stuck)
            watcher._clock = lambda: time.monotonic() + 2000.0
            await look(client)
            assert client.server.readiness[1]["serving"] == {"champion": 1, "challenger": 3}
            assert await problems(client) == []

    asyncio.run(run())


def test_a_replica_starts_beside_a_challenger_that_hangs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    register(store, 100.0)
    promote(store, 2, "challenger")
    go = hang_at(monkeypatch, 100.0)
    monkeypatch.setattr(server, "_OTHERS_S", 0.05)

    async def run() -> None:
        async with serving(store, split="champion=50,challenger=50") as client:
            assert client.server.readiness[1]["serving"] == {"champion": 1}
            assert await version_of(client) == 1
            go.set()
            await until(lambda: client.server.readiness[1]["serving"] == {"champion": 1, "challenger": 2})

    asyncio.run(run())


def test_a_version_that_the_alias_has_left_meanwhile_is_not_served(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store, 10.0)
    go = hang_at(monkeypatch, 10.0)

    async def run() -> None:
        async with serving(store) as client:
            promote(store, 2)
            client.server._watcher.look()
            store.registry.model("gdp").rollback()
            go.set()
            await look(client)
            assert await version_of(client) == 1
            assert await problems(client) == []

    asyncio.run(run())


def test_a_damaged_record_is_a_problem_of_its_alias(store: Store) -> None:
    register(store, 10.0)
    promote(store, 1, "challenger")

    async def run() -> None:
        async with serving(store, split="champion=100,challenger=0", cached_groups=1) as client:
            promote(store, 2)
            promote(store, 2, "challenger")
            record = Path(store.url) / layout.alias_record("gdp", "champion", 2)
            kept = record.read_bytes()
            record.chmod(0o644)
            record.write_bytes(b"{")
            await look(client)
            await look(client)
            assert client.server.readiness[1]["serving"] == {"champion": 1, "challenger": 2}
            [problem] = await problems(client)
            assert (problem["alias"], problem["version"]) == ("champion", None)
            for group in ("DEU", "FRA"):  # the store is there
                assert await version_of(client, group) == 1
            record.write_bytes(kept)
            await look(client)
            assert client.server.readiness[1]["serving"] == {"champion": 2, "challenger": 2}
            assert await problems(client) == []

    asyncio.run(run())


@pytest.mark.parametrize("what", ["its record", "a model"])
def test_a_read_that_fails_once_does_not_refuse_a_version(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    register(store, 10.0)
    owner, name = (RegisteredModel, "version") if what == "its record" else (ServedVersion, "load")

    def fail(*args: Any) -> Any:
        raise StoreUnavailableError("the storage does not answer")

    async def run() -> None:
        async with serving(store) as client:
            promote(store, 2)
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                await look(client)
            assert await version_of(client) == 1
            [problem] = await problems(client)
            assert "can't be tried now" in problem["what"]
            await look(client)  # at once, not a minute later
            assert await version_of(client) == 2
            assert await problems(client) == []

    asyncio.run(run())


def test_the_thread_follows_by_itself(store: Store) -> None:
    register(store, 10.0)

    async def run() -> None:
        server = ModelServer(store.objects, make_settings("gdp", trust=True, poll_s=0.01))
        await server.start()
        promote(store, 2)
        await until(lambda: server.readiness[1]["serving"] == {"champion": 2})
        await server.stop()

    asyncio.run(run())


def test_versions_share_what_they_have_in_common(store: Store) -> None:
    register(store, 1.0)  # the same models again

    async def run() -> None:
        async with serving(store) as client:
            for group in ("DEU", "FRA", "ITA"):
                await client.predict(group, [1])
            promote(store, 2)
            await look(client)
            assert await version_of(client) == 2
            assert client.server.cache.loads == 3

    asyncio.run(run())
