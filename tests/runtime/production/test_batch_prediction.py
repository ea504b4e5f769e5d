"""Predictions for a whole table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import umbel
from umbel.scheduler.errors import ElementFailedError, NotFoundError, UsageError
from umbel.storage.registry.model_version import ModelVersion


def registered(folder: Path, models: dict[str, Any], inputs: Any) -> ModelVersion:
    def fit(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"mae": 1.0}, model=models[config["country"]])

    sweep = umbel.sweep(fit, space={"x": [1]}, over={"country": list(models)}, trials=1, metric="mae", mode="min")
    run = umbel.run(sweep, store=str(folder / "store"), executor="inline", progress="quiet")
    return umbel.open_store(str(folder / "store")).registry.register(run, model="gdp", inputs=inputs)


def rows_of(run: umbel.Run) -> list[dict[str, Any]]:
    tables: Any = run.value("predict")
    rows: list[dict[str, Any]] = pa.concat_tables(tables, promote_options="permissive").to_pylist()
    return rows


TABLE = {"country": ["FRA", "DEU", "FRA"], "year": [1, 1, 2], "x": [1.0, 2.0, 3.0]}


def test_a_row_is_a_request_of_a_model_that_takes_json(tmp_path: Path) -> None:
    models = {"DEU": lambda row: row["x"], "FRA": lambda row: 10 * row["x"] + row["year"]}
    version = registered(tmp_path, models, {"x": 1.0, "year": 1})
    run = umbel.predict(version, TABLE, "country", trust=True, executor="inline", progress="quiet", name="batch")
    assert rows_of(run) == [
        {"country": "FRA", "year": 1, "x": 1.0, "outputs": 11.0},
        {"country": "FRA", "year": 2, "x": 3.0, "outputs": 32.0},
        {"country": "DEU", "year": 1, "x": 2.0, "outputs": 2.0},
    ]
    assert umbel.open_store(run.store_url).run("batch").status == "done"


def test_names_of_columns_may_hold_commas(tmp_path: Path) -> None:
    version = registered(tmp_path, {"DEU": sorted}, {"x": 1.0})
    table = {"country,code": ["DEU"], "x,y": [1.0]}
    run = umbel.predict(version, table, "country,code", trust=True, executor="inline", progress="quiet")
    assert [row["outputs"] for row in rows_of(run)] == [["x,y"]]


def test_a_model_that_takes_arrays_gets_all_rows_at_once(tmp_path: Path) -> None:
    models = {"DEU": lambda rows: rows.sum(axis=1), "FRA": lambda rows: rows[:, 1]}
    version = registered(tmp_path, models, np.zeros((2, 2)))
    run = umbel.predict(version, TABLE, trust=True, executor="inline", progress="quiet")
    assert [row["outputs"] for row in rows_of(run)] == [1.0, 3.0, 3.0]


def test_a_column_may_hold_the_requests(tmp_path: Path) -> None:
    version = registered(tmp_path, {"DEU": sum, "FRA": len}, [1.0])
    table = pa.table({"who": ["DEU", "FRA"], "history": [[1.0, 2.0], [3.0]]})
    run = umbel.predict(version, table, "who", inputs="history", trust=True, executor="inline", progress="quiet")
    assert [row["outputs"] for row in rows_of(run)] == [3.0, 1.0]


def test_what_cannot_be_meant_is_refused_before_anything_runs(tmp_path: Path) -> None:
    version = registered(tmp_path, {"DEU": sum, "FRA": len}, [1.0])
    options: dict[str, Any] = {"trust": True, "executor": "inline", "progress": "quiet"}
    with pytest.raises(NotFoundError, match="FRAN"):
        umbel.predict(version, {"country": ["FRAN"], "x": [1]}, **options)
    for table, group in (({"x": [1]}, "country"), ({"country": [], "x": []}, "country"), (7, None)):
        with pytest.raises(UsageError):
            umbel.predict(version, table, group, **options)
    assert len(umbel.open_store(str(tmp_path / "store")).runs()) == 1


def test_a_group_whose_model_fails_is_a_failure(tmp_path: Path) -> None:
    version = registered(tmp_path, {"DEU": lambda row: 1 / row["x"], "FRA": lambda row: 1.0}, {"x": 1.0})
    table = {"country": ["DEU", "FRA"], "x": [0.0, 0.0]}
    run = umbel.predict(version, table, trust=True, executor="inline", progress="quiet")
    [failure] = run.failures().to_pylist()
    assert "ZeroDivisionError" in failure["error"]
    found: Any = run.value("predict", 1)
    assert found["outputs"].to_pylist() == [1.0]


def test_rows_that_no_model_can_answer_are_one_clear_error(tmp_path: Path) -> None:
    version = registered(tmp_path, {"DEU": lambda row: 1 / row["x"], "FRA": lambda row: 1 / row["x"]}, {"x": 1.0})
    table = {"country": ["DEU", "FRA"], "x": [0.0, 0.0]}
    run = umbel.predict(version, table, trust=True, executor="inline", progress="quiet")
    with pytest.raises(ElementFailedError, match=r"element 0: ZeroDivisionError: .* element 1: Zero") as failed:
        run.value("predict")
    assert "Traceback" not in str(failed.value)
    assert all("Traceback" in error for error in run.failures()["error"].to_pylist())
