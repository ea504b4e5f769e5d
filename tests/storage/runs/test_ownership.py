from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from umbel.scheduler.errors import RunHeldError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs import ownership, process
from umbel.storage.runs.ownership import OwnerRecord, Ownership, owner_status
from umbel.storage.runs.process import is_alive, this_process
from umbel.storage.store import Store


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets this process pass for one on another machine."""

    def move(host: str) -> None:
        here = replace(this_process_before, host=host, boot_id=f"boot of {host}")
        monkeypatch.setattr(ownership, "this_process", lambda: here)
        monkeypatch.setattr(process, "this_process", lambda: here)

    this_process_before = this_process()
    return move


def records(objects: ObjectStore) -> list[str]:
    return [path.rpartition("/")[2] for path in objects.list("runs/gdp/owner")]


def test_the_life_of_an_owner(any_store: Store, clock: Clock) -> None:
    objects = any_store.objects
    assert owner_status(objects, "gdp", clock.now).state == "none"
    owner = Ownership.acquire(objects, "gdp", now=clock)
    view = owner_status(objects, "gdp", clock.now)
    assert view.state == "held"
    assert view.record == owner.record
    assert owner.record.process.pid == os.getpid()
    for _ in range(5):
        clock.pass_s(10)
        owner.renew()
        assert owner.record.renewed == clock.now
        assert len(records(objects)) <= 2
    owner.release("done")
    owner.release("again")
    view = owner_status(objects, "gdp", clock.now)
    assert view.state == "released"
    assert view.record is not None
    assert view.record.reason == "done"
    second = Ownership.acquire(objects, "gdp", now=clock)
    assert second.record.token != owner.record.token


def test_a_live_holder_is_named(objects: ObjectStore, clock: Clock) -> None:
    owner = Ownership.acquire(objects, "gdp", now=clock)
    # A live process holds its run even if it has not renewed for long: it may be suspended.
    clock.pass_s(3600)
    with pytest.raises(RunHeldError) as caught:
        Ownership.acquire(objects, "gdp", now=clock)
    text = str(caught.value)
    for part in ("'gdp'", owner.record.user, owner.record.process.host, str(os.getpid()), "2026-01-02 00:00:00 UTC"):
        assert part in text
    assert "this very process" in (caught.value.hint or "")
    pickle.loads(pickle.dumps(caught.value))
    Ownership.acquire(objects, "other", now=clock)


def test_on_another_machine_the_lease_decides(
    objects: ObjectStore, clock: Clock, on_host: Callable[[str], None]
) -> None:
    on_host("a")
    first = Ownership.acquire(objects, "gdp", now=clock, lease_s=30)
    on_host("b")
    clock.pass_s(30)
    with pytest.raises(RunHeldError, match="kill"):
        Ownership.acquire(objects, "gdp", now=clock)
    clock.pass_s(1)
    assert owner_status(objects, "gdp", clock.now).state == "dead"
    second = Ownership.acquire(objects, "gdp", now=clock)
    on_host("a")
    with pytest.raises(RunHeldError, match="taken over") as caught:
        first.renew()
    assert "on b" in str(caught.value)
    first.release("interrupted")  # nothing to let go of
    assert owner_status(objects, "gdp", clock.now).record == second.record


def test_one_that_slept_does_not_come_back(objects: ObjectStore, clock: Clock, on_host: Callable[[str], None]) -> None:
    on_host("a")
    first = Ownership.acquire(objects, "gdp", now=clock)
    on_host("b")
    clock.pass_s(31)
    second = Ownership.acquire(objects, "gdp", now=clock)
    for _ in range(4):
        clock.pass_s(10)
        second.renew()
    # The number that the first would take next has been used and deleted since.
    before = records(objects)
    with pytest.raises(RunHeldError, match="taken over"):
        first.renew()
    assert records(objects) == before
    second.renew()


def test_a_race_for_a_dead_holders_run(
    objects: ObjectStore, clock: Clock, on_host: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host("a")
    Ownership.acquire(objects, "gdp", now=clock)
    clock.pass_s(31)
    on_host("b")
    create = ObjectStore.create
    raced: list[Ownership] = []

    def create_after_another(self: ObjectStore, path: str, data: bytes, *, unique: bool = False) -> None:
        if not raced:
            monkeypatch.setattr(ObjectStore, "create", create)
            on_host("c")
            raced.append(Ownership.acquire(objects, "gdp", now=clock))
            on_host("b")
        create(self, path, data, unique=unique)

    monkeypatch.setattr(ObjectStore, "create", create_after_another)
    with pytest.raises(RunHeldError) as caught:
        Ownership.acquire(objects, "gdp", now=clock)
    assert "on c" in str(caught.value)
    raced[0].renew()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"state": "held"}', b"\xff"])
def test_a_damaged_record_is_taken_over(objects: ObjectStore, damage: bytes, clock: Clock) -> None:
    objects.create("runs/gdp/owner/00000004.json", damage)
    assert owner_status(objects, "gdp", clock.now).state == "dead"
    Ownership.acquire(objects, "gdp", now=clock)
    assert records(objects)[-1] == "00000005.json"


def test_records_survive_json(objects: ObjectStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gdp.py", "--token", "geheim"])
    owner = Ownership.acquire(objects, "gdp", now=clock)
    data = objects.read("runs/gdp/owner/00000000.json")
    assert b"geheim" not in data
    assert OwnerRecord.from_json(data) == owner.record
    fields = json.loads(data)
    assert fields["renewed"] == "2026-01-02T00:00:00+00:00"
    assert fields["pid"] == os.getpid()


def test_whether_processes_live() -> None:
    here = this_process()
    assert is_alive(here) is (True if here.started_ticks is not None and here.boot_id is not None else None)
    assert is_alive(replace(here, host="elsewhere")) is None
    assert is_alive(replace(here, boot_id="before")) is None
    assert is_alive(replace(here, pid_namespace="pid:[1]")) is None
    if here.boot_id is not None:
        # The pid was taken by another process since.
        assert is_alive(replace(here, started_ticks=1)) is False


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


HOLDER = """
import sys, time, pathlib
from umbel.scheduler.errors import RunHeldError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.ownership import Ownership
url, name, go = sys.argv[1:]
objects = ObjectStore.open(url)
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
try:
    owner = Ownership.acquire(objects, "gdp")
except RunHeldError as error:
    print("held", flush=True)
else:
    print("won", flush=True)
    sys.stdin.read()
    owner.release("done")
"""


def start_holder(url: str, name: str, go: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, name, str(go)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.ray
def test_of_real_processes_one_wins_and_a_killed_one_is_taken_over(objects: ObjectStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    holders = [start_holder(objects.url, name, go) for name in ("a", "b", "c")]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
        go.touch()
        answers = [holder.stdout.readline().strip() for holder in holders if holder.stdout is not None]
        assert sorted(answers) == ["held", "held", "won"]
        winner = holders[answers.index("won")]
        with pytest.raises(RunHeldError, match=str(winner.pid)):
            Ownership.acquire(objects, "gdp")
        winner.kill()
        # Not yet waited for, it is a zombie: that counts as dead at once, without waiting for its lease.
        wait_until(lambda: owner_status(objects, "gdp").state == "dead")
        Ownership.acquire(objects, "gdp").release("done")
        assert owner_status(objects, "gdp").state == "released"
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
