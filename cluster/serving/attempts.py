"""How is something tried that may never end, a user's code or a read, without whoever asked being held by it?

Jobs run in a few threads; if none of them ends for some time, waiting ends, and the threads are left behind: nothing
can stop a thread. They are daemons, so they do not keep the process either. It must not know what is tried.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Attempts"]

_T = TypeVar("_T")


class Attempts(Generic[_T]):
    """Runs jobs, a few at once.

    Args:
        threads: how many at once.
        limit_s: how long to wait for the next that ends.
        stop: when it is set, no further job begins.
    """

    def __init__(self, threads: int, limit_s: float, stop: threading.Event) -> None:
        self._most = threads
        self._limit_s = limit_s
        self._stop = stop
        self._threads: list[threading.Thread] = []

    @property
    def are_stuck(self) -> bool:
        """Whether a job runs still."""
        return any(thread.is_alive() for thread in self._threads)

    def run(self, jobs: Sequence[Callable[[], _T]]) -> Iterator[tuple[int, _T | Exception]]:
        """Run jobs, and give the place of each with what it returned or raised, as they end.

        What is missing at the end did not end in time, or was not begun.
        """
        waiting = deque(enumerate(jobs))
        ended: SimpleQueue[tuple[int, _T | Exception]] = SimpleQueue()
        given_up = threading.Event()

        def work() -> None:
            while not (self._stop.is_set() or given_up.is_set()):
                try:
                    place, job = waiting.popleft()
                except IndexError:
                    return
                try:
                    ended.put((place, job()))
                except Exception as error:  # the user's code may raise anything
                    ended.put((place, error))

        self._threads = [
            threading.Thread(target=work, name="umbel-try", daemon=True) for _ in range(min(self._most, len(jobs)))
        ]
        for thread in self._threads:
            thread.start()
        try:
            for _ in jobs:
                yield ended.get(timeout=self._limit_s)
        except Empty:
            return
        finally:
            given_up.set()
