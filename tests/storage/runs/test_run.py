from __future__ import annotations

import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from umbel.scheduler.errors import ElementFailedError, NotFoundError, StoreCorruptError
from umbel.storage.runs.run import Run
from umbel.storage.runs.segments import SegmentWriter
from umbel.storage.store import Store, open_store
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.codecs import encode

Write = Callable[..., None]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def run(any_store: Store, record: dict[str, Any]) -> Run:
    any_store.create_run(record)
    return any_store.run("gdp")


def damage(store: Store, path: str) -> None:
    data = bytearray(store.objects.read(path))
    data[len(data) // 2] ^= 1
    store.objects.delete(path)
    store.objects.create(path, bytes(data))


def test_identity(run: Run, any_store: Store, record: dict[str, Any]) -> None:
    assert (run.id, run.name, run.sweeps) == ("gdp", "gdp", ["backtest"])
    assert run.record == record
    assert run.store_url == any_store.url
    assert repr(run) == f"<Run 'gdp': died, in {any_store.url}>"
    page = run._repr_html_()
    assert "<table>" in page
    assert "backtest" in page
    assert pickle.loads(pickle.dumps(run)).id == "gdp"


# ---- trials ----------------------------------------------------------------------------------------------------


def test_trials_are_in_order_whatever_the_order_of_writing(run: Run, any_store: Store, write_trials: Write) -> None:
    write_trials(any_store, [5, 4, 7], [0.5, 0.4, 0.7])
    write_trials(any_store, [0, 6], [0.0, 0.6])
    table = run.trials()
    assert table["trial"].to_pylist() == [0, 4, 5, 6, 7]
    assert table["metric_mase"].to_pylist() == [0.0, 0.4, 0.5, 0.6, 0.7]
    assert table["country"].to_pylist() == ["DEU"] + ["FRA"] * 4
    assert table.schema.metadata is None
    assert table.equals(run.trials("backtest"))
    assert table.equals(run.trials(SimpleNamespace(name="backtest")))


def test_the_columns_of_trials(run: Run, any_store: Store, write_trials: Write) -> None:
    head = "run sweep trial country"
    tail = "status error steps attempt seed started seconds host worker code data key model model_at reused_from"
    assert run.trials().column_names == f"{head} {tail}".split()
    write_trials(any_store, [0], [0.0])
    columns = f"{head} config_country config_lags metric_mase {tail}".split()
    assert run.trials().column_names == columns
    # A metric that turns up late stands with the others.
    with SegmentWriter(any_store.objects) as writer:
        late = pa.record_batch({"trial": pa.array([1]), "metric_rmse": pa.array([1.5]), "status": pa.array(["ok"])})
        writer.add("runs/gdp/trials/backtest", late)
    table = run.trials()
    assert table.column_names == f"{head} config_country config_lags metric_mase metric_rmse {tail}".split()
    assert table["metric_rmse"].to_pylist() == [None, 1.5]
    kinds = {"trial": pa.int64(), "attempt": pa.int32(), "started": pa.timestamp("us", "UTC"), "status": pa.string()}
    assert {name: table.schema.field(name).type for name in kinds} == kinds


def test_of_a_trial_recorded_twice_the_later_row_counts(run: Run, any_store: Store, write_trials: Write) -> None:
    write_trials(any_store, [0, 1], [0.1, 0.2], status=["failed", "ok"])
    write_trials(any_store, [0], [0.3])
    table = run.trials()
    assert table["trial"].to_pylist() == [0, 1]
    assert table["metric_mase"].to_pylist() == [0.3, 0.2]
    assert run.failures().num_rows == 0
    with pytest.warns(UserWarning, match="2 of 3 groups"):
        assert run.best()["metric_mase"].to_pylist() == [0.2]


def test_damaged_segments_are_named(run: Run, any_store: Store, write_trials: Write) -> None:
    for trial in range(8):
        write_trials(any_store, [trial], [0.5])
    for number in range(7):
        damage(any_store, f"runs/gdp/trials/backtest/{number:08d}.parquet")
    with pytest.warns(UserWarning, match="7 damaged segments") as warned:
        assert run.trials()["trial"].to_pylist() == [7]
    assert "00000000.parquet (its content does not match its checksum)" in str(warned[0].message)
    assert "and 2 more" in str(warned[0].message)
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="damaged"):
        assert run.dataset().count_rows() == 1


def test_which_sweep(any_store: Store, record: dict[str, Any], write_trials: Write) -> None:
    nodes = record["graph"]["nodes"]
    nodes.append({**nodes[1], "name": "second"})
    any_store.create_run(record)
    run = any_store.run("gdp")
    write_trials(any_store, [3], [0.5], sweep="second")
    assert run.trials("second")["trial"].to_pylist() == [3]
    for view in (run.trials, run.best, run.dataset):
        with pytest.raises(NotFoundError, match="several sweeps") as caught:
            view()
        assert "backtest, second" in str(caught.value)
        with pytest.raises(NotFoundError, match="no sweep of this name") as caught:
            view("secnd")
        assert "'second'" in (caught.value.hint or "")


def test_a_run_without_sweeps(any_store: Store, record: dict[str, Any]) -> None:
    any_store.create_run({**record, "graph": {"nodes": []}})
    run = any_store.run("gdp")
    with pytest.raises(NotFoundError, match="has no sweep"):
        run.trials()
    assert run.failures().num_rows == 0
    assert run.models().num_rows == 0


def test_dataset(run: Run, any_store: Store, write_trials: Write) -> None:
    empty = run.dataset()
    assert empty.count_rows() == 0
    assert "country" in empty.schema.names
    write_trials(any_store, [4, 0], [0.5, 0.25])
    write_trials(any_store, [8], [0.75])
    with SegmentWriter(any_store.objects) as writer:
        late = pa.record_batch({"trial": pa.array([1]), "metric_rmse": pa.array([1.5]), "status": pa.array(["ok"])})
        writer.add("runs/gdp/trials/backtest", late)
    dataset = run.dataset()
    assert dataset.schema.equals(run.trials().schema)
    assert dataset.to_table().sort_by("trial").equals(run.trials())
    assert dataset.to_table(columns=["trial"], filter=pc.field("metric_mase") > 0.3)["trial"].to_pylist() == [4, 8]


# ---- best ------------------------------------------------------------------------------------------------------


def test_best_is_one_row_a_group_in_their_order(run: Run, any_store: Store, write_trials: Write) -> None:
    write_trials(any_store, [11, 9, 5, 6], [1.0, 2.0, 0.7, 0.3])
    write_trials(any_store, [0, 1, 2, 3], [0.5, 0.25, 0.25, 0.5])
    best = run.best()
    assert best["trial"].to_pylist() == [1, 6, 11]
    assert best["country"].to_pylist() == ["DEU", "FRA", "ITA"]
    assert best.column_names == run.trials().column_names


def test_best_by_mode_max(any_store: Store, record: dict[str, Any], write_trials: Write) -> None:
    record["graph"]["nodes"][1]["sweep"]["mode"] = "max"
    any_store.create_run(record)
    write_trials(any_store, [0, 1, 2, 4, 8], [0.5, 0.75, 0.75, 0.1, -INF])
    with pytest.warns(UserWarning, match="country=ITA"):
        assert any_store.run("gdp").best()["trial"].to_pylist() == [1, 4]


def test_what_is_never_best(run: Run, any_store: Store, write_trials: Write) -> None:
    write_trials(any_store, [0, 1, 2, 3], [NAN, -INF, None, 0.9])
    write_trials(any_store, [4, 5, 6], [0.1, 0.2, 0.3], status=["failed", "timeout", "pruned"])
    write_trials(any_store, [8, 9], [NAN, 0.1], status=["ok", "lost"])
    with pytest.warns(UserWarning, match=r"1 of 3 groups .* no trial with a finite mase: country=ITA") as warned:
        assert run.best()["trial"].to_pylist() == [3, 6]
    assert warned[0].filename == __file__


def test_best_of_nothing(run: Run) -> None:
    with pytest.warns(UserWarning, match="3 of 3 groups"):
        assert run.best().num_rows == 0


def test_best_agrees_with_a_plain_search(any_store: Store, record: dict[str, Any], write_trials: Write) -> None:
    any_store.create_run(record)
    random = np.random.default_rng(0)
    metric = random.integers(0, 4, 12) / 4
    order = random.permutation(12).tolist()
    for part in (order[:5], order[5:]):
        write_trials(any_store, part, [float(metric[trial]) for trial in part])
    expected = [min(range(g * 4, g * 4 + 4), key=lambda trial: (metric[trial], trial)) for g in range(3)]
    assert any_store.run("gdp").best()["trial"].to_pylist() == expected


# ---- failures --------------------------------------------------------------------------------------------------


def test_failures(run: Run, any_store: Store, write_trials: Write, write_values: Write) -> None:
    assert run.failures().num_rows == 0
    write_trials(any_store, [5, 4, 0], [0.1, None, 0.3], status=["ok", "failed", "timeout"])
    write_trials(any_store, [8, 9], [0.1, 0.2], status=["pruned", "lost"])
    write_values(
        any_store, "load", [2, 1, 0], [b"", None, b""], status=["ok", "failed", "ok"], error=[None, "no data", None]
    )
    write_values(any_store, "report", [0], [None], status=["lost"], error=["died"])
    table = run.failures()
    assert table.select(["node", "index", "status", "error"]).to_pylist() == [
        {"node": "load", "index": 1, "status": "failed", "error": "no data"},
        {"node": "backtest", "index": 0, "status": "timeout", "error": "boom 0"},
        {"node": "backtest", "index": 4, "status": "failed", "error": "boom 4"},
        {"node": "backtest", "index": 9, "status": "lost", "error": "boom 9"},
        {"node": "report", "index": 0, "status": "lost", "error": "died"},
    ]
    assert table["group"].to_pylist()[1] == '{"country": "DEU"}'
    assert table["config"].to_pylist()[2] == '{"country": "FRA", "lags": 0}'
    assert table["config"].to_pylist()[0] is None
    places = ["attempt", "host", "worker", "started", "seconds"]
    assert table.column_names == ["node", "index", "status", "error", *places, "group", "config"]


# ---- values ----------------------------------------------------------------------------------------------------


def test_values(run: Run, any_store: Store, write_values: Write) -> None:
    large = encode(np.arange(10))
    put_artifact(any_store.objects, large)
    write_values(any_store, "load", [2, 0], [encode("c").data, encode("a").data])
    with pytest.raises(NotFoundError, match="not there yet") as caught:
        run.value("load")
    assert "2 of 3 elements" in str(caught.value)
    write_values(any_store, "load", [1], [None], digest=[large.digest])
    write_values(any_store, "report", [0], [encode({"n": 1}).data])
    value = run.value("load")
    assert isinstance(value, list)
    assert (value[0], value[1].tolist(), value[2]) == ("a", list(range(10)), "c")
    assert run.value("report") == {"n": 1}
    assert run.value(SimpleNamespace(name="report")) == {"n": 1}
    with pytest.raises(NotFoundError, match="not there yet"):
        run.value("refit")
    with pytest.raises(NotFoundError, match="no node of this name") as caught:
        run.value("reprot")
    assert "'report'" in (caught.value.hint or "")
    with pytest.raises(NotFoundError):
        run.value(3)


def test_a_fan_out_of_one_is_a_list(any_store: Store, record: dict[str, Any], write_values: Write) -> None:
    record["graph"]["nodes"][0]["size"] = 1
    any_store.create_run(record)
    write_values(any_store, "load", [0], [encode("a").data])
    assert any_store.run("gdp").value("load") == ["a"]


def test_failed_elements_say_why(run: Run, any_store: Store, write_values: Write) -> None:
    write_values(
        any_store, "load", [0, 1, 2], [b"x", None, None], status=["ok", "failed", "lost"], error=[None, "no data", None]
    )
    with pytest.raises(ElementFailedError, match="2 of 3 elements of the node 'load'") as caught:
        run.value("load")
    assert "element 1: no data; element 2: lost" in str(caught.value)
    write_values(any_store, "report", [0], [None], status=["failed"], error=["ValueError: x"])
    with pytest.raises(ElementFailedError, match="the node 'report'") as caught:
        run.value("report")
    assert "ValueError: x" in str(caught.value)


def test_a_value_of_none(run: Run, any_store: Store, write_values: Write) -> None:
    write_values(any_store, "report", [0], [encode(None).data])
    assert run.value("report") is None


def test_a_damaged_artifact(run: Run, any_store: Store, write_values: Write) -> None:
    any_store.objects.create(f"artifacts/{'0' * 64}", b"x")
    write_values(any_store, "report", [0], [None], digest=["0" * 64])
    with pytest.raises(StoreCorruptError):
        run.value("report")


def test_the_value_of_a_sweep_is_its_trials(run: Run, any_store: Store, write_trials: Write) -> None:
    write_trials(any_store, [0], [0.5])
    value = run.value("backtest")
    assert isinstance(value, pa.Table)
    assert value.equals(run.trials())
    assert run.elements("backtest").equals(run.trials())


def test_elements(run: Run, any_store: Store, write_values: Write) -> None:
    assert run.elements("load").num_rows == 0
    write_values(any_store, "load", [2, 0], [b"xyz", b""])
    table = run.elements("load")
    assert table["element"].to_pylist() == [0, 2]
    assert table["size"].to_pylist() == [0, 3]
    assert "payload" not in table.column_names
    assert table.schema.field("status").type == pa.string()


# ---- models ----------------------------------------------------------------------------------------------------


def test_models(run: Run, any_store: Store, write_trials: Write, write_values: Write) -> None:
    assert run.models().num_rows == 0
    digest = put_artifact(any_store.objects, encode({"weights": [1.0]}))
    write_trials(any_store, [6, 0], [0.5, 0.25], model=[digest, None])
    write_values(any_store, "refit", [2, 1], [b"", b""], model=[digest, None])
    write_values(any_store, "report", [0], [b""], model=[digest])
    table = run.models()
    assert table.to_pylist() == [
        {"node": "backtest", "index": 6, "country": "FRA", "model": digest},
        {"node": "refit", "index": 2, "country": "ITA", "model": digest},
        {"node": "report", "index": 0, "country": None, "model": digest},
    ]
    assert run.models("refit")["country"].to_pylist() == ["ITA"]
    assert run.load_model(table["model"][0].as_py()) == {"weights": [1.0]}
    with pytest.raises(NotFoundError):
        run.load_model("0" * 64)


# ---- cost ------------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_reading_a_run_imports_nothing_heavy(tmp_path: Any, record: dict[str, Any], write_trials: Write) -> None:
    store = open_store(str(tmp_path))
    store.create_run(record)
    write_trials(store, [3, 1, 5, 9], [0.5, 0.4, 0.3, 0.2])
    script = (
        "import sys\n"
        "from umbel.storage.store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "run = store.run('gdp')\n"
        "assert len(store.runs()) == 1 and run.trials().num_rows == 4 and run.best().num_rows == 3\n"
        "heavy = {'pandas', 'fsspec', 'pyarrow.dataset', 'ray', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_many_trials_are_read_without_reading_them_one_by_one(any_store: Store, record: dict[str, Any]) -> None:
    countries = [f"C{i:03d}" for i in range(200)]
    record["graph"]["nodes"][1].update(
        size=20_000, sweep={**record["graph"]["nodes"][1]["sweep"], "groups": [[c] for c in countries], "trials": 100}
    )
    any_store.create_run(record)
    n = 20_000
    order = np.random.default_rng(0).permutation(n)
    with SegmentWriter(any_store.objects, max_age_s=1000) as writer:
        for part in np.array_split(order, 40):
            writer.add(
                "runs/gdp/trials/backtest",
                pa.record_batch(
                    {
                        "trial": pa.array(part),
                        "country": pa.array([countries[trial // 100] for trial in part]),
                        "metric_mase": pa.array(part % 100 + 0.5),
                        "status": pa.array(["ok"] * len(part)).dictionary_encode(),
                    }
                ),
            )
    run = any_store.run("gdp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        started = time.perf_counter()
        assert run.trials()["trial"].to_pylist() == list(range(n))
        assert run.best()["trial"].to_pylist() == list(range(0, n, 100))
        assert run.failures().num_rows == 0
        # A hundred times what it takes: the bound is against work per row in Python, not a benchmark.
        assert time.perf_counter() - started < 10
