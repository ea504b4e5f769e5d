"""Where do the bytes lie, and who created each object first?

An `ObjectStore` is one URL under which there is nothing but immutable objects: created once and whole, read, listed,
deleted, never changed. Creating is exclusive: of two processes that create one path exactly one succeeds. All that
Umbel knows about who writes what is built on that. This module must not know what the objects mean.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreError, UsageError
from umbel.storage.objects.client_errors import CHOOSE_ANOTHER
from umbel.storage.redaction import redact_url

__all__ = ["FIRST_CONTACT_S", "ObjectInfo", "ObjectStore", "check_path"]

#: Inside the class the name ``list`` is its method's.
Paths = list[str]
InfoList = list["ObjectInfo"]

_PROTOCOL = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]*)://")
#: Seconds to wait for a storage that does not answer at first contact.
FIRST_CONTACT_S = 15.0


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    path: str
    size_bytes: int
    #: When it was made, UTC, by the storage's clock; None: the storage does not say.
    modified: datetime | None


class ObjectStore(ABC):
    """One store of immutable objects. Safe to use from several threads; pickles as its URL and options.

    Paths are relative to the store, with "/" between components; a component may hold anything that a file name may,
    but not start with a dot.
    """

    #: Absolute and normalised, without credentials: fit to be shown. A local folder's is its plain path. To open the
    #: store elsewhere, pickle it: that keeps the credentials.
    url: str
    #: Only this process sees the store (``memory://``).
    is_process_local: bool = False
    #: The store is a folder of this machine's file system.
    is_local_path: bool = False

    @staticmethod
    def open(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> ObjectStore:
        """Open a store without touching it: nothing is created, no connection is made.

        Args:
            url: a local path (relative and ``~`` too), or any fsspec URL: ``file://``, ``memory://``, ``s3://…``.
            storage_options: what fsspec's file system of that protocol takes (endpoint, credentials, …).

        Raises:
            StoreError: the protocol is unknown, or the package it needs is not installed.
        """
        if not isinstance(url, (str, os.PathLike)):
            raise UsageError("a store is not named by a text or a path", got=url, expected="./umbel-store, or s3://…")
        url = os.fspath(url)
        if not url or "\0" in url:
            raise StoreError("a store needs a path or a URL", got=url, expected="./umbel-store, or s3://bucket/folder")
        if "::" in url and "://" in url:
            raise StoreError(
                "a chained URL can't be a store: its caches would hide what other processes write",
                got=redact_url(url),
                expected="a plain URL such as s3://bucket/folder",
            )
        match = _PROTOCOL.match(url)
        if match is None or match[1].lower() in ("file", "local"):
            from umbel.storage.objects.local import LocalObjectStore

            return LocalObjectStore(url if match is None else url[match.end() :])
        from umbel.storage.objects.fsspec import FsspecObjectStore
        from umbel.storage.objects.retries import RetryingObjectStore

        store = FsspecObjectStore(url, storage_options)
        return store if store.is_process_local else RetryingObjectStore(store)

    # ---- what a backend provides; paths are already checked ------------------------------------------------

    @abstractmethod
    def _create(self, path: str, data: bytes | memoryview) -> None: ...

    @abstractmethod
    def _read(self, path: str) -> bytes: ...

    @abstractmethod
    def _read_range(self, path: str, offset: int, length: int) -> bytes: ...

    @abstractmethod
    def _size(self, path: str) -> int | None: ...

    @abstractmethod
    def _list(self, folder: str, recursive: bool) -> Paths: ...

    @abstractmethod
    def _list_details(self, folder: str) -> InfoList: ...

    @abstractmethod
    def _info(self, path: str) -> ObjectInfo | None: ...

    @abstractmethod
    def _refresh(self, path: str, data: bytes | memoryview) -> None: ...

    @abstractmethod
    def _list_folders(self, folder: str) -> Paths: ...

    @abstractmethod
    def _delete(self, path: str) -> None: ...

    @abstractmethod
    def _move(self, path: str, new_path: str) -> None: ...

    @abstractmethod
    def full_path(self, path: str = "") -> str:
        """Where an object lies, in the terms of the file system itself."""

    @property
    @abstractmethod
    def file_system(self) -> Any:
        """What `pyarrow.dataset` takes as ``filesystem`` to read `full_path` names."""

    # ---- the public operations -----------------------------------------------------------------------------

    def create(self, path: str, data: bytes | memoryview, *, unique: bool = False) -> None:
        """Create an object, whole or not at all, durable on return.

        Args:
            path: its path.
            data: its content.
            unique: no other writer could have made this very content, as with a random token in it. Then an object of
                equal content is this writer's own: an earlier attempt whose answer the network lost.

        Raises:
            StoreConflictError: the object exists already; it is left as it is.
            StoreFullError: no space is left; nothing is left behind.
            StoreError: it can't be written.
        """
        check_path(path)
        try:
            self._create(path, data)
        except StoreConflictError:
            if not (unique and self._is_mine(path, data)):
                raise

    def _is_mine(self, path: str, data: bytes | memoryview) -> bool:
        try:
            return self.read(path) == data
        except NotFoundError:
            return False

    def read(self, path: str) -> bytes:
        """The content of an object.

        Raises:
            NotFoundError: there is no such object.
            StoreError: it can't be read.
        """
        check_path(path)
        return self._read(path)

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """A part of an object; shorter than asked for where the object ends before.

        Args:
            path: the object.
            offset: of the first byte.
            length: in bytes, at least 1.

        Raises:
            NotFoundError: there is no such object.
            StoreError: it can't be read.
        """
        check_path(path)
        if offset < 0 or length < 1:
            raise UsageError("no such part of an object", got=f"{length} bytes from {offset}", expected="≥ 1 from ≥ 0")
        return self._read_range(path, offset, length)

    def size(self, path: str) -> int:
        """The size of an object in bytes.

        Raises:
            NotFoundError: there is no such object.
        """
        check_path(path)
        size = self._size(path)
        if size is None:
            raise NotFoundError(f"the store {self.url} has no object {path}")
        return size

    def info(self, path: str) -> ObjectInfo | None:
        """Size and time of an object; None: there is none."""
        check_path(path)
        return self._info(path)

    def refresh(self, path: str, data: bytes | memoryview) -> None:
        """Make an object's time now, for those who judge it by its age.

        Args:
            path: the object.
            data: its content, which does not change: object storage knows no other way than to write it again.
        """
        check_path(path)
        self._refresh(path, data)

    def leftovers(self) -> InfoList:
        """What writers that were killed have left and no listing shows; `delete_leftover` deletes it."""
        return []

    def delete_leftover(self, path: str) -> None:
        """Delete something that `leftovers` gave."""
        raise UsageError("this is no leftover of a writer", got=path, expected="one of leftovers()")

    def exists(self, path: str) -> bool:
        """Whether there is an object (a folder is none)."""
        check_path(path)
        return self._size(path) is not None

    def list(self, prefix: str = "", *, recursive: bool = False) -> Paths:
        """The objects of a folder, sorted, as paths relative to the store; never from a cache.

        Args:
            prefix: the folder; "" is the store itself. A missing one has no objects.
            recursive: the objects of its folders too.
        """
        folder = prefix.rstrip("/")
        if folder:
            check_path(folder)
        return sorted(self._list(folder, recursive))

    def list_details(self, prefix: str = "") -> InfoList:
        """The objects of a folder and of its folders, with sizes and times, sorted by path."""
        folder = prefix.rstrip("/")
        if folder:
            check_path(folder)
        return sorted(self._list_details(folder), key=lambda info: info.path)

    def list_folders(self, prefix: str = "") -> Paths:
        """The folders directly in a folder, sorted, by name alone (not by path)."""
        folder = prefix.rstrip("/")
        if folder:
            check_path(folder)
        return sorted(self._list_folders(folder))

    def delete(self, path: str) -> None:
        """Delete an object; one that is not there is no error, for somebody else may have deleted it."""
        check_path(path)
        self._delete(path)

    def set_aside(self, path: str) -> str:
        """Move a damaged object out of the way, to ``<path>.corrupt`` or ``<path>.corrupt-<n>``; returns its new path.

        Raises:
            NotFoundError: there is no such object.
        """
        check_path(path)
        n = 1
        while True:
            new_path = f"{path}.corrupt" if n == 1 else f"{path}.corrupt-{n}"
            try:
                self._move(path, new_path)
            except StoreConflictError:
                n += 1
            else:
                return new_path

    def check_writable(self) -> None:
        """Create, read and delete an object, to learn before any work starts whether results can be kept.

        It is also created twice: a storage that lets that pass could not tell two writers of one run apart.

        Raises:
            StoreError: the store can't be used; it says what is wrong and what to do.
        """
        probe = f"umbel-write-check-{uuid4().hex}"
        content = probe.encode()
        try:
            with self.patience(FIRST_CONTACT_S):
                self.create(probe, content, unique=True)
                self._check_exclusive(probe, content)
                self._delete(probe)
        except (StoreError, NotFoundError) as error:
            kind = type(error) if isinstance(error, StoreError) else StoreError
            reason = error.what.replace(f"can't create {probe} in the store {self.url}: ", "")
            raise kind(
                f"the store {self.url} can't be written",
                got=reason if error.got is None else f"{reason} ({error.got})",
                expected=error.expected,
                hint=error.hint or CHOOSE_ANOTHER,
            ) from error

    def _check_exclusive(self, probe: str, content: bytes) -> None:
        try:
            self._create(probe, b"another " + content)
        except StoreConflictError:
            if self.read(probe) == content:
                return
        raise StoreError(
            "its storage overwrites objects that exist, although it is asked not to",
            expected="create-only writes (S3: PutObject with If-None-Match: *)",
            hint=f"upgrade the storage's server, or {CHOOSE_ANOTHER}",
        )

    @contextmanager
    def patience(self, limit_s: float) -> Iterator[None]:
        """While inside, wait at most this long for a storage that does not answer; here: not at all."""
        yield

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"


def check_path(path: str) -> None:
    """Refuse a path that could leave the store or that not every file system can hold.

    Raises:
        UsageError: it is empty or absolute, or has a component that is empty, starts with a dot, or holds a backslash
            or NUL.
    """
    for component in path.split("/"):
        if not component or component.startswith(".") or "\\" in component or "\0" in component:
            raise UsageError(
                "this can't be the path of an object in a store",
                got=path,
                expected='relative, "/" between components, none of them empty or starting with a dot, no backslash',
            )
