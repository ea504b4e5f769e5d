from __future__ import annotations

import errno
import gc
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from umbel.scheduler.errors import InternalError, StoreConflictError, StoreError, StoreFullError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.objects.local import LocalObjectStore
from umbel.storage.runs import segments
from umbel.storage.runs.segments import SegmentWriter, read_segments, scan_segments
from umbel.storage.store import Store

FOLDER = "runs/gdp/trials/backtest"


def batch(first: int, count: int, **columns: pa.Array) -> pa.RecordBatch:
    return pa.record_batch({"trial": pa.array(range(first, first + count), pa.int64()), **columns})


def trials(objects: ObjectStore, folder: str = FOLDER) -> list[int]:
    scan = read_segments(objects, folder)
    assert scan.corrupt == []
    return [trial for table in scan.tables for trial in table["trial"].to_pylist()]


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.002)


def test_batches_become_one_object_a_folder(any_store: Store) -> None:
    objects = any_store.objects
    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.describe(FOLDER, {"umbel.run": "gdp"})
        for first in range(0, 100, 10):
            writer.add(FOLDER, batch(first, 10))
        writer.add("runs/gdp/values/load", pa.record_batch({"element": pa.array([0], pa.int64())}))
        assert writer.durable_rows == 0
        writer.flush()
        assert writer.durable_rows == 101
        assert writer.objects_written == 2
        assert writer.bytes_written == sum(objects.size(path) for path in objects.list(recursive=True))
        writer.add(FOLDER, batch(100, 1))
    assert objects.list(FOLDER) == [f"{FOLDER}/00000000.parquet", f"{FOLDER}/00000001.parquet"]
    assert trials(objects) == list(range(101))
    metadata = read_segments(objects, FOLDER).tables[0].schema.metadata
    assert metadata[b"umbel.run"] == b"gdp"


def test_rows_are_written_when_they_are_old(objects: ObjectStore) -> None:
    with SegmentWriter(objects, max_age_s=0.02) as writer:
        writer.add(FOLDER, batch(0, 3))
        wait_until(lambda: writer.durable_rows == 3)
        writer.add(FOLDER, batch(3, 2))
        wait_until(lambda: writer.durable_rows == 5)
    assert trials(objects) == [0, 1, 2, 3, 4]


def test_rows_are_written_when_there_are_many(objects: ObjectStore) -> None:
    with SegmentWriter(objects, max_age_s=1000, max_rows=10) as writer:
        for first in range(0, 10, 5):
            writer.add(FOLDER, batch(first, 5))
        wait_until(lambda: writer.durable_rows == 10)
    with SegmentWriter(objects, max_age_s=1000, max_bytes=100) as writer:
        writer.add(FOLDER, batch(10, 20))
        wait_until(lambda: writer.durable_rows == 20)


def test_age_counts_by_the_clock_given(objects: ObjectStore) -> None:
    now = [0.0]
    with SegmentWriter(objects, max_age_s=10, clock=lambda: now[0]) as writer:
        writer.add("a", batch(0, 1))
        now[0] = 9.0
        writer.add("b", batch(0, 1))
        now[0] = 11.0
        writer.add("c", batch(0, 1))  # a new folder lets the thread look at the clock
        wait_until(lambda: writer.objects_written == 1)
        assert objects.list(recursive=True) == ["a/00000000.parquet"]


def test_numbers_go_on_after_the_highest(objects: ObjectStore) -> None:
    for number in (0, 3):
        objects.create(f"{FOLDER}/{number:08d}.parquet", b"x")
    objects.set_aside(f"{FOLDER}/00000003.parquet")
    with SegmentWriter(objects) as writer:
        writer.add(FOLDER, batch(0, 1))
    assert f"{FOLDER}/00000004.parquet" in objects.list(FOLDER)


def test_columns_may_differ(objects: ObjectStore) -> None:
    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.add(FOLDER, batch(0, 1, metric_a=pa.array([1.0])))
        writer.add(FOLDER, batch(1, 1, metric_b=pa.array([2]), status=pa.array(["ok"]).dictionary_encode()))
        writer.add(FOLDER, batch(2, 1, metric_a=pa.array([3]), status=pa.array(["failed"]).dictionary_encode()))
        writer.add(FOLDER, batch(3, 1, metric_a=pa.nulls(1), status=pa.array(["ok"])))
    (table,) = read_segments(objects, FOLDER).tables
    assert table["metric_a"].to_pylist() == [1.0, None, 3.0, None]
    assert table["metric_b"].to_pylist() == [None, 2, None, None]
    assert table["status"].to_pylist() == [None, "ok", "failed", "ok"]
    assert table.schema.field("status").type == pa.string()


def test_columns_that_can_not_be_reconciled_go_to_files_of_their_own(objects: ObjectStore) -> None:
    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.add(FOLDER, batch(0, 1, config_x=pa.array([1])))
        writer.add(FOLDER, batch(1, 1, config_x=pa.array(["one"])))
        writer.flush()
        assert writer.durable_rows == 2
    scan = read_segments(objects, FOLDER)
    assert len(scan.tables) == 2
    table = scan.unified()
    assert table is not None
    assert table["config_x"].to_pylist() == ["1", "one"]


def test_empty_batches_and_folders(objects: ObjectStore) -> None:
    with SegmentWriter(objects) as writer:
        writer.add(FOLDER, batch(0, 0))
        writer.flush()
    scan = read_segments(objects, FOLDER)
    assert (scan.tables, scan.paths, scan.corrupt) == ([], [], [])
    assert scan.unified() is None


def test_closing(objects: ObjectStore) -> None:
    writer = SegmentWriter(objects, max_age_s=1000)
    writer.add(FOLDER, batch(0, 1))
    writer.close()
    writer.close()
    assert trials(objects) == [0]
    with pytest.raises(InternalError, match="closed"):
        writer.add(FOLDER, batch(1, 1))


class FailingStore(LocalObjectStore):
    """A local store that has no room from some object on, and counts the attempts."""

    room = 1_000_000
    attempts = 0

    def create(self, path: str, data: bytes | memoryview, *, unique: bool = False) -> None:
        self.attempts += 1
        if self.attempts > self.room:
            raise StoreFullError("no space is left", got=path, hint="free some")
        super().create(path, data, unique=unique)


def test_a_full_disk_is_reported_and_nothing_more_is_written(tmp_path: Path) -> None:
    store = FailingStore(str(tmp_path))
    store.room = 1
    writer = SegmentWriter(store, max_age_s=1000)
    writer.add(FOLDER, batch(0, 5))
    writer.flush()
    writer.add(FOLDER, batch(5, 5))
    for _ in range(2):
        with pytest.raises(StoreFullError, match="no space is left") as caught:
            writer.flush()
        assert caught.value.hint == "free some"
    with pytest.raises(StoreFullError):
        writer.add(FOLDER, batch(10, 5))
    writer.close()  # said already
    assert store.attempts == 2
    assert writer.durable_rows == 5
    assert trials(store) == [0, 1, 2, 3, 4]


def test_closing_reports_an_error_that_nobody_has_seen(tmp_path: Path) -> None:
    store = FailingStore(str(tmp_path))
    store.room = 0
    writer = SegmentWriter(store, max_age_s=1000)
    writer.add(FOLDER, batch(0, 5))
    with pytest.raises(StoreFullError):
        writer.close()
    writer.close()


def test_the_disk_fills_up_in_the_local_store(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.add(FOLDER, batch(0, 5))
        writer.flush()
    monkeypatch.setattr(os, "fsync", full)
    writer = SegmentWriter(objects, max_age_s=1000)
    writer.add(FOLDER, batch(5, 5))
    with pytest.raises(StoreFullError):
        writer.flush()
    writer.close()
    monkeypatch.undo()
    assert trials(objects) == [0, 1, 2, 3, 4]
    assert [path.name for path in Path(objects.full_path(FOLDER)).iterdir()] == ["00000000.parquet"]


def test_another_writer_of_the_same_run(objects: ObjectStore) -> None:
    one, two = SegmentWriter(objects, max_age_s=1000), SegmentWriter(objects, max_age_s=1000)
    for writer in (one, two):
        writer.add("warm", batch(0, 1))
        writer.flush()
    assert objects.list("warm") == ["warm/00000000.parquet", "warm/00000001.parquet"]
    # The first one's next number is the second one's: whoever comes late is told.
    one.add("warm", batch(1, 1))
    with pytest.raises(StoreConflictError):
        one.flush()
    one.close()
    two.close()


def test_adding_waits_when_the_store_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_MAX_WAITING_BYTES", 1000)
    gate = threading.Event()

    class SlowStore(LocalObjectStore):
        def create(self, path: str, data: bytes | memoryview, *, unique: bool = False) -> None:
            gate.wait()
            super().create(path, data, unique=unique)

    writer = SegmentWriter(SlowStore(str(tmp_path)), max_age_s=1000)
    done = threading.Event()

    def add_many() -> None:
        for first in range(0, 1000, 50):
            writer.add(FOLDER, batch(first, 50))
        done.set()

    adding = threading.Thread(target=add_many, daemon=True)
    adding.start()
    assert not done.wait(0.05)
    gate.set()
    assert done.wait(20)
    writer.close()
    assert trials(LocalObjectStore(str(tmp_path))) == list(range(1000))


def test_a_batch_larger_than_all_that_may_wait(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_MAX_WAITING_BYTES", 100)
    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.add(FOLDER, batch(0, 500))
        writer.add(FOLDER, batch(500, 500))
    assert trials(objects) == list(range(1000))


def test_nothing_is_kept_after_writing(objects: ObjectStore) -> None:
    with SegmentWriter(objects, max_age_s=1000) as writer:
        gc.collect()
        before = pa.total_allocated_bytes()
        for _ in range(5):
            writer.add(FOLDER, pa.record_batch({"payload": pa.array([os.urandom(1 << 20)], pa.binary())}))
            writer.flush()
        gc.collect()
        wait_until(lambda: pa.total_allocated_bytes() - before < 1 << 18)


def test_damaged_segments_are_named_and_the_others_read(any_store: Store) -> None:
    objects = any_store.objects
    with SegmentWriter(objects, max_age_s=1000) as writer:
        for first in range(0, 50, 10):
            writer.add(FOLDER, batch(first, 10))
            writer.flush()
    paths = objects.list(FOLDER)
    damage: list[Callable[[bytes], bytes]] = [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: data[:200] + bytes([data[200] ^ 4]) + data[201:],
    ]
    for path, damaged in zip(paths, damage, strict=False):
        data = objects.read(path)
        objects.delete(path)
        objects.create(path, damaged(data))
    scan = read_segments(objects, FOLDER, ["trial"], verify=True)
    assert scan.paths == paths[4:]
    assert scan.tables[0]["trial"].to_pylist() == list(range(40, 50))
    assert [path for path, _ in scan.corrupt] == paths[:4]
    assert [reason for _, reason in scan.corrupt][:2] == ["the file is empty", "the file is cut short"]
    for path, _ in scan.corrupt:
        objects.set_aside(path)
    assert read_segments(objects, FOLDER).corrupt == []


def test_other_objects_in_the_folder_are_left_alone(objects: ObjectStore) -> None:
    objects.create(f"{FOLDER}/notes.txt", b"x")
    objects.create(f"{FOLDER}/deep/00000000.parquet", b"x")
    assert read_segments(objects, FOLDER).corrupt == []


def test_segments_are_read_in_order_of_their_numbers(objects: ObjectStore) -> None:
    objects.create("f/99999999.parquet.corrupt", b"x")
    with SegmentWriter(objects, max_age_s=1000) as writer:
        writer.add("f", batch(1, 1))
    data = objects.read("f/100000000.parquet")
    objects.create("f/00000007.parquet", data)
    assert [segment.path for segment in scan_segments(objects, "f")] == ["f/00000007.parquet", "f/100000000.parquet"]


class RemoteStore(LocalObjectStore):
    """A local store that is treated as a distant one; an object may vanish after it was listed."""

    is_local_path = False
    vanished: frozenset[str] = frozenset()
    broken = False

    def read(self, path: str) -> bytes:
        if self.broken:
            raise StoreError("the connection was lost")
        if path in self.vanished:
            self.delete(path)
        return super().read(path)


def test_reading_from_afar(tmp_path: Path) -> None:
    store = RemoteStore(str(tmp_path))
    with SegmentWriter(store, max_age_s=1000) as writer:
        for first in range(20):
            writer.add("f", batch(first, 1))
            writer.flush()
    assert trials(store, "f") == list(range(20))
    store.vanished = frozenset({"f/00000003.parquet", "f/00000019.parquet"})
    assert trials(store, "f") == [n for n in range(20) if n not in (3, 19)]
    # What can't be reached is not damaged: nobody must set it aside.
    store.broken = True
    with pytest.raises(StoreError, match="connection"):
        read_segments(store, "f")


def test_errors_of_the_thread_that_are_not_ours(objects: ObjectStore) -> None:
    writer = SegmentWriter(objects, max_age_s=1000)
    writer.describe(FOLDER, {"n": 1})  # type: ignore[dict-item]
    writer.add(FOLDER, batch(0, 1))
    with pytest.raises(InternalError, match="segment writer failed") as caught:
        writer.flush()
    assert caught.value.__cause__ is not None
    pickle.loads(pickle.dumps(caught.value))
    writer.close()


def test_what_rows_were_made_of_is_durable_before_them(any_store: Store) -> None:
    objects = any_store.objects
    writer = SegmentWriter(objects, max_age_s=1e9, max_rows=10)
    writer.keep_order(["parent", "child", "grandchild"])
    writer.add("parent", batch(0, 3))
    writer.add("grandchild", batch(0, 1))
    writer.add("child", batch(0, 10))  # full: it is written now
    wait_until(lambda: objects.list("child") != [])
    assert objects.list("parent")
    assert not objects.list("grandchild")
    writer.close()
    assert objects.list("grandchild")
