"""How are small JSON objects created and read? It must not know what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from umbel.scheduler.errors import NotFoundError, StoreCorruptError
from umbel.storage.objects import ObjectStore

__all__ = ["create_document", "read_document"]


def create_document(objects: ObjectStore, path: str, content: Mapping[str, Any]) -> None:
    """Create a JSON object; keys keep their order.

    Raises:
        StoreConflictError: it exists already.
    """
    objects.create(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True).encode())


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
        hint="restore it from a copy, or delete the folder that it stands in",
    )
