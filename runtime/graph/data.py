"""`umbel.read`: tables from files as nodes of a graph, whose versions are part of the lineage.

A read runs on a worker like any other task. Its value is a `pyarrow.Table`, kept with the run, so a resumed run does
not read again, and a new run reads anew. What identifies the data is the digest of the table's content, so the same
rows under another name, in another format or other files are the same data; where they came from is noted beside it.
It must not know how values are stored or scheduled. Databases are in `umbel.runtime.graph.sql`.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.runtime.driver.programs import InputKind
from umbel.runtime.graph.nodes import Argument, TaskNode
from umbel.runtime.graph.task import Task
from umbel.runtime.leases.results import Sourced
from umbel.scheduler.errors import CodeError, NotFoundError, UsageError
from umbel.storage.redaction import redact_url

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ["FileSource", "read", "read_node", "schema_facts"]

#: Formats by the end of a file's name, before that of a compression.
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "feather",
}
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
#: Files that are named one by one; of more, their number and size are noted.
FILES_LIMIT = 200
#: How often a read is tried again after an error of the file system, the network or the database.
RETRIES = 2


@dataclass(frozen=True, slots=True)
class FileSource:
    """What to read; the URL is without credentials, which travel beside it."""

    url: str
    columns: tuple[str, ...] | None
    #: A `pyarrow.compute.Expression`, or None.
    filter: Any
    format: str | None


def read(
    url: str | Path | Sequence[str | Path],
    *,
    columns: Sequence[str] | None = None,
    filter: Any = None,
    format: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> TaskNode:
    """A table read from files, as a node: give it to `Task.bind`, `Task.map` or ``data=`` of `umbel.sweep`.

    Args:
        url: a file, a folder (all files in it; ``key=value`` folders become columns) or a pattern with ``*``, as a
            path or any fsspec URL. A list of them gives a fan-out: one table each.
        columns: the columns to read, in this order; None: all.
        filter: which rows: a `pyarrow.compute.Expression` or a list of ``(column, operator, value)``.
        format: "parquet", "csv", "tsv", "arrow" or "feather"; None: by the files' names.
        storage_options: for fsspec, such as endpoint and credentials. They are not stored.
        name: the node's name in the run; default "read".

    The value is a `pyarrow.Table` of at most 2 GiB. Files of a folder or pattern are read in order of their names; a
    column that some of them lack is null there. The run notes the table's digest, schema and number of rows, and each
    file's size, time and ETag as far as the file system knows them. Errors of the file system are tried again twice.

    Raises:
        UsageError: an argument is wrong.
    """
    several = isinstance(url, (list, tuple))
    urls = [_checked_url(each) for each in (url if isinstance(url, (list, tuple)) else [url])]
    if not urls:
        raise UsageError("umbel.read was given an empty list", expected="at least one URL")
    if format is not None and format not in FORMATS.values():
        raise UsageError(
            "unknown format", got=repr(format), expected=", ".join(map(repr, dict.fromkeys(FORMATS.values())))
        )
    names = _checked_columns(columns)
    chosen = _expression(filter)
    sources = [FileSource(redact_url(each), names, chosen, format) for each in urls]
    hidden = [
        {"url": each if redact_url(each) != each else None, "storage_options": dict(storage_options or {})}
        for each in urls
    ]
    return read_node(read_files, name or "read", sources, hidden, fans_out=several)


def read_node(
    fn: Any,
    name: str,
    sources: Sequence[object],
    hidden: Sequence[object],
    *,
    fans_out: bool,
    retry_on: tuple[type[BaseException], ...] = (OSError,),
) -> TaskNode:
    """A node that calls ``fn(source, credentials=…)`` for each source, and again after these errors.

    What is passed as ``credentials`` reaches the workers, but neither the store nor any digest.
    """
    task = Task(fn, name=name, retries=RETRIES, retry_on=retry_on, cache=False)
    if fans_out:
        arguments = (
            Argument(None, list(sources), InputKind.EACH),
            Argument("credentials", list(hidden), InputKind.EACH),
        )
    else:
        arguments = (Argument(None, sources[0], InputKind.ONE), Argument("credentials", hidden[0], InputKind.ONE))
    return TaskNode(task, len(sources), arguments, fans_out=fans_out)


def _checked_url(url: object) -> str:
    if isinstance(url, Path):
        url = str(url)
    if not isinstance(url, str) or not url:
        raise UsageError("umbel.read needs a path or URL", got=repr(url), expected="data/*.parquet, or s3://bucket/key")
    if "://" in url:
        return url
    return str(Path(url).expanduser().absolute())  # workers have another current folder


def _checked_columns(columns: object) -> tuple[str, ...] | None:
    if columns is None:
        return None
    names = (
        tuple(columns)
        if isinstance(columns, Sequence) and not isinstance(columns, str)
        else ((columns,) if isinstance(columns, str) else ())
    )
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UsageError("columns is not a list of names", got=repr(columns), expected='columns=["country", "value"]')
    return names


def _expression(given: Any) -> Any:
    if given is None:
        return None
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow.parquet import filters_to_expression

    if isinstance(given, pc.Expression):
        return given
    try:
        return filters_to_expression(given)
    except (TypeError, ValueError, IndexError, pa.ArrowException) as error:
        raise UsageError(
            f"the filter can't be read: {error}",
            got=repr(given),
            expected="a pyarrow.compute.Expression, or a list of (column, operator, value)",
            hint='for example filter=[("country", "in", ["AUT", "BRA"]), ("year", ">=", 1990)]',
        ) from None


# ---- on a worker -----------------------------------------------------------------------------------------------


def read_files(source: FileSource, *, credentials: Mapping[str, Any]) -> Sourced:
    """Read a source; what a node made by `read` runs."""
    import fsspec
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.fs

    files, root = fsspec.core.url_to_fs(credentials["url"] or source.url, **credentials["storage_options"])
    folder, paths = _paths(files, root, source.url)
    kind = source.format or _format_of(paths[0], source.url)
    # Arrow reads local files by itself, without taking Python's lock.
    local = "file" in (files.protocol if isinstance(files.protocol, (list, tuple)) else [files.protocol])
    open_files = functools.partial(
        ds.dataset,
        paths,
        format=_file_format(kind),
        filesystem=pa.fs.LocalFileSystem() if local else files,
        partitioning=ds.partitioning(flavor="hive") if folder else None,
        partition_base_dir=folder,
    )
    dataset = open_files()
    if len(paths) > 1:
        dataset = open_files(schema=_common_schema(dataset, source.url))
    missing = [name for name in source.columns or () if name not in dataset.schema.names]
    if missing:
        raise NotFoundError(
            f"{source.url} has no column {', '.join(map(repr, missing))}",
            expected="some of " + ", ".join(dataset.schema.names),
        )
    table = dataset.to_table(columns=None if source.columns is None else list(source.columns), filter=source.filter)
    return Sourced(
        table,
        {
            "kind": "files",
            "url": source.url,
            "format": kind,
            "columns": None if source.columns is None else list(source.columns),
            "filter": None if source.filter is None else str(source.filter),
            **schema_facts(table),
            **_file_facts(files, paths),
        },
    )


def schema_facts(table: pa.Table) -> dict[str, Any]:
    """What is noted of a table: its number of rows, and its columns with their types."""
    return {"rows": table.num_rows, "schema": [[field.name, str(field.type)] for field in table.schema]}


def _paths(files: Any, root: str, url: str) -> tuple[str | None, list[str]]:
    """The files that a URL names, in order, and their folder if it names one."""
    folder = None
    if any(character in root for character in "*?["):
        found = [path for path in files.glob(root) if not files.isdir(path)]
    elif files.isdir(root):
        folder = root.rstrip("/")
        found = [path for path in files.find(root) if not _is_hidden(posixpath.relpath(path, folder))]
    else:
        found = [root]
    if not found:
        raise NotFoundError(f"there are no files at {url}", hint="a pattern or folder must match at least one file")
    return folder, sorted(found)


def _is_hidden(path: str) -> bool:
    """Whether it is no data by the convention of Spark and Arrow: ``_SUCCESS``, ``.crc``, ``_temporary/…``."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))


def _format_of(path: str, url: str) -> str:
    stem, end = posixpath.splitext(path.lower())
    if end in COMPRESSIONS:
        end = posixpath.splitext(stem)[1]
    found = FORMATS.get(end)
    if found is None:
        raise UsageError(
            f"the format of {url} can't be told from its name",
            got=posixpath.basename(path),
            expected="a name that ends in " + ", ".join(FORMATS),
            hint='say it: umbel.read(…, format="parquet")',
        )
    return found


def _file_format(kind: str) -> Any:
    import pyarrow.csv
    import pyarrow.dataset as ds

    if kind == "tsv":
        return ds.CsvFileFormat(parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
    return kind


def _common_schema(dataset: ds.Dataset, url: str) -> pa.Schema:
    """The columns of all files: left to itself, Arrow takes those of the first."""
    import pyarrow as pa

    try:
        schemas = [dataset.schema, *(fragment.physical_schema for fragment in dataset.get_fragments())]
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise CodeError(
            f"the files of {url} don't make one table",
            got=str(error),
            expected="columns of one name to be of one type, or of types with a common one",
            hint="read them apart, by giving umbel.read a list",
        ) from error


def _file_facts(files: Any, paths: Sequence[str]) -> dict[str, Any]:
    """How many files, how large, and of the first ones what the file system knows."""
    described = []
    size_bytes = 0
    for position, path in enumerate(paths):
        info = files.info(path)
        size_bytes += int(info.get("size") or 0)
        if position < FILES_LIMIT:
            changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("updated")
            etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
            facts = {"path": path, "size": info.get("size"), "changed": _time_text(changed), "etag": etag}
            described.append({key: value for key, value in facts.items() if value is not None})
    return {"files": len(paths), "bytes": size_bytes, "parts": described}


def _time_text(value: object) -> str | None:
    from datetime import UTC, datetime

    if isinstance(value, (int, float)):
        value = datetime.fromtimestamp(value, UTC)
    return value.isoformat() if isinstance(value, datetime) else value if isinstance(value, str) else None
