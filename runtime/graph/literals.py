"""The plain values among a graph's arguments: their digests, which are part of what the run is, and their handles for
leases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from umbel.runtime.driver.plan import Plan
from umbel.runtime.driver.programs import InputKind
from umbel.runtime.graph.nodes import Argument
from umbel.runtime.leases.values import ValueHandle, store_value
from umbel.scheduler.errors import SpaceError
from umbel.scheduler.graph import NodeId
from umbel.scheduler.identity import canonical_json
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.redaction import is_secret_name
from umbel.storage.values.codecs import encode

__all__ = ["Literals"]


class Literals:
    """The plain values of one plan. A single value is encoded once, an element of a sequence when a lease needs it.

    Raises:
        CodeError: a value can't be pickled.
        StoreError: a large value can't be written to the store.
    """

    def __init__(self, plan: Plan, objects: ObjectStore) -> None:
        self._objects = objects
        self._single: dict[tuple[NodeId, int], ValueHandle] = {}
        #: Arguments whose name says that they are credentials.
        self._credentials: set[tuple[NodeId, int]] = set()
        self._sequences: dict[tuple[NodeId, int], tuple[Argument, Sequence[object]]] = {}
        for planned in plan.nodes:
            for position, argument in enumerate(planned.node.arguments):
                if planned.sources[position] is not None:
                    continue
                if is_secret_name(argument.keyword):
                    self._credentials.add((planned.id, position))
                if argument.kind is InputKind.ONE:
                    self._single[planned.id, position] = store_value(argument.source, objects)
                else:
                    assert isinstance(argument.source, Sequence)
                    self._sequences[planned.id, position] = argument, argument.source

    def handles(self, node: NodeId, position: int, start: int, stop: int) -> tuple[ValueHandle, ...]:
        """The handles of one argument for the elements ``[start, stop)``; of a single value, the one."""
        single = self._single.get((node, position))
        if single is not None:
            return (single,)
        argument, items = self._sequences[node, position]
        places = (argument.place(element, len(items)) for element in range(start, stop))
        return tuple(store_value(items[place], self._objects) for place in places)

    def digests(self, node: NodeId, arguments: int) -> list[str | None]:
        """For each argument of a node the digest of its values, or None where they come from another node."""
        return [self._digest(node, position) for position in range(arguments)]

    def _digest(self, node: NodeId, position: int) -> str | None:
        single = self._single.get((node, position))
        if (node, position) in self._credentials:
            return None  # not even a digest is kept: a weak password can be found from it
        if single is not None:
            return single.digest
        if (node, position) not in self._sequences:
            return None
        _, items = self._sequences[node, position]
        digest = hashlib.sha256()
        try:
            digest.update(canonical_json(list(items)).encode())
        except SpaceError:  # something else than plain values
            for item in items:
                digest.update(encode(item).digest.encode())
        return digest.hexdigest()
