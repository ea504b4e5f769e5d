from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError, StoreError, UsageError
from umbel.storage.runs.ownership import Ownership
from umbel.storage.store import Store, open_store


def test_an_empty_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert store.runs() == []
    assert store.load_record("gdp") is None
    with pytest.raises(NotFoundError, match="has no run") as caught:
        store.run("gdp")
    assert "right store" in (caught.value.hint or "")
    assert not (tmp_path / "store").exists()
    assert repr(store) == f"Store('{tmp_path / 'store'}')"


def test_creating_and_finding_runs(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run(record)
    any_store.create_run({**record, "id": "gdp-2", "name": "gdp-2", "created": "2026-02-01T00:00:00+00:00"})
    with pytest.raises(StoreConflictError):
        any_store.create_run({**record, "user": "bob"})
    newest, oldest = any_store.runs()
    assert (newest.id, oldest.id) == ("gdp-2", "gdp")
    assert (oldest.user, oldest.nodes, oldest.trials) == ("ada", 5, 12)
    assert any_store.run("gdp").record == record
    assert any_store.load_record("gdp") == record


def test_a_store_pickles(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run(record)
    again = pickle.loads(pickle.dumps(any_store))
    assert again.url == any_store.url
    assert again.run("gdp").id == "gdp"


def test_a_run_by_its_name(any_store: Store, record: dict[str, Any]) -> None:
    for n in (1, 3, 2):
        any_store.create_run({**record, "id": f"r{n}", "created": f"2026-01-0{n}T00:00:00+00:00"})
    assert any_store.run("gdp").id == "r3"


@pytest.mark.parametrize("asked", ["gpd", "gdp-02", "GDP"])
def test_near_names(any_store: Store, record: dict[str, Any], asked: str) -> None:
    any_store.create_run(record)
    any_store.create_run({**record, "id": "gdp-2", "name": "gdp-2"})
    with pytest.raises(NotFoundError) as caught:
        any_store.run(asked)
    assert "gdp" in (caught.value.hint or "")


def test_far_names_are_no_guess(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run({**record, "id": "torch", "name": "torch"})
    with pytest.raises(NotFoundError) as caught:
        any_store.run("growth")
    assert caught.value.hint == "it has torch"


@pytest.mark.parametrize("asked", ["", "../x", "a/b", "-x"])
def test_names_that_no_run_has(any_store: Store, asked: str) -> None:
    with pytest.raises(NotFoundError):
        any_store.run(asked)


def test_run_ids_are_checked(any_store: Store, record: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="name of a run"):
        any_store.create_run({**record, "id": "a/b"})


def test_the_format(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path))
    store.create_run(record)
    assert json.loads((tmp_path / "umbel.json").read_text()) == {"format": 1}
    store.prepare()
    open_store(str(tmp_path)).prepare()


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        ('{"format": 2}', StoreError, "newer version"),
        ("{}", StoreCorruptError, "can't be read"),
        ("what", StoreCorruptError, "can't be read"),
        ("[]", StoreCorruptError, "can't be read"),
    ],
)
def test_foreign_formats(tmp_path: Path, content: str, error: type[Exception], text: str) -> None:
    (tmp_path / "umbel.json").write_text(content)
    with pytest.raises(error, match=text):
        open_store(str(tmp_path))


def test_a_store_that_can_not_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="can't be written"):
        open_store(str(tmp_path)).objects.open(tmp_path / "file").check_writable()
    with pytest.raises(StoreError, match="can't be written") as refused:
        open_store("/proc/nowhere/store").objects.check_writable()
    assert "umbel-write-check" not in str(refused.value)


def test_a_damaged_record_hides_no_other_run(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run(record)
    any_store.objects.create("runs/bad/run.json", b"{")
    any_store.objects.create("runs/odd/run.json", b'{"graph": {"nodes": [{"kind": "task"}]}}')
    any_store.objects.create("runs/none/owner/00000000.json", b"{}")
    with pytest.warns(UserWarning, match="left out") as warned:
        assert [run.id for run in any_store.runs()] == ["gdp"]
    assert len(warned) == 2
    with pytest.raises(StoreCorruptError, match=r"runs/bad/run\.json"):
        any_store.run("bad")


def test_how_a_run_stands(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run(record)
    run = any_store.run("gdp")
    assert run.status == "died"
    owner = Ownership.acquire(any_store.objects, "gdp")
    assert run.status == "running"
    owner.release("interrupted")
    assert run.status == "interrupted"
    Ownership.acquire(any_store.objects, "gdp").release("failed")
    assert run.status == "failed"
    any_store.end_run("gdp", {"status": "done", "counts": {"total": 1}})
    any_store.end_run("gdp", {"status": "done", "counts": {"total": 2}})
    assert run.status == "done"
    assert any_store.runs()[0].status == "done"
    end = any_store.load_end("gdp")
    assert end is not None
    assert end["counts"] == {"total": 1}
    assert end["ended"].endswith("+00:00")


def test_code(any_store: Store) -> None:
    digest = any_store.put_code(b"zip")
    assert any_store.put_code(b"zip") == digest
    assert any_store.objects.read(f"code/{digest}.zip") == b"zip"
