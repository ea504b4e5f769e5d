"""How does an fsspec file system (object storage, memory, SFTP, …) hold immutable objects?

By create-only writes: S3, Google's and Azure's storage refuse a PUT of an existing key themselves, and so two processes
can't both create one. Listings and sizes are asked for anew each time, because fsspec caches them. A request is made
once: repeating it is left to `retries`. It must not know what the objects mean.

How each client asks for a create-only write, as read in its source: s3fs sends ``If-None-Match: *`` (2026.9), gcsfs
``ifGenerationMatch=0`` (2026.10), adlfs ``If-None-Match: *`` (2026.8). gcsfs and adlfs repeat requests by rules of
their own, before ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import fsspec
from fsspec.registry import known_implementations

from umbel.scheduler.errors import NotFoundError, StoreError
from umbel.storage.objects.client_errors import Fault, fault_of, raise_store_error
from umbel.storage.objects.interface import ObjectInfo, ObjectStore
from umbel.storage.redaction import redact_url

__all__ = ["FsspecObjectStore"]

_T = TypeVar("_T")
#: Protocols whose create-only write is decided by the storage itself. Elsewhere fsspec may ignore the mode, so we look
#: first, which leaves a gap of one round trip.
_EXCLUSIVE_CREATE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
_S3 = frozenset({"s3", "s3a"})
#: Up to this size an object is one PUT, which fails or succeeds whole. Larger ones go in parts, each of which s3fs
#: repeats by itself: one fault in a hundred parts must not cost them all.
_ONE_PUT_BYTES = 256 * 2**20
_PART_BYTES = 64 * 2**20
#: Names under which clients say when an object was made.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
_INSTALL = {
    "s3": "pip install 'umbel[s3]'",
    "s3a": "pip install 'umbel[s3]'",
    "gs": "pip install 'umbel[gcs]'",
    "gcs": "pip install 'umbel[gcs]'",
    "abfs": "pip install 'umbel[azure]'",
    "abfss": "pip install 'umbel[azure]'",
    "az": "pip install 'umbel[azure]'",
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
        self._fs = _file_system(protocol, self._private_url, self._options, own=protocol in _S3)
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
        """The fsspec file system, as its users know it: s3fs's repeats requests by itself."""
        if self._protocol not in _S3:
            return self._fs
        return _file_system(self._protocol, self._private_url, self._options, own=False)

    def _create(self, path: str, data: bytes | memoryview) -> None:
        full = self.full_path(path)
        content = bytes(data)

        def create() -> None:
            if self._protocol not in _EXCLUSIVE_CREATE and self._look_at(full) is not None:
                raise FileExistsError(full)
            try:
                self._pipe(full, content)
            except FileNotFoundError:
                # In object storage this means that the bucket is missing, which is not ours to make.
                if self._protocol in _EXCLUSIVE_CREATE:
                    raise
                self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
                self._pipe(full, content)

        try:
            self._try(create, f"create {path}")
        except NotFoundError as error:
            raise_store_error(error, f"create {path}", self.url, Fault.BUCKET)

    def _pipe(self, full: str, content: bytes) -> None:
        if self._protocol not in _S3:
            self._fs.pipe_file(full, content, mode="create")
        elif len(content) <= _ONE_PUT_BYTES:
            self._fs.pipe_file(full, content, mode="create", chunksize=_ONE_PUT_BYTES)
        else:
            self.file_system.pipe_file(full, content, mode="create", chunksize=_PART_BYTES)

    def _read(self, path: str) -> bytes:
        # Otherwise s3fs asks for the size first, which costs a request.
        options = {"max_concurrency": 1} if self._protocol in _S3 else {}
        data: bytes = self._try(lambda: self._fs.cat_file(self.full_path(path), **options), f"read {path}")
        return data

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        def read() -> bytes:
            try:
                data: bytes = self._fs.cat_file(self.full_path(path), start=offset, end=offset + length)
            except Exception as error:
                if fault_of(error) is Fault.RANGE:
                    return b""
                raise
            return data

        return self._try(read, f"read {path}")

    def _size(self, path: str) -> int | None:
        info = self._info(path)
        return None if info is None else info.size_bytes

    def _info(self, path: str) -> ObjectInfo | None:
        info = self._try(lambda: self._look_at(self.full_path(path)), f"look at {path}")
        return None if info is None else ObjectInfo(path, int(info["size"]), _modified(info))

    def _refresh(self, path: str, data: bytes | memoryview) -> None:
        # Equal bytes in their own place: whoever reads meanwhile gets them, one way or the other.
        full, content = self.full_path(path), bytes(data)
        self._try(lambda: self._fs.pipe_file(full, content), f"refresh {path}")

    def _look_at(self, full: str) -> Mapping[str, Any] | None:
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
        return [path for name in names if (path := self._visible(folder, name)) is not None]

    def _list_details(self, folder: str) -> list[ObjectInfo]:
        full = self.full_path(folder)

        def entries() -> dict[str, Mapping[str, Any]]:
            self._forget(full)
            try:
                return dict(self._fs.find(full, detail=True))
            except FileNotFoundError:
                return {}

        found = self._try(entries, f"list {folder or 'the folder'}")
        return [
            ObjectInfo(path, int(entry["size"]), _modified(entry))
            for name, entry in found.items()
            if (path := self._visible(folder, name)) is not None
        ]

    def _visible(self, folder: str, name: str) -> str | None:
        """The path of an object that was listed in a folder; None: it does not lie there, or is hidden."""
        if not name.startswith(self.full_path(folder) + "/"):
            return None
        path = name[len(self._root) + 1 :]
        inner = path[len(folder) + 1 :] if folder else path
        return None if not inner or inner.startswith(".") or "/." in inner else path

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
            raise_store_error(error, doing, self.url)


def _modified(entry: Mapping[str, Any]) -> datetime | None:
    value = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, (int, float)):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _file_system(protocol: str, url: str, options: Mapping[str, Any], *, own: bool) -> Any:
    """The file system of a URL; ``own``: one of S3 that shares no state with others and makes each request once."""
    if own:
        config = {"connect_timeout": 10, "read_timeout": 30, **(options.get("config_kwargs") or {})}
        config.setdefault("retries", {"mode": "standard", "total_max_attempts": 1})
        options = {**options, "config_kwargs": config, "skip_instance_cache": True}
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
        found = cls(**{**cls._get_kwargs_from_urls(url), **options})
        if own:
            found.retries = 1
        return found
    except ImportError as error:
        raise StoreError(
            f"{protocol}:// stores need a package that is not installed", got=str(error), hint=_INSTALL.get(protocol)
        ) from error
    except Exception as error:  # whatever a client's constructor raises
        raise_store_error(error, "connect", redact_url(url))
