from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from tests.storage.faulty_objects import FaultyObjectStore, VirtualTime
from tests.storage.store_contract import StoreTests
from umbel.scheduler.errors import (
    NotFoundError,
    RunHeldError,
    StoreConflictError,
    StoreError,
    StoreUnavailableError,
)
from umbel.storage.layout import owner_folder
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.objects.retries import RetryingObjectStore, RetryPolicy
from umbel.storage.runs.ownership import Ownership
from umbel.storage.runs.segments import SegmentWriter, read_segments
from umbel.storage.store import Store


def patient(inner: ObjectStore, time: VirtualTime, limit_s: float = 1000.0) -> RetryingObjectStore:
    return RetryingObjectStore(
        inner, RetryPolicy(limit_s=limit_s), sleep=time.sleep, clock=time.clock, draw=lambda: 0.5
    )


def planned(objects: ObjectStore, *plan: str | None) -> RetryingObjectStore:
    """A store whose first requests fail as planned, and no others."""
    time = VirtualTime()
    return patient(FaultyObjectStore(objects, plan=plan, rate=0.0, time=time), time)


class TestRetryingKeepsTheContract(StoreTests):
    """A store of whose requests a third fail is a store like any other."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        time = VirtualTime()
        faults = ("503", "500", "slow")  # lost replies turn creating into a conflict, unless content is unique
        return patient(FaultyObjectStore(ObjectStore.open(tmp_path / "x"), rate=0.3, faults=faults, time=time), time)

    @pytest.mark.parametrize("name", ["a b"])
    def test_unusual_names(self, store: ObjectStore, name: str) -> None:
        super().test_unusual_names(store, name)

    def test_pickles(self, store: ObjectStore) -> None:
        pytest.skip("a test's clock does not pickle")

    def test_listings_are_never_stale(self, store: ObjectStore, tmp_path: Path) -> None:
        pytest.skip("a test's clock does not pickle")

    def test_of_many_processes_one_creates(self, store: ObjectStore) -> None:
        pytest.skip("a test's clock does not pickle")


def test_pauses_grow_to_a_bound() -> None:
    policy = RetryPolicy(first_pause_s=0.1, longest_pause_s=1.0)
    assert list(islice(policy.pauses(lambda: 0.0), 6)) == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
    most = list(islice(policy.pauses(lambda: 1.0), 6))
    assert most == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_one_clear_error_in_the_end(objects: ObjectStore) -> None:
    time = VirtualTime()
    store = patient(FaultyObjectStore(objects, rate=1.0, faults=["503"], time=time), time, limit_s=60.0)
    with pytest.raises(StoreUnavailableError, match="injected: 503") as caught:
        store.read("a/b")
    assert "tries within" in str(caught.value.got)
    assert caught.value.hint == "wait"
    assert 45 < time.now_s <= 60
    assert len(time.slept) < 20


def test_what_is_no_fault_of_the_storage_is_not_repeated(objects: ObjectStore) -> None:
    inner = FaultyObjectStore(objects, rate=0.0)
    store = patient(inner, VirtualTime())
    store.create("a", b"1")
    with pytest.raises(StoreConflictError):
        store.create("a", b"2")
    with pytest.raises(NotFoundError):
        store.read("b")
    assert inner.requests == 3


@pytest.mark.parametrize("fault", ["lost reply", "timeout", "503", "cut"])
def test_a_lost_reply_to_a_create_is_no_conflict(objects: ObjectStore, fault: str) -> None:
    store = planned(objects, fault, fault, None)
    store.create("a", b"token", unique=True)
    assert objects.read("a") == b"token"


def test_a_lost_reply_and_another_writer_is_a_conflict(objects: ObjectStore) -> None:
    objects.create("a", b"another's")
    with pytest.raises(StoreConflictError):
        planned(objects, "lost reply").create("a", b"mine", unique=True)


def test_content_that_is_not_unique_meets_its_own_object_as_a_conflict(objects: ObjectStore) -> None:
    with pytest.raises(StoreConflictError):
        planned(objects, "lost reply").create("a", b"{}")


def test_setting_aside_once_however_often_it_is_tried(objects: ObjectStore) -> None:
    objects.create("f/x", b"bad")
    store = planned(objects, None, "lost reply", "lost reply", None, "lost reply", "lost reply")
    assert store.set_aside("f/x") == "f/x.corrupt"
    assert objects.list("f") == ["f/x.corrupt"]


def test_a_run_is_claimed_once_through_lost_replies(objects: ObjectStore) -> None:
    for seed in range(20):
        time = VirtualTime()
        faulty = FaultyObjectStore(objects, seed=seed, rate=0.3, faults=["lost reply", "503", "timeout"], time=time)
        owner = Ownership.acquire(patient(faulty, time), f"run-{seed}")
        with pytest.raises(RunHeldError):
            Ownership.acquire(patient(faulty, time), f"run-{seed}")
        owner.renew()
        owner.renew()
        owner.release("done")
        names = objects.list(owner_folder(f"run-{seed}"))
        assert names[-1].endswith("00000003.json")


def test_a_store_is_prepared_and_a_run_created_through_faults(objects: ObjectStore) -> None:
    time = VirtualTime()
    faulty = FaultyObjectStore(objects, seed=3, rate=0.4, faults=["lost reply", "503"], time=time)
    store = Store(patient(faulty, time))
    store.prepare()
    for number in range(30):
        store.create_run({"id": f"r{number}", "name": f"r{number}", "created": "2026-01-02"})
        store.end_run(f"r{number}", {"status": "done"})
    assert len(Store(objects).runs()) == 30
    assert [path for path in objects.list() if "check" in path] == []
    with pytest.raises(StoreConflictError):
        Store(objects).create_run({"id": "r1", "name": "another"})


def test_segments_are_written_once_each_through_faults(objects: ObjectStore) -> None:
    time = VirtualTime()
    faulty = FaultyObjectStore(objects, seed=5, rate=0.4, time=time)
    with SegmentWriter(patient(faulty, time), max_rows=10) as writer:
        for number in range(100):
            writer.add("runs/x/trials/s", pa.record_batch({"trial": pa.array(range(number * 10, number * 10 + 10))}))
            writer.flush()
    assert faulty.injected.total() > 20
    scan = read_segments(objects, "runs/x/trials/s")
    table = scan.unified()
    assert table is not None
    assert scan.corrupt == []
    assert sorted(table["trial"].to_pylist()) == list(range(1000))


def test_a_storage_that_overwrites_is_refused(objects: ObjectStore) -> None:
    class Overwriting(FaultyObjectStore):
        def _create(self, path: str, data: bytes | memoryview) -> None:
            self._inner._delete(path)
            self._inner._create(path, data)

    with pytest.raises(StoreError, match="can't be written") as caught:
        Overwriting(objects, rate=0.0).check_writable()
    assert "create-only" in str(caught.value)


def test_first_contact_is_not_waited_for_long(objects: ObjectStore) -> None:
    time = VirtualTime()
    store = patient(FaultyObjectStore(objects, rate=1.0, faults=["503"], time=time), time)
    with pytest.raises(StoreUnavailableError, match="can't be written"):
        store.check_writable()
    assert time.now_s < 16


def test_pickles_with_its_policy(objects: ObjectStore) -> None:
    store = RetryingObjectStore(objects, RetryPolicy(limit_s=7.0))
    store.create("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.read("a") == b"1"
    assert again._policy == RetryPolicy(limit_s=7.0)


def test_a_claim_that_could_not_be_released_is_not_in_ones_own_way(objects: ObjectStore) -> None:
    time = VirtualTime()
    faulty = FaultyObjectStore(objects, rate=0.0, faults=["503"], time=time)
    store = patient(faulty, time)
    owner = Ownership.acquire(store, "gdp")
    faulty._rate = 1.0
    with pytest.raises(StoreUnavailableError):
        owner.release("failed")
    faulty._rate = 0.0
    Ownership.acquire(store, "gdp").release("done")
