"""Stores full of garbage, and names that try to lead out of them: named errors, and nothing outside is touched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import umbel
from tests.storage.conftest import trials_table, values_table, write_segment
from umbel.scheduler.errors import InternalError, StoreError, UmbelError, UsageError
from umbel.storage.garbage import find_garbage
from umbel.storage.runs.compaction import compact_run
from umbel.storage.runs.ownership import Ownership
from umbel.storage.store import Store, open_store
from umbel.storage.values.codecs import encode
from umbel.storage.values.packs import pack_models

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def small_store(record: dict[str, Any]) -> Store:
    """A store in memory with one run of each kind of object."""
    store = open_store(f"memory://{uuid4().hex}")
    store.create_run(record)
    packed = encode("packed")
    table = trials_table(list(range(12)), [float(n) for n in range(12)], model=[packed.digest] * 12)
    table = table.append_column("model_payload", pa.array([packed.data] * 12, pa.binary()))
    write_segment(store, "runs/gdp/trials/backtest", pack_models(store.objects, table))
    payloads: list[bytes | None] = [encode(f"value {n}").data for n in range(3)]
    write_segment(store, "runs/gdp/values/load", values_table([0, 1, 2], payloads))
    Ownership.acquire(store.objects, "gdp").release("done")
    store.end_run("gdp", {"status": "done", "counts": {"total": 12, "failed": 0}})
    return store


def everything(store: Store) -> list[Callable[[], object]]:
    """All that readers do."""
    digest = encode("packed").digest

    def run(look: Callable[[umbel.Run], object]) -> Callable[[], object]:
        return lambda: look(store.run("gdp"))

    return [
        store.check_format,
        store.runs,
        lambda: store.downstream(digest),
        lambda: find_garbage(store.objects, grace=timedelta(0), corrupt=True),
        run(lambda r: r.status),
        run(lambda r: (repr(r), r._repr_html_(), r.sweeps, r.name)),
        run(lambda r: r.trials()),
        run(lambda r: r.dataset().count_rows()),
        run(lambda r: r.best()),
        run(lambda r: r.failures()),
        run(lambda r: r.value("load")),
        run(lambda r: r.elements("load")),
        run(lambda r: r.output(0)),
        run(lambda r: r.models()),
        run(lambda r: r.load_model(digest)),
        run(lambda r: r.lineage(0)),
        lambda: compact_run(store.objects, "gdp"),
    ]


def check(store: Store) -> None:
    for look in everything(store):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = error_of(look)
        assert not isinstance(error, InternalError)


def error_of(action: Callable[[], object]) -> UmbelError | None:
    """The named error that something ends in; any other error is the test's own."""
    try:
        action()
    except UmbelError as error:
        return error
    return None


def replace(store: Store, path: str, data: bytes) -> None:
    store.objects.delete(path)
    store.objects.create(path, data)


def mutated(content: object, place: int, new: object) -> object:
    """A JSON value with another one in the place of one of its parts."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        if isinstance(part, (dict, list)):
            for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
                places.append((part, key))
                walk(inner)

    copy = json.loads(json.dumps(content))
    walk(copy)
    if not places:
        return new
    part, key = places[place % len(places)]
    if new == "<removed>":
        del part[key]
    else:
        part[key] = new
    return copy


def test_an_undamaged_store_gives_no_error(record: dict[str, Any]) -> None:
    store = small_store(record)
    for look in everything(store):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            look()


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(place=st.integers(0, 1000), data=st.binary(max_size=40) | st.sampled_from([b"", b"{}", b"[]", b"null", b"PAR1"]))
def test_any_object_may_be_garbage(record: dict[str, Any], place: int, data: bytes) -> None:
    store = small_store(record)
    paths = store.objects.list(recursive=True)
    replace(store, paths[place % len(paths)], data)
    check(store)


@FUZZ
@given(place=st.integers(0, 1000), cut=st.floats(0, 1), flip=st.integers(0, 255))
def test_any_object_may_be_cut_short_or_have_a_wrong_byte(
    record: dict[str, Any], place: int, cut: float, flip: int
) -> None:
    store = small_store(record)
    paths = store.objects.list(recursive=True)
    path = paths[place % len(paths)]
    data = bytearray(store.objects.read(path))
    at = int(cut * (len(data) - 1)) if data else 0
    if flip and data:
        data[at] ^= flip
    else:
        del data[at:]
    replace(store, path, bytes(data))
    check(store)


@FUZZ
@given(which=st.integers(0, 100), place=st.integers(0, 1000), new=JSON | st.just("<removed>"))
def test_any_part_of_a_document_may_be_of_another_type(
    record: dict[str, Any], which: int, place: int, new: object
) -> None:
    store = small_store(record)
    paths = [path for path in store.objects.list(recursive=True) if path.endswith(".json")]
    path = paths[which % len(paths)]
    content = mutated(json.loads(store.objects.read(path)), place, new)
    replace(store, path, json.dumps(content).encode())
    check(store)


@pytest.mark.parametrize("version", [2, 10**9, "2", None, True, 1.5, -1])
def test_stores_and_runs_of_other_versions(tmp_path: Path, record: dict[str, Any], version: object) -> None:
    store = open_store(str(tmp_path / "one"))
    store.objects.create("umbel.json", json.dumps({"format": version}).encode())
    with pytest.raises(StoreError) as caught:
        open_store(store.url)
    if type(version) is int and version > 0:
        assert "newer version of Umbel" in str(caught.value)
        assert "pip install --upgrade umbel" in str(caught.value)
    other = open_store(str(tmp_path / "two"))
    other.create_run({**record, "format": version})
    if version is not None:
        with pytest.raises(StoreError, match=r"newer version|can't be read"):
            other.run("gdp")


HOSTILE = [
    *(
        "..",
        ".",
        "../x",
        "/etc",
        "a/../../x",
        "a/b",
        "..%2fx",
        "%2e%2e",
        "%2e%2e%2fx",
        "a\\..\\x",
        "~",
        "~root",
        "a\0b",
    ),
    *(" ", "-rf", ".hidden", "a" * 101, "ü", "C:x", "file:///x", "a\nb", "x?y", "x#y", "*"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    def trial(config: dict[str, Any]) -> float:
        return 1.0

    def run(node: Callable[[], umbel.Node], name: str) -> None:
        umbel.run(node(), store=str(inside), name=name, executor="inline", progress="quiet")

    def sweep(**options: Any) -> umbel.Node:
        return umbel.sweep(trial, space={"x": [1]}, search="grid", metric="m", **options)

    inside = tmp_path / "deep" / "store"
    for refused in (
        lambda: run(lambda: umbel.task(name=name)(lambda: 1).bind(), "fine"),
        lambda: run(lambda: sweep(name=name), "fine"),
        lambda: run(sweep, name),
        lambda: open_store(str(inside)).run(name),
    ):
        assert isinstance(error_of(refused), (UsageError, StoreError))
    run(lambda: sweep(over={"group": [name]}), "groups")
    assert open_store(str(inside)).run("groups").trials()["group"].to_pylist() == [name]
    written = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {("deep", "store")}
    assert open_store(str(inside)).objects.list_folders("runs") == ["groups"]


@pytest.mark.parametrize("name", ["..", "../../x", "/x", "a/../../../x"])
def test_a_record_that_leads_out_reads_nothing_there(tmp_path: Path, record: dict[str, Any], name: str) -> None:
    store = open_store(str(tmp_path / "deep" / "store"))
    graph = json.loads(json.dumps(record["graph"]).replace('"load"', json.dumps(name)))
    store.create_run({**record, "graph": graph})
    run = store.run("gdp")
    for look in (lambda: run.value(name), lambda: run.elements(name), lambda: run.output(0, name), run.failures):
        with pytest.raises(UmbelError, match=r"path of an object|can't be"):
            look()
