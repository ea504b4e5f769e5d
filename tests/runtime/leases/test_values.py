"""How values travel: inline or as artifacts, cached, and not without bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import umbel
from umbel.runtime.leases import values
from umbel.runtime.leases.values import INLINE_LIMIT_BYTES, ValueCache, store_value
from umbel.storage.objects.interface import ObjectStore


def test_small_values_travel_and_large_ones_lie_in_the_store(tmp_path: Path) -> None:
    objects = ObjectStore.open(tmp_path)
    small, large = np.arange(10), np.arange(INLINE_LIMIT_BYTES)
    assert store_value(small, objects).payload is not None
    handle = store_value(large, objects)
    assert handle.payload is None
    assert objects.exists(f"artifacts/{handle.digest}")
    assert (ValueCache(objects).get(handle) == large).all()


def test_a_cache_gives_the_same_object_and_forgets_what_is_old(tmp_path: Path) -> None:
    objects = ObjectStore.open(tmp_path)
    handles = [store_value([number] * 100, objects) for number in range(3)]
    cache = ValueCache(objects, limit_bytes=2 * handles[0].size_bytes + 1)
    first = cache.get(handles[0])
    assert cache.get(handles[0]) is first
    cache.get(handles[1])
    cache.get(handles[2])
    assert cache.get(handles[0]) is not first
    assert cache.get(handles[0]) == first


@umbel.task
def blob(size: int) -> bytes:
    return b"x" * size


def test_a_value_over_the_limit_fails_its_element_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "VALUE_LIMIT_BYTES", 1000)
    node = blob.map([10, 10_000])
    run = umbel.run(node, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert run.elements(node)["status"].to_pylist() == ["ok", "failed"]
    error = run.failures()["error"][0].as_py()
    assert "too large" in error
    assert "split it into elements" in error
