"""Which models does a replica hold in memory, and how do others get there?

An LRU of models by digest: two versions that have the same model for a group share it, so moving an alias loads only
what differs. Loading happens in threads; requests that want the same model wait for one load, and loads of different
models go on beside each other (which is why this is not `serve.multiplexed`, whose loads wait for one lock). All of it
is used from one event loop. It must not know versions or aliases.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from umbel.storage.registry.predicting import takes_batches

__all__ = ["Loaded", "ModelCache"]


@dataclass(eq=False, slots=True)
class Loaded:
    """A model in memory."""

    model: object
    digest: str
    #: The group for which it was loaded.
    group: str
    #: What it is given; see `umbel.storage.registry.predicting.taken_as`.
    takes: str
    batches: bool = False
    #: A model is asked by one thread at a time: few are safe to use from several.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Of a model that takes batches: inputs that wait, with whom to answer, and the task that asks for them.
    waiting: list[tuple[object, asyncio.Future[tuple[Any, float]]]] = field(default_factory=list)
    asking: asyncio.Task[None] | None = None

    @staticmethod
    def of(model: object, digest: str, group: str, takes: str) -> Loaded:
        """A model that was just loaded."""
        return Loaded(model, digest, group, takes, takes_batches(model))


class ModelCache:
    """At most ``size`` models; the one that was used longest ago goes first.

    Args:
        size: how many.
        threads: in which models are loaded.
    """

    def __init__(self, size: int, threads: Executor) -> None:
        self._size = size
        self._threads = threads
        self._models: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Future[Loaded]] = {}
        self.hits = 0
        self.loads = 0

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, digest: str) -> bool:
        return digest in self._models

    @property
    def digests(self) -> list[str]:
        """Of the models that are held, those used longest ago first. Safe to ask from any thread."""
        return list(self._models)

    async def get(self, digest: str, load: Callable[[], Loaded]) -> Loaded:
        """A model.

        Args:
            digest: its digest.
            load: makes it, in a thread, if it is not there. Whatever this raises all who wait get.
        """
        found = self._models.get(digest)
        if found is not None:
            self._models.move_to_end(digest)
            self.hits += 1
            return found
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.get_running_loop().run_in_executor(self._threads, load)
            self._loading[digest] = task
            task.add_done_callback(lambda done: self._loaded(digest, done))
        # A caller that goes away must not take the load from those that wait for it, too.
        return await asyncio.shield(task)

    def put(self, models: Iterable[Loaded]) -> None:
        """Take models that were loaded elsewhere, as the last used."""
        for loaded in models:
            self._models.setdefault(loaded.digest, loaded)
            self._models.move_to_end(loaded.digest)
        self._trim()

    def _loaded(self, digest: str, done: asyncio.Future[Loaded]) -> None:
        self._loading.pop(digest, None)
        if not done.cancelled() and done.exception() is None:
            self.loads += 1
            self.put([done.result()])

    def _trim(self) -> None:
        while len(self._models) > self._size:
            self._models.popitem(last=False)
