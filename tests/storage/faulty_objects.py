"""A store that fails as object storage does: seeded, so that a test meets the same faults each time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from umbel.scheduler.errors import StoreUnavailableError
from umbel.storage.objects.interface import ObjectInfo, ObjectStore

__all__ = ["FAULTS", "FaultyObjectStore", "VirtualTime"]

_T = TypeVar("_T")
#: "503" and "500": refused before anything happened. "timeout" and "lost reply": it happened, or did not, and nobody is
#: told. "cut": an answer that ends in mid-body. "slow": it takes long, and succeeds.
FAULTS = ("503", "500", "timeout", "lost reply", "cut", "slow")


class VirtualTime:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)

    def clock(self) -> float:
        return self.now_s


class FaultyObjectStore(ObjectStore):
    """Passes requests on to another store, except those that fail.

    Args:
        inner: the store.
        seed: of the faults.
        rate: share of requests that fail.
        faults: which ones there are.
        time: what slow requests and timeouts take their time from.
        plan: the faults of the first requests, None for none, before chance decides.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        seed: int = 0,
        rate: float = 0.2,
        faults: Sequence[str] = FAULTS,
        time: VirtualTime | None = None,
        plan: Sequence[str | None] = (),
    ) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self._rate = rate
        self._faults = list(faults)
        self._time = time or VirtualTime()
        self._plan = list(plan)
        self.url = inner.url
        self.is_local_path = inner.is_local_path
        self.is_process_local = inner.is_process_local
        #: What has been done to requests, and how many there were.
        self.injected: Counter[str] = Counter()
        self.requests = 0

    def full_path(self, path: str = "") -> str:
        return self._inner.full_path(path)

    @property
    def file_system(self) -> Any:
        return self._inner.file_system

    def _next_fault(self) -> str | None:
        self.requests += 1
        if self._plan:
            return self._plan.pop(0)
        return self._random.choice(self._faults) if self._random.random() < self._rate else None

    def _request(self, operation: Callable[[], _T]) -> _T:
        fault = self._next_fault()
        if fault is None:
            return operation()
        self.injected[fault] += 1
        if fault == "slow":
            self._time.sleep(5.0)
            return operation()
        if fault == "timeout":
            self._time.sleep(30.0)
        if fault in ("lost reply", "cut") or (fault == "timeout" and self._random.random() < 0.5):
            operation()
        raise StoreUnavailableError(f"injected: {fault}", hint="wait")

    def _create(self, path: str, data: bytes | memoryview) -> None:
        self._request(lambda: self._inner._create(path, data))

    def _read(self, path: str) -> bytes:
        return self._request(lambda: self._inner._read(path))

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        return self._request(lambda: self._inner._read_range(path, offset, length))

    def _size(self, path: str) -> int | None:
        return self._request(lambda: self._inner._size(path))

    def _list(self, folder: str, recursive: bool) -> list[str]:
        return self._request(lambda: self._inner._list(folder, recursive))

    def _list_details(self, folder: str) -> list[ObjectInfo]:
        return self._request(lambda: self._inner._list_details(folder))

    def _info(self, path: str) -> ObjectInfo | None:
        return self._request(lambda: self._inner._info(path))

    def _refresh(self, path: str, data: bytes | memoryview) -> None:
        self._request(lambda: self._inner._refresh(path, data))

    def _list_folders(self, folder: str) -> list[str]:
        return self._request(lambda: self._inner._list_folders(folder))

    def _delete(self, path: str) -> None:
        self._request(lambda: self._inner._delete(path))

    def _move(self, path: str, new_path: str) -> None:
        self._request(lambda: self._inner._move(path, new_path))
