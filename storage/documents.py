"""How are small JSON objects created and read? It must not know what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from umbel.scheduler.errors import NotFoundError, StoreCorruptError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.artifacts import put_content
from umbel.storage.values.codecs import digest_of

__all__ = ["create_document", "document_digest", "put_document", "read_document"]


def create_document(objects: ObjectStore, path: str, content: Mapping[str, Any], *, unique: bool = False) -> None:
    """Create a JSON object; keys keep their order.

    Args:
        objects: the store.
        path: its path.
        content: what it says.
        unique: nobody else could have made this very content (see `ObjectStore.create`).

    Raises:
        StoreConflictError: it exists already.
    """
    data = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True).encode()
    objects.create(path, data, unique=unique)


def put_document(objects: ObjectStore, path_of: Callable[[str], str], content: Mapping[str, Any]) -> str:
    """Store a JSON object under the digest of its text, which is returned; equal content is stored once.

    Args:
        objects: the store.
        path_of: gives the path of a digest.
        content: plain data, keys of one kind.
    """
    data = _text(content)
    digest = digest_of(data)
    put_content(objects, path_of(digest), data)
    return digest


def document_digest(content: Mapping[str, Any]) -> str:
    """The digest under which `put_document` would store a JSON object."""
    return digest_of(_text(content))


def _text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True).encode()


def read_document(objects: ObjectStore, path: str) -> dict[str, Any] | None:
    """Read a JSON object; None: there is none.

    Raises:
        StoreCorruptError: it is not a JSON object.
    """
    try:
        data = objects.read(path)
    except NotFoundError:
        return None
    try:
        content = json.loads(data)
    except ValueError as error:
        raise _corrupt(objects, path, str(error)) from error
    if not isinstance(content, dict):
        raise _corrupt(objects, path, type(content).__name__)
    return content


def _corrupt(objects: ObjectStore, path: str, got: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{path} in the store {objects.url} can't be read",
        got=got,
        expected="a JSON object",
        hint=f"restore this one file from a copy: {path}",
    )
