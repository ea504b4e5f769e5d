"""A run's word with the broker of a shared cluster: what it says, and how many workers it may have by the last answer.

Nothing here waits, but for the first answer of a broker that is there already: while there is no answer, the run goes
on with what it holds. It must not know the engine, nor how workers are started.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from umbel.runtime.sharing.broker import find_broker, start_broker
from umbel.runtime.sharing.share import Share
from umbel.scheduler.graph import ShapeId

__all__ = ["AHEAD", "Sharing"]

#: Seconds between two words to the broker.
TELL_EVERY_S = 0.5
#: Seconds of a run in which it starts no broker, if there is none: nobody else is there then, and a run that is over
#: sooner has saved the start of a process.
START_AFTER_S = 2.0
#: Seconds that the first answer of a broker that is there may take before the run begins without.
FIRST_ANSWER_S = 2.0
#: Seconds after which an answer comes no more.
ANSWER_S = 5.0
#: Seconds in which a broker that fails is looked for as often as ever (it is being started again), and seconds between
#: two looks after that: each may start a process, which can't live where Umbel can't be imported.
FAILING_S = 15.0
SELDOM_S = 15.0
#: Workers asked for beyond those that joined, to have the cluster grow; more once more have come.
AHEAD = 4


class Sharing:
    """One run at the broker.

    Args:
        share: the run's part.
        run: the run's name.
        needs: what a worker of each shape holds, by Ray's names.
        wake: called, from another thread, when an answer has come.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        share: Share,
        run: str,
        needs: Mapping[ShapeId, Mapping[str, float]],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._needs = {shape: dict(amounts) for shape, amounts in needs.items()}
        self._wake = wake
        self._id = f"{run}-{secrets.token_hex(4)}"
        self._about = {
            "run": self._id,
            "name": run,
            "tenant": share.name,
            "weight": share.weight,
            "priority": share.priority,
            "minimum": dict(share.minimum),
            "cap": dict(share.cap),
            "preemptible": share.preemptible,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._broker: Any = None
        self._began = clock()
        self._next_tell = 0.0
        #: When the question was sent that has not been answered, and how many there were of each shape then.
        self._asked: tuple[float, dict[ShapeId, int]] | None = None
        #: Since when the broker has failed whenever it was asked; None: it has not.
        self._failing_since: float | None = None
        #: The last answer, and how many there were when it was asked for.
        self._answer: dict[str, Any] | None = None
        self._held: dict[ShapeId, int] = {}
        #: True: an answer has come that nobody has looked at.
        self.news = False

    def tell(self, wanted: Mapping[ShapeId, int], held: Mapping[ShapeId, int], starting: Mapping[ShapeId, int]) -> None:
        """Say what the run wants, holds and is starting, if it is time to, and no answer is outstanding."""
        now = self._clock()
        self.news = False
        if self._asked is not None and now - self._asked[0] > ANSWER_S:
            self._failed(now)
        if self._asked is not None or now < self._next_tell:
            return
        self._next_tell = now + TELL_EVERY_S
        first = self._answer is None
        found = None
        try:
            if self._broker is None:
                found = find_broker()
                if found is None and now - self._began < START_AFTER_S:
                    return
                self._broker = found if found is not None else start_broker()
            demands = [
                {"needs": amounts, "wanted": wanted[shape], "held": held[shape], "starting": starting[shape]}
                for shape, amounts in self._needs.items()
            ]
            ref = self._broker.tell.remote({**self._about, "demands": demands})
            self._asked = asked = (now, dict(held))
            future = ref.future()
            future.add_done_callback(lambda done: self._on_answer(asked, done))
        except Exception:  # whatever keeps the broker from being reached, the run goes on
            self._failed(now)
            return
        if first and found is not None:
            with suppress(Exception):  # it is heard of later, or asked for anew
                future.result(FIRST_ANSWER_S)
                self._on_answer(asked, future)  # if that has not been done in the moment since

    def _on_answer(self, asked: tuple[float, dict[ShapeId, int]], future: Any) -> None:
        if self._asked is not asked:
            return  # it was given up
        if future.exception() is not None:
            self._failed(self._clock())
            return
        self._asked = self._failing_since = None
        answer = future.result()
        if answer["workers"] is None and not answer["alone"]:
            return  # it has just been started, and does not know yet
        self._held = asked[1]
        self._answer, self.news = answer, True
        self._wake()

    def _failed(self, now: float) -> None:
        """No answer came: the broker is looked for again."""
        self._asked = self._broker = None
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > FAILING_S:
            self._next_tell = now + SELDOM_S

    def bound(self, shape: ShapeId, possible: int, wanted: int, *, given_up: bool) -> int:
        """How many workers of a shape the run may have.

        Args:
            shape: the shape.
            possible: how many there could be, were it alone.
            wanted: for how many there is work.
            given_up: True: those that it asked for beyond what there is room for did not come.
        """
        answer = self._answer
        if answer is None or answer["workers"] is None:
            return possible
        allowed = int(answer["workers"][list(self._needs).index(shape)])
        if answer["ahead"] and wanted > allowed and self._held[shape] <= allowed:
            allowed += 1 if given_up else AHEAD
        return min(possible, allowed)

    def leave(self) -> None:
        """The run ends: its share is the others' at once."""
        if self._broker is not None:
            with suppress(Exception):
                self._broker.leave.remote(self._id)
