"""Which runs are in a store, and how does a new one enter it?

It must not run anything, and must not know how rows are written or read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError, UsageError
from umbel.storage import layout
from umbel.storage.documents import create_document, put_document, read_document
from umbel.storage.objects.interface import FIRST_CONTACT_S, ObjectStore
from umbel.storage.runs.graph_record import GraphRecord, near_names
from umbel.storage.runs.records import check_version, read_end, read_run_record
from umbel.storage.runs.revealed import revealed
from umbel.storage.runs.run import Run, run_status
from umbel.storage.values.artifacts import put_content
from umbel.storage.values.codecs import digest_of

if TYPE_CHECKING:
    from umbel.storage.lineage.downstream import Downstream
    from umbel.storage.registry.registry import Registry

__all__ = ["RunSummary", "Store", "open_store"]

#: Runs that are looked at at once, for stores whose answers take time.
_READERS = 32


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line about a run."""

    id: str
    name: str
    #: done, running, interrupted, died or failed; see `Run.status`.
    status: str
    #: ISO 8601, UTC.
    created: str
    user: str
    #: How many nodes the graph has, and how many trials its sweeps have together, as far as the run has revealed it.
    nodes: int
    trials: int


class Store:
    """A place where runs live. Make one with `open_store`; pickles.

    Args:
        objects: where its objects lie.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self._checked = False

    @property
    def url(self) -> str:
        """The store's URL, without credentials; for a local folder its path."""
        return self.objects.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # ---- reading -------------------------------------------------------------------------------------------

    def runs(self) -> list[RunSummary]:
        """All runs, newest first. A run whose record is damaged is left out with a warning. Cost: some reads a run.

        Raises:
            StoreError: the store can't be read.
        """
        self.check_format()
        run_ids = self.objects.list_folders(layout.RUNS)
        if self.objects.is_local_path or self.objects.is_process_local:
            looked_at = list(map(self._look_at, run_ids))
        else:
            with ThreadPoolExecutor(_READERS) as readers:
                looked_at = list(readers.map(self._look_at, run_ids))
        for run_id, seen in zip(run_ids, looked_at, strict=True):
            if isinstance(seen, StoreCorruptError):
                warnings.warn(f"the run {run_id!r} is left out: {seen}", UserWarning, stacklevel=2)
        found = [seen for seen in looked_at if isinstance(seen, RunSummary)]
        return sorted(found, key=lambda run: (run.created, run.id), reverse=True)

    def _look_at(self, run_id: str) -> RunSummary | StoreCorruptError | None:
        try:
            record = self.load_record(run_id)
            return None if record is None else self._summary(run_id, record)
        except StoreCorruptError as error:
            return error

    def run(self, name_or_id: str) -> Run:
        """A run by its id, or the newest one of a name.

        Raises:
            NotFoundError: there is none; near names are given.
            StoreError: the store can't be read.
        """
        self.check_format()
        record = self._record_if_name(name_or_id)
        if record is not None:
            return Run(self.objects, record)
        runs = self.runs()
        for run in runs:
            if run.name == name_or_id:
                found = self.load_record(run.id)
                if found is not None:
                    return Run(self.objects, found)
        names = list(dict.fromkeys(name for run in runs for name in (run.id, run.name)))
        hint = near_names(str(name_or_id), names)
        if hint is None:
            hint = "it has " + ", ".join(names[:10]) if names else "it has no runs: is this the right store?"
        raise NotFoundError(f"the store {self.url} has no run of this name", got=name_or_id, hint=hint)

    def load_record(self, run_id: str) -> dict[str, Any] | None:
        """What run.json says about a run; None: there is no such run.

        Raises:
            StoreCorruptError: it can't be read as JSON.
        """
        return read_run_record(self.objects, run_id)

    def load_end(self, run_id: str) -> dict[str, Any] | None:
        """What end.json says about how a run ended; None: it has not ended, or died."""
        return read_end(self.objects, run_id)

    def check_format(self) -> None:
        """Refuse a store that a newer Umbel wrote; an empty one is fine.

        Raises:
            StoreError: its format is newer than this code knows.
        """
        if self._checked:
            return
        content = read_document(self.objects, layout.FORMAT_OBJECT)
        if content is None:
            return
        check_version(content.get("format"), f"the store {self.url}")
        self._checked = True

    @property
    def registry(self) -> Registry:
        """The registered models of this store."""
        from umbel.storage.registry.registry import Registry

        return Registry(self.objects)

    def downstream(self, digest: str) -> Downstream:
        """Every run, trial, model and registered version that was made from something.

        Args:
            digest: of data (a value, or what `umbel.read` read), of an argument, of code (a fingerprint, or that of
                one function), of a model, of the sources, a commit or an environment; or its first 8 digits or more.

        Raises:
            UsageError: it is no digest.
            StoreError: the store can't be read.

        Cost: a small read a run that is done (on object storage one for many of them, once a search has gathered
        these); a run that is not done is read from its segments; two reads a registered version.
        """
        from umbel.storage.lineage.downstream import find_downstream

        self.check_format()
        return find_downstream(self.objects, digest)

    # ---- writing -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make sure, before any work starts, that runs can be written here.

        Raises:
            StoreError: the store can't be written, or a newer Umbel wrote it.
        """
        self.objects.check_writable()
        self._mark_format()

    def create_run(self, record: Mapping[str, Any]) -> None:
        """Write the record of a new run.

        Args:
            record: the content of run.json; "id" is required.

        Raises:
            StoreConflictError: a run of this id exists.
        """
        layout.check_name("run", record["id"])
        self._mark_format()
        content = {"format": layout.FORMAT_VERSION, **record}
        # Only the run's owner writes this: one that is there and says the same is its own, whose answer was lost.
        create_document(self.objects, layout.record(record["id"]), content, unique=True)

    def end_run(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Write how a run ended; a second time changes nothing.

        Args:
            run_id: the run.
            record: the content of end.json: "status", "counts"; "ended" is the time now unless it is given.
        """
        try:
            create_document(self.objects, layout.end(run_id), {"ended": datetime.now(UTC).isoformat(), **record})
        except StoreConflictError:
            return

    def put_code(self, zip_bytes: bytes) -> str:
        """Store an archive of source code under its digest, which is returned."""
        digest = digest_of(zip_bytes)
        put_content(self.objects, layout.code(digest), zip_bytes)
        return digest

    def put_environment(self, content: Mapping[str, Any]) -> str:
        """Store what is installed under the digest of its text, which is returned."""
        return put_document(self.objects, layout.environment, content)

    def put_diff(self, text: bytes) -> str:
        """Store what differs from a commit under its digest, which is returned."""
        digest = digest_of(text)
        put_content(self.objects, layout.diff(digest), text)
        return digest

    def add_sitting(self, run_id: str, began: datetime, token: str, record: Mapping[str, Any]) -> None:
        """Note who carries a run out from now on.

        Args:
            run_id: the run.
            began: when, UTC.
            token: random; tells two that began at once apart.
            record: who and where; plain data.
        """
        create_document(
            self.objects, layout.sitting(run_id, began, token), {"began": began.isoformat(), "token": token, **record}
        )

    def _mark_format(self) -> None:
        self.check_format()
        if self._checked:
            return
        try:
            create_document(self.objects, layout.FORMAT_OBJECT, {"format": layout.FORMAT_VERSION})
        except StoreConflictError:
            self.check_format()
        self._checked = True

    def _record_if_name(self, name: str) -> dict[str, Any] | None:
        try:
            layout.check_name("run", name)
        except UsageError:
            return None
        return self.load_record(name)

    def _summary(self, run_id: str, record: Mapping[str, Any]) -> RunSummary:
        graph = revealed(GraphRecord(record), self.objects)
        return RunSummary(
            id=run_id,
            name=str(record.get("name", run_id)),
            status=run_status(self.objects, run_id),
            created=str(record.get("created", "")),
            user=str(record.get("user", "")),
            nodes=len(graph.nodes),
            trials=sum(sweep.planned for sweep in graph.sweeps.values()),
        )


def open_store(url: str, storage_options: Mapping[str, Any] | None = None) -> Store:
    """Open a store for reading; nothing is created until a run is.

    Args:
        url: a local path, or any fsspec URL: ``s3://bucket/folder``, ``memory://name``, …
        storage_options: what fsspec's file system of that protocol takes.

    Raises:
        StoreError: the protocol is unknown, its package is missing, or a newer Umbel wrote the store.
    """
    store = Store(ObjectStore.open(url, storage_options))
    with store.objects.patience(FIRST_CONTACT_S):
        store.check_format()
    return store
