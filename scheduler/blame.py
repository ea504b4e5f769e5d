"""Whose fault is it that a worker is gone, and what becomes of the elements that it had not reported?

A worker's last report may be some time old, so what it was doing at its death is only known to be one of the unreported
elements of the lease that it was running. Three cases:

- The process died alone, or hung: these elements are suspects. They are granted again in ever smaller leases until the
  culprit is alone. An element that was alone in flight at `DEATHS_TO_LOSE` deaths is lost.
- The whole machine went (preempted, drained, dead): nobody is suspected. That is nearly always right, but an element
  that takes its machine down would be run for ever. So such losses are counted, in a row and without progress in
  between. From `LOSSES_TO_SUSPECT` on the elements are suspects as after a crash, and wait for their turn
  in `Quarantine`: whatever was on the same machines has lost as many, and must not go down with the culprit again.
- A lease that was not running yet: nothing.

No case uses up a retry. Decides only; the engine carries it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from math import inf

from umbel.scheduler.graph import NodeId
from umbel.scheduler.node_state import Piece
from umbel.scheduler.protocol import LossCause
from umbel.scheduler.worker_state import OpenLease

__all__ = [
    "DEATHS_TO_LOSE",
    "GIVEN_UP",
    "LOSSES_TO_SUSPECT",
    "MACHINE_GONE_S",
    "Quarantine",
    "count_loss",
    "losses_taken_along",
    "unreported",
]

#: How many times an element may be alone in flight when its worker dies before it is given up.
#: Processes also die by chance: killed from outside, or by a kernel that is short of memory because of a neighbour. If
#: that happens to a worker once in 1,000 hours, an element of one hour meets it with probability 0.001. Of a million
#: such elements two deaths would take one innocent in each run; three take one in a thousand runs. Each more costs a
#: worker's start for every true culprit, and its time once more; so it is three, and not four.
DEATHS_TO_LOSE = 3
#: How many machines an element may lose in a row before it is suspected. If it runs for a share x of a machine's mean
#: life, chance takes its machine with probability q = 1 - exp(-x) each time, so an innocent is suspected with
#: probability q^8, and given up, after three more losses alone, with q^11: for x = 0.01 (30 s where machines last 50
#: minutes) 10^-22, for x = 0.1 6 * 10^-12, for x = 0.5 3 in 100,000. Who runs elements as long as their machines last
#: (x = 1, 0.6 %) needs checkpoints, not retries.
LOSSES_TO_SUSPECT = 8
#: Workers for each place in quarantine: more than fit on most machines, so that two suspects seldom share one.
QUARANTINE_EVERY = 256
#: A machine's workers are reported gone one by one, and until the last is, elements may be given to one that is gone
#: already. So what is lost within this many seconds of a loss is not counted again, and nobody is admitted.
MACHINE_GONE_S = 2.0
#: A range that was in flight when its worker died is granted again in this many parts, to close in on the culprit.
NARROWING = 16
#: By how the last worker of an element that is given up was lost, the status and error that it gets.
GIVEN_UP: Mapping[LossCause, tuple[str, str]] = {
    LossCause.HUNG: ("timeout", f"its worker stopped answering, so it was ended; {DEATHS_TO_LOSE} times"),
    LossCause.CRASHED: (
        "lost",
        f"its worker process died while it ran (killed, crashed or out of memory); {DEATHS_TO_LOSE} times",
    ),
    LossCause.PREEMPTED: (
        "lost",
        f"its node was lost while it ran, at least {LOSSES_TO_SUSPECT} times in a row: "
        "it takes nodes down, or runs about as long as they last",
    ),
}


class Quarantine:
    """Elements that have lost `LOSSES_TO_SUSPECT` machines in a row: few of them may run at a time, the others wait."""

    __slots__ = ("_closed_until", "at_large", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[NodeId, Piece]] = deque()
        #: How many of their elements are pending or leased.
        self.at_large = 0
        self._closed_until = -inf

    def admit(self, workers: int, now: float) -> Iterator[tuple[NodeId, Piece]]:
        """Those whose turn it is, with this many workers."""
        while self.waiting and now >= self._closed_until and self.at_large < max(1, workers // QUARANTINE_EVERY):
            node, piece = self.waiting.popleft()
            self.at_large += len(piece)
            yield node, piece

    def leave(self, open_lease: OpenLease, closed_until: float = -inf) -> None:
        """The elements of a lease are at large no longer: it got on, or its worker is gone.

        Args:
            open_lease: the lease.
            closed_until: nobody is admitted before.
        """
        if open_lease.quarantined:
            self.at_large -= open_lease.unreported
            self._closed_until = max(self._closed_until, closed_until)
            open_lease.quarantined = False


def count_loss(open_lease: OpenLease, now: float) -> bool:
    """A machine was lost while elements of a lease were in flight on it; False: it is the same one once more."""
    if now - open_lease.lost_at < MACHINE_GONE_S:
        return False
    open_lease.losses += 1
    open_lease.lost_at = now
    return True


def losses_taken_along(open_lease: OpenLease) -> int:
    """The losses of elements that leave a lease for another without harm: those not in quarantine are not put there."""
    return open_lease.losses if open_lease.quarantined else min(open_lease.losses, LOSSES_TO_SUSPECT - 1)


def unreported(open_lease: OpenLease, cause: LossCause, now: float, *, running: bool) -> Piece | None:
    """What becomes of the elements that a lease still owes when its worker is gone; None: its only one is lost.

    Args:
        open_lease: the lease. An element that runs in another lease too is not in the answer.
        cause: what happened.
        now: when.
        running: False: the lease waited behind another.
    """
    lease, elsewhere = open_lease.lease, open_lease.runs_twice
    start, stop = open_lease.position + elsewhere, open_lease.stop
    cap = open_lease.unreported if open_lease.suspect else 0
    crashed = counted = running and cause is not LossCause.PREEMPTED
    if crashed:
        open_lease.losses = 0
    elif running and not elsewhere:
        counted = count_loss(open_lease, now)
    piece = Piece(start, stop, lease.attempt, open_lease.deaths, cap, open_lease.losses, open_lease.lost_at)
    if crashed or (piece.losses >= LOSSES_TO_SUSPECT and (counted or not piece.suspect)):
        piece.cap = max(1, len(piece) // NARROWING)
        if counted and len(piece) == 1 and not elsewhere and (crashed or open_lease.quarantined):
            piece.deaths += 1
    return None if piece.deaths >= DEATHS_TO_LOSE else piece
