"""How does a folder of this machine hold immutable objects?

A file is written beside its place under a name that starts with a dot, flushed to the disk, and then linked to its
place: a hard link, unlike a rename, fails if the place is taken, and what can be seen under the final name is always
whole. It must not know what the objects mean.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from umbel.scheduler.errors import StoreError
from umbel.storage.objects.client_errors import raise_store_error
from umbel.storage.objects.interface import ObjectInfo, ObjectStore, check_path

__all__ = ["LocalObjectStore"]

_T = TypeVar("_T")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
#: What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
#: What file systems answer whose folders can't or need not be flushed.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


class LocalObjectStore(ObjectStore):
    """A local folder as a store; the folder is made when the first object is."""

    is_local_path = True

    def __init__(self, folder: str) -> None:
        self._root = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 - resolve() would follow links
        self.url = str(self._root)

    def __reduce__(self) -> tuple[object, ...]:
        return (LocalObjectStore, (self.url,))

    def full_path(self, path: str = "") -> str:
        """The file's absolute path."""
        return str(self._root / path)

    @property
    def file_system(self) -> Any:
        """pyarrow's own local file system."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def _create(self, path: str, data: bytes | memoryview) -> None:
        target = self._root / path
        temporary = target.with_name(f".{uuid4().hex}.tmp")
        try:
            self._write(temporary, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                # A network file system may repeat a request whose answer it lost: two names say that it was ours.
                if temporary.stat().st_nlink != 2:
                    raise
            temporary.unlink()
            _sync_folder(target.parent)
        except OSError as error:
            if error.errno in _NO_LINKS and temporary.exists():
                raise StoreError(
                    f"the file system of {self.url} has no hard links, without which two writers can't be told apart",
                    got=os.strerror(error.errno or 0),
                    hint="put the store on a native file system, or use an s3:// or gs:// URL",
                ) from error
            raise_store_error(error, f"create {path}", self.url)
        finally:
            _discard(temporary)

    def _write(self, temporary: Path, data: bytes | memoryview) -> None:
        try:
            file = temporary.open("xb", buffering=0)
        except FileNotFoundError:
            _make_folder(temporary.parent)
            file = temporary.open("xb", buffering=0)
        rest = memoryview(data).cast("B")
        with file:  # unbuffered: closing a buffer that a full disk has refused would fail a second time
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def _read(self, path: str) -> bytes:
        return self._try((self._root / path).read_bytes, f"read {path}")

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        def read() -> bytes:
            with (self._root / path).open("rb") as file:
                file.seek(offset)
                return file.read(length)

        return self._try(read, f"read {path}")

    def _size(self, path: str) -> int | None:
        def size() -> int | None:
            try:
                file = (self._root / path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if (file.st_mode & 0o170000) == 0o040000 else file.st_size

        return self._try(size, f"look at {path}")

    def _list(self, folder: str, recursive: bool) -> list[str]:
        objects: list[str] = []
        folders = [folder]
        while folders:
            inner = folders.pop()
            for entry in self._scan(inner):
                path = f"{inner}/{entry.name}" if inner else entry.name
                if not entry.is_dir():
                    objects.append(path)
                elif recursive:
                    folders.append(path)
        return objects

    def _list_details(self, folder: str) -> list[ObjectInfo]:
        found = []
        for path in self._list(folder, True):
            try:
                file = (self._root / path).stat()
            except FileNotFoundError:  # deleted since we listed
                continue
            except OSError as error:
                raise_store_error(error, f"look at {path}", self.url)
            found.append(ObjectInfo(path, file.st_size, datetime.fromtimestamp(file.st_mtime, UTC)))
        return found

    def _info(self, path: str) -> ObjectInfo | None:
        def info() -> ObjectInfo | None:
            try:
                file = (self._root / path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return ObjectInfo(path, file.st_size, datetime.fromtimestamp(file.st_mtime, UTC))

        return self._try(info, f"look at {path}")

    def _refresh(self, path: str, data: bytes | memoryview) -> None:
        self._try(lambda: os.utime(self._root / path), f"refresh {path}")

    def leftovers(self) -> list[ObjectInfo]:
        """The temporary files of writers, those at work included: judge them by their age."""
        found = []
        for folder, _, names in os.walk(self._root):
            inner = Path(folder).relative_to(self._root).as_posix()
            for name in names:
                info = self._info(f"{inner}/{name}" if inner != "." else name) if _TEMPORARY.fullmatch(name) else None
                if info is not None:
                    found.append(info)
        return found

    def delete_leftover(self, path: str) -> None:
        """Delete a temporary file that `leftovers` gave."""
        name = path.rpartition("/")[2]
        if not _TEMPORARY.fullmatch(name):
            super().delete_leftover(path)
        check_path(path.removesuffix(name) + "x")
        self._delete(path)

    def _list_folders(self, folder: str) -> list[str]:
        return [entry.name for entry in self._scan(folder) if entry.is_dir()]

    def _scan(self, folder: str) -> list[os.DirEntry[str]]:
        def scan() -> list[os.DirEntry[str]]:
            try:
                with os.scandir(self._root / folder) as entries:
                    return [entry for entry in entries if not entry.name.startswith(".")]
            except FileNotFoundError:
                return []

        return self._try(scan, f"list {folder or 'the folder'}")

    def _delete(self, path: str) -> None:
        self._try(lambda: (self._root / path).unlink(missing_ok=True), f"delete {path}")

    def _move(self, path: str, new_path: str) -> None:
        source, target = self._root / path, self._root / new_path

        def move() -> None:
            os.link(source, target)
            source.unlink()
            _sync_folder(source.parent)

        self._try(move, f"set {path} aside")

    def _try(self, operation: Callable[[], _T], doing: str) -> _T:
        try:
            return operation()
        except OSError as error:
            raise_store_error(error, doing, self.url)


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        # It is invisible to readers, and the error that led here says more.
        return


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable in its own parent."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for inner in reversed(missing):
        inner.mkdir(exist_ok=True)
        _sync_folder(inner.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system allows it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
