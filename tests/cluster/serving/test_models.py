"""Models in memory: how many, and one load for all who wait."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from umbel.cluster.serving.models import Loaded, ModelCache


def loaded(digest: str) -> Loaded:
    return Loaded.of(object(), digest, f"group of {digest}", "json")


def test_the_least_used_goes_first() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as threads:
            cache = ModelCache(2, threads)
            for digest in ("a", "b", "a", "c"):
                assert (await cache.get(digest, partial(loaded, digest))).digest == digest
            await asyncio.sleep(0)
            assert "a" in cache
            assert "b" not in cache
            assert (len(cache), cache.hits, cache.loads) == (2, 1, 3)
            assert cache.digests == ["a", "c"]

    asyncio.run(run())


def test_all_who_wait_share_one_load_and_loads_go_on_beside_each_other() -> None:
    began, go = [], threading.Event()

    def load(digest: str) -> Loaded:
        began.append(digest)
        assert go.wait(10)
        return loaded(digest)

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            cache = ModelCache(2, threads)
            waiting = [asyncio.create_task(cache.get(d, partial(load, d))) for d in ("a", "a", "b", "a")]
            while sorted(began) != ["a", "b"]:
                await asyncio.sleep(0.001)
            waiting[0].cancel()  # a caller that goes away takes nobody's model along
            go.set()
            found = await asyncio.gather(*waiting[1:])
            assert [each.digest for each in found] == ["a", "b", "a"]
            assert found[0] is found[2]
            assert cache.loads == 2

    asyncio.run(run())


def test_a_load_that_fails_is_tried_again() -> None:
    def fail() -> Loaded:
        raise OSError("away")

    async def run() -> None:
        with ThreadPoolExecutor(1) as threads:
            cache = ModelCache(2, threads)
            with pytest.raises(OSError, match="away"):
                await cache.get("a", fail)
            await asyncio.sleep(0)
            assert (await cache.get("a", lambda: loaded("a"))).digest == "a"

    asyncio.run(run())
