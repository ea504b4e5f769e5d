"""A lease while it runs: shortened, looked at, late, and stopped by the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

import umbel
from tests.runtime.small_graphs import a_sweep
from umbel.runtime.driver.plan import make_plan
from umbel.runtime.driver.programs import LeaseInputs
from umbel.runtime.graph.nodes import Node
from umbel.runtime.leases.context import current
from umbel.runtime.leases.lease_report import LeaseReport
from umbel.runtime.leases.lease_runner import LeaseRunner
from umbel.runtime.leases.rows import Place
from umbel.runtime.leases.running_lease import RunningLease
from umbel.scheduler.errors import StoreError, StoreFullError
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Lease, LeaseId
from umbel.storage.objects.interface import ObjectStore

#: What happens while a trial runs, by its index: what another thread would do at that moment.
meanwhile: dict[int, Callable[[], Any]] = {}


def happens(index: int) -> None:
    if index in meanwhile:
        meanwhile[index]()


def trial(config: dict[str, Any]) -> float:
    index = umbel.trial().index
    happens(index)
    return float(index)


@umbel.task
def element(index: int) -> int:
    happens(index)  # of this very module, although the task itself travels by value
    return index


@pytest.fixture(autouse=True)
def nothing_else() -> Iterator[None]:
    yield
    meanwhile.clear()


@pytest.fixture
def objects() -> ObjectStore:
    return ObjectStore.open(f"memory://{uuid4().hex}")


Open = Callable[..., RunningLease]


@pytest.fixture(params=["sweep", "task"])
def opened(request: pytest.FixtureRequest, objects: ObjectStore) -> RunningLease:
    """A lease of ten elements, of a sweep or of a task."""
    if request.param == "sweep":
        return lease_of(a_sweep(trial, trials=10), objects)
    return lease_of(element.map([*range(10)]), objects)


def lease_of(node: Node, objects: ObjectStore) -> RunningLease:
    plan = make_plan(node)
    runner = LeaseRunner(list(plan.programs.values()), objects, Place("work", "here", "w1"))
    inputs = LeaseInputs((), ({},))
    if node.arguments:
        from umbel.runtime.graph.literals import Literals

        inputs = LeaseInputs((Literals(plan, objects).handles(NodeId(0), 0, 0, 10),))
    return runner.open(Lease(LeaseId(0), NodeId(0), 0, 10, 1), inputs)


def rows(report: LeaseReport) -> list[dict[str, Any]]:
    if report.rows is None:
        return []
    with pa.ipc.open_stream(report.rows) as stream:
        found: list[dict[str, Any]] = stream.read_all().to_pylist()
    return found


def places(report: LeaseReport) -> tuple[int, int, int]:
    return report.begin, report.position, report.stop


def test_a_whole_lease(opened: RunningLease) -> None:
    opened.run()
    report = opened.collect()
    assert places(report) == (0, 10, 10)
    assert len(rows(report)) == 10
    assert opened.ended
    assert opened.collect().rows is None


def test_shortened_while_it_runs(opened: RunningLease) -> None:
    meanwhile[3] = lambda: opened.shorten(7)
    opened.run()
    assert places(opened.collect()) == (0, 7, 7)
    assert opened.ended


def test_shortened_too_late_it_ends_after_the_element_in_hand(opened: RunningLease) -> None:
    meanwhile[5] = lambda: opened.shorten(2)
    opened.run()
    report = opened.collect()
    assert places(report) == (0, 6, 6)
    assert len(rows(report)) == 6


@pytest.mark.parametrize("second", [0, 4, 5, 9])
def test_shortened_again_after_it_has_stopped(opened: RunningLease, second: int) -> None:
    """The second asks for what has been done already; nothing more may be waited for."""
    meanwhile[3] = lambda: opened.shorten(5)
    opened.run()
    opened.shorten(second)
    assert places(opened.collect()) == (0, 5, 5)
    assert opened.ended


def test_shortened_before_it_began(opened: RunningLease) -> None:
    opened.shorten(0)
    opened.run()
    assert places(opened.collect()) == (0, 0, 0)
    assert opened.ended


def test_looked_at_while_it_runs(opened: RunningLease) -> None:
    seen: list[LeaseReport] = []
    meanwhile[4] = lambda: seen.append(opened.collect())
    opened.run()
    seen.append(opened.collect())
    assert [places(report) for report in seen] == [(0, 4, 10), (4, 10, 10)]
    assert [len(rows(report)) for report in seen] == [4, 6]


def test_late(objects: ObjectStore) -> None:
    seen: list[LeaseReport] = []

    def look() -> None:
        end = time.monotonic() + 5
        while not seen or (not seen[-1].overrun and time.monotonic() < end):
            seen.append(lease.collect())

    meanwhile[4] = look
    lease = lease_of(a_sweep(umbel.task(timeout_s=0.05)(trial), trials=10), objects)
    lease.run()
    assert [report.overrun for report in seen[-2:]] == [False, True]
    assert places(seen[-1]) == (4, 5, 10)
    (row,) = rows(seen[-1])
    assert (row["trial"], row["status"]) == (4, "timeout")
    assert row["error"] == "TimeoutError: not finished after its time limit of 0.05 s"
    assert 0.05 < row["seconds"] < 5
    assert seen[-1].failed == (4,)


def test_late_once_done_is_not_late(objects: ObjectStore) -> None:
    """Nobody looked while they ran, so they are what they returned."""
    lease = lease_of(a_sweep(umbel.task(timeout_s=1e-9)(trial), trials=10), objects)
    lease.run()
    report = lease.collect()
    assert not report.overrun
    assert {row["status"] for row in rows(report)} == {"ok"}


def full(*_: object) -> None:
    raise StoreFullError("no space is left")


@pytest.mark.parametrize("kind", ["sweep", "task"])
def test_a_store_that_fails_is_no_trials_fault(
    kind: str, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_model(config: object) -> umbel.Result:
        return umbel.Result(1.0, model=bytes(2**20))  # too large to be packed

    node = a_sweep(with_model, trials=10) if kind == "sweep" else umbel.task(with_model).map([*range(10)])
    lease = lease_of(node, objects)
    monkeypatch.setattr(type(objects), "create", full)
    with pytest.raises(StoreFullError):
        lease.run()
    assert places(lease.collect()) == (0, 0, 10)
    assert current.context is None


@pytest.mark.parametrize("kind", ["sweep", "task"])
def test_a_store_error_of_the_users_own_is(kind: str, objects: ObjectStore) -> None:
    def reads_another_store(config: object) -> float:
        raise StoreError("that store is not there")

    node = (
        a_sweep(reads_another_store, trials=10)
        if kind == "sweep"
        else umbel.task(reads_another_store).map([*range(10)])
    )
    lease = lease_of(node, objects)
    lease.run()
    report = lease.collect()
    assert report.failed == tuple(range(10))
    assert {row["error"] for row in rows(report)} == {"StoreError: that store is not there"}


def test_the_context_ends_with_the_lease(objects: ObjectStore) -> None:
    meanwhile[3] = lambda: lease.shorten(0)
    lease = lease_of(a_sweep(trial, trials=10), objects)
    lease.run()
    assert current.context is None
