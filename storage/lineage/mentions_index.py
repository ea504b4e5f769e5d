"""What do all runs of a store mention, read in few requests?

One listing tells the runs that are done, by the objects that say what they mention. On object storage, where a request
costs milliseconds, many such objects are gathered into one by whoever has read them: that is the index. It holds
nothing that is not elsewhere: an entry counts only as long as its object is listed, and a store that can't be written
is read without. Runs that are not done are read from their segments. It must not know what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from umbel.scheduler.errors import NotFoundError, StoreCorruptError, StoreError
from umbel.storage import layout
from umbel.storage.lineage.mentions import RunMentions, parse_mentions, scan_mentions
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.records import read_run_record
from umbel.storage.values.arrow_bytes import arrow_reader
from umbel.storage.values.columns import binaries, strings

__all__ = ["GATHERED", "all_mentions"]

#: So many objects that no index holds are gathered into one.
GATHERED = 32
_READERS = 32


def all_mentions(objects: ObjectStore, gathered: int = GATHERED) -> Iterator[tuple[str, RunMentions]]:
    """Every run of a store with what it mentions, in no order. Cost: two listings, and a read for each index and each
    run that none holds.

    Args:
        objects: the store.
        gathered: write an index of the runs that none holds if there are so many; for local stores none is written.

    Raises:
        StoreError: the store can't be read.
    """
    runs = objects.list_folders(layout.RUNS)
    newest: dict[str, tuple[str, str]] = {}
    for path in objects.list(layout.MENTIONS):
        parsed = layout.parse_mentions(path)
        if parsed is not None:
            newest[parsed[0]] = max(newest.get(parsed[0], ("", "")), (parsed[1], path))
    is_near = objects.is_local_path or objects.is_process_local
    held = {} if is_near else _read_index(objects)
    paths = {run_id: newest[run_id][1] for run_id in runs if run_id in newest}
    missing = [path for path in paths.values() if path not in held]
    fresh = _read_all(objects, missing, 1 if is_near else _READERS)
    if not is_near and len(fresh) >= gathered:
        _write_index(objects, fresh)
    held.update(fresh)
    for run_id in runs:
        data = held.get(paths.get(run_id, ""))
        found = None if data is None else parse_mentions(data)
        if found is None:
            found = _scanned(objects, run_id)
        if found is not None:
            yield run_id, found


def _scanned(objects: ObjectStore, run_id: str) -> RunMentions | None:
    try:
        record = read_run_record(objects, run_id)
        return None if record is None else scan_mentions(objects, record)
    except StoreCorruptError:
        return None  # Store.runs warns of it


def _read_all(objects: ObjectStore, paths: list[str], readers: int) -> dict[str, bytes]:
    def read(path: str) -> bytes | None:
        try:
            return objects.read(path)
        except NotFoundError:
            return None  # deleted meanwhile

    if readers == 1 or len(paths) < 2:
        contents = list(map(read, paths))
    else:
        with ThreadPoolExecutor(readers) as pool:
            contents = list(pool.map(read, paths))
    return {path: data for path, data in zip(paths, contents, strict=True) if data is not None}


def _read_index(objects: ObjectStore) -> dict[str, bytes]:
    """The objects that indexes hold, by their paths."""
    found: dict[str, bytes] = {}
    paths = [path for path in objects.list(layout.MENTIONS_INDEX) if path.endswith(".parquet")]
    for data in _read_all(objects, paths, _READERS).values():
        try:
            table = pq.read_table(arrow_reader(data), columns=["path", "data"])
        except (pa.ArrowException, OSError, KeyError):
            continue  # damaged, or of another version: what it held is read anew
        found.update(zip(table["path"].to_pylist(), table["data"].to_pylist(), strict=True))
    return found


def _write_index(objects: ObjectStore, contents: Mapping[str, bytes]) -> None:
    table = pa.table({"path": strings(list(contents)), "data": binaries(list(contents.values()))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    try:
        objects.create(f"{layout.MENTIONS_INDEX}/{uuid4().hex}.parquet", sink.getvalue().to_pybytes())
    except StoreError:
        return  # who may only read does without
