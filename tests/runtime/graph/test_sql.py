"""Queries as nodes, against a real PostgreSQL and SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import umbel
from tests.postgres import PASSWORD, postgres
from tests.runtime.small_graphs import run
from umbel.scheduler.errors import UsageError

QUERY = "select country, year, value from sales where year >= $1 order by country, year"


@umbel.task
def total(sales: pa.Table) -> int:
    return int(sum(sales["value"].to_pylist()))


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URI of a server with a table."""
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    with postgres() as uri:
        with closing(dbapi.connect(uri, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("create table sales (country text, year int, value bigint)")
            cursor.execute("insert into sales values ('AUT', 2019, 1), ('AUT', 2020, 2), ('BRA', 2020, 4)")
        yield uri


def execute(uri: str, statement: str) -> None:
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(uri, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(statement)


@pytest.mark.ray
def test_a_query_is_a_snapshot_with_a_version(database: str, tmp_path: Path) -> None:
    def graph() -> umbel.Node:
        return total.bind(umbel.read_sql(database, QUERY, params=[2020], name="sales"))

    first = run(graph(), tmp_path, name="first")
    assert first.value("total") == 6
    again = run(graph(), tmp_path, name="again")
    execute(database, "insert into sales values ('CHL', 2021, 8)")
    resumed = run(graph(), tmp_path, name="first")
    changed = run(graph(), tmp_path, name="changed")
    execute(database, "delete from sales where country = 'CHL'")

    versions = [each.elements("sales")["digest"][0].as_py() for each in (first, again, resumed, changed)]
    assert versions[0] == versions[1] == versions[2] != versions[3]
    assert (resumed.value("total"), changed.value("total")) == (6, 14)
    source = json.loads(first.elements("sales")["source"][0].as_py())
    assert source["url"] == database.replace(PASSWORD, "<redacted>")
    assert source["query"] == QUERY
    assert source["params"] == ["2020"]
    assert source["rows"] == 2
    assert source["schema"] == [["country", "string"], ["year", "int32"], ["value", "int64"]]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


@pytest.mark.ray
def test_a_query_that_fails_says_why(database: str, tmp_path: Path) -> None:
    found = run(umbel.read_sql(database, "select * from nowhere"), tmp_path)
    (error,) = found.failures()["error"].to_pylist()
    assert "nowhere" in error
    assert PASSWORD not in error


def test_sqlite(tmp_path: Path) -> None:
    pytest.importorskip("adbc_driver_sqlite")
    with closing(sqlite3.connect(tmp_path / "sales.db")) as connection:
        connection.execute("create table sales (country text, value integer)")
        connection.execute("insert into sales values ('AUT', 1), ('BRA', 2)")
        connection.commit()
    node = umbel.read_sql(f"sqlite:///{tmp_path}/sales.db", "select * from sales where value > ?", params=[1])
    table = run(node, tmp_path / "store").value("query")
    assert isinstance(table, pa.Table)
    assert table.to_pylist() == [{"country": "BRA", "value": 2}]


@pytest.mark.parametrize(
    ("uri", "message"),
    [("oracle://db/x", "no driver"), ("bigquery://project/data", "not installed"), ("sales.db", "needs a URI")],
)
def test_what_can_not_be_asked_is_said_at_once(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        umbel.read_sql(uri, "select 1")


def test_a_query_must_be_one() -> None:
    with pytest.raises(UsageError, match="needs a query"):
        umbel.read_sql("sqlite:///x.db", " ")
    with pytest.raises(UsageError, match="params"):
        umbel.read_sql("sqlite:///x.db", "select ?", params="abc")
