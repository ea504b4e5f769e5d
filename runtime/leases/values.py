"""How values travel between elements: a handle names the bytes, small ones ride along, large ones lie in the store.

A value is encoded once, where it was made. Up to `INLINE_LIMIT_BYTES` its bytes travel in the handle and are packed by
the driver into the run's segments; larger ones are written to the store by the worker itself, so that they never pass
through the driver.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from umbel.runtime.graph.sequences import as_sequence, is_sequence
from umbel.runtime.leases.shared_memory import get_copy
from umbel.scheduler.errors import CodeError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.artifacts import get_artifact, put_artifact
from umbel.storage.values.codecs import decode, encode

__all__ = [
    "INLINE_LIMIT_BYTES",
    "StoredModel",
    "ValueCache",
    "ValueHandle",
    "item_digest",
    "load_value",
    "store_model",
    "store_value",
    "value_digest",
]

#: Values up to this size travel in messages. Ray keeps results up to 100 KB out of its shared memory, and so do we.
INLINE_LIMIT_BYTES = 64 * 1024
#: Models up to this size are packed, many into one object.
PACKED_LIMIT_BYTES = 2**20
#: Largest value that a task may return, encoded: one element is held in memory whole wherever it is used.
VALUE_LIMIT_BYTES = 2 * 2**30
#: Decoded values that a worker keeps, by their encoded size.
CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ValueHandle:
    """A value's identity, and its bytes if they are few."""

    #: sha256 of the encoded bytes, in hex.
    digest: str
    format: str
    size_bytes: int
    #: The encoded bytes; None: they lie in the store as an artifact.
    payload: bytes | None
    #: Of a list (see `umbel.runtime.graph.sequences`): how many items it has.
    length: int | None = None
    #: A reference to a copy of the encoded bytes (see `umbel.runtime.leases.shared_memory`), which may be gone.
    copy: object | None = None


def item_digest(handle: ValueHandle, place: int) -> str:
    """The identity of one item of a list: that of its content, if the list is small enough to travel in messages.

    An item of a larger list is known by the list and its place, so it counts as changed whenever the list does: the
    driver, which asks for identities too, does not read large values.
    """
    if handle.payload is None:
        return hashlib.sha256(f"{handle.digest}[{place}]".encode()).hexdigest()
    return _item_digests(handle.payload)[place]


def store_value(
    value: object, objects: ObjectStore, put_copy: Callable[[bytes], object | None] | None = None
) -> ValueHandle:
    """Encode a value; a large one is written to the store.

    Args:
        value: the value.
        objects: the store.
        put_copy: also makes a copy of a large value that is nearer than the store.

    Raises:
        CodeError: the value can't be pickled, or is larger than 2 GiB.
        StoreError: the store can't be written.
    """
    encoded = encode(value)
    if len(encoded.data) > VALUE_LIMIT_BYTES:
        raise CodeError(
            "a value is too large to be passed between tasks",
            got=f"{type(value).__name__} of {len(encoded.data) / 2**30:.1f} GiB",
            expected=f"at most {VALUE_LIMIT_BYTES / 2**30:g} GiB",
            hint="split it into elements with map, or write it to storage of your own and return where it lies",
        )
    length = len(value) if is_sequence(value) else None  # type: ignore[arg-type]
    size = len(encoded.data)
    if size <= INLINE_LIMIT_BYTES:
        return ValueHandle(encoded.digest, encoded.format, size, encoded.data, length)
    put_artifact(objects, encoded)
    copy = None if put_copy is None else put_copy(encoded.data)
    return ValueHandle(encoded.digest, encoded.format, size, None, length, copy)


@lru_cache(maxsize=16)
def _item_digests(payload: bytes) -> list[str]:
    """The identities of all items of an encoded list."""
    values = decode(payload)
    return [value_digest(each) for each in as_sequence(values) or ()]


def load_value(handle: ValueHandle, objects: ObjectStore) -> object:
    """The value that a handle stands for, decoded.

    Raises:
        StoreError: its artifact is missing or damaged.
    """
    data = handle.payload
    if data is None and handle.copy is not None:
        data = get_copy(handle.copy)
    return get_artifact(objects, handle.digest) if data is None else decode(data)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is stored, or will be with the row that names it."""

    #: sha256 of the encoded bytes, in hex.
    digest: str
    #: The encoded bytes, to be packed with others (`umbel.storage.values.packs`); None: it is stored.
    payload: bytes | None = None


def store_model(model: object, objects: ObjectStore, limit_bytes: int = PACKED_LIMIT_BYTES) -> StoredModel:
    """Encode a model. One of more than ``limit_bytes`` is written to the store at once, as an artifact of its own.

    Raises:
        CodeError: the model can't be pickled.
        StoreError: the store can't be written.
    """
    encoded = encode(model)
    if len(encoded.data) <= limit_bytes:
        return StoredModel(encoded.digest, encoded.data)
    return StoredModel(put_artifact(objects, encoded))


class ValueCache:
    """The values that a worker has decoded, least recently used ones dropped first.

    Elements that share a value share the object: a function must not change what it is given.
    """

    def __init__(self, objects: ObjectStore, limit_bytes: int = CACHE_BYTES) -> None:
        self._objects = objects
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, tuple[object, int]] = OrderedDict()
        self._held_bytes = 0

    def get(self, handle: ValueHandle) -> object:
        """The value, decoded.

        Raises:
            StoreError: its artifact is missing or damaged.
        """
        held = self._held.get(handle.digest)
        if held is not None:
            self._held.move_to_end(handle.digest)
            return held[0]
        value = load_value(handle, self._objects)
        self._held[handle.digest] = (value, handle.size_bytes)
        self._held_bytes += handle.size_bytes
        while self._held_bytes > self._limit_bytes and len(self._held) > 1:
            _, (_, size_bytes) = self._held.popitem(last=False)
            self._held_bytes -= size_bytes
        return value


def value_digest(value: object) -> str:
    """The digest of any value that can be pickled, for identities.

    Raises:
        CodeError: the value can't be pickled.
    """
    return encode(value).digest
