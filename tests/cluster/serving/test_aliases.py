"""Aliases that move while a model is served: what takes traffic, and what keeps out."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.served import Client, damage, look, promote, register, scale, serving, until
from umbel.cluster.serving.server import ModelServer
from umbel.cluster.serving.settings import make_settings
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
            assert "store" in problem["what"]
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
    times = [0.0]

    async def run() -> None:
        async with serving(store) as client:
            watcher = client.server._watcher
            watcher._clock = lambda: times[0]
            watcher.look()
            assert await problems(client) == []
            times[0] = 1e6  # a look that never ends
            [problem] = await problems(client)
            assert "has not answered" in problem["what"]

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
