from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from tests.storage.store_contract import StoreTests
from umbel.scheduler.errors import (
    StoreConflictError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from umbel.storage.objects.fsspec import FsspecObjectStore
from umbel.storage.objects.interface import ObjectStore


def names_in(*folder: str) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(path.name for path in Path(*folder).iterdir())


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

    def test_of_many_processes_one_creates(self, store: ObjectStore) -> None:
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
        (caused(OSError(22, "a conflicting operation"), "ConditionalRequestConflict"), StoreUnavailableError),
        (FileNotFoundError("The specified bucket does not exist"), StoreError),
    ],
)
def test_errors_of_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    monkeypatch.setattr(BrokenFileSystem, "error", raised)
    store = FsspecObjectStore(f"broken://{tmp_path}")
    with pytest.raises(expected) as caught:
        store.create("a", b"")
    assert type(caught.value) is expected


def test_credentials_are_not_shown() -> None:
    store = ObjectStore.open("hidden://ada:geheim@host/x", {"password": "geheim"})
    assert store.url == "hidden://ada:<redacted>@host/x"
    assert "geheim" not in repr(store)
    again = pickle.loads(pickle.dumps(store))
    assert again.file_system.seen == {"password": "geheim"}
