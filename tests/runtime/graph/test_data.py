"""Tables read from files: formats, folders and patterns, versions and sources."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import umbel
from tests.runtime.small_graphs import run
from umbel.scheduler.errors import UsageError

SALES = pa.table({"country": ["AUT", "BRA", "CHL"], "year": [2019, 2020, 2021], "value": [1.5, 2.5, 4.0]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same table in every format."""
    found = tmp_path / "data"
    found.mkdir()
    pq.write_table(SALES, found / "sales.parquet")
    pyarrow.csv.write_csv(SALES, found / "sales.csv")
    (found / "sales.csv.gz").write_bytes(gzip.compress((found / "sales.csv").read_bytes()))
    (found / "sales.tsv").write_text((found / "sales.csv").read_text().replace(",", "\t"))
    pyarrow.feather.write_feather(SALES, found / "sales.feather")
    pyarrow.feather.write_feather(SALES, found / "sales.arrow")
    return found


def table_of(node: Any, store: Path, **options: Any) -> tuple[pa.Table, str, dict[str, Any]]:
    """A node's value, version and source."""
    found = run(node, store, **options)
    assert not found.failures().num_rows, found.failures()["error"].to_pylist()
    rows = found.elements("read")
    value = found.value("read")
    assert isinstance(value, pa.Table)
    return value, rows["digest"][0].as_py(), json.loads(rows["source"][0].as_py())


@pytest.mark.parametrize("end", ["parquet", "csv", "csv.gz", "tsv", "feather", "arrow"])
def test_the_same_data_in_any_format_are_the_same_version(folder: Path, tmp_path: Path, end: str) -> None:
    wanted = table_of(umbel.read(folder / "sales.parquet"), tmp_path / "store", name="parquet")[1]
    table, version, source = table_of(umbel.read(folder / f"sales.{end}"), tmp_path / "store", name="other")
    assert table.equals(SALES)
    assert version == wanted
    assert source["url"] == str(folder / f"sales.{end}")
    assert source["rows"] == 3
    assert source["schema"][0] == ["country", "string"]
    assert source["parts"][0]["size"] == (folder / f"sales.{end}").stat().st_size
    assert source["parts"][0]["changed"].startswith("20")


def test_changed_data_are_another_version_and_a_resumed_run_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    node = umbel.read(folder / "sales.parquet")
    before = table_of(node, tmp_path / "store", name="first")[1]
    pq.write_table(SALES.slice(1), folder / "sales.parquet")
    assert table_of(node, tmp_path / "store", name="first")[1] == before
    table, after, _ = table_of(node, tmp_path / "store", name="second")
    assert after != before
    assert table.num_rows == 2


def test_columns_and_rows_are_chosen(folder: Path, tmp_path: Path) -> None:
    node = umbel.read(folder / "sales.parquet", columns=["value", "country"], filter=[("year", ">", 2019)])
    table, _, source = table_of(node, tmp_path / "store")
    assert table.to_pylist() == [{"value": 2.5, "country": "BRA"}, {"value": 4.0, "country": "CHL"}]
    assert source["filter"] == "(year > 2019)"
    same = umbel.read(folder / "sales.csv", columns=["value", "country"], filter=pc.field("year") > 2019)
    assert table_of(same, tmp_path / "store", name="same")[0].equals(table)


def test_a_folder_with_keys_and_a_pattern(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    for country in ("BRA", "AUT"):
        (parts / f"country={country}").mkdir(parents=True)
        rows = SALES.filter(pc.field("country") == country).drop_columns(["country"])
        pq.write_table(rows, parts / f"country={country}" / "0.parquet")
    (parts / "_SUCCESS").touch()
    table, _, source = table_of(umbel.read(parts), tmp_path / "store", name="folder")
    assert table["country"].to_pylist() == ["AUT", "BRA"]
    assert source["files"] == 2
    pattern = umbel.read(str(folder / "sal*.csv"))
    assert table_of(pattern, tmp_path / "store", name="pattern")[0].equals(SALES)


def test_columns_that_some_files_lack_are_null_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pyarrow.csv.write_csv(pa.table({"a": [1]}), tmp_path / "data" / "1.csv")
    pyarrow.csv.write_csv(pa.table({"a": [1.5], "b": ["x"]}), tmp_path / "data" / "2.csv")
    table, _, _ = table_of(umbel.read(tmp_path / "data"), tmp_path / "store")
    assert table.to_pylist() == [{"a": 1.0, "b": None}, {"a": 1.5, "b": "x"}]


def test_a_list_is_a_fan_out_for_the_groups_of_a_sweep(folder: Path, tmp_path: Path) -> None:
    (folder / "other.parquet").write_bytes((folder / "sales.parquet").read_bytes())
    data = umbel.read([folder / "sales.parquet", folder / "other.parquet"], name="sales")
    sweep = umbel.sweep(
        lambda config, table: config["x"] * table.num_rows,
        space={"x": [1, 2]},
        over={"country": ["AUT", "BRA"]},
        data=data,
        search="grid",
        metric="loss",
        name="fit",
    )
    found = run(sweep, tmp_path / "store")
    assert found.trials("fit")["metric_loss"].to_pylist() == [3, 6, 3, 6]
    assert set(found.trials("fit")["data"].to_pylist()) == set(found.elements("sales")["digest"].to_pylist())


def test_other_file_systems_and_credentials(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/umbel-read/sales.csv", b"a,b\n1,x\n")
    node = umbel.read("memory://umbel-read/sales.csv", storage_options={"skip_instance_cache": False})
    assert table_of(node, tmp_path / "store")[0].to_pylist() == [{"a": 1, "b": "x"}]
    assert b"skip_instance_cache" not in b"".join(
        path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": ""}, "path or URL"),
        ({"url": []}, "empty list"),
        ({"url": "x", "format": "xls"}, "unknown format"),
        ({"url": "x", "columns": []}, "columns"),
        ({"url": "x", "columns": ["a", "a"]}, "columns"),
        ({"url": "x", "filter": [("a", "like", 1)]}, "filter"),
        ({"url": "x", "filter": 3}, "filter"),
    ],
)
def test_mistakes_are_said_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        umbel.read(**given)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing.parquet", {}, "No such file|missing.parquet"),
        ("*.pq", {}, "there are no files"),
        ("notes.txt", {}, "format"),
        ("sales.parquet", {"columns": ["price"]}, "has no column 'price'"),
        ("mixed", {}, "don't make one table"),
    ],
)
def test_what_can_not_be_read_fails_with_the_reason(
    folder: Path, tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    (folder / "notes.txt").write_text("hello")
    (folder / "mixed").mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "mixed" / "1.parquet")
    pq.write_table(pa.table({"a": ["x"]}), folder / "mixed" / "2.parquet")
    found = run(umbel.read(folder / name, **options), tmp_path / "store")
    (error,) = found.failures()["error"].to_pylist()
    assert re.search(message, error)
