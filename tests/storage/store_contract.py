"""The contract that every kind of store keeps. A subclass says how to open one; `test_objects*.py` have them all."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreError, UsageError
from umbel.storage.objects.interface import ObjectStore

#: Run by other processes: opens the store that was pickled, and tries to create one object.
CREATE = """
import pickle, sys
from umbel.scheduler.errors import StoreConflictError
store, content = pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2].encode() * 10_000
sys.stdin.readline()
try:
    store.create("race/x", content)
except StoreConflictError:
    sys.exit(3)
"""


class StoreTests:
    """The contract that every kind of store keeps; a subclass says how to open one."""

    #: Objects in one folder: more than one page of a listing, where there are pages.
    many = 100

    def url(self, tmp_path: Path) -> str:
        raise NotImplementedError

    def options(self) -> Mapping[str, Any] | None:
        return None

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return ObjectStore.open(self.url(tmp_path), self.options())

    def test_what_is_created_can_be_read(self, store: ObjectStore) -> None:
        store.create("runs/gdp/run.json", b"{}")
        assert store.read("runs/gdp/run.json") == b"{}"
        assert store.size("runs/gdp/run.json") == 2
        assert store.exists("runs/gdp/run.json")

    def test_empty_and_large_objects(self, store: ObjectStore) -> None:
        large = os.urandom(1 << 20) * 9
        store.create("empty", b"")
        store.create("large", memoryview(large))
        assert store.read("empty") == b""
        assert store.size("empty") == 0
        assert store.read("large") == large

    def test_creating_is_exclusive(self, store: ObjectStore) -> None:
        store.create("a/b", b"first")
        with pytest.raises(StoreConflictError, match="a/b"):
            store.create("a/b", b"second")
        with pytest.raises(StoreConflictError):
            store.create("a/b", b"first")
        assert store.read("a/b") == b"first"

    def test_unique_content_that_is_there_is_ones_own(self, store: ObjectStore) -> None:
        store.create("a", b"token 1", unique=True)
        store.create("a", b"token 1", unique=True)
        with pytest.raises(StoreConflictError):
            store.create("a", b"token 2", unique=True)

    def test_parts_of_objects(self, store: ObjectStore) -> None:
        store.create("a/b", b"0123456789")
        assert store.read_range("a/b", 0, 10) == b"0123456789"
        assert store.read_range("a/b", 3, 4) == b"3456"
        assert store.read_range("a/b", 8, 100) == b"89"
        assert store.read_range("a/b", 10, 1) == b""
        with pytest.raises(NotFoundError):
            store.read_range("a/c", 0, 1)
        for offset, length in ((-1, 2), (0, 0)):
            with pytest.raises(UsageError):
                store.read_range("a/b", offset, length)

    def test_missing_objects(self, store: ObjectStore) -> None:
        for look in (store.read, store.size, store.set_aside):
            with pytest.raises(NotFoundError, match="missing/x"):
                look("missing/x")
        assert not store.exists("missing/x")
        store.create("folder/x", b"")
        assert not store.exists("folder")
        with pytest.raises((NotFoundError, StoreError)):
            store.read("folder")

    def test_listing(self, store: ObjectStore) -> None:
        assert store.list() == []
        assert store.list("missing") == []
        assert store.list_folders("missing") == []
        for path in ("b", "runs/2/x", "runs/10/x", "runs/10/deep/y", "runs/a"):
            store.create(path, b"")
        assert store.list() == ["b"]
        assert store.list("runs") == ["runs/a"]
        assert store.list("runs/") == ["runs/a"]
        assert store.list_folders() == ["runs"]
        assert store.list_folders("runs") == ["10", "2"]
        assert store.list("runs", recursive=True) == ["runs/10/deep/y", "runs/10/x", "runs/2/x", "runs/a"]
        assert len(store.list(recursive=True)) == 5
        # A folder's name is no prefix of text.
        assert store.list("run") == []

    def test_listings_with_sizes_and_times(self, store: ObjectStore) -> None:
        assert store.list_details() == []
        store.create("runs/b", b"12")
        store.create("runs/deep/er/a", b"123")
        found = store.list_details("runs")
        assert [(info.path, info.size_bytes) for info in found] == [("runs/b", 2), ("runs/deep/er/a", 3)]
        for info in found:
            assert info.modified is not None
            assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=5)
        assert [info.path for info in store.list_details()] == ["runs/b", "runs/deep/er/a"]
        assert store.list_details("missing") == []

    def test_an_object_is_refreshed(self, store: ObjectStore) -> None:
        assert store.info("a/x") is None
        store.create("a/x", b"123")
        before = store.info("a/x")
        assert before is not None
        assert (before.path, before.size_bytes) == ("a/x", 3)
        assert before.modified is not None
        store.refresh("a/x", b"123")
        after = store.info("a/x")
        assert after is not None
        assert after.modified is not None
        assert after.modified >= before.modified
        assert store.read("a/x") == b"123"

    def test_many_objects_are_listed_whole_at_once(self, store: ObjectStore) -> None:
        paths = [f"many/{n:04}" for n in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: store.create(path, b"x"), paths))
        assert store.list("many") == paths
        assert store.list(recursive=True) == paths

    def test_listings_are_never_stale(self, store: ObjectStore, tmp_path: Path) -> None:
        other = pickle.loads(pickle.dumps(store))
        store.create("f/0", b"")
        assert other.list("f") == ["f/0"]
        store.create("f/1", b"")
        assert other.list("f") == ["f/0", "f/1"]
        assert other.exists("f/1")
        store.delete("f/0")
        assert other.list("f") == ["f/1"]
        assert not other.exists("f/0")

    @pytest.mark.parametrize(
        "name", ["a b", "ünïcødé-日本", "100%", "a%20b", "#x", "q?y=1", "it's", "[x]*", "a+b=c&d", "x.corrupt", "-n"]
    )
    def test_unusual_names(self, store: ObjectStore, name: str) -> None:
        store.create(f"f/{name}/{name}", name.encode())
        assert store.read(f"f/{name}/{name}") == name.encode()
        assert store.list_folders("f") == [name]
        assert store.list(f"f/{name}") == [f"f/{name}/{name}"]
        assert store.list("f", recursive=True) == [f"f/{name}/{name}"]
        store.delete(f"f/{name}/{name}")
        assert not store.exists(f"f/{name}/{name}")

    @pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", "../a", "a/../b", "a/./b", ".a", "a/.b", "a\\b", "a\0b"])
    def test_paths_that_could_leave_the_store(self, store: ObjectStore, path: str) -> None:
        operations: list[Callable[[str], Any]] = [
            lambda p: store.create(p, b""),
            store.read,
            store.size,
            store.exists,
            store.delete,
            store.set_aside,
        ]
        for operation in operations:
            with pytest.raises(UsageError, match="path"):
                operation(path)

    def test_delete(self, store: ObjectStore) -> None:
        store.create("a/b", b"1")
        store.delete("a/b")
        assert not store.exists("a/b")
        store.delete("a/b")
        store.create("a/b", b"2")
        assert store.read("a/b") == b"2"

    def test_set_aside_never_overwrites(self, store: ObjectStore) -> None:
        expected = ["f/x.corrupt", "f/x.corrupt-2", "f/x.corrupt-3"]
        for n, aside in enumerate(expected):
            store.create("f/x", b"%d" % n)
            assert store.set_aside("f/x") == aside
            assert not store.exists("f/x")
        assert [store.read(path) for path in expected] == [b"0", b"1", b"2"]

    def test_pickles(self, store: ObjectStore) -> None:
        store.create("a", b"1")
        again = pickle.loads(pickle.dumps(store))
        assert again.url == store.url
        assert again.read("a") == b"1"

    def test_of_many_threads_one_creates(self, store: ObjectStore) -> None:
        contents = [bytes([n]) * 10_000 for n in range(8)]
        start, won = threading.Barrier(8), []

        def create(content: bytes) -> None:
            start.wait()
            try:
                store.create("race/x", content)
            except StoreConflictError:
                return
            won.append(content)

        threads = [threading.Thread(target=create, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("race/x") == won[0]

    def test_of_many_processes_one_creates(self, store: ObjectStore) -> None:
        if store.is_process_local:
            pytest.skip("other processes don't see it")
        pickled = pickle.dumps(store).hex()
        others = [
            subprocess.Popen([sys.executable, "-c", CREATE, pickled, name], stdin=subprocess.PIPE) for name in "abc"
        ]
        for other in others:
            assert other.stdin is not None
            other.stdin.write(b"\n")
            other.stdin.close()
        codes = [other.wait(60) for other in others]
        assert sorted(codes) == [0, 3, 3]
        assert store.read("race/x") == "abc"[codes.index(0)].encode() * 10_000

    def test_check_writable_leaves_nothing(self, store: ObjectStore) -> None:
        store.check_writable()
        assert store.list(recursive=True) == []
