from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.conftest import Write, trials_table, write_segment
from tests.storage.registered import Scale, add_refits, add_run
from umbel.storage.garbage import GRACE, find_garbage, remove_garbage
from umbel.storage.layout import artifact, mentions
from umbel.storage.runs.ownership import Ownership
from umbel.storage.store import Store, open_store
from umbel.storage.values.artifacts import REFRESH_AFTER, put_artifact, put_content
from umbel.storage.values.codecs import encode
from umbel.storage.values.packs import pack_models

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path, record: dict[str, Any]) -> Store:
    store = open_store(str(tmp_path / "store"))
    store.create_run(record)
    return store


def age(store: Store, by: timedelta = 30 * DAY) -> None:
    """Make all objects older."""
    for path in Path(store.url).rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - by.total_seconds()
            os.utime(path, (then, then))


def put(store: Store, value: object) -> str:
    return put_artifact(store.objects, encode(value))


def paths(store: Store, **options: Any) -> list[str]:
    return [item.path for item in find_garbage(store.objects, **options).items]


def test_what_is_reached_stays(store: Store, write_trials: Write, write_values: Write, record: dict[str, Any]) -> None:
    model, value, data, argument = (put(store, name) for name in ("model", "value", "data", "argument"))
    packed = encode("packed")
    write_trials(store, [0, 1, 2], [1.0, 2.0, 3.0], model=[model, None, None])
    table = trials_table([3], [1.0], model=[packed.digest])
    table = table.append_column("model_payload", pa.array([packed.data], pa.binary()))
    table = table.set_column(table.column_names.index("data"), "data", pa.array([data], pa.string()))
    write_segment(store, "runs/gdp/trials/backtest", pack_models(store.objects, table))
    write_values(store, "load", [0], [None], digest=[value])
    store.create_run(
        {
            **record,
            "id": "other",
            "graph": {"nodes": [{"name": "x", "kind": "task", "arguments": [{"kind": "one", "digest": argument}]}]},
        }
    )
    code = store.put_code(b"zip")
    environment = store.put_environment({"numpy": "2"})
    store.create_run({**record, "id": "third", "source": code, "environment": environment})
    store.objects.create("registry/m/versions/1.json", b'{"model": "%s"}' % put(store, "version").encode())
    age(store)
    assert paths(store) == []
    lost = [put(store, "lost"), store.put_code(b"lost"), store.put_environment({"lost": "1"})]
    (pack,) = store.objects.list("artifacts/packs")
    age(store)
    found = find_garbage(store.objects)
    assert len(found.items) == 3
    assert {item.kind for item in found.items} == {"model or value", "code", "environment"}
    assert all(any(digest in item.path for digest in lost) for item in found.items)
    assert found.size_bytes == sum(store.objects.size(item.path) for item in found.items)
    before = store.objects.list(recursive=True)
    removed = remove_garbage(store.objects, found)
    assert removed.items == found.items
    assert sorted({*before} - {*store.objects.list(recursive=True)}) == sorted(item.path for item in found.items)
    assert pack in store.objects.list("artifacts/packs")


def test_what_is_young_stays(store: Store) -> None:
    put(store, "lost")
    found = find_garbage(store.objects)
    assert (found.items, found.young) == ((), 1)
    assert len(paths(store, grace=timedelta(0), now=datetime.now(UTC) + timedelta(seconds=5))) == 1
    age(store, GRACE + timedelta(minutes=1))
    assert len(paths(store)) == 1


def test_nothing_that_a_run_that_goes_on_may_have_in_hand(store: Store) -> None:
    put(store, "old")
    age(store)
    put(store, "of this morning")
    owner = Ownership.acquire(store.objects, "gdp")
    soon = datetime.now(UTC) + 3 * DAY
    found = find_garbage(store.objects, now=soon, grace=timedelta(0))
    assert found.live == ("gdp",)
    assert [item.path for item in found.items] == [artifact(encode("old").digest)]
    owner.release("done")
    assert len(paths(store, now=soon, grace=timedelta(0))) == 2


def test_storing_again_makes_young(store: Store) -> None:
    digest = put(store, "x")
    age(store, REFRESH_AFTER + timedelta(hours=1))
    put(store, "x")
    info = store.objects.info(artifact(digest))
    assert info is not None
    assert info.modified is not None
    assert datetime.now(UTC) - info.modified < timedelta(minutes=1)
    memory = open_store("memory://garbage-refresh")
    put_content(memory.objects, "artifacts/x", b"1")
    put_content(memory.objects, "artifacts/x", b"1")


def test_what_is_stored_or_named_after_the_look_stays(store: Store, write_trials: Write) -> None:
    again, named, lost = (put(store, name) for name in ("again", "named", "lost"))
    age(store)
    found = find_garbage(store.objects)
    assert len(found.items) == 3
    put(store, "again")
    write_trials(store, [0], [1.0], model=[named])
    removed = remove_garbage(store.objects, found)
    assert [item.path for item in removed.items] == [artifact(lost)]
    assert store.objects.exists(artifact(again))
    assert store.objects.exists(artifact(named))


def test_what_writers_left(store: Store, record: dict[str, Any]) -> None:
    root = Path(store.url)
    (root / "runs" / "gdp" / f".{'a' * 32}.tmp").write_bytes(b"half")
    (root / f".{'b' * 32}.tmp").write_bytes(b"half")
    (root / ".bashrc").write_bytes(b"mine")
    store.objects.create(f"umbel-write-check-{'c' * 32}", b"")
    store.objects.create("notes.txt", b"mine")
    store.objects.create("memo/abc/20260102T030405000000~gdp~backtest", b"")
    store.objects.create("memo/abc/20260102T030405000000~gone~backtest", b"")
    store.objects.create(mentions("gdp", "2026-01-02T03:04:05+00:00"), b"")
    store.objects.create(mentions("gone", "2026-01-02T03:04:05+00:00"), b"")
    Ownership.acquire(store.objects, "never-begun").release("failed")
    age(store)
    found = find_garbage(store.objects)
    assert found.by_kind().keys() == {"abandoned run", "leftover", "memo mark", "mentions of a run that is gone"}
    assert len(found.items) == 3 + 1 + 2 + 1
    assert remove_garbage(store.objects, found).items == found.items
    assert find_garbage(store.objects).items == ()
    left = sorted(path.name for path in root.iterdir())
    assert left == [".bashrc", "memo", "mentions", "notes.txt", "runs", "umbel.json"]
    assert len(store.objects.list("mentions", recursive=True)) == 1
    assert store.objects.list("memo", recursive=True) == ["memo/abc/20260102T030405000000~gdp~backtest"]


def test_what_was_set_aside_goes_on_request(store: Store, write_trials: Write) -> None:
    write_trials(store, [0], [1.0])
    (path,) = store.objects.list("runs/gdp/trials/backtest")
    aside = store.objects.set_aside(path)
    age(store)
    assert paths(store) == []
    assert paths(store, corrupt=True) == [aside]
    remove_garbage(store.objects, find_garbage(store.objects, corrupt=True))
    assert store.objects.list("runs/gdp/trials/backtest") == []


@pytest.mark.parametrize("damage", ["segment", "record"])
def test_no_content_goes_while_something_can_not_be_read(store: Store, write_trials: Write, damage: str) -> None:
    put(store, "lost")
    write_trials(store, [0], [1.0])
    (segment,) = store.objects.list("runs/gdp/trials/backtest")
    path = Path(store.url) / (segment if damage == "segment" else "runs/gdp/run.json")
    path.write_bytes(path.read_bytes()[:-20])
    age(store)
    found = find_garbage(store.objects)
    assert found.items == ()
    assert len(found.unreadable) == 1


def test_a_damaged_record_that_is_json_protects_all_content(store: Store, record: dict[str, Any]) -> None:
    store.create_run(record)
    store.objects.create(f"code/{'a' * 64}.zip", b"zip")
    path = Path(store.url) / "runs" / record["id"] / "run.json"
    path.write_text('{"a": 1}')
    age(store)
    found = find_garbage(store.objects)
    assert not any(item.kind == "code" for item in found.items)
    assert any("run.json" in text for text in found.unreadable)


def test_what_registered_models_name_outlives_the_runs(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    source = store.put_code(b"zip")
    add_run(store, {**record, "source": source})
    add_refits(store, "gdp", [Scale(10.0), Scale(20.0), Scale(30.0)])
    of_trials = store.registry.register("gdp", model="m", inputs=[1.0])
    of_node = store.registry.register("gdp", model="m", models="refit")
    lost = put(store, "lost")
    shutil.rmtree(tmp_path / "store" / "runs")
    age(store)
    assert paths(store) == [artifact(lost)]
    remove_garbage(store.objects, find_garbage(store.objects))
    assert of_trials.load("DEU", trust=True) == Scale(1.0)
    assert of_node.load("DEU", trust=True) == Scale(10.0)
    assert store.registry.model("m").version(1).smoke == [1.0]
    assert len(store.objects.list("artifacts/packs")) == 1
    assert store.objects.exists(f"code/{source}.zip")


@pytest.mark.parametrize("damage", ["record", "table", "no table"])
def test_no_content_goes_while_a_version_can_not_be_read(tmp_path: Path, record: dict[str, Any], damage: str) -> None:
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    put(store, "lost")
    root = tmp_path / "store"
    path = root / ("registry/m/versions/00000001.json" if damage == "record" else artifact(version.record["rows"]))
    if damage == "no table":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    age(store)
    found = find_garbage(store.objects)
    assert found.items == ()
    assert len(found.unreadable) == 1
