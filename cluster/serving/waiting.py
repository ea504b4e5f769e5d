"""What is said while the replicas of a server have not started, and when is it no use to wait for room any more?

Who deploys looks at the cluster now and then, and hands over what it saw. This must not know Ray, or the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Patience", "Room"]

#: Seconds of waiting for room before it is said: Serve itself takes some to ask for it.
SAY_ROOM_S = 3.0
#: Seconds after which it is said that replicas have a place and are not ready.
SAY_STARTING_S = 20.0
#: Seconds between two messages; one that has been said is not repeated.
SAY_EVERY_S = 30.0
#: Seconds without a node that could hold a replica, and without one being started, after which none is expected.
GIVE_UP_S = 20.0


@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster has for replicas.

    Args:
        holds: how many its nodes hold, whoever uses them now.
        free: amounts that nobody holds, by Ray's names.
        total: all amounts.
        is_asked_for: one waits for a node.
        is_scaling: nodes are being started.
    """

    holds: int
    free: Mapping[str, float]
    total: Mapping[str, float]
    is_asked_for: bool
    is_scaling: bool


class Patience:
    """How long it is waited for replicas, and what is said meanwhile.

    Args:
        needs: what each holds, by Ray's names; amounts above zero.
        replicas: how many are to run.
        now: when the waiting begins, in seconds of any clock that does not go back.
    """

    def __init__(self, needs: Mapping[str, float], replicas: int, now: float) -> None:
        self._needs = needs
        self._replicas = replicas
        self._began = now
        self._hoped = now
        self._said: tuple[str, float] | None = None

    def is_over(self, room: Room, now: float) -> bool:
        """Whether no node could hold a replica, and none that could is to be expected."""
        if room.holds or room.is_scaling:
            self._hoped = now
        return now - self._hoped > GIVE_UP_S

    def tell(self, running: int, room: Room, now: float) -> str | None:
        """What the user should read now, if anything.

        Args:
            running: replicas that are ready.
            room: what the cluster has.
            now: the time.
        """
        waiting = room.is_asked_for and bool(self._needs)
        if now - self._began < (SAY_ROOM_S if waiting else SAY_STARTING_S):
            return None
        text = self._waiting(running, room) if waiting else self._starting(running)
        if self._said is not None and (text == self._said[0] or now - self._said[1] < SAY_EVERY_S):
            return None
        self._said = (text, now)
        return text

    def _waiting(self, running: int, room: Room) -> str:
        who = f"{self._replicas - running} of {self._replicas} replicas wait" if running else "replicas wait"
        each = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        has = " and ".join(
            f"{room.free.get(name, 0.0):g} of {room.total.get(name, 0.0):g} {name}" for name in self._needs
        )
        apart = all(room.free.get(name, 0.0) >= amount for name, amount in self._needs.items())
        on = ", on no node enough" if apart else ""
        return f"{who} for {each} each; the cluster has {has} free{on}; {self._outlook(room)} (Ctrl-C ends the waiting)"

    def _starting(self, running: int) -> str:
        return f"{running} of {self._replicas} replicas are ready; the others are starting, and try the models"

    def _outlook(self, room: Room) -> str:
        if room.is_scaling:
            return "its autoscaler is starting nodes"
        if not room.holds:
            return "no node that is there could hold one, and none is being started"
        if room.holds < self._replicas:
            return f"its nodes hold {room.holds} of {self._replicas} at most, so there must be more nodes"
        return "they start when others free it, or an autoscaler starts nodes"
