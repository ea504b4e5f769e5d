"""How many workers may each run have, where several share a cluster?

Weighted max-min fairness over dominant resources (Ghodsi et al. 2011, "Dominant Resource Fairness", NSDI): a tenant's
share is the largest fraction that it holds of any resource, divided by its weight, and whoever has the smallest gets
the next worker that fits. So nobody can have more but at the cost of one whose share is no larger, and what one does
not want goes to the others. Around that: guaranteed minima come first, then priorities strictly one after another, and
nobody exceeds its cap.

Pure: the same claims give the same answer. It must not know who asks, when, or by what means workers are started and
ended. Resources are counted over the whole cluster, not by node: a worker may be allowed that no single node has room
for at present; it waits then.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Claim", "Demand", "Shares", "fair_shares"]

#: Sums of resources are compared with this much tolerance, and normalised shares after rounding to as many digits.
TOLERANCE = 1e-9
DIGITS = 9


@dataclass(frozen=True, slots=True)
class Demand:
    """Workers of one kind that a run could use."""

    #: What one worker holds, by resource.
    needs: Mapping[str, float]
    #: How many it has work for.
    wanted: int
    #: How many it has.
    held: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run asks for.

    Weight, minimum and cap are its tenant's; where runs of one tenant differ, the largest weight, the largest minimum
    and the smallest cap count.
    """

    run: str
    tenant: str
    demands: Sequence[Demand]
    #: Of tenants that all want more, one gets in proportion to its weight.
    weight: float = 1.0
    #: Claims of a higher priority are met before those of a lower one get anything beyond their minimum.
    priority: int = 0
    #: Guaranteed to the tenant whatever others want, by resource; what it does not want others may have meanwhile.
    minimum: Mapping[str, float] = field(default_factory=dict)
    #: The tenant gets no more than this, by resource, even if nobody else wants it.
    cap: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shares:
    """The answer."""

    #: By run, how many workers of each of its demands it may have, in their order.
    workers: dict[str, tuple[int, ...]]
    #: By tenant, the largest fraction of any resource that these hold.
    dominant: dict[str, float]


@dataclass(slots=True)
class _Line:
    """One demand of one run, and how much of it is met."""

    demand: Demand
    #: What a worker holds of the resources that count, those of which it holds something.
    needs: dict[str, float]
    given: int = 0
    #: True: another worker does not fit, and never will.
    full: bool = False


@dataclass(slots=True)
class _Run:
    order: int
    claim: Claim
    lines: list[_Line]
    used: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Tenant:
    order: int
    weight: float = 0.0
    minimum: dict[str, float] = field(default_factory=dict)
    cap: dict[str, float] = field(default_factory=dict)
    runs: list[_Run] = field(default_factory=list)
    used: dict[str, float] = field(default_factory=dict)
    #: Workers that it has, less those given to it so far: of two that are equally entitled, who has one keeps it.
    #: Those that hold nothing don't count, since there is enough of nothing for everybody.
    keeps: int = 0


def fair_shares(capacity: Mapping[str, float], claims: Sequence[Claim]) -> Shares:
    """Share a cluster out.

    What all allowed workers hold never exceeds the capacity. If something is left over that a run wants, within its
    cap, then because no whole worker fits into it. What remains when all demands are met is left to those that hold it
    already, so that workers without work need not be ended for nobody's sake.

    Ties go to the tenant that holds workers already, then to the claim that stands first: with the same claims, the
    answer stays the same when it has been carried out.

    Args:
        capacity: amounts by resource that there are for all of them together.
        claims: one a run; a run may stand here once.

    Cost: O(w log n) for w workers that fit and n runs; some 5 µs a worker.
    """
    sharing = _Sharing(capacity, claims)
    sharing.fill_minima()
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        sharing.fill(priority)
    sharing.keep_idle()
    return sharing.result()


class _Sharing:
    def __init__(self, capacity: Mapping[str, float], claims: Sequence[Claim]) -> None:
        self._capacity = {name: amount for name, amount in capacity.items() if amount > 0}
        self._left = dict(self._capacity)
        self._tenants: dict[str, _Tenant] = {}
        for order, claim in enumerate(claims):
            tenant = self._tenants.setdefault(claim.tenant, _Tenant(order))
            tenant.weight = max(tenant.weight, claim.weight)
            for name, amount in claim.minimum.items():
                tenant.minimum[name] = max(amount, tenant.minimum.get(name, 0.0))
            for name, amount in claim.cap.items():
                tenant.cap[name] = min(amount, tenant.cap.get(name, amount))
            lines = [_Line(d, {n: a for n, a in d.needs.items() if a > 0}) for d in claim.demands]
            for line in lines:
                if not line.needs:  # there is enough of nothing for everybody, at once
                    line.given = max(line.demand.wanted, line.demand.held)
            tenant.runs.append(_Run(order, claim, lines))
            tenant.keeps += sum(min(line.demand.held, line.demand.wanted) for line in lines if line.needs)

    # ---- phases --------------------------------------------------------------------------------------------

    def fill_minima(self) -> None:
        """Everyone gets up to its minimum, fairly if there is not enough for that."""
        self._fill({name: list(t.runs) for name, t in self._tenants.items() if t.minimum}, minima=True)

    def fill(self, priority: int) -> None:
        """Claims of one priority get what is left."""
        chosen = {name: [r for r in t.runs if r.claim.priority == priority] for name, t in self._tenants.items()}
        self._fill(chosen, minima=False)

    def keep_idle(self) -> None:
        """Workers that nobody else wants stay where they are."""
        for tenant in self._tenants.values():
            for run in tenant.runs:
                for line in run.lines:
                    while line.given < line.demand.held and self._fits(tenant, line, self._left, tenant.cap):
                        self._give(tenant, run, line)

    def _fill(self, runs: Mapping[str, list[_Run]], *, minima: bool) -> None:
        tenants: list[tuple[float, bool, int, _Tenant, list[tuple[float, int, _Run]]]] = []
        for name, chosen in runs.items():
            tenant = self._tenants[name]
            waiting = [(self._dominant(run.used), run.order, run) for run in chosen]
            heapq.heapify(waiting)
            if waiting:
                tenants.append((*self._rank(tenant), tenant, waiting))
        heapq.heapify(tenants)
        while tenants:
            *_, tenant, waiting = tenants[0]
            run = waiting[0][2]
            line = self._next_line(tenant, run, minima=minima)
            if line is None:
                heapq.heappop(waiting)
                if not waiting:
                    heapq.heappop(tenants)
                continue
            self._give(tenant, run, line)
            heapq.heapreplace(waiting, (self._dominant(run.used), run.order, run))
            heapq.heapreplace(tenants, (*self._rank(tenant), tenant, waiting))
        for name in runs:  # what did not fit below a minimum may fit now
            for run in self._tenants[name].runs:
                for line in run.lines:
                    line.full = False

    # ---- parts ---------------------------------------------------------------------------------------------

    def _rank(self, tenant: _Tenant) -> tuple[float, bool, int]:
        """Who is smaller here is next; no two tenants are equal."""
        return round(self._dominant(tenant.used) / tenant.weight, DIGITS), tenant.keeps <= 0, tenant.order

    def _dominant(self, used: Mapping[str, float]) -> float:
        return max((amount / self._capacity[name] for name, amount in used.items()), default=0.0)

    def _next_line(self, tenant: _Tenant, run: _Run, *, minima: bool) -> _Line | None:
        """The demand of a run that is met least and of which another worker fits."""
        best: _Line | None = None
        for line in run.lines:
            if line.full or line.given >= line.demand.wanted:
                continue
            fits = self._fits(tenant, line, self._left, tenant.cap)
            if minima:
                counted = line.needs.keys() & tenant.minimum.keys()
                fits = fits and bool(counted) and self._fits(tenant, line, None, tenant.minimum)
            if not fits:
                line.full = True  # less and less is left, and the tenant holds more and more
            elif best is None or line.given * best.demand.wanted < best.given * line.demand.wanted:
                best = line
        return best

    def _fits(self, tenant: _Tenant, line: _Line, left: Mapping[str, float] | None, bound: Mapping[str, float]) -> bool:
        for name, amount in line.needs.items():
            if left is not None and amount > left.get(name, 0.0) + TOLERANCE:
                return False
            if name in bound and tenant.used.get(name, 0.0) + amount > bound[name] + TOLERANCE:
                return False
        return True

    def _give(self, tenant: _Tenant, run: _Run, line: _Line) -> None:
        line.given += 1
        tenant.keeps -= bool(line.needs)
        for name, amount in line.needs.items():
            self._left[name] -= amount
            for used in (tenant.used, run.used):
                used[name] = used.get(name, 0.0) + amount

    def result(self) -> Shares:
        """What came out."""
        runs = {run.claim.run: run for tenant in self._tenants.values() for run in tenant.runs}
        return Shares(
            {name: tuple(line.given for line in run.lines) for name, run in runs.items()},
            {name: self._dominant(tenant.used) for name, tenant in self._tenants.items()},
        )
