"""Which objects of a store does nothing need any more?

Content (artifacts, packs, code, environments) that no run, registered model or other record names; marks of runs that
are gone; what writers left that were killed. References are looked for wherever they may stand: digests in any JSON
object of the store, in the columns of segments that hold them, and in the tables that versions of registered models
name, which outlive the runs.

It is safe beside runs that go on. A row that names content is written after the content, by up to the length of a
trial; so nothing is garbage that is younger than a grace period, or younger than any run that goes on. Content that was
there already when it was stored again is made young first if it is older than `REFRESH_AFTER`
(`artifacts.put_content`), so a run that goes on has nothing in hand that is older than its own beginning by more than
that. Before something is deleted, references and ages are looked at once more. It must not know what content means.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from umbel.scheduler.errors import NotFoundError, StoreError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectInfo, ObjectStore
from umbel.storage.registry.model_rows import read_rows
from umbel.storage.registry.records import read_version
from umbel.storage.runs.ownership import owner_status
from umbel.storage.runs.records import read_run_record
from umbel.storage.runs.segment_format import decode_segment
from umbel.storage.values.artifacts import REFRESH_AFTER

__all__ = ["GRACE", "Garbage", "GarbageItem", "find_garbage", "remove_garbage"]

#: Nothing younger is ever garbage, unless the caller says so.
GRACE = timedelta(hours=24)
#: For clocks that differ, and for what a run stores before it claims its name.
_MARGIN = timedelta(hours=1)
#: Objects that are read at once, from stores whose answers take time.
_READERS = 16
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_CONTENT = re.compile(r"(?:artifacts/|artifacts/packs/|code/|environments/)([0-9a-f]{64})(?:\.zip|\.diff|\.json)?")
_VERSION = re.compile(rf"{layout.REGISTRY}/([^/]+)/versions/(\d{{8,}})\.json")
_CORRUPT = re.compile(r".*\.corrupt(-\d+)?")
_PROBE = re.compile(r"umbel-write-check-[0-9a-f]{32}")
#: Columns of segments in which digests stand.
_COLUMNS = frozenset({"digest", "model", "model_at", "data", "source"})


@dataclass(frozen=True, slots=True)
class GarbageItem:
    """One object that nothing needs."""

    path: str
    size_bytes: int
    #: "model or value", "pack of models", "code", "environment", "memo mark",
    #: "mentions of a run that is gone", "abandoned run", "leftover", "set aside".
    kind: str
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was found, or removed."""

    items: tuple[GarbageItem, ...]
    #: Unneeded objects that stay because they, or runs that go on, are young.
    young: int
    #: Runs that go on.
    live: tuple[str, ...]
    #: Objects that could not be read. What they need is unknown, so no content is garbage as long as they are there.
    unreadable: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """All of it together."""
        return sum(item.size_bytes for item in self.items)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Number and bytes of each kind."""
        counts: Counter[str] = Counter(item.kind for item in self.items)
        return {
            kind: (count, sum(item.size_bytes for item in self.items if item.kind == kind))
            for kind, count in sorted(counts.items())
        }


@dataclass(frozen=True, slots=True)
class _References:
    digests: frozenset[bytes]
    unreadable: tuple[str, ...]


def find_garbage(
    objects: ObjectStore, *, grace: timedelta = GRACE, corrupt: bool = False, now: datetime | None = None
) -> Garbage:
    """Find what nothing needs. Cost: one listing, and all JSON objects and segments are read.

    Args:
        objects: the store.
        grace: nothing younger is found.
        corrupt: also what was set aside because it was damaged.
        now: the time, UTC.

    Raises:
        StoreError: the store can't be read.
    """
    moment = now or datetime.now(UTC)
    listed = objects.list_details()  # before references are read: what is written later is not even looked at
    references = _references(objects, listed)
    live = _live_runs(objects)
    limit = _limit(moment, grace, [began for _, began in live])
    found: list[GarbageItem] = []
    young = 0
    for info, kind in _unneeded(objects, listed, references, corrupt=corrupt):
        if _is_older(info, limit):
            found.append(GarbageItem(info.path, info.size_bytes, kind, info.modified))
        else:
            young += 1
    return Garbage(tuple(found), young, tuple(name for name, _ in live), references.unreadable)


def remove_garbage(objects: ObjectStore, garbage: Garbage, *, grace: timedelta = GRACE) -> Garbage:
    """Remove what `find_garbage` found, as far as it still is garbage; returns what was removed.

    Raises:
        StoreError: the store can't be read or written; what was removed stays so.
    """
    again = find_garbage(objects, grace=grace, corrupt=any(item.kind == "set aside" for item in garbage.items))
    still = {item.path for item in again.items}
    removed = []
    for item in garbage.items:
        if item.path not in still:
            continue
        if item.kind == "leftover" and not _PROBE.fullmatch(item.path):
            objects.delete_leftover(item.path)
        else:
            info = objects.info(item.path)
            if info is None or _is_younger(info, item):
                continue  # somebody has just stored it again
            objects.delete(item.path)
        removed.append(item)
    return Garbage(tuple(removed), again.young, again.live, again.unreadable)


def _is_younger(info: ObjectInfo, item: GarbageItem) -> bool:
    """Whether an object is younger than it was; times of listings and of single objects may differ by rounding."""
    if info.modified is None or item.modified is None:
        return True
    return info.modified - item.modified > timedelta(seconds=2)


def _is_older(info: ObjectInfo, limit: datetime) -> bool:
    return info.modified is not None and info.modified < limit


def _limit(now: datetime, grace: timedelta, live: Sequence[datetime]) -> datetime:
    """What is younger than this stays."""
    return min([now - grace, *(began - REFRESH_AFTER - _MARGIN for began in live)])


def _live_runs(objects: ObjectStore) -> list[tuple[str, datetime]]:
    """The runs that go on, and since when."""
    found = []
    for run_id in objects.list_folders(layout.RUNS):
        view = owner_status(objects, run_id)
        if view.state == "held" and view.record is not None:
            found.append((run_id, view.record.acquired))
    return found


def _unneeded(
    objects: ObjectStore, listed: Sequence[ObjectInfo], references: _References, *, corrupt: bool
) -> Iterable[tuple[ObjectInfo, str]]:
    runs = {path.split("/")[1] for path in (info.path for info in listed) if path.startswith(f"{layout.RUNS}/")}
    known = {run for run in runs if objects.exists(layout.record(run))}
    for info in listed:
        content = _CONTENT.fullmatch(info.path)
        if _CORRUPT.fullmatch(info.path):
            if corrupt:
                yield info, "set aside"
        elif content is not None:
            if not references.unreadable and content[1].encode() not in references.digests:
                yield info, _kind_of(info.path)
        elif _PROBE.fullmatch(info.path):
            yield info, "leftover"
        elif info.path.startswith("memo/"):
            mark = layout.parse_memo_mark(info.path)
            if mark is not None and mark[1] not in known:
                yield info, "memo mark"
        elif (mentions := layout.parse_mentions(info.path)) is not None:
            if mentions[0] not in known:
                yield info, "mentions of a run that is gone"
        elif info.path.startswith(f"{layout.RUNS}/") and _is_abandoned(objects, info.path.split("/")[1], known):
            yield info, "abandoned run"
    for info in objects.leftovers():
        yield info, "leftover"


def _is_abandoned(objects: ObjectStore, run_id: str, known: set[str]) -> bool:
    """Whether a run was claimed and never begun: there is nothing but records of its owner."""
    if run_id in known:
        return False
    inside = objects.list(layout.run_folder(run_id), recursive=True)
    return all(path.startswith(layout.owner_folder(run_id) + "/") for path in inside)


def _kind_of(path: str) -> str:
    if path.startswith("artifacts/packs/"):
        return "pack of models"
    return {"artifacts": "model or value", "code": "code", "environments": "environment"}[path.partition("/")[0]]


# ---- references ------------------------------------------------------------------------------------------------


def _references(objects: ObjectStore, listed: Sequence[ObjectInfo]) -> _References:
    """All digests that stand anywhere but in content itself."""
    paths = [info.path for info in listed if not _CONTENT.fullmatch(info.path) and not _CORRUPT.fullmatch(info.path)]
    if objects.is_local_path or objects.is_process_local:
        found = [_named_by(objects, path) for path in paths]
    else:
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(lambda path: _named_by(objects, path), paths))
    digests: set[bytes] = set()
    unreadable: list[str] = []
    for path, named in zip(paths, found, strict=True):
        if isinstance(named, ValueError):
            unreadable.append(f"{path} ({named})")
        else:
            digests |= named
    return _References(frozenset(digests), tuple(unreadable))


def _named_by(objects: ObjectStore, path: str) -> set[bytes] | ValueError:
    """The digests that an object names; an error: that can't be known."""
    try:
        if path.endswith(".json"):
            return _in_json(objects, path)
        if layout.segment_number(path) is not None and "/output/" not in path:
            return _in_segment(objects.read(path))
    except NotFoundError:
        pass  # deleted, or set aside, since we listed
    except ValueError as error:  # a damaged segment's error is one
        return error
    return set()


def _in_json(objects: ObjectStore, path: str) -> set[bytes]:
    data = objects.read(path)
    folder, _, name = path.rpartition("/")
    if name == "run.json":
        try:
            read_run_record(objects, folder.rpartition("/")[2])
        except StoreError as error:  # what a damaged record named is not known
            raise ValueError(error.what) from error
    version = _VERSION.fullmatch(path)
    if version is not None:
        return set(_DIGEST.findall(data)) | _in_version(objects, version[1], int(version[2]))
    return set(_DIGEST.findall(data))


def _in_version(objects: ObjectStore, model: str, number: int) -> set[bytes]:
    """The digests in the table of a version: its models, their packs, data, sources and environment."""
    try:
        record = read_version(objects, model, number)
        if record is None:
            return set()
        rows = read_rows(objects, record.rows, record.groups, record.by_columns)
    except (NotFoundError, StoreError) as error:  # the table may not be missing either
        raise ValueError(error.what) from error
    return _in_columns(rows.select([name for name in rows.column_names if pa.types.is_string(rows[name].type)]))


def _in_segment(data: bytes) -> set[bytes]:
    table, _ = decode_segment(data, lambda names: [name for name in names if name in _COLUMNS])
    return _in_columns(table)


def _in_columns(table: pa.Table) -> set[bytes]:
    found: set[bytes] = set()
    for column in table.columns:
        for chunk in column.cast(pa.string()).chunks:
            for text in chunk.dictionary_encode().dictionary.to_pylist():
                if text is not None:
                    found.update(_DIGEST.findall(text.encode()))
    return found
