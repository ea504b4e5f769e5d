"""Where do models and large values lie? Under the digest of their own bytes.

So the same content is stored once, whoever writes it and how often, and what is read can be checked against its name.
It must not know which run an artifact belongs to.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError, UsageError
from umbel.storage.layout import artifact
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.codecs import Encoded, decode, digest_of

__all__ = ["REFRESH_AFTER", "get_artifact", "put_artifact", "put_content", "read_artifact"]

#: In object storage, smaller content is sent without looking whether it is there: that would cost a request as well.
_LOOK_FIRST_BYTES = 2**20
#: Content that is older is made young when it is stored again; `umbel.storage.garbage` relies on it.
REFRESH_AFTER = timedelta(hours=12)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def put_artifact(objects: ObjectStore, encoded: Encoded) -> str:
    """Store encoded bytes; returns their digest. An artifact that is there already is not written again.

    Raises:
        StoreError: the store can't be written.
    """
    put_content(objects, artifact(encoded.digest), encoded.data)
    return encoded.digest


def put_content(objects: ObjectStore, path: str, data: bytes) -> None:
    """Store bytes under a path that is derived from them, unless they are there.

    Raises:
        StoreError: the store can't be written.
    """
    if (objects.is_local_path or len(data) > _LOOK_FIRST_BYTES) and _is_whole(objects, path, data):
        return
    try:
        objects.create(path, data)
    except StoreConflictError:
        # It is there, or another process has just stored the same bytes; unless it was cut short.
        if not _is_whole(objects, path, data):
            objects.create(path, data)


def _is_whole(objects: ObjectStore, path: str, data: bytes) -> bool:
    """Whether there is an object of this size; one of another size is set aside.

    An old one is made young: nothing may refer to it yet, and then it would be taken for garbage by its age.
    """
    info = objects.info(path)
    if info is None:
        return False
    try:
        if info.size_bytes != len(data):
            # Cut short by a file system that is not atomic: what it should be is in our hands.
            objects.set_aside(path)
            return False
        if info.modified is None or datetime.now(UTC) - info.modified > REFRESH_AFTER:
            objects.refresh(path, data)
    except NotFoundError:
        return False
    return True


def read_artifact(objects: ObjectStore, digest: str) -> bytes:
    """The bytes of an artifact, checked against its digest.

    Raises:
        NotFoundError: there is none of this digest.
        StoreCorruptError: its content is not what its name says.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError("this is no digest of an artifact", got=repr(digest), expected="64 hexadecimal digits")
    data = objects.read(artifact(digest))
    if digest_of(data) != digest:
        raise StoreCorruptError(
            f"the artifact {digest} in the store {objects.url} is damaged",
            got=f"{len(data)} bytes of another sha256",
            hint=f"delete {artifact(digest)} and run again what made it",
        )
    return data


def get_artifact(objects: ObjectStore, digest: str) -> object:
    """The value of an artifact, decoded; see `read_artifact`."""
    return decode(read_artifact(objects, digest))
