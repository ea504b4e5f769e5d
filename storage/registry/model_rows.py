"""Which row stands for each group of a registered version, and how is its model read and kept?

A version's rows are one Parquet file: the group's keys and canonical text, the trial that won with its config, metrics
and lineage, the node and element that made the model if the trial itself did not, and the model's digest, place, format
and size. It must not know versions or aliases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from umbel.scheduler.errors import StoreCorruptError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.artifacts import read_artifact
from umbel.storage.values.codecs import Encoded, digest_of, read_parquet, write_parquet
from umbel.storage.values.packs import MODEL, MODEL_AT, PackedPlace, read_packed

__all__ = ["FORMAT", "GROUP", "SIZE", "by_columns", "encode_rows", "model_bytes", "read_rows", "read_table"]

#: Columns: the canonical text of the group; how the model is written; its bytes.
GROUP = "group"
FORMAT = "model_format"
SIZE = "model_size"
#: Names of columns that group keys can have, because the trials table has none of that name.
_ADDED = frozenset({GROUP, FORMAT, SIZE, "node", "element", "registered", "run_created", "source", "environment"})
_REQUIRED: Mapping[str, pa.DataType] = {
    GROUP: pa.string(),
    MODEL: pa.string(),
    MODEL_AT: pa.string(),
    FORMAT: pa.string(),
    SIZE: pa.int64(),
}


def by_columns(by: Sequence[str]) -> tuple[str, ...]:
    """The columns that hold the group keys: of the same name, or ``key_<name>`` where that is another column's."""
    return tuple(f"key_{name}" if name.lower() in _ADDED else name for name in by)


def encode_rows(rows: pa.Table) -> Encoded:
    """The rows of a version as the Parquet file that is stored."""
    data = write_parquet(rows)
    return Encoded("parquet", data, digest_of(data))


def read_rows(objects: ObjectStore, digest: str, groups: int, by: Sequence[str]) -> pa.Table:
    """The rows of a version.

    Args:
        objects: the store.
        digest: of the artifact.
        groups: how many there must be.
        by: columns that there must be.

    Raises:
        NotFoundError: the artifact is gone.
        StoreCorruptError: it is not what the rows of a version are.
    """
    table = read_table(objects, digest)
    wrong = [name for name, kind in _REQUIRED.items() if name not in table.column_names or table[name].type != kind]
    wrong += [name for name in by if name not in table.column_names]
    texts = [] if wrong else table[GROUP].to_pylist()
    if not wrong and (len(texts) != groups or None in texts or len(set(texts)) != groups):
        wrong = [f"{GROUP}: {len(set(texts))} different groups of {groups}"]
    if not wrong and (table[MODEL].null_count or table[SIZE].null_count):
        wrong = [f"{MODEL}: nulls"]
    if wrong:
        raise StoreCorruptError(
            f"the artifact {digest} in the store {objects.url} is no table of models",
            got="columns that are missing or of another kind: " + ", ".join(wrong),
            expected="what Umbel writes there",
            hint="restore the version's record and the artifact from a copy",
        )
    return table


def read_table(objects: ObjectStore, digest: str) -> pa.Table:
    """A table that is stored as a Parquet artifact; nothing is unpickled.

    Raises:
        NotFoundError: the artifact is gone.
        StoreCorruptError: it is damaged, or no Parquet file.
    """
    data = read_artifact(objects, digest)
    try:
        return read_parquet(data)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreCorruptError(
            f"the artifact {digest} in the store {objects.url} is no table", got=f"{type(error).__name__}: {error}"
        ) from error


def model_bytes(objects: ObjectStore, row: Mapping[str, Any]) -> bytes:
    """The bytes of a row's model, checked against its size and digest. Cost: one request, two if it lies alone.

    Raises:
        NotFoundError: it is gone.
        StoreCorruptError: it is damaged, or another size than the row says.
    """
    digest, at, size_bytes = str(row[MODEL]), row.get(MODEL_AT), int(row[SIZE])
    # Before it is read: what somebody has put there instead could be of any size.
    found_bytes = PackedPlace.parse(at).length if at else objects.size(layout.artifact(digest))
    if found_bytes != size_bytes:
        raise StoreCorruptError(
            f"the model {digest} in the store {objects.url} is damaged",
            got=f"{found_bytes} bytes",
            expected=f"{size_bytes} bytes",
            hint="restore it from a copy, or register the run again",
        )
    return read_packed(objects, at, digest) if at else read_artifact(objects, digest)
