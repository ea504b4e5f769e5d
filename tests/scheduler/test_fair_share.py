"""Fair shares: nothing given twice, nothing left over that is wanted, nobody better off at the cost of a poorer one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler.fair_share_model import User, measure
from umbel.scheduler.fair_share import Claim, Demand, Shares, fair_shares

SLACK = 1e-6
weights = st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0])


def unit(run: str, wanted: int, held: int = 0, **options: object) -> Claim:
    """A run of a tenant of its own whose workers hold one CPU."""
    claim = Claim(run, run, [Demand({"CPU": 1.0}, wanted, held)])
    return replace(claim, **options)  # type: ignore[arg-type]


@st.composite
def unit_claims(draw: st.DrawFn) -> list[Claim]:
    count = draw(st.integers(1, 6))
    return [unit(f"r{i}", draw(st.integers(0, 12)), weight=draw(weights)) for i in range(count)]


@st.composite
def any_claims(draw: st.DrawFn) -> list[Claim]:
    """Several runs a tenant, several shapes a run, all options."""
    claims = []
    amounts = st.dictionaries(st.sampled_from(["CPU", "GPU", "tpu"]), st.sampled_from([0.5, 1.0, 2.0, 4.0]), max_size=2)
    for i in range(draw(st.integers(0, 6))):
        demands = [
            Demand(draw(amounts), draw(st.integers(0, 8)), draw(st.integers(0, 6)))
            for _ in range(draw(st.integers(1, 3)))
        ]
        claims.append(
            Claim(
                f"r{i}",
                draw(st.sampled_from(["ada", "bo", "cy"])),
                demands,
                draw(weights),
                draw(st.sampled_from([0, 0, 0, 1, 5])),
                draw(st.one_of(st.just({}), amounts)),
                draw(st.one_of(st.just({}), amounts)),
            )
        )
    return claims


capacities = st.fixed_dictionaries(
    {"CPU": st.sampled_from([0.0, 4.0, 7.5, 16.0])}, optional={"GPU": st.sampled_from([1.0, 4.0])}
)


def used(claims: list[Claim], shares: Shares, tenant: str | None = None) -> dict[str, float]:
    total: dict[str, float] = {}
    for claim in claims:
        if tenant in (None, claim.tenant):
            for demand, count in zip(claim.demands, shares.workers[claim.run], strict=True):
                for name, amount in demand.needs.items():
                    total[name] = total.get(name, 0.0) + count * amount
    return total


def cap_of(claims: list[Claim], tenant: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for claim in claims:
        if claim.tenant == tenant:
            for name, amount in claim.cap.items():
                found[name] = min(amount, found.get(name, amount))
    return found


def fits(needs: dict[str, float], has: dict[str, float]) -> bool:
    return all(amount <= has.get(name, 0.0) + SLACK for name, amount in needs.items())


# ---- properties of every answer ----------------------------------------------------------------------------


@given(capacities, any_claims())
def test_never_more_than_there_is_nor_than_is_wanted_or_held_nor_than_the_cap(
    capacity: dict[str, float], claims: list[Claim]
) -> None:
    shares = fair_shares(capacity, claims)
    for name, amount in used(claims, shares).items():
        assert amount <= capacity.get(name, 0.0) + SLACK
    for claim in claims:
        for demand, count in zip(claim.demands, shares.workers[claim.run], strict=True):
            assert 0 <= count <= max(demand.wanted, demand.held)
        for name, most in cap_of(claims, claim.tenant).items():
            assert used(claims, shares, claim.tenant).get(name, 0.0) <= most + SLACK


@given(capacities, any_claims())
def test_what_is_left_over_fits_nobody_who_wants_it(capacity: dict[str, float], claims: list[Claim]) -> None:
    shares = fair_shares(capacity, claims)
    taken = used(claims, shares)
    left = {name: amount - taken.get(name, 0.0) for name, amount in capacity.items()}
    for claim in claims:
        own = used(claims, shares, claim.tenant)
        room = {name: most - own.get(name, 0.0) for name, most in cap_of(claims, claim.tenant).items()}
        for demand, count in zip(claim.demands, shares.workers[claim.run], strict=True):
            if count < max(demand.wanted, demand.held):
                needs = {name: amount for name, amount in demand.needs.items() if amount > 0}
                capped = any(amount > room[name] - SLACK for name, amount in needs.items() if name in room)
                assert capped or not fits(needs, left)


@given(capacities, any_claims())
def test_an_answer_that_has_been_carried_out_stays_the_same(capacity: dict[str, float], claims: list[Claim]) -> None:
    shares = fair_shares(capacity, claims)
    carried_out = [
        replace(
            claim,
            demands=[replace(d, held=n) for d, n in zip(claim.demands, shares.workers[claim.run], strict=True)],
        )
        for claim in claims
    ]
    assert fair_shares(capacity, carried_out) == shares


@given(st.integers(0, 30), unit_claims())
def test_nobody_has_less_so_that_a_richer_one_can_have_more(cpus: int, claims: list[Claim]) -> None:
    shares = fair_shares({"CPU": cpus}, claims)
    has = {claim.run: shares.workers[claim.run][0] for claim in claims}
    for poor in claims:
        if has[poor.run] < poor.demands[0].wanted:
            for rich in claims:
                assert (has[rich.run] - 1) / rich.weight <= has[poor.run] / poor.weight + SLACK


@given(capacities, st.lists(st.tuples(st.integers(0, 8), weights, st.integers(0, 4)), max_size=5))
def test_the_same_holds_for_dominant_resources(capacity: dict[str, float], drawn: list[tuple[int, float, int]]) -> None:
    kinds = [{"CPU": 1.0}, {"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}, {"GPU": 0.5}, {"CPU": 2.0, "GPU": 0.5}]
    claims = [Claim(f"r{i}", f"r{i}", [Demand(kinds[k], n)], w) for i, (n, w, k) in enumerate(drawn)]
    shares = fair_shares(capacity, claims)
    taken = used(claims, shares)

    def dominant(claim: Claim, count: int) -> float:
        needs = claim.demands[0].needs.items()
        return max(count * amount / capacity[name] for name, amount in needs) / claim.weight if count else 0.0

    for poor in claims:
        (mine,) = shares.workers[poor.run]
        if mine == poor.demands[0].wanted:
            continue
        for rich in claims:
            (theirs,) = shares.workers[rich.run]
            freed = rich.demands[0].needs if theirs else {}
            left = {n: c - taken.get(n, 0.0) + freed.get(n, 0.0) for n, c in capacity.items()}
            if rich is not poor and theirs and fits(dict(poor.demands[0].needs), left):
                assert dominant(rich, theirs - 1) <= dominant(poor, mine) + SLACK


@given(st.integers(0, 30), unit_claims(), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_those_of_lower_priority_change_nothing(cpus: int, claims: list[Claim], levels: list[int]) -> None:
    claims = [replace(claim, priority=level) for claim, level in zip(claims, levels, strict=False)]
    above = [claim for claim in claims if claim.priority > 0]
    alone, among_all = fair_shares({"CPU": cpus}, above), fair_shares({"CPU": cpus}, claims)
    assert alone.workers == {claim.run: among_all.workers[claim.run] for claim in above}


@given(unit_claims(), st.lists(st.integers(0, 5), min_size=6, max_size=6), st.integers(0, 2))
def test_minima_are_met_first_if_there_is_enough_for_them(claims: list[Claim], minima: list[int], beyond: int) -> None:
    claims = [
        replace(claim, minimum={"CPU": least}, priority=i % 3)
        for i, (claim, least) in enumerate(zip(claims, minima, strict=False))
    ]
    shares = fair_shares({"CPU": sum(claim.minimum["CPU"] for claim in claims) + beyond}, claims)
    for claim in claims:
        assert shares.workers[claim.run][0] >= min(claim.demands[0].wanted, claim.minimum["CPU"])


@given(st.integers(0, 30), unit_claims(), st.integers(0, 5))
def test_who_asks_for_more_gets_no_less_and_takes_nothing_else(cpus: int, claims: list[Claim], more: int) -> None:
    """Asking for more than one can use brings nothing that one could use."""
    before = fair_shares({"CPU": cpus}, claims).workers["r0"][0]
    wanted = claims[0].demands[0].wanted
    greedy = [unit("r0", wanted + more, weight=claims[0].weight), *claims[1:]]
    assert min(wanted, fair_shares({"CPU": cpus}, greedy).workers["r0"][0]) == before


# ---- cases -------------------------------------------------------------------------------------------------


def test_weights() -> None:
    claims = [unit(name, 99, weight=weight) for name, weight in (("a", 1), ("b", 2), ("c", 3))]
    assert fair_shares({"CPU": 12}, claims).workers == {"a": (2,), "b": (4,), "c": (6,)}


def test_what_one_does_not_want_the_others_have() -> None:
    claims = [unit("a", 1), unit("b", 99), unit("c", 99)]
    assert fair_shares({"CPU": 9}, claims).workers == {"a": (1,), "b": (4,), "c": (4,)}


def test_the_example_of_the_paper() -> None:
    """9 CPUs and 18 GB; tasks of 1 CPU and 4 GB, and of 3 CPUs and 1 GB: three of the one, two of the other."""
    a = Claim("a", "a", [Demand({"CPU": 1, "GB": 4}, 99)])
    b = Claim("b", "b", [Demand({"CPU": 3, "GB": 1}, 99)])
    shares = fair_shares({"CPU": 9, "GB": 18}, [a, b])
    assert shares.workers == {"a": (3,), "b": (2,)}
    assert shares.dominant == pytest.approx({"a": 2 / 3, "b": 2 / 3})


def test_several_runs_of_a_tenant_share_what_is_its() -> None:
    claims = [unit("a", 99), *(unit(f"b{i}", 99, tenant="b") for i in range(3))]
    assert fair_shares({"CPU": 12}, claims).workers == {"a": (6,), "b0": (2,), "b1": (2,), "b2": (2,)}


def test_kinds_of_workers_of_a_run_get_on_together() -> None:
    claim = Claim("a", "a", [Demand({"CPU": 1}, 8), Demand({"CPU": 1}, 4)])
    assert fair_shares({"CPU": 6}, [claim]).workers == {"a": (4, 2)}


def test_the_odd_worker_stays_where_it_is() -> None:
    assert fair_shares({"CPU": 3}, [unit("a", 9), unit("b", 9)]).workers == {"a": (2,), "b": (1,)}
    assert fair_shares({"CPU": 3}, [unit("a", 9, 1), unit("b", 9, 2)]).workers == {"a": (1,), "b": (2,)}


def test_workers_without_work_stay_while_nobody_wants_their_place() -> None:
    assert fair_shares({"CPU": 4}, [unit("a", 0, 4), unit("b", 1, 0)]).workers == {"a": (3,), "b": (1,)}


def test_a_minimum_goes_before_a_priority_and_is_lent_when_not_wanted() -> None:
    high = unit("high", 99, priority=9)
    low = unit("low", 99, minimum={"CPU": 2})
    assert fair_shares({"CPU": 8}, [high, low]).workers == {"high": (6,), "low": (2,)}
    assert fair_shares({"CPU": 8}, [high, replace(low, demands=[])]).workers["high"] == (8,)


def test_a_cap_holds_even_if_nobody_else_is_there() -> None:
    assert fair_shares({"CPU": 8}, [unit("a", 99, cap={"CPU": 3})]).workers == {"a": (3,)}


def test_what_the_cluster_does_not_have_is_not_given() -> None:
    claim = Claim("a", "a", [Demand({"GPU": 1}, 5), Demand({"CPU": 1}, 5)])
    assert fair_shares({"CPU": 2}, [claim]).workers == {"a": (0, 2)}


# ---- over time ---------------------------------------------------------------------------------------------


def test_a_hundred_users_have_their_shares_over_time() -> None:
    draw = random.Random(7)
    users = [
        User(f"u{i}", weight=draw.choice([1.0, 2.0, 4.0]), lease_s=draw.choice([2.0, 10.0, 30.0])) for i in range(100)
    ]
    outcome = measure(2500, users, seconds=240, settle_s=60)
    assert outcome.utilisation > 0.95
    for user in users:
        assert outcome.relative[user.name] == pytest.approx(1.0, abs=0.1), user


def test_users_who_come_and_go_have_their_shares_meanwhile() -> None:
    draw = random.Random(8)
    users = [
        User(
            f"u{i}",
            weight=draw.choice([1.0, 2.0, 4.0]),
            lease_s=draw.choice([2.0, 5.0]),
            begins_s=draw.uniform(0, 300),
            lasts_s=draw.uniform(200, 300),
            wants=draw.choice([1, 20, 10_000]),
        )
        for i in range(100)
    ]
    outcome = measure(2500, users, seconds=600, settle_s=0)
    for user in users:
        assert outcome.relative[user.name] == pytest.approx(1.0, abs=0.1), user


def test_a_small_job_that_comes_late_starts_after_a_lease() -> None:
    users = [User(f"u{i}", lease_s=10.0) for i in range(99)]
    late = User("late", lease_s=1.0, begins_s=100.0, wants=1)
    outcome = measure(400, [*users, late], seconds=120, settle_s=60)
    # a second each until the broker is told, until the others are, and until a worker has started; and one of a user
    # has to give a worker back, of whose four or five leases of 10 s one ends within some seconds
    assert outcome.first_start_s["late"] - 100.0 <= 3.0 + 10.0 / 2
