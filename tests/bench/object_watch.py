"""Which objects did a run write into its store, and when was each durable?

While the watch is on, this process's writes into local stores are noted as they return, so objects that are
deleted later (renewals of the claim on a run, the probe for write access) are counted too. Workers write
nothing without models; what lies on the disk all the same without having been seen is counted as written by
somebody else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from umbel.storage.objects.local import LocalObjectStore

__all__ = ["ObjectWatch", "watch_objects"]


@dataclass(slots=True)
class ObjectWatch:
    """What was written."""

    #: When the watch began, in seconds since the epoch.
    began: float = field(default_factory=time.time)
    #: By path within the store: seconds since the epoch at which the object was durable.
    durable_at: dict[str, float] = field(default_factory=dict)

    def count(self, store: Path, within_s: float = math.inf) -> int:
        """Objects that have been written into the store, those deleted since included.

        Args:
            store: its folder.
            within_s: leave out those written later than this after the watch began.
        """
        on_disk = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
        unseen = on_disk - set(self.durable_at)
        return len(unseen) + sum(at - self.began <= within_s for at in self.durable_at.values())


@contextmanager
def watch_objects() -> Iterator[ObjectWatch]:
    """Note what this process writes while inside."""
    watch = ObjectWatch()
    create = LocalObjectStore._create

    def noted(self: LocalObjectStore, path: str, data: bytes | memoryview) -> None:
        create(self, path, data)
        watch.durable_at[path] = time.time()

    LocalObjectStore._create = noted  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        LocalObjectStore._create = create  # type: ignore[method-assign]
