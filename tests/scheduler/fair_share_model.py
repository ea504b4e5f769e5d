"""Many users on one cluster, in virtual time: drivers that tell a broker every second, leases that run to their end.

Compares what each user got with the fluid ideal: weighted max-min shares, as if workers could be divided and moved at
once. Prints the figures of `docs/sharing.md`::

    python -m tests.scheduler.fair_share_model
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from umbel.scheduler.fair_share import Claim, Demand, fair_shares

#: Seconds between two words of a driver to the broker, and for a worker to start.
TELL_S = 1.0
START_S = 1.0
#: Seconds between two times that the broker shares out.
SHARE_S = 1.0
#: Steps a second.
STEPS = 4


@dataclass(frozen=True)
class User:
    """One user with one run of workers that hold a CPU each."""

    name: str
    weight: float = 1.0
    #: Mean seconds of a lease; between half and one and a half times that.
    lease_s: float = 10.0
    begins_s: float = 0.0
    lasts_s: float = inf
    #: How many workers it has work for.
    wants: int = 10_000


@dataclass
class Outcome:
    """What came of it."""

    #: By user, worker-seconds got over worker-seconds of the fluid ideal.
    relative: dict[str, float]
    #: When each user's first lease began.
    first_start_s: dict[str, float]
    #: Share of the time that workers run leases.
    utilisation: float
    #: Workers started.
    starts: int


@dataclass
class _Driver:
    user: User
    #: When each worker's lease ends; those that start have a negative sign and begin their first lease then.
    ends: list[float] = field(default_factory=list)
    allowed: int = 0
    got_s: float = 0.0
    ideal_s: float = 0.0


def ideal(cpus: float, wanting: Sequence[User]) -> dict[str, float]:
    """Weighted max-min shares of something that can be divided."""
    shares, left, open_users = {}, cpus, sorted(wanting, key=lambda user: user.wants / user.weight)
    weight = sum(user.weight for user in open_users)
    for user in open_users:
        shares[user.name] = min(user.wants, left * user.weight / weight)
        left, weight = left - shares[user.name], weight - user.weight
    return shares


def measure(cpus: int, users: Sequence[User], *, seconds: int, settle_s: float, seed: int = 0) -> Outcome:
    """Run it, and measure from ``settle_s`` on."""
    draw = random.Random(seed)
    drivers = [_Driver(user) for user in users]
    offsets = {user.name: draw.randrange(int(TELL_S * STEPS)) for user in users}
    first: dict[str, float] = {}
    answer: dict[str, tuple[int, ...]] = {}
    free, starts, busy = cpus, 0, 0
    for step in range(seconds * STEPS):
        now = step / STEPS
        here = [d for d in drivers if d.user.begins_s <= now < d.user.begins_s + d.user.lasts_s]
        telling = [d for d in here if (step - offsets[d.user.name]) % int(TELL_S * STEPS) == 0]
        if step % int(SHARE_S * STEPS) == 0:
            claims = [
                Claim(d.user.name, d.user.name, [Demand({"CPU": 1.0}, d.user.wants, len(d.ends))], d.user.weight)
                for d in here
            ]
            answer = fair_shares({"CPU": cpus}, claims).workers
        for driver in telling:
            if driver.user.name in answer:
                driver.allowed = answer[driver.user.name][0]
        present = {id(driver) for driver in here}
        for driver in drivers:
            allowed = driver.allowed if id(driver) in present else 0
            if id(driver) not in present and driver.ends:
                free += len(driver.ends)  # it has ended, and its workers with it
                driver.ends = []
            kept: list[float] = []
            alive = len(driver.ends)
            for end in driver.ends:
                if abs(end) > now:
                    kept.append(end)
                elif alive > allowed:
                    alive, free = alive - 1, free + 1
                else:
                    first.setdefault(driver.user.name, now)
                    kept.append(now + driver.user.lease_s * draw.uniform(0.5, 1.5))
            driver.ends = kept
        for driver in here:  # Ray starts those that wait
            while free and len(driver.ends) < driver.allowed:
                free, starts = free - 1, starts + 1
                driver.ends.append(-(now + START_S))
        if now >= settle_s:
            shares = ideal(cpus, [d.user for d in here])
            for driver in here:
                running = sum(end > 0 for end in driver.ends)
                driver.got_s += running / STEPS
                driver.ideal_s += shares[driver.user.name] / STEPS
                busy += running
    return Outcome(
        {d.user.name: d.got_s / d.ideal_s for d in drivers if d.ideal_s},
        first,
        busy / (cpus * STEPS * (seconds - settle_s)),
        starts,
    )


def main() -> None:
    draw = random.Random(7)
    users = [
        User(f"u{i}", weight=draw.choice([1.0, 2.0, 4.0]), lease_s=draw.choice([2.0, 10.0, 30.0])) for i in range(100)
    ]
    outcome = measure(2500, users, seconds=600, settle_s=60)
    spread = sorted(outcome.relative.values())
    print(
        f"always busy: {spread[0]:.3f} to {spread[-1]:.3f} of the ideal, {outcome.utilisation:.1%} of the time in use"
    )
    draw = random.Random(8)
    users = [
        User(
            f"u{i}",
            weight=draw.choice([1.0, 2.0, 4.0]),
            lease_s=draw.choice([2.0, 5.0]),
            begins_s=draw.uniform(0, 600),
            lasts_s=draw.uniform(200, 600),
            wants=draw.choice([1, 20, 10_000]),
        )
        for i in range(100)
    ]
    outcome = measure(2500, users, seconds=1000, settle_s=0)
    spread = sorted(outcome.relative.values())
    print(f"coming and going: {spread[0]:.3f} to {spread[-1]:.3f} of the ideal, {outcome.starts:,} workers started")
    waits: list[float] = []
    for lease_s in (1.0, 10.0, 60.0):
        hosts = [User(f"u{i}", lease_s=lease_s) for i in range(99)]
        for seed in range(5):
            late = User("late", lease_s=1.0, begins_s=100.0, wants=1)
            begun = measure(400, [*hosts, late], seconds=150, settle_s=60, seed=seed).first_start_s["late"]
            waits.append(begun - 100.0)
        print(f"a late job of one worker, leases of {lease_s:g} s: starts after {max(waits[-5:]):.1f} s at most")


if __name__ == "__main__":
    main()
