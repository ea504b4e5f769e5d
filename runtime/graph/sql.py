"""`umbel.read_sql`: the result of a query as a node of a graph, by way of ADBC, which brings it as Arrow columns.

The result is a snapshot: it is kept with the run like the value of any node, under the digest of its content. As in
`umbel.runtime.graph.data`, credentials travel beside what is recorded. It must not know how values are stored.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from umbel.runtime.graph.data import read_node, schema_facts
from umbel.runtime.graph.nodes import TaskNode
from umbel.runtime.leases.results import Sourced
from umbel.scheduler.errors import UsageError
from umbel.storage.redaction import redact, redact_url

__all__ = ["Query", "read_sql"]

#: The driver of each kind of URI. PostgreSQL and SQLite are tested against real databases; for the others, what a URI
#: and the options look like is said by the drivers' own documentation.
DRIVERS = {
    "postgresql": "adbc_driver_postgresql",
    "postgres": "adbc_driver_postgresql",
    "redshift": "adbc_driver_postgresql",
    "sqlite": "adbc_driver_sqlite",
    "snowflake": "adbc_driver_snowflake",
    "bigquery": "adbc_driver_bigquery",
    "grpc": "adbc_driver_flightsql",
    "grpc+tls": "adbc_driver_flightsql",
}


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask; the URI is without credentials."""

    uri: str
    query: str
    params: tuple[Any, ...] | None


def read_sql(
    uri: str,
    query: str,
    *,
    params: Sequence[Any] | None = None,
    options: Mapping[str, str] | None = None,
    name: str | None = None,
) -> TaskNode:
    """The result of a query, as a node whose value is a `pyarrow.Table`.

    ``umbel.read_sql("postgresql://ada@db.example/sales", "select * from orders where year >= $1", params=[2020])``

    Args:
        uri: ``postgresql://…``, ``redshift://…`` (by PostgreSQL's driver), ``sqlite:///file``, ``snowflake://…``,
            ``bigquery://project/dataset``, ``grpc+tls://…`` (Flight SQL). The driver's package must be installed where
            it runs: ``pip install "umbel[sql]"`` brings PostgreSQL's, ``adbc-driver-snowflake`` and
            ``adbc-driver-bigquery`` are those of Snowflake and BigQuery.
        query: one statement; it is recorded.
        params: values for its parameters, in the driver's notation (PostgreSQL: ``$1``).
        options: options of the driver's database, as its documentation names them; not recorded.
        name: the node's name in the run; default "query".

    The query runs once a run, on a worker; a resumed run has its result. The result's order of rows is part of the
    data: without ``order by`` equal rows may count as another version.

    Raises:
        UsageError: an argument is wrong, or the driver is not installed here.
    """
    if not isinstance(uri, str) or "://" not in uri:
        raise UsageError("umbel.read_sql needs a URI", got=repr(uri), expected="postgresql://user@host/database")
    if not isinstance(query, str) or not query.strip():
        raise UsageError("umbel.read_sql needs a query", got=repr(query), expected="one SQL statement, as text")
    if isinstance(params, (str, bytes)) or not (params is None or isinstance(params, Sequence)):
        raise UsageError("params is not a list", got=repr(type(params).__name__), expected="a list of values, or None")
    _driver(uri)
    from adbc_driver_manager import OperationalError  # the network, or a server that is busy

    source = Query(redact_url(uri), query, None if params is None else tuple(params))
    hidden = {"uri": uri if redact_url(uri) != uri else None, "options": dict(options or {})}
    return read_node(
        run_query, name or "query", [source], [hidden], fans_out=False, retry_on=(OSError, OperationalError)
    )


def run_query(source: Query, *, credentials: Mapping[str, Any]) -> Sourced:
    """Run a query; what a node made by `read_sql` runs."""
    uri = credentials["uri"] or source.uri
    driver = importlib.import_module(f"{_driver(uri)}.dbapi")
    address, options = _address(uri)
    options |= credentials["options"]
    arguments = ([] if address is None else [address], {"db_kwargs": options} if options else {})
    with closing(driver.connect(*arguments[0], **arguments[1])) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(source.query, source.params)
        table = cursor.fetch_arrow_table()
    return Sourced(
        table,
        {
            "kind": "query",
            "url": source.uri,
            "query": redact(source.query),
            "params": None if source.params is None else [str(redact(value)) for value in source.params],
            **schema_facts(table),
        },
    )


def _driver(uri: str) -> str:
    scheme = uri.partition("://")[0].lower()
    package = DRIVERS.get(scheme)
    if package is None:
        raise UsageError(
            "no driver for this database", got=f"{scheme}://", expected=", ".join(f"{s}://" for s in DRIVERS)
        )
    for needed in ("adbc_driver_manager", package):
        if importlib.util.find_spec(needed) is None:
            raise UsageError(
                f"the driver for {scheme}:// is not installed",
                got=f"no package {needed}",
                hint=f'pip install "umbel[sql]" {package.replace("_", "-")}',
            )
    return package


def _address(uri: str) -> tuple[str | None, dict[str, str]]:
    """How a driver wants the URI: as it is, in a form of its own, or as options."""
    scheme, _, rest = uri.partition("://")
    match scheme.lower():
        case "sqlite":
            return rest.removeprefix("/") if rest.startswith("//") else rest, {}
        case "redshift":
            return f"postgresql://{rest}", {}
        case "snowflake":
            return rest, {}
        case "bigquery":
            parts = urlsplit(uri)
            names = {
                "adbc.bigquery.sql.project_id": parts.netloc,
                "adbc.bigquery.sql.dataset_id": parts.path.strip("/"),
            }
            return None, {name: value for name, value in names.items() if value}
        case _:
            return uri, {}
