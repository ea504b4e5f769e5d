"""What did a served model answer, joined with what turned out to be true?

It reads what `umbel.storage.predictions.log` writes: any number of small objects of any number of replicas, with rows
that came twice. It must not know what is made of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.scheduler.errors import NotFoundError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.batch_log import DROPPED_KEY
from umbel.storage.predictions.log import OUTCOME_COLUMNS, PREDICTION_COLUMNS
from umbel.storage.runs.segment_format import SegmentDamagedError, decode_segment, unify
from umbel.storage.values.columns import empty_table, integers

__all__ = ["read_predictions"]

_TIME = pa.timestamp("us", tz="UTC")
#: Objects that are read at once, from stores whose answers take time.
_READERS = 32
#: Fewer rows are joined by the calling thread; `umbel.storage.values.codecs.THREADS_FROM_BYTES` says why.
_THREADS_FROM_ROWS = 200_000


def read_predictions(objects: ObjectStore, model: str, since: datetime | None = None) -> pa.Table:
    """What a model answered, in order of time, with outcomes where there are.

    Args:
        objects: the store.
        model: its name.
        since: leave out what was answered before; a time without a zone is UTC.

    Returns:
        The columns `PREDICTION_COLUMNS`, and ``outcome``, ``outcome_json``, ``outcome_time``. A row that was logged
        twice counts once, by its first; of several outcomes of a request the first in time counts, and what is null
        or no finite number is none. The key
        ``umbel.dropped`` of the schema's metadata says how many rows replicas have let go.

    Raises:
        UsageError: this can't be the name of a model.
        StoreError: the store can't be read. Damaged objects are left out with a warning.
    """
    layout.check_name("model", model)
    start = since if since is None or since.tzinfo is not None else since.replace(tzinfo=UTC)
    rows, dropped = _read_log(objects, model, "predictions", PREDICTION_COLUMNS, start)
    if start is not None:
        rows = rows.filter(pc.greater_equal(rows["time"], pa.scalar(start, _TIME)))
    shadows = pc.if_else(rows["shadow"], rows["version"], pa.scalar(None, pa.int64()))
    rows = _first_of_each(rows.append_column("of", shadows), ["request_id", "group", "of"]).drop_columns(["of"])
    outcomes, _ = _read_log(objects, model, "outcomes", OUTCOME_COLUMNS, start)  # no truth is known before its request
    outcomes = _first_of_each(outcomes.filter(_says_something(outcomes)), ["request_id"]).rename_columns(
        ["request_id", "outcome", "outcome_json", "outcome_time"]
    )
    joined = (
        _numbered(rows)
        .join(outcomes, "request_id", use_threads=len(rows) > _THREADS_FROM_ROWS)
        .sort_by("position")
        .drop_columns(["position"])
    )
    return joined.combine_chunks().replace_schema_metadata({DROPPED_KEY: str(dropped)})


def _read_log(
    objects: ObjectStore, model: str, kind: str, columns: pa.Schema, since: datetime | None
) -> tuple[pa.Table, int]:
    """All rows of a log in order of time, and how many were let go. Objects of days before ``since`` are not read."""
    folder = layout.log_folder(model, kind)
    first = "" if since is None else f"{since.astimezone(UTC):%Y-%m-%d}"
    days = [day for day in objects.list_folders(folder) if layout.log_day(day) and day >= first]
    paths = [path for day in days for path in objects.list(f"{folder}/{day}") if path.endswith(".parquet")]
    tables: list[pa.Table] = []
    dropped = 0
    for found in _read_all(objects, paths):
        if isinstance(found, str):
            warnings.warn(f"an object of the log of {model!r} is left out: {found}", UserWarning, stacklevel=3)
        else:
            tables.append(found[0])
            dropped += found[1]
    table = unify([empty_table(columns), *tables]).select(columns.names).cast(columns)
    return table.sort_by("time"), dropped


def _read_all(objects: ObjectStore, paths: Sequence[str]) -> Iterator[tuple[pa.Table, int] | str]:
    """The rows of each object and how many were let go before it; or why it can't be read."""

    def read(path: str) -> tuple[pa.Table, int] | str | None:
        try:
            data = objects.read(path)
        except NotFoundError:
            return None  # deleted since we listed
        try:
            table, _ = decode_segment(data)
        except SegmentDamagedError as error:
            return f"{path}: {error}"
        return table, int((table.schema.metadata or {}).get(DROPPED_KEY.encode(), b"0"))

    found: Iterable[tuple[pa.Table, int] | str | None]
    if objects.is_local_path or objects.is_process_local:
        found = map(read, paths)
    else:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="umbel-log-reader") as readers:
            found = list(readers.map(read, paths))
    return (each for each in found if each is not None)


def _first_of_each(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The first row of each combination of keys, in their order."""
    numbered = _numbered(table).select([*keys, "position"])
    first = numbered.group_by(list(keys), use_threads=len(table) > _THREADS_FROM_ROWS).aggregate([("position", "min")])[
        "position_min"
    ]
    return table if len(first) == len(table) else table.take(first.combine_chunks().sort())


def _says_something(outcomes: pa.Table) -> pa.ChunkedArray:
    """Which outcomes are some: "not known yet" must not stand before what becomes known later."""
    numbers = pc.fill_null(pc.is_finite(outcomes["outcome"]), False)
    return pc.or_(numbers, pc.is_valid(outcomes["outcome_json"]))


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("position", integers(np.arange(table.num_rows)))
