from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from umbel.scheduler.errors import (
    NotFoundError,
    StoreConflictError,
    StoreError,
    StoreFullError,
    UsageError,
)
from umbel.storage.objects import ObjectStore


def names_in(*folder: str) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(path.name for path in Path(*folder).iterdir())


class StoreTests:
    """The contract that every kind of store keeps; a subclass says how to open one."""

    def url(self, tmp_path: Path) -> str:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return ObjectStore.open(self.url(tmp_path))

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

    def test_check_writable_leaves_nothing(self, store: ObjectStore) -> None:
        store.check_writable()
        assert store.list(recursive=True) == []


class TestLocal(StoreTests):
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "stores" / "one")

    def test_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert ObjectStore.open("store").url == str(tmp_path / "store")
        assert ObjectStore.open("./x/../store/").url == str(tmp_path / "store")
        assert ObjectStore.open("~/store").url == str(tmp_path / "home" / "store")
        assert ObjectStore.open(f"file://{tmp_path}/store").url == str(tmp_path / "store")
        assert ObjectStore.open(f"local://{tmp_path}/store").url == str(tmp_path / "store")
        store = ObjectStore.open(tmp_path)
        assert store.is_local_path
        assert not store.is_process_local
        assert repr(store) == f"ObjectStore('{tmp_path}')"

    def test_opening_creates_nothing(self, tmp_path: Path) -> None:
        store = ObjectStore.open(tmp_path / "x")
        store.list()
        store.exists("a")
        assert not (tmp_path / "x").exists()

    def test_temporary_files_are_invisible(self, store: ObjectStore) -> None:
        store.create("f/a", b"")
        (Path(store.url) / "f" / ".left.tmp").write_bytes(b"half")
        (Path(store.url) / ".folder").mkdir()
        assert store.list("f") == ["f/a"]
        assert store.list(recursive=True) == ["f/a"]
        assert store.list_folders() == ["f"]

    @pytest.mark.parametrize("step", ["fsync", "link"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    def test_a_full_disk(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
        store.create("f/a", b"durable")

        def fail(*args: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(StoreFullError, match="no space is left") as caught:
            store.create("f/b", b"x")
        assert caught.value.hint is not None
        monkeypatch.undo()
        assert names_in(store.url, "f") == ["a"]
        store.create("f/b", b"x")

    def test_other_errors_name_the_path(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="f/a"):
            store.create("f/a", b"x")

    def test_a_file_system_without_links(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", fail)
        with pytest.raises(StoreError, match="hard links"):
            store.check_writable()
        assert names_in(store.url) == []

    def test_a_repeated_request_of_a_network_file_system(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def link_and_forget(source: Path, target: Path) -> None:
            link(source, target)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

        monkeypatch.setattr(os, "link", link_and_forget)
        store.create("a", b"1")
        assert store.read("a") == b"1"
        assert names_in(store.url) == ["a"]

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        store = ObjectStore.open(tmp_path / "file")
        with pytest.raises(StoreError, match="can't be written") as caught:
            store.check_writable()
        assert "file stands where a folder is needed" in str(caught.value)
        with pytest.raises(StoreError):
            store.list()

    def test_not_writable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(StoreError, match="Permission denied") as caught:
            ObjectStore.open(tmp_path / "x").check_writable()
        assert "$UMBEL_STORE" in str(caught.value)


class TestMemory(StoreTests):
    def url(self, tmp_path: Path) -> str:
        return f"memory://{uuid4().hex}/x"

    def test_is_process_local(self, store: ObjectStore) -> None:
        assert store.is_process_local
        assert not store.is_local_path
        assert store.url.startswith("memory://")

    def test_spellings(self) -> None:
        assert ObjectStore.open("memory:///a/b/").url == ObjectStore.open("memory://a/b").url == "memory://a/b"
        assert ObjectStore.open("memory://").url == "memory://"


class PlainFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A file system as fsspec has many: it makes no folders, and a create-only write looks and then writes."""

    protocol = "plain"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("plain://"))
        return stripped

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.open(path, "wb") as file:
            file.write(value)


fsspec.register_implementation("plain", PlainFileSystem)


class TestPlainFileSystem(StoreTests):
    def url(self, tmp_path: Path) -> str:
        return f"plain://{tmp_path}/x"

    def test_of_many_threads_one_creates(self, store: ObjectStore) -> None:
        pytest.skip("only object storage and local folders can promise it")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nosuch://x", "unknown store protocol nosuch://"),
        ("", "needs a path or a URL"),
        ("s3://", "names no place"),
        ("simplecache::s3://b/x", "chained"),
    ],
)
def test_urls_that_can_not_be_stores(url: str, text: str) -> None:
    with pytest.raises(StoreError, match=text):
        ObjectStore.open(url)


@pytest.mark.parametrize(("url", "install"), [("s3://b/x", "umbel[s3]"), ("gs://b/x", "gcsfs")])
def test_missing_packages_are_named(url: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(StoreError) as caught:
        ObjectStore.open(url)
    assert install in str(caught.value)


class BrokenFileSystem(PlainFileSystem):
    """A client that raises errors of its own."""

    protocol = "broken"
    error: Exception = RuntimeError("no route to host")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        raise type(self).error

    def cat_file(self, path: str, **kwargs: Any) -> bytes:
        raise type(self).error


fsspec.register_implementation("broken", BrokenFileSystem)


def caused(error: Exception, code: str) -> Exception:
    """An error as s3fs raises it: what S3 answered stands in its cause."""
    error.__cause__ = RuntimeError(f"An error occurred ({code}) when calling the PutObject operation")
    return error


class HiddenFileSystem(LocalFileSystem):  # type: ignore[misc]
    """One that takes credentials."""

    protocol = "hidden"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.seen = options

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.rpartition("@")[2]


fsspec.register_implementation("hidden", HiddenFileSystem)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("no route to host"), StoreError),
        (PermissionError("Access Denied"), StoreError),
        (OSError(errno.ENOSPC, "full"), StoreFullError),
        (FileExistsError("x"), StoreConflictError),
        (OSError("An error occurred (PreconditionFailed) when calling the PutObject operation"), StoreConflictError),
        (caused(OSError(22, "pre-conditions did not hold"), "PreconditionFailed"), StoreConflictError),
        (caused(OSError(22, "a conflicting operation"), "ConditionalRequestConflict"), StoreConflictError),
        (FileNotFoundError("The specified bucket does not exist"), StoreError),
    ],
)
def test_errors_of_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    monkeypatch.setattr(BrokenFileSystem, "error", raised)
    store = ObjectStore.open(f"broken://{tmp_path}")
    with pytest.raises(expected) as caught:
        store.create("a", b"")
    assert type(caught.value) is expected


def test_credentials_are_not_shown() -> None:
    store = ObjectStore.open("hidden://ada:geheim@host/x", {"password": "geheim"})
    assert store.url == "hidden://ada:<redacted>@host/x"
    assert "geheim" not in repr(store)
    again = pickle.loads(pickle.dumps(store))
    assert again.file_system.seen == {"password": "geheim"}
