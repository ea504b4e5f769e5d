"""Which bytes stand for a value, so that any tool can read them where a standard format exists?

Arrow tables and pandas frames become Parquet, NumPy arrays become npy, all else is pickled. The first bytes say which.
A value whose round trip through the standard format would change it (a dtype, an index) is pickled instead. pandas is
never imported here unless the value is made of it. It must not know where the bytes go.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umbel.scheduler.errors import StoreCorruptError, StoreError
from umbel.storage.values.arrow_bytes import arrow_reader
from umbel.storage.values.pickling import dumps

__all__ = ["THREADS_FROM_BYTES", "Encoded", "decode", "digest_of", "encode", "read_parquet", "write_parquet"]

#: Smaller Parquet files are decoded by the calling thread: it is no slower, and a process that ends right after Arrow's
#: threads have begun is now and then aborted (apache/arrow#34314), after a command has done its work.
THREADS_FROM_BYTES = 2**20
_PARQUET_MAGIC = b"PAR1"
_NPY_MAGIC = b"\x93NUMPY"
_PICKLE_MAGIC = b"\x80"
#: Where a Parquet value says whether it was a "table", a "frame" or a "series".
_KIND = b"umbel.value"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as bytes."""

    #: "parquet", "npy" or "pickle".
    format: str
    data: bytes
    #: sha256 of the bytes, in hex: the value's identity.
    digest: str


def digest_of(data: bytes) -> str:
    """The sha256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(value: object) -> Encoded:
    """Turn a value into self-describing bytes; equal tables, frames and arrays give equal bytes.

    Cost: one encoding; for tables and frames one decoding more, which checks that nothing changes on the way.

    Raises:
        CodeError: the value can't be pickled; its culprit is named.
    """
    cls = type(value)
    package = cls.__module__.partition(".")[0]
    data: bytes | None = None
    name = "pickle"
    if package == "numpy" and cls is np.ndarray:
        name, data = "npy", _encode_array(value)
    elif package == "pyarrow" and cls is pa.Table:
        name, data = "parquet", _encode_table(value)
    elif package == "pandas":
        from umbel.storage.values.codecs_pandas import encode_pandas

        name, data = "parquet", encode_pandas(value, _KIND)
    if data is None:
        name, data = "pickle", dumps(value)
    return Encoded(name, data, digest_of(data))


def decode(data: bytes) -> object:
    """The value that some bytes from `encode` stand for. Unpickling runs code: only for bytes of a trusted store.

    Raises:
        StoreCorruptError: the bytes are not what `encode` makes.
        StoreError: a package or class that the value needs is missing here.
    """
    try:
        if data.startswith(_NPY_MAGIC):
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if data.startswith(_PARQUET_MAGIC):
            return _decode_parquet(data)
        if data.startswith(_PICKLE_MAGIC):
            return pickle.loads(data)
    except (ImportError, AttributeError) as error:
        raise StoreError(
            "a stored value needs code that is missing here",
            got=f"{type(error).__name__}: {error}",
            hint="install the package that defines it; of a module beside your script: PYTHONPATH=THAT-FOLDER umbel …",
        ) from error
    except (pa.ArrowException, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise StoreCorruptError("a stored value can't be decoded", got=f"{type(error).__name__}: {error}") from error
    except Exception as error:
        raise StoreError(
            "a stored value's own code failed when it was unpickled", got=f"{type(error).__name__}: {error}"
        ) from error
    raise StoreCorruptError(
        "a stored value has no known format", got=repr(data[:8]), expected="Parquet, npy or a pickle"
    )


def _encode_array(value: object) -> bytes | None:
    assert isinstance(value, np.ndarray)
    if value.dtype.hasobject:
        return None
    if value.dtype.metadata is not None:
        return None
    file = io.BytesIO()
    try:
        # A dtype that npy has no words for is described as raw bytes.
        description = np.lib.format.dtype_to_descr(value.dtype)
        if np.lib.format.descr_to_dtype(description) != value.dtype:
            return None
        # Left to itself NumPy takes the oldest version that will do, and warns if that is not one of the first two.
        version = None if repr(description).isascii() else (3, 0)
        np.lib.format.write_array(file, value, version, allow_pickle=False)
    except (ValueError, TypeError):
        return None
    return file.getvalue()


def _encode_table(table: pa.Table) -> bytes | None:
    schema = table.schema
    metadata = {**(schema.metadata or {}), _KIND: b"table"}
    try:
        data = write_parquet(table.replace_schema_metadata(metadata))
        back = _decode_parquet(data)
    except (pa.ArrowException, NotImplementedError, ValueError, KeyError):  # a type that Parquet has no words for
        return None
    assert isinstance(back, pa.Table)
    same = back.schema.equals(schema, check_metadata=True) and len(back) == len(table)
    return data if same and _same_columns(back, table) else None


def _same_columns(back: pa.Table, table: pa.Table) -> bool:
    for after, before in zip(back.columns, table.columns, strict=True):
        # Arrow finds NaN unequal to itself, so columns that can hold it are compared by their type and nulls alone.
        if not after.equals(before) and (not _has_floats(before.type) or after.null_count != before.null_count):
            return False
    return True


def _has_floats(kind: pa.DataType) -> bool:
    if pa.types.is_floating(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _has_floats(kind.value_type)
    return any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))


def write_parquet(table: pa.Table) -> bytes:
    """A table as one Parquet file with page checksums, its bytes determined by the table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(data: bytes) -> pa.Table:
    """The table that a Parquet file holds; page checksums are verified."""
    file = pq.ParquetFile(arrow_reader(data), page_checksum_verification=True)
    return file.read(use_threads=len(data) >= THREADS_FROM_BYTES)


def _decode_parquet(data: bytes) -> object:
    table = read_parquet(data)
    metadata = dict(table.schema.metadata or {})
    kind = metadata.pop(_KIND, b"table")
    table = table.replace_schema_metadata(metadata or None)
    if kind == b"table":
        return table
    from umbel.storage.values.codecs_pandas import decode_pandas

    return decode_pandas(table, kind)
