"""Who may have how many workers now, on a cluster that several runs share?

One actor a cluster, which any run's driver finds by its name or starts. Each driver tells it every second or so what
it wants and holds, and gets its allowance in the answer. It keeps nothing that it is not told again: if it dies, Ray
starts it anew, and a moment later it knows as much as before; a run that is silent for a while is forgotten. When
nobody has spoken for a while, it ends. The policy is `umbel.scheduler.fair_share`. It must not know graphs, leases or
trials, and it starts and ends no workers.

Messages are plain dicts (`umbel.runtime.sharing.message`), so that runs with other versions of Umbel can be told apart
by `NAME` alone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from umbel.runtime.sharing.message import Told, read
from umbel.scheduler.fair_share import Shares, fair_shares

__all__ = ["FORGET_S", "NAME", "NAMESPACE", "Broker", "find_broker", "start_broker"]

#: The actor's name and its namespace; the number changes with the messages.
NAME = "broker-1"
NAMESPACE = "umbel"
#: Seconds of silence after which a run is taken to be gone. If it was only busy, nothing is lost: others may have asked
#: for its workers' places meanwhile, and have waited for them.
FORGET_S = 3.0
#: Seconds after the last word of any run after which the broker ends; the next run that comes starts another.
LINGER_S = 10.0
#: Seconds after its own start in which the broker only listens: runs that are there keep what they have meanwhile.
LISTEN_S = 1.5
#: Seconds between two looks at what the cluster has, and how many of them say what others than these runs use: the
#: least that any of them saw. More may be workers of these runs that start or end.
LOOK_EVERY_S = 1.0
LOOKS = 5
#: Seconds after which runs may ask for more than there is, so that a cluster that can grow does, although some run has
#: not got what it may have.
PATIENCE_S = 10.0
#: Sharing out again waits for this many times as long as it took, unless a run is new: with hundreds of runs and
#: thousands of workers it takes up to 50 ms.
REST = 10
#: Resources that workers do not hold.
_NOT_SHARED = ("node:", "object_store_memory")

#: Variables of a job's environment that the broker keeps, beside those of Ray: what it is found and imported by.
_KEPT = frozenset(["HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH"])

#: What there is in all, and what is free.
Look = Callable[[], tuple[Mapping[str, float], Mapping[str, float]]]


@dataclass(slots=True)
class _Known:
    """A run, and when it was heard last."""

    told: Told
    heard_at: float
    since: float


class Broker:
    """Shares a cluster out. Plain Python; `start_broker` makes a Ray actor of it.

    Args:
        look: what the cluster has.
        clock: seconds, from any origin.
    """

    def __init__(self, look: Look | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look or _look_at_cluster
        self._clock = clock
        self._started = clock()
        self._last_word = self._started
        self._known: dict[str, _Known] = {}
        self._shares = Shares({}, {})
        self._stale = True
        self._next_sharing = self._next_look = self._started
        self._total: dict[str, float] = {}
        self._others: deque[dict[str, float]] = deque(maxlen=LOOKS)
        #: Since when some run has had less than it may; None: none has.
        self._unsettled_since: float | None = None

    @property
    def deserted(self) -> bool:
        """Whether no run has said anything for `LINGER_S`."""
        return self._clock() - self._last_word > LINGER_S

    def tell(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take note of what a run wants and holds, and say what it may have.

        Args:
            message: as `umbel.runtime.sharing.message.read` takes it.

        Returns:
            ``workers``, how many of each demand, or None: as many as it likes if ``alone``, else as it is. ``ahead``:
            it may ask for some more, so that the cluster grows.

        Raises:
            ValueError: the message makes no sense; nothing is noted of it.
        """
        told = read(message)
        claim = told.claim
        now = self._last_word = self._clock()
        known = self._known.get(claim.run)
        if known is None or known.told.claim != claim:
            self._stale = True
        self._known[claim.run] = _Known(told, now, known.since if known else now)
        if now - self._started < LISTEN_S:
            return {"workers": None, "alone": False, "ahead": False}
        self._bring_up_to_date(now)
        if len(self._known) == 1 and not claim.cap:
            return {"workers": None, "alone": True, "ahead": True}
        return {"workers": list(self._shares.workers[claim.run]), "alone": False, "ahead": self._may_ask_ahead(now)}

    def leave(self, run: str) -> None:
        """A run has ended."""
        if self._known.pop(run, None) is not None:
            self._stale = True

    def view(self) -> dict[str, Any]:
        """Who holds what: ``capacity`` by resource, and ``runs`` in the order in which they came."""
        now = self._clock()
        self._bring_up_to_date(now)
        runs = []
        for known in self._known.values():
            claim = known.told.claim
            held: dict[str, float] = {}
            for demand in claim.demands:
                for name, amount in demand.needs.items():
                    held[name] = held.get(name, 0.0) + amount * demand.held
            runs.append(
                {
                    **known.told.shown,
                    "wants": sum(demand.wanted for demand in claim.demands),
                    "holds": sum(demand.held for demand in claim.demands),
                    "may_have": sum(self._shares.workers[claim.run]),
                    "resources": {name: amount for name, amount in held.items() if amount},
                    "share": max((a / self._total[n] for n, a in held.items() if self._total.get(n)), default=0.0),
                    "seconds": now - known.since,
                }
            )
        return {"capacity": self._capacity(), "total": dict(self._total), "runs": runs}

    # ---- what it works out ---------------------------------------------------------------------------------

    def _bring_up_to_date(self, now: float) -> None:
        for run in [run for run, known in self._known.items() if now - known.heard_at > FORGET_S]:
            del self._known[run]
            self._stale = True
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self._look_around()
        if self._stale and (now >= self._next_sharing or not self._known.keys() <= self._shares.workers.keys()):
            claims = [known.told.claim for known in self._known.values()]
            self._shares = fair_shares(self._capacity(), claims)
            self._stale = False
            settled = all(
                demand.held >= count
                for claim in claims
                for demand, count in zip(claim.demands, self._shares.workers[claim.run], strict=True)
            )
            if settled:
                self._unsettled_since = None
            elif self._unsettled_since is None:
                self._unsettled_since = now
            self._next_sharing = now + REST * (self._clock() - now)

    def _look_around(self) -> None:
        total, free = self._look()
        total = {name: amount for name, amount in total.items() if not name.startswith(_NOT_SHARED)}
        ours: dict[str, float] = {}
        for known in self._known.values():
            claim = known.told.claim
            allowed = self._shares.workers.get(claim.run, ())
            for index, (demand, starting) in enumerate(zip(claim.demands, known.told.starting, strict=True)):
                if index < len(allowed):  # those beyond wait for others' places
                    starting = max(0, min(starting, allowed[index] - demand.held))  # noqa: PLW2901
                for name, amount in demand.needs.items():
                    ours[name] = ours.get(name, 0.0) + amount * (demand.held + starting)
        before = self._capacity()
        self._total = total
        self._others.append(
            {name: max(0.0, amount - free.get(name, 0.0) - ours.get(name, 0.0)) for name, amount in total.items()}
        )
        self._stale = self._stale or before != self._capacity()

    def _capacity(self) -> dict[str, float]:
        """What there is for these runs together."""
        if len(self._others) < LOOKS:
            return dict(self._total)
        return {
            name: amount - min(others.get(name, 0.0) for others in self._others) for name, amount in self._total.items()
        }

    def _may_ask_ahead(self, now: float) -> bool:
        """Whether workers that wait for room would not take it from a run that is to have it."""
        return self._unsettled_since is None or now - self._unsettled_since > PATIENCE_S


class BrokerActor(Broker):
    """The broker as an actor: it ends itself once it is deserted, so that nothing stays behind on the cluster."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=self._end_when_deserted, name="umbel-broker", daemon=True).start()

    def _end_when_deserted(self) -> None:
        import ray

        while not self.deserted:
            time.sleep(1.0)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _look_at_cluster() -> tuple[Mapping[str, float], Mapping[str, float]]:
    import ray

    return ray.cluster_resources(), ray.available_resources()


def find_broker() -> Any:
    """The broker's actor on the cluster that this process is connected to; None: there is none."""
    import ray

    try:
        return ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return None


def start_broker() -> Any:
    """The broker's actor, which is started if there is none.

    It holds no resources but a trace of what only the head node has: there it keeps no node from being given back.
    Of the environment of the job that starts it, it has what it is imported by, and no variables that may be secrets:
    it outlives that job. Ray keeps the packages of a detached actor's environment as long as the actor.
    """
    import ray

    options: dict[str, Any] = {
        "name": NAME,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {"node:__internal_head__": 0.001},
        "max_restarts": -1,
        "max_task_retries": 0,
        "enable_task_events": False,
    }
    inherited = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    blanked = {name: "" for name in inherited if name not in _KEPT and not name.startswith("RAY_")}
    if blanked:  # Ray adds a child's variables to those of its parent: there is no other way to be without them
        options["runtime_env"] = {"env_vars": blanked}
    return ray.remote(BrokerActor).options(**options).remote()
