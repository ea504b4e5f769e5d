"""How does an fsspec file system (object storage, memory, SFTP, …) hold immutable objects?

By create-only writes: S3 and Google's storage refuse a PUT of an existing key themselves, and so two processes can't
both create one. Listings and sizes are asked for anew each time, because fsspec caches them. It must not know what the
objects mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fsspec
from fsspec.registry import known_implementations

from umbel.scheduler.errors import NotFoundError, StoreError
from umbel.storage.objects import ObjectStore, raise_store_error
from umbel.storage.redaction import redact_url

__all__ = ["FsspecObjectStore"]

_T = TypeVar("_T")
#: Protocols whose create-only write is decided by the storage itself. Elsewhere fsspec may ignore the mode, so we look
#: first, which leaves a gap of one round trip.
_EXCLUSIVE_CREATE = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
#: How S3 says that the key exists, or that another write to it is under way.
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict")
_INSTALL = {
    "s3": "pip install 'umbel[s3]'",
    "s3a": "pip install 'umbel[s3]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "abfs": "pip install adlfs",
    "abfss": "pip install adlfs",
    "az": "pip install adlfs",
}
#: The memory file system is a dict that all threads share: looking and then writing must not interleave.
_MEMORY_LOCK = threading.RLock()


class FsspecObjectStore(ObjectStore):
    """A store on any fsspec file system."""

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        protocol, _, place = url.partition("://")
        protocol = protocol.lower()
        if not place.strip("/") and protocol != "memory":
            raise StoreError("this URL names no place", got=url, expected=f"{protocol}://bucket/folder")
        self._private_url = f"{protocol}://{place}"
        self._options = dict(storage_options or {})
        self._protocol = protocol
        self._fs = _file_system(protocol, self._private_url, self._options)
        root = self._fs._strip_protocol(self._private_url)
        self._root = str(root).rstrip("/")
        self.is_process_local = protocol == "memory"
        shown = self._root.lstrip("/") if self.is_process_local else place.rstrip("/")
        self.url = redact_url(f"{protocol}://{shown}")

    def __reduce__(self) -> tuple[object, ...]:
        return (FsspecObjectStore, (self._private_url, self._options))

    def full_path(self, path: str = "") -> str:
        """The path in terms of the fsspec file system, without protocol."""
        return f"{self._root}/{path}" if path else self._root

    @property
    def file_system(self) -> Any:
        """The fsspec file system."""
        return self._fs

    def _create(self, path: str, data: bytes | memoryview) -> None:
        full = self.full_path(path)
        content = bytes(data)

        def create() -> None:
            if self._protocol not in _EXCLUSIVE_CREATE and self._info(full) is not None:
                raise FileExistsError(full)
            try:
                self._fs.pipe_file(full, content, mode="create")
            except FileNotFoundError:
                # In object storage this means that the bucket is missing, which is not ours to make.
                if self._protocol in _EXCLUSIVE_CREATE:
                    raise
                self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(full, content, mode="create")

        try:
            self._try(create, f"create {path}")
        except NotFoundError as error:
            raise StoreError(
                f"the store {self.url} does not exist", got=error.what, hint="make its bucket first, or mend the URL"
            ) from error

    def _read(self, path: str) -> bytes:
        data: bytes = self._try(lambda: self._fs.cat_file(self.full_path(path)), f"read {path}")
        return data

    def _size(self, path: str) -> int | None:
        info = self._try(lambda: self._info(self.full_path(path)), f"look at {path}")
        return None if info is None else int(info["size"])

    def _info(self, full: str) -> Mapping[str, Any] | None:
        self._forget(full)
        try:
            info: Mapping[str, Any] = self._fs.info(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info if info["type"] == "file" else None

    def _list(self, folder: str, recursive: bool) -> list[str]:
        full = self.full_path(folder)

        def entries() -> list[str]:
            self._forget(full)
            try:
                if recursive:
                    return [str(name) for name in self._fs.find(full)]
                return [str(entry["name"]) for entry in self._fs.ls(full, detail=True) if entry["type"] == "file"]
            except FileNotFoundError:
                return []

        names = self._try(entries, f"list {folder or 'the folder'}")
        inside = self.full_path(folder) + "/"
        found = [name[len(self._root) + 1 :] for name in names if name.startswith(inside) and name != inside]
        hidden_from = len(folder) + 1 if folder else 0
        return [path for path in found if not any(part.startswith(".") for part in path[hidden_from:].split("/"))]

    def _list_folders(self, folder: str) -> list[str]:
        full = self.full_path(folder)

        def entries() -> list[str]:
            self._forget(full)
            try:
                found = self._fs.ls(full, detail=True)
            except FileNotFoundError:
                return []
            return [str(entry["name"]) for entry in found if entry["type"] == "directory"]

        names = self._try(entries, f"list {folder or 'the folder'}")
        folders = {name.rstrip("/").rpartition("/")[2] for name in names if name.rstrip("/") != full}
        return [name for name in folders if not name.startswith(".")]

    def _delete(self, path: str) -> None:
        def delete() -> None:
            try:
                self._fs.rm_file(self.full_path(path))
            except FileNotFoundError:
                return

        self._try(delete, f"delete {path}")

    def _move(self, path: str, new_path: str) -> None:
        # fsspec's own move overwrites.
        self._create(new_path, self._read(path))
        self._delete(path)

    def _forget(self, full: str) -> None:
        """Drop what fsspec remembers of a folder, and of the folder it lies in."""
        self._fs.invalidate_cache(full)
        self._fs.invalidate_cache(full.rpartition("/")[0])

    def _try(self, operation: Callable[[], _T], doing: str) -> _T:
        try:
            if not self.is_process_local:
                return operation()
            with _MEMORY_LOCK:
                return operation()
        except Exception as error:  # clients raise what their own libraries do, not only OSError
            if _is_conflict(error):
                error = FileExistsError(str(error))
            raise_store_error(error, doing, self.url)


def _is_conflict(error: BaseException) -> bool:
    """Whether object storage refused a create-only write. s3fs has no error of its own for that: it is in the cause."""
    text = f"{error} {error.__cause__}"
    return any(code in text for code in _CONFLICTS)


def _file_system(protocol: str, url: str, options: Mapping[str, Any]) -> Any:
    try:
        cls = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        needs = known_implementations.get(protocol, {}).get("err", str(error))
        raise StoreError(
            f"{protocol}:// stores need a package that is not installed", got=str(needs), hint=_INSTALL.get(protocol)
        ) from error
    except ValueError as error:
        raise StoreError(
            f"unknown store protocol {protocol}://",
            got=redact_url(url),
            expected="a local path, s3://, gs://, abfs://, memory://, or another protocol that fsspec knows",
        ) from error
    try:
        return cls(**{**cls._get_kwargs_from_urls(url), **options})
    except ImportError as error:
        raise StoreError(
            f"{protocol}:// stores need a package that is not installed", got=str(error), hint=_INSTALL.get(protocol)
        ) from error
    except Exception as error:  # whatever a client's constructor raises
        raise_store_error(error, "connect", redact_url(url))
