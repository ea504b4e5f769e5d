"""Where does the state of an unfinished trial lie, and which is its last?

Each checkpoint is one object in the folder of its trial, named by attempt and number, so the newest is found by
listing, whoever made it and however that process ended. A newer one is written before older ones are deleted: one is
kept a trial, a second one only where a process died in between. Values are encoded as everywhere; files and folders
become an archive. It must not know what runs the trials.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from uuid import uuid4

from umbel.scheduler.errors import NotFoundError, StoreCorruptError, UsageError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.codecs import decode, encode

__all__ = ["Saved", "delete_older", "list_checkpoints", "load_checkpoint", "pack", "save_checkpoint", "unpack"]

#: How an archive of a file or folder begins; an encoded value begins otherwise.
_ARCHIVE = b"UMBELTAR"
_NAME = re.compile(r"(\d{4,})-(\d{8,})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, order=True)
class Saved:
    """A checkpoint that is in the store; the greatest is the newest."""

    attempt: int
    number: int
    #: Random: two workers may run one trial at once.
    token: str
    path: str


def list_checkpoints(objects: ObjectStore, run_id: str, sweep: str, trial: int) -> list[Saved]:
    """The checkpoints of a trial, oldest first. Cost: one listing."""
    found = []
    for path in objects.list(layout.checkpoints_folder(run_id, sweep, trial)):
        match = _NAME.fullmatch(path.rpartition("/")[2])
        if match is not None:
            found.append(Saved(int(match[1]), int(match[2]), match[3], path))
    return sorted(found)


def save_checkpoint(
    objects: ObjectStore, run_id: str, sweep: str, trial: int, attempt: int, number: int, data: bytes
) -> Saved:
    """Write a checkpoint, durable on return.

    Raises:
        StoreError: the store can't be written.
    """
    token = uuid4().hex[:8]
    path = f"{layout.checkpoints_folder(run_id, sweep, trial)}/{attempt:04d}-{number:08d}-{token}"
    objects.create(path, data)
    return Saved(attempt, number, token, path)


def delete_older(objects: ObjectStore, known: list[Saved], newest: Saved) -> None:
    """Delete those of some checkpoints that are older than another one."""
    for saved in known:
        if saved < newest:
            objects.delete(saved.path)


def new_folder() -> str:
    """A temporary folder that stays until somebody removes it."""
    import tempfile

    return tempfile.mkdtemp(prefix="umbel-checkpoint-")


def load_checkpoint(objects: ObjectStore, known: list[Saved], make_folder: Callable[[], str] = new_folder) -> object:
    """The newest of some checkpoints that is undamaged; None: there is none.

    Args:
        objects: the store.
        known: what `list_checkpoints` gave.
        make_folder: makes the folder that files are unpacked to, if there are any; by default a new temporary one.

    Raises:
        StoreError: the store can't be read, or the value needs code that is missing here.
    """
    for saved in reversed(known):
        try:
            return unpack(objects.read(saved.path), make_folder)
        except (NotFoundError, StoreCorruptError):
            continue  # deleted meanwhile by another worker at the same trial, or damaged: the one before will do
    return None


def pack(value: object) -> bytes:
    """A value, or the file or folder that a path names, as bytes.

    Raises:
        CodeError: the value can't be pickled.
        UsageError: there is nothing at the path.
    """
    if not isinstance(value, PathLike):
        return encode(value).data
    path = Path(fspath(value)).absolute()
    if not path.exists():
        raise UsageError("there is no file or folder for a checkpoint", got=str(path), expected="an existing path")
    import tarfile

    sink = io.BytesIO(_ARCHIVE)
    sink.seek(len(_ARCHIVE))
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.add(path, arcname=path.name)
    return sink.getvalue()


def unpack(data: bytes, make_folder: Callable[[], str] = new_folder) -> object:
    """What `pack` made the bytes of: a value, or the path of an unpacked file or folder.

    Raises:
        StoreCorruptError: the bytes are damaged.
        StoreError: the value needs code that is missing here.
    """
    if not data.startswith(_ARCHIVE):
        return decode(data)
    import tarfile

    place = Path(make_folder())
    try:
        with tarfile.open(fileobj=io.BytesIO(data[len(_ARCHIVE) :])) as archive:
            first = archive.getmembers()[0].name.partition("/")[0]
            archive.extractall(place, filter="data")
    except (tarfile.TarError, IndexError, EOFError) as error:
        raise StoreCorruptError("a checkpoint can't be unpacked", got=f"{type(error).__name__}: {error}") from error
    return place / first
