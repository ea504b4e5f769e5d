"""Runs are found with few requests, whatever has happened to the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from umbel.scheduler.errors import StoreError
from umbel.storage import layout
from umbel.storage.documents import create_document
from umbel.storage.lineage.mentions import Mentions, parse_mentions, write_mentions
from umbel.storage.lineage.mentions_index import all_mentions
from umbel.storage.objects.interface import ObjectStore

DIGESTS = [f"{number:064x}" for number in range(1, 100)]


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store that passes for a distant one."""
    store = ObjectStore.open(f"memory://{uuid4().hex}")
    monkeypatch.setattr(store, "is_process_local", False)
    return store


@pytest.fixture
def reads(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what is read."""
    counted: Counter[str] = Counter()
    original = objects.read

    def read(path: str) -> bytes:
        counted[path] += 1
        return original(path)

    monkeypatch.setattr(objects, "read", read)
    return counted


def add_run(objects: ObjectStore, run_id: str, digests: Sequence[str], created: str = "2026-01-01T00:00:00.1") -> None:
    record: dict[str, Any] = {
        "id": run_id,
        "created": created,
        "graph": {"nodes": [{"name": "load", "kind": "map", "size": len(digests), "arguments": []}]},
    }
    if not objects.exists(layout.record(run_id)):
        create_document(objects, layout.record(run_id), record)
    mentions = Mentions()
    mentions.add_elements(0, pa.record_batch({"element": pa.array(range(len(digests))), "digest": pa.array(digests)}))
    write_mentions(objects, record, {}, mentions)


def found(objects: ObjectStore, gathered: int = 4) -> dict[str, list[int]]:
    return {run_id: each.columns["digest"].tolist() for run_id, each in all_mentions(objects, gathered)}


def test_many_runs_are_gathered_once(objects: ObjectStore, reads: Counter[str]) -> None:
    for number in range(6):
        add_run(objects, f"run{number}", DIGESTS[number : number + 2])
    first = found(objects)
    assert len(first) == 6
    assert sum(reads.values()) == 6
    reads.clear()
    assert found(objects) == first
    assert sum(reads.values()) == 1
    add_run(objects, "later", DIGESTS[:1])
    reads.clear()
    assert set(found(objects)) == {*first, "later"}
    assert sum(reads.values()) == 2  # one more is not worth another index


def test_a_run_that_is_gone_or_was_made_anew(objects: ObjectStore) -> None:
    for number in range(5):
        add_run(objects, f"run{number}", DIGESTS[:1])
    before = found(objects)
    objects.delete(layout.record("run0"))
    assert "run0" not in found(objects)
    add_run(objects, "run1", DIGESTS[:2], created="2026-02-01T00:00:00.1")
    assert len(found(objects)["run1"]) == 2 != len(before["run1"])


def test_a_damaged_index_is_passed_over(objects: ObjectStore) -> None:
    for number in range(5):
        add_run(objects, f"run{number}", DIGESTS[:1])
    wanted = found(objects)
    (index,) = objects.list(layout.MENTIONS_INDEX)
    objects.delete(index)
    objects.create(index, b"PAR1 damaged")
    assert found(objects, 100) == wanted


def test_a_store_that_can_only_be_read(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        add_run(objects, f"run{number}", DIGESTS[:1])

    def create(*_: Any, **__: Any) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(objects, "create", create)
    assert len(found(objects)) == 5
    assert objects.list(layout.MENTIONS_INDEX) == []


def test_damaged_mentions_are_read_from_the_segments(objects: ObjectStore) -> None:
    add_run(objects, "run", DIGESTS[:1])
    (path,) = [path for path in objects.list(layout.MENTIONS) if layout.parse_mentions(path)]
    objects.delete(path)
    objects.create(path, b"damaged")
    assert found(objects) == {"run": []}


@pytest.mark.parametrize("summary", [b"", b"[]", b"{}", b'{"nodes": [3]}', b'{"nodes": [{"name": 1, "kind": "map"}]}'])
def test_what_others_wrote_is_not_believed(summary: bytes) -> None:
    schema = pa.schema(
        [("node", pa.int32()), ("index", pa.int64()), ("kind", pa.int8()), ("digest", pa.uint64())],
        metadata={b"umbel.summary": summary},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema):
        pass
    assert parse_mentions(sink.getvalue().to_pybytes()) is None


def test_local_stores_need_no_index(tmp_path: Any) -> None:
    objects = ObjectStore.open(str(tmp_path))
    for number in range(5):
        add_run(objects, f"run{number}", DIGESTS[:1])
    assert len(found(objects)) == 5
    assert objects.list(layout.MENTIONS_INDEX) == []
