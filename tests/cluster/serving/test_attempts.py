"""What is tried in threads that may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from umbel.cluster.serving.attempts import Attempts


def test_what_ends_is_given_and_what_hangs_is_left_behind() -> None:
    go = threading.Event()
    jobs: list[Callable[[], Any]] = [partial(divmod, 7, 2), partial(divmod, 7, 0), partial(go.wait, 20)]
    attempts: Attempts[Any] = Attempts(2, 0.1, threading.Event())
    found = dict(attempts.run([*jobs, partial(divmod, 9, 2)]))
    assert (found[0], found[3]) == ((3, 1), (4, 1))
    assert isinstance(found[1], ZeroDivisionError)
    assert 2 not in found
    assert attempts.are_stuck
    go.set()
    for thread in attempts._threads:
        thread.join(20)
    assert not attempts.are_stuck


def test_nothing_begins_after_the_end() -> None:
    stop = threading.Event()
    stop.set()
    attempts: Attempts[int] = Attempts(2, 0.01, stop)
    assert list(attempts.run([int])) == []


def test_who_looks_away_stops_what_has_not_begun() -> None:
    begun: list[int] = []
    attempts: Attempts[None] = Attempts(1, 10.0, threading.Event())
    gone = threading.Event()

    def job(n: int) -> None:
        begun.append(n)
        if n == 1:
            assert gone.wait(20)

    running = attempts.run([partial(job, n) for n in range(10)])
    next(running)
    running.close()  # type: ignore[attr-defined]
    gone.set()
    attempts._threads[0].join(20)
    assert len(begun) <= 2
