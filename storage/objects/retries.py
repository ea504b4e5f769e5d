"""How often, and how patiently, is a request repeated that the storage failed to answer?

One place for it: the clients' own repeating is turned off where it can be (`objects_fsspec`), so that what is written
here is what happens. Pauses grow exponentially and are drawn at random, so that a thousand workers that met the same
fault don't come back at the same moment (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
It must not know which storage answers.

A create-only write may have succeeded although its answer was lost; repeated, it meets its own object. Whoever creates
content that nobody else could have made says so (``unique=True``), and then equal content is its own. Without that the
conflict is reported: content that others write too (a digest's bytes, the store's format) is right whoever wrote it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreUnavailableError
from umbel.storage.objects.interface import ObjectInfo, ObjectStore

__all__ = ["RetryPolicy", "RetryingObjectStore"]

_T = TypeVar("_T")
_random = random.Random()  # of its own: programs that seed the global one would make all workers pause alike


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on. The n-th pause is drawn from [d/2, d), where d is ``first_pause_s`` · 2ⁿ, at most
    ``longest_pause_s``.
    """

    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0
    #: No request is repeated that would begin later than this after the first one began.
    limit_s: float = 120.0

    def pauses(self, draw: Callable[[], float]) -> Iterator[float]:
        """The pauses, one after another, without end.

        Args:
            draw: gives numbers in [0, 1).
        """
        longest = self.first_pause_s
        while True:
            yield longest * (0.5 + 0.5 * draw())
            longest = min(2 * longest, self.longest_pause_s)


class RetryingObjectStore(ObjectStore):
    """A store whose requests are repeated while the storage fails to answer them.

    Args:
        inner: the store itself. What may pass it raises as `StoreUnavailableError`.
        policy: how long to go on.
        sleep: waits for some seconds.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        inner: ObjectStore,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = _random.random,
    ) -> None:
        self._inner = inner
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._clock = clock
        self._draw = draw
        self.url = inner.url
        self.is_process_local = inner.is_process_local
        self.is_local_path = inner.is_local_path

    def __reduce__(self) -> tuple[object, ...]:
        return (RetryingObjectStore, (self._inner, self._policy))

    def full_path(self, path: str = "") -> str:
        """Where an object lies, in the terms of the file system itself."""
        return self._inner.full_path(path)

    @property
    def file_system(self) -> Any:
        """The file system of the store itself, which repeats requests by rules of its own."""
        return self._inner.file_system

    @contextmanager
    def patience(self, limit_s: float) -> Iterator[None]:
        """While inside, go on for this long only: for a first contact, where a fault is likely to stay."""
        kept, self._policy = self._policy, replace(self._policy, limit_s=min(limit_s, self._policy.limit_s))
        try:
            yield
        finally:
            self._policy = kept

    def _create(self, path: str, data: bytes | memoryview) -> None:
        self._repeat(lambda: self._inner._create(path, data))

    def _read(self, path: str) -> bytes:
        return self._repeat(lambda: self._inner._read(path))

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        return self._repeat(lambda: self._inner._read_range(path, offset, length))

    def _size(self, path: str) -> int | None:
        return self._repeat(lambda: self._inner._size(path))

    def _list(self, folder: str, recursive: bool) -> list[str]:
        return self._repeat(lambda: self._inner._list(folder, recursive))

    def _list_details(self, folder: str) -> list[ObjectInfo]:
        return self._repeat(lambda: self._inner._list_details(folder))

    def _info(self, path: str) -> ObjectInfo | None:
        return self._repeat(lambda: self._inner._info(path))

    def _refresh(self, path: str, data: bytes | memoryview) -> None:
        self._repeat(lambda: self._inner._refresh(path, data))

    def leftovers(self) -> list[ObjectInfo]:
        """What writers that were killed have left."""
        return self._repeat(self._inner.leftovers)

    def delete_leftover(self, path: str) -> None:
        """Delete something that `leftovers` gave."""
        self._repeat(lambda: self._inner.delete_leftover(path))

    def _list_folders(self, folder: str) -> list[str]:
        return self._repeat(lambda: self._inner._list_folders(folder))

    def _delete(self, path: str) -> None:
        self._repeat(lambda: self._inner._delete(path))

    def _move(self, path: str, new_path: str) -> None:
        # In steps that can each be repeated: a whole move, repeated, would meet the copy that it made itself.
        data = self._read(path)
        try:
            self._create(new_path, data)
        except StoreConflictError:
            if not self._is_mine(new_path, data):
                raise
        self._delete(path)

    def _repeat(self, request: Callable[[], _T]) -> _T:
        began = self._clock()
        for tries, pause_s in enumerate(self._policy.pauses(self._draw), 1):
            try:
                return request()
            except StoreUnavailableError as error:
                spent_s = self._clock() - began
                if spent_s + pause_s > self._policy.limit_s:
                    raise self._gave_up(error, tries, spent_s) from error.__cause__
            self._sleep(pause_s)
        raise AssertionError("pauses never end")

    def _gave_up(self, error: StoreUnavailableError, tries: int, spent_s: float) -> StoreUnavailableError:
        return StoreUnavailableError(
            error.what,
            got=f"{tries} tr{'y' if tries == 1 else 'ies'} within {spent_s:.0f} s, all in vain",
            expected="an answer",
            hint=error.hint,
        )

    def _is_mine(self, path: str, data: bytes | memoryview) -> bool:
        try:
            return self._read(path) == data
        except NotFoundError:
            return False
