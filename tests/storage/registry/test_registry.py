"""Registered models: versions, aliases, and what is refused."""

from __future__ import annotations

import importlib
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.seaweedfs import S3Server
from tests.storage.registered import Broken, Scale, add_refits, add_run
from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError, UntrustedError, UsageError
from umbel.storage.documents import create_document
from umbel.storage.layout import alias_record, artifact, version_record
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.records import VersionRecord
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.store import Store, open_store
from umbel.storage.values.artifacts import read_artifact


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def two_versions(store: Store, record: dict[str, Any]) -> RegisteredModel:
    add_run(store, record)
    for _ in range(2):
        store.registry.register("gdp", model="gdp")
    return store.registry.model("gdp")


# ---- versions --------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_version(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record)
    made = store.registry.register("gdp", model="growth", by="country", why="first", inputs=[1.0, 2.0])
    for version in (made, store.registry.model("growth").version(1), pickle.loads(pickle.dumps(made))):
        assert (version.model, version.number, version.by) == ("growth", 1, ("country",))
        assert version.groups == ["DEU", "FRA", "ITA"]
        assert (version.metric, version.mode, version.takes) == ("mase", "min", "json")
        assert version.smoke == [1.0, 2.0]
        numbers = {"type": "array", "items": {"type": "number"}}
        assert version.schema == {"inputs": numbers, "outputs": numbers}
        assert version.record["why"] == "first"
        assert version.load("FRA", trust=True) == Scale(2.0)
        assert version.predict("ITA", [2.0], trust=True) == [6.0]
    rows = made.table().to_pylist()
    assert [row["trial"] for row in rows] == [1, 5, 9]
    assert [row["metric_mase"] for row in rows] == [0.1, 0.2, 0.3]
    assert [row["config_lags"] for row in rows] == [1, 1, 1]
    assert {row["run"] for row in rows} == {"gdp"}
    assert {row["model_format"] for row in rows} == {"pickle"}
    assert made.digest("DEU") == rows[0]["model"]
    assert made.size_bytes("DEU") == rows[0]["model_size"]
    assert store.registry.models() == ["growth"]


def test_models_of_a_later_node(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, models=())
    add_refits(store, "gdp", [Scale(10.0), Scale(20.0), Scale(30.0)])
    version = store.registry.register("gdp", model="m", models="refit")
    assert [version.load(group, trust=True) for group in version.groups] == [Scale(10.0), Scale(20.0), Scale(30.0)]
    assert [row["element"] for row in version.table().to_pylist()] == [0, 1, 2]
    assert version.table()["metric_mase"].to_pylist() == [0.1, 0.2, 0.3]
    assert version.record["node"] == "refit"


def test_models_outlive_their_run(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    add_refits(store, "gdp", [Scale(10.0), Scale(20.0), Scale(30.0)])
    of_trials = store.registry.register("gdp", model="m")
    of_node = store.registry.register("gdp", model="m", models="refit")
    assert of_trials.lineage("DEU").of_kind("trial")[0].fact("mase") == 0.1
    shutil.rmtree(Path(store.url) / "runs")
    assert of_trials.load("FRA", trust=True) == Scale(2.0)
    assert of_node.load("FRA", trust=True) == Scale(20.0)
    left = of_trials.lineage("DEU")
    assert left.of_kind("trial")[0].fact("mase") == 0.1
    assert "deleted" in left.text()


def test_a_group_is_named_in_several_ways(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    for name in ("FRA", {"country": "FRA"}, ("FRA",)):
        assert version.load(name, trust=True) == Scale(2.0)
    with pytest.raises(NotFoundError, match="did you mean 'FRA'"):
        version.load("FRE")
    with pytest.raises(NotFoundError, match="keys"):
        version.load({"land": "FRA"})


def test_versions_are_numbered_whoever_makes_them(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record)
    barrier = Barrier(4)

    def register(_: int) -> int:
        barrier.wait(30)
        return store.registry.register("gdp", model="m").number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(register, range(4))) == [1, 2, 3, 4]
    model = store.registry.model("m")
    assert model.versions() == [1, 2, 3, 4]
    assert model.version().number == model.version("latest").number == model.version("4").number == 4
    with pytest.raises(NotFoundError, match="1 to 4"):
        model.version(5)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "a b", "a\0b"])
def test_names_with_path_characters(store: Store, record: dict[str, Any], name: str) -> None:
    add_run(store, record)
    with pytest.raises(UsageError, match="name of a model"):
        store.registry.register("gdp", model=name)
    with pytest.raises(UsageError, match="name of a model"):
        store.registry.model(name)
    model = two_versions(open_store(f"memory://{uuid4().hex}"), record)
    with pytest.raises(UsageError, match="name of a model alias"):
        model.set_alias(name, 1)


@pytest.mark.parametrize("name", ["latest", "7"])
def test_names_of_aliases_that_mean_versions(store: Store, record: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match="an alias"):
        two_versions(store, record).set_alias(name, 1)


# ---- what is refused -------------------------------------------------------------------------------------------


def test_a_run_that_is_not_done(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, end=False)
    with pytest.raises(UsageError, match=r"not finished(.|\n)*running it again finishes it: gdp.py"):
        store.registry.register("gdp", model="m")
    with pytest.raises(NotFoundError):
        store.registry.register("other", model="m")
    assert store.registry.models() == []


def test_advice_to_run_again_leaves_out_what_stopped_the_run(store: Store, record: dict[str, Any]) -> None:
    words = "umbel run gdp.py --deadline 2 --budget=trials=5 --name gdp --max-failures 0 --fresh"
    for command, expected in ((words, "umbel run gdp.py --name gdp --fresh"), ("gdp.py --deadline 2",) * 2):
        name = f"gdp-{len(command)}"
        add_run(store, {**record, "command": command.split()}, name, end=False)
        with pytest.raises(UsageError) as refused:
            store.registry.register(name, model="m")
        assert refused.value.hint == f"running it again finishes it: {expected}"


def test_groups_without_a_winner_are_named(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, metrics=(0.1, None, 0.3))
    with pytest.raises(UsageError, match=r"1 group of(.|\n)*FRA(.|\n)*why-failed"):
        store.registry.register("gdp", model="m")


def test_winners_without_a_model_are_named(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, models=(Scale(1.0), None, None))
    with pytest.raises(UsageError, match=r"2 of 3 groups(.|\n)*FRA, ITA(.|\n)*models=refit"):
        store.registry.register("gdp", model="m")
    with pytest.raises(UsageError, match=r"elements of 'refit' failed"):
        store.registry.register("gdp", model="m", models="refit")


def test_models_that_do_not_answer_are_named(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, models=(Scale(1.0), Broken(), 3))
    with pytest.raises(UsageError, match=r"2 of 3(.|\n)*FRA: ZeroDivisionError: no answer; ITA: this is no model"):
        store.registry.register("gdp", model="m", inputs=[1.0])
    with pytest.raises(UsageError, match=r"1 of 3(.|\n)*got: +ITA: this is no model"):
        store.registry.register("gdp", model="m")


def test_what_can_not_be_asked_is_no_model(store: Store, record: dict[str, Any]) -> None:
    run = store.run(add_run(store, record, models=[Scale(1.0), "text", {"a": 1}]))
    with pytest.raises(UsageError, match=r"2 of 3 groups") as caught:
        store.registry.register(run, model="gdp")
    assert caught.value.got is not None
    assert "this is no model that can be asked (str); " in caught.value.got


def test_a_cause_that_groups_share_is_told_once(
    store: Store, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "beside_a_script.py").write_text("class Model:\n    def predict(self, inputs): return inputs\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("beside_a_script").Model()
    run = store.run(add_run(store, record, models=[made, made, made]))
    monkeypatch.delitem(sys.modules, "beside_a_script")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    with pytest.raises(UsageError, match=r"3 of 3 groups") as caught:
        store.registry.register(run, model="gdp", inputs=[1.0])
    assert str(caught.value).count("No module named 'beside_a_script'") == 1
    assert "PYTHONPATH" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "land"}, "did you mean|no groups by this key"),
        ({"models": "report"}, "not finished|no model|report"),
        ({"models": "rewit"}, "refit"),
        ({"models": "refit", "by": ["country", "year"]}, "other keys"),
        ({"sweep": "none"}, "backtest"),
    ],
)
def test_what_the_run_does_not_have(store: Store, record: dict[str, Any], options: Any, message: str) -> None:
    add_run(store, record)
    with pytest.raises(UsageError, match=message):
        store.registry.register("gdp", model="m", **options)


def test_a_model_that_is_not_there(store: Store, record: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match="umbel register"):
        store.registry.model("gdp")
    two_versions(store, record)
    with pytest.raises(NotFoundError, match="did you mean 'gdp'"):
        store.registry.model("gpd")


# ---- schema ----------------------------------------------------------------------------------------------------


def test_schemas_are_checked_when_they_are_registered(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record)
    numbers = {"type": "array", "items": {"type": "number"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"inputs": {"type": "array", "items": 5}}, "schema of inputs"),
        ({"inputs": numbers, "smoke": ["x"]}, r"smoke=(.|\n)*\[0\]: 'x' is not of type 'number'"),
        ({"inputs": [1.0], "smoke": {"x": 1.0}}, "smoke="),
        ({"inputs": [1.0], "outputs": {"$ref": "https://example.org/s.json"}}, "schema of outputs"),
        ({"inputs": [1.0], "outputs": {"type": "number"}}, "DEU: its answer is not what"),
    ]
    for options, message in wrong:
        with pytest.raises(UsageError, match=message):
            store.registry.register("gdp", model="m", **options)
    assert store.registry.models() == []
    assert store.registry.register("gdp", model="m", inputs=[1.0], outputs=numbers).number == 1


def test_a_schema_instead_of_an_example(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record)
    schema = {"type": "array", "items": {"type": "number"}, "minItems": 2}
    version = store.registry.register("gdp", model="m", inputs=schema)
    assert version.schema == {"inputs": schema, "outputs": None}
    assert version.smoke is None
    version = store.registry.register("gdp", model="m", inputs=schema, smoke=[1.0, 2.0])
    assert version.smoke == [1.0, 2.0]
    assert version.schema is not None
    assert version.schema["inputs"] == schema


def test_an_array_as_example_means_that_models_take_arrays(store: Store, record: dict[str, Any]) -> None:
    add_run(store, record, models=(np.square, np.square, np.square))
    version = store.registry.register("gdp", model="m", inputs=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert version.takes == "ndarray"
    answer = version.predict("DEU", [[2.0, 3.0]], trust=True)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == [[4.0, 9.0]]
    assert version.schema is not None
    assert version.schema["inputs"]["items"] == {
        "type": "array",
        "items": {"type": "number"},
        "minItems": 2,
        "maxItems": 2,
    }


# ---- trust and damage ------------------------------------------------------------------------------------------


def test_code_is_loaded_from_trusted_stores_only(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    with pytest.raises(UntrustedError, match=r"'DEU' \(m, version 1\)(.|\n)*a pickle(.|\n)*trusted_stores"):
        version.load("DEU")
    assert version.load("DEU", trust=True) == Scale(1.0)
    (tmp_path / "umbel").mkdir()
    (tmp_path / "umbel" / "config.toml").write_text(f'trusted_stores = ["{store.url}"]')
    assert version.load("DEU") == Scale(1.0)


def test_a_model_that_was_changed(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    path = Path(store.url) / artifact(version.digest("DEU"))
    data = path.read_bytes()
    for wrong in (bytes([data[0], *(byte ^ 1 for byte in data[1:])]), data[:-1], data + b"x" * 1000):
        path.write_bytes(wrong)
        with pytest.raises(StoreCorruptError, match="damaged"):
            version.load("DEU", trust=True)
        with pytest.raises(StoreCorruptError, match="damaged"):
            version.check("DEU")
    path.unlink()
    with pytest.raises(NotFoundError):
        version.load("DEU", trust=True)


def test_records_and_tables_that_were_changed(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    model = two_versions(store, record)
    model.set_alias("champion", 1)
    path = Path(store.url) / version_record("gdp", 1)
    good = path.read_text()
    for wrong in (
        good[:-10],
        "[]",
        "{}",
        good.replace('"number": 1', '"number": 2'),
        good.replace('"groups": 3', '"groups": "many"'),
        good.replace('"min"', '"least"'),
        good.replace('"rows": "', '"rows": "../'),
    ):
        assert wrong != good
        path.write_text(wrong)
        with pytest.raises(StoreCorruptError) as damaged:
            model.version(1)
        assert damaged.value.hint == "restore this one file from a copy: registry/gdp/versions/00000001.json"
    other = model.version(2)
    path.write_text(good.replace('"groups": 3', '"groups": 4'))
    with pytest.raises(StoreCorruptError, match="no table of models"):
        model.version(1).table()
    # a table that is a pickle is not unpickled
    path.write_text(good.replace(model.version(1).record["rows"], other.digest("DEU")))
    with pytest.raises(StoreCorruptError, match="no table"):
        model.version(1).table()
    alias = Path(store.url) / alias_record("gdp", "champion", 1)
    alias.write_text(alias.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(StoreCorruptError):
        store.registry.model("gdp").resolve("champion")


# ---- aliases ---------------------------------------------------------------------------------------------------


def test_aliases_move_and_go_back(store: Store, record: dict[str, Any]) -> None:
    model = two_versions(store, record)
    store.registry.register("gdp", model="gdp")
    with pytest.raises(NotFoundError, match="umbel promote gdp"):
        model.resolve()
    for number in (1, 2, 3):
        moved = model.set_alias("champion", number, why=f"try {number}")
        assert (moved.version, moved.previous, moved.number) == (number, number - 1 or None, number)
    assert model.resolve("champion").version == model.version("champion").number == 3
    assert model.aliases() == {"champion": 3}
    assert model.rollback().version == 2
    assert model.rollback("champion", why="worse").version == 1
    with pytest.raises(UsageError, match="nothing that 'champion'"):
        model.rollback()
    assert [(r.number, r.version, r.action) for r in model.history("champion")] == [
        (1, 1, "set"),
        (2, 2, "set"),
        (3, 3, "set"),
        (4, 2, "rollback"),
        (5, 1, "rollback"),
    ]
    assert model.resolve().why == "worse"
    assert model.set_alias("champion", 1).number == 5  # it is there already
    model.set_alias("challenger", 3)
    assert model.aliases() == {"challenger": 3, "champion": 1}
    assert len(model.history()) == 6
    with pytest.raises(NotFoundError, match="did you mean 'champion'"):
        model.resolve("champio")
    with pytest.raises(NotFoundError, match="no such version"):
        model.set_alias("champion", 9)
    assert pickle.loads(pickle.dumps(model)).name == "gdp"


@given(st.lists(st.sampled_from([1, 2, 3, "back"]), max_size=12))
def test_rolling_back_undoes_what_is_not_undone(moves: list[int | str]) -> None:
    objects = ObjectStore.open(f"memory://{uuid4().hex}")
    for number in (1, 2, 3):
        made = VersionRecord("m", number, rows="0" * 64, groups=1)
        create_document(objects, version_record("m", number), made.as_dict())
    model = RegisteredModel(objects, "m")
    expected: list[int] = []
    for move in moves:
        if isinstance(move, int):
            assert model.set_alias("champion", move).version == move
            expected += [move] if expected[-1:] != [move] else []
        elif len(expected) > 1:
            expected.pop()
            assert model.rollback().version == expected[-1]
        else:
            with pytest.raises(UsageError):
                model.rollback()
    if expected:
        assert model.resolve().version == RegisteredModel(objects, "m").resolve().version == expected[-1]
        history = model.history("champion")
        assert [record.number for record in history] == list(range(1, len(history) + 1))
        assert [record.previous for record in history[1:]] == [record.version for record in history[:-1]]


def test_polling_reads_a_record_once(store: Store, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_versions(store, record)
    model.set_alias("champion", 1)
    reader = store.registry.model("gdp")
    reader.resolve("champion")
    reads: list[str] = []
    read = type(store.objects)._read

    def watched(self: Any, path: str) -> bytes:
        reads.append(path)
        return read(self, path)

    monkeypatch.setattr(type(store.objects), "_read", watched)
    assert [reader.resolve("champion").version for _ in range(5)] == [1] * 5
    assert reads == []
    model.set_alias("champion", 2)
    assert [reader.resolve("champion").version for _ in range(5)] == [2] * 5
    assert [path for path in reads if "aliases" in path] == [alias_record("gdp", "champion", 2)]


def test_of_two_that_promote_at_once_one_wins(store: Store, record: dict[str, Any]) -> None:
    model = two_versions(store, record)
    store.registry.register("gdp", model="gdp")
    model.set_alias("champion", 1)
    before = model.resolve("champion")
    model.move_alias("champion", 2, before, action="promote", why="mine")
    with pytest.raises(StoreConflictError, match=r"to version 2 by .* on .*: mine"):
        store.registry.model("gdp").move_alias("champion", 3, before, action="promote")
    assert store.registry.model("gdp").resolve("champion").version == 2
    barrier = Barrier(2)

    def move(version: int) -> bool:
        mine = store.registry.model("gdp")
        now = mine.resolve("champion")
        barrier.wait(30)
        try:
            mine.move_alias("champion", version, now, action="promote")
        except StoreConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(move, (1, 3))) == [False, True]


@pytest.mark.ray
def test_on_a_real_s3_server(s3_server: S3Server, record: dict[str, Any]) -> None:
    store = open_store(s3_server.url(uuid4().hex), s3_server.storage_options)
    add_run(store, record)
    add_refits(store, "gdp", [Scale(10.0), Scale(20.0), Scale(30.0)])
    first = store.registry.register("gdp", model="m", inputs=[1.0])
    second = store.registry.register("gdp", model="m", models="refit")
    model = store.registry.model("m")
    model.set_alias("champion", 1)
    assert model.version("champion").load("FRA", trust=True) == Scale(2.0)
    assert second.load("FRA", trust=True) == Scale(20.0)
    assert first.smoke == [1.0]
    with pytest.raises(UntrustedError):
        first.load("FRA")
    before = model.resolve("champion")
    model.set_alias("champion", 2)
    with pytest.raises(StoreConflictError, match="version 2"):
        store.registry.model("m").move_alias("champion", 2, before, action="promote")
    assert model.rollback().version == 1
    assert store.registry.models() == ["m"]
    assert read_artifact(store.objects, first.record["rows"]).startswith(b"PAR1")
