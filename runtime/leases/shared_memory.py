"""Copies of large values in Ray's object store: the short way from one task to the next.

Each such value is durable as an artifact of the run's store before its worker says that it is there. The copy saves the
way through that store, as long as it lives: it is gone with the worker that made it, and is given up when there are too
many. Then the artifact is read. Workers make and read copies; the driver only holds references to them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from umbel.scheduler.graph import NodeId

__all__ = ["SHARE", "SharedCopies", "get_copy", "put_copy"]

#: Share of the cluster's object store that one run's copies may take.
SHARE = 0.3
#: Seconds that a copy may take to come from another node before the artifact is read instead.
GET_S = 10.0


def put_copy(data: bytes) -> object | None:
    """A reference to a copy of some bytes; None: there is no room."""
    import ray
    from ray.exceptions import RaySystemError

    try:
        reference: object = ray.put(data)
    except (RaySystemError, OSError):  # ObjectStoreFullError is one of the first
        return None
    return reference


def get_copy(reference: Any) -> bytes | None:
    """The bytes of a copy; None: it is gone, or does not come."""
    import ray
    from ray.exceptions import RayError

    try:
        data: bytes = ray.get(reference, timeout=GET_S)
    except RayError:
        return None
    return data


class SharedCopies:
    """References to the copies of one run, the oldest given up first when they take too much room.

    Ray keeps a copy as long as there is a reference to it.
    """

    def __init__(self) -> None:
        #: Bytes that all copies may take; none are kept before there is Ray.
        self.limit_bytes = 0.0
        self._held: OrderedDict[tuple[NodeId, int], tuple[object, int]] = OrderedDict()
        self._bytes = 0

    def add(self, node: NodeId, element: int, reference: object, size_bytes: int) -> None:
        """Keep a reference to the copy of an element's value."""
        self._drop((node, element))
        self._held[node, element] = reference, size_bytes
        self._bytes += size_bytes
        while self._bytes > self.limit_bytes and self._held:
            self._drop(next(iter(self._held)))

    def get(self, node: NodeId, element: int) -> object | None:
        """The reference to the copy of an element's value, if there is one."""
        held = self._held.get((node, element))
        return None if held is None else held[0]

    def drop(self, node: NodeId) -> None:
        """Give up all copies of a node's values."""
        for key in [key for key in self._held if key[0] == node]:
            self._drop(key)

    def _drop(self, key: tuple[NodeId, int]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held[1]
