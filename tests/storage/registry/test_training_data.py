"""What registering finds out about the data that winners were trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import umbel
from umbel.scheduler.statistics.distributions import Categories, Numbers
from umbel.storage.registry import training_data
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.profiles import Descriptions, read_profile

GROUPS = ["AUT", "BRA", "CHL"]
EXAMPLE = {"x": 1.0, "kind": "a", "unknown": 1}


def table(country: str) -> pa.Table:
    rows = 3_000
    x = np.linspace(0.0, 1.0, rows) + GROUPS.index(country)
    return pa.table({"x": x, "kind": ["a", "b"] * (rows // 2), "target": x * 2})


def fit(config: dict[str, Any], data: Any) -> umbel.Result:
    return umbel.Result({"loss": float(config["level"])}, model=str)


@umbel.task
def load(country: str) -> pa.Table:
    return table(country)


@umbel.task
def all_of_it() -> pa.Table:
    return pa.concat_tables(table(country) for country in GROUPS)


@umbel.task
def as_list() -> list[Any]:
    return [table(country) for country in GROUPS]


@umbel.task
def series(country: str) -> list[float]:
    return [float(len(country))] * 10


@umbel.task
def matrix(country: str) -> Any:
    return np.arange(20.0).reshape(10, 2)


@umbel.task
def texts(country: str) -> str:
    return country


def registered(
    folder: Path, data: Any, inputs: Any = EXAMPLE, **options: Any
) -> tuple[ModelVersion, Descriptions | None]:
    sweep = umbel.sweep(
        fit, space={"level": [1, 2]}, over={"country": GROUPS}, data=data, search="grid", metric="loss", name="fit"
    )
    run = umbel.run(sweep, store=str(folder / "store"), executor="inline", progress="quiet", fresh=True)
    store = umbel.open_store(run.store_url)
    version = store.registry.register(run, model="m", inputs=inputs, **options)
    return version, read_profile(store.objects, "m", version.number)


@pytest.mark.parametrize(
    "data",
    [
        lambda folder: load.map(GROUPS),
        lambda folder: all_of_it.bind(),
        lambda folder: as_list.bind().elements(),
        lambda folder: [table(country) for country in GROUPS],
        lambda folder: [table(country).slice(0, 1000).to_pandas() for country in GROUPS],
        lambda folder: umbel.read(written(folder)),
    ],
    ids=["a table a group", "one table", "a list of tables", "tables as they are", "small frames", "files"],
)
def test_tables_are_described(tmp_path: Path, data: Callable[[Path], Any]) -> None:
    _, found = registered(tmp_path, data(tmp_path))
    assert found is not None
    assert list(found.inputs) == ["x", "kind"]  # what the example has, too: neither the target nor what is unknown
    x, kind = found.inputs["x"], found.inputs["kind"]
    assert isinstance(x, Numbers)
    assert isinstance(kind, Categories)
    assert x.minimum == 0.0
    assert 2.0 < x.maximum <= 3.0
    assert set(kind.counts) == {"a", "b"}
    assert found.rows in (9_000, 3_000)
    assert found.outputs is None


def written(folder: Path) -> Path:
    pq.write_table(pa.concat_tables(table(country) for country in GROUPS), folder / "training.parquet")
    return folder / "training.parquet"


def test_series_and_arrays(tmp_path: Path) -> None:
    _, found = registered(tmp_path, series.map(GROUPS), [1.0, 2.0])
    assert found is not None
    assert (list(found.inputs), found.rows, found.inputs["inputs"].count) == (["inputs"], 30, 30)
    _, found = registered(tmp_path, matrix.map(GROUPS), np.zeros((2, 2)))
    assert found is not None
    assert list(found.inputs) == ["0", "1"]


def test_what_can_not_be_described(tmp_path: Path) -> None:
    assert registered(tmp_path, load.map(GROUPS), EXAMPLE, profile=False)[1] is None
    assert registered(tmp_path, load.map(GROUPS), None)[1] is None  # what is asked is not known
    assert registered(tmp_path, load.map(GROUPS), [1.0])[1] is None
    assert registered(tmp_path, texts.map(GROUPS))[1] is None


def test_samples_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "_MAX_ROWS", 300)
    monkeypatch.setattr(training_data, "_MAX_GROUPS", 2)
    _, found = registered(tmp_path, load.map(GROUPS))
    assert found is not None
    assert found.rows == 300
    assert (found.inputs["x"].minimum, found.inputs["x"].maximum) == (0.0, 3.0)  # type: ignore[union-attr]
    monkeypatch.setattr(training_data, "_MAX_BYTES", 1_000)
    assert registered(tmp_path, load.map(GROUPS))[1] is None


def test_what_somebody_keeps_goes_first(tmp_path: Path) -> None:
    version, _ = registered(tmp_path, load.map(GROUPS))
    umbel.profile({"x": [1.0, 2.0]}).save("m", version.number, store=version.url)
    kept = read_profile(umbel.open_store(version.url).objects, "m", version.number)
    assert kept is not None
    assert (kept.rows, list(kept.inputs)) == (2, ["x"])


def test_data_that_can_not_be_read_stand_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*arguments: Any) -> Any:
        raise RuntimeError("a class of the user's")

    monkeypatch.setattr(training_data, "decode", breaks)
    version, found = registered(tmp_path, load.map(GROUPS))
    assert (version.number, found) == (1, None)
