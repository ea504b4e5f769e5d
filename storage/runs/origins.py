"""What does a run say of where it comes from: who, in which environment, with which code, from which data?

The part of `umbel.storage.runs.run.Run` that answers that. It must not write.
"""

from __future__ import annotations

import io
import zipfile
from importlib import import_module
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import StoreCorruptError
from umbel.storage import layout
from umbel.storage.documents import read_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord
from umbel.storage.values.codecs import digest_of

if TYPE_CHECKING:
    from umbel.storage.lineage.tree import Lineage

__all__ = ["RunOrigins", "read_sources"]


def read_sources(objects: ObjectStore, digest: str) -> dict[str, str]:
    """The text of each source file of an archive, by its name there.

    Raises:
        NotFoundError: there is no such archive.
        StoreCorruptError: it is not what its digest says.
    """
    data = objects.read(layout.code(digest))
    if digest_of(data) != digest:
        raise StoreCorruptError(f"the sources {digest} in the store {objects.url} are damaged", hint="restore a copy")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


class RunOrigins:
    """Who made a run, when, where, how and of what."""

    #: The store.
    objects: ObjectStore
    #: What run.json says: who, when, graph, versions.
    record: dict[str, Any]

    @property
    def id(self) -> str:
        """The run's folder in the store."""
        return str(self.record["id"])

    @property
    def graph(self) -> GraphRecord:
        """Its nodes and sweeps."""
        return GraphRecord(self.record)

    def sittings(self) -> list[dict[str, Any]]:
        """Who carried the run out, one record a sitting in order of time: the first, and each that resumed it.

        Each says: began, user, host, pid, command, job, versions, platform, image, environment, git. Sittings that
        found nothing left to do are not recorded. Cost: a listing, and a read each.
        """
        paths = self.objects.list(layout.sittings_folder(self.id))
        found = [read_document(self.objects, path) for path in paths if path.endswith(".json")]
        return [record for record in found if record is not None]

    def environment(self, host: str | None = None) -> dict[str, Any] | None:
        """What the run ran on: python, system, machine, image, packages with their versions.

        Args:
            host: the workers of this host; None: the process that made the run. Hosts that were noted to differ from
                it are looked up, all others are as it is.

        Returns:
            None: the run was made before this was recorded.
        """
        digest = self.environment_digest(host)
        return None if digest is None else read_document(self.objects, layout.environment(str(digest)))

    def environment_digest(self, host: str | None = None) -> str | None:
        """The digest of what `environment` returns. Cost: for a host one listing, and a read for each that differs."""
        if host is not None:
            for path in self.objects.list(layout.workers_folder(self.id)):
                note = read_document(self.objects, path) or {}
                if note.get("host") == host:
                    return str(note["environment"])
        digest = self.record.get("environment")
        return None if digest is None else str(digest)

    def code_diff(self) -> str | None:
        """What the project's repository differed in from its last commit when the run was made; None: nothing.

        The first MiB of it; credentials are left out.
        """
        digest = (self.record.get("git") or {}).get("diff")
        return None if digest is None else self.objects.read(layout.diff(str(digest))).decode()

    def source_files(self) -> dict[str, str]:
        """The text of the project's source files that the run reached, by their paths; empty if none were kept."""
        digest = self.record.get("source")
        return {} if digest is None else read_sources(self.objects, str(digest))

    def lineage(self, x: object = None, node: object = None) -> Lineage:
        """What something was made from: data and their versions, config, code, environment, back to the sources.

        Args:
            x: the index of a trial (of an element, with ``node``); a row of `trials`, `best`, `failures` or `models`
                as a dict; a `umbel.Best`; a node or its name (``"load:3"`` for one element); the digest of a model
                or value, or at least 8 digits of it. None: the whole run, or all of ``node``.
            node: the sweep or node that an index belongs to; None: the only sweep.

        Returns:
            A tree, which prints as text and shows as a picture in notebooks; `Lineage.html` makes a page.

        Raises:
            NotFoundError: there is no such thing in this run.
        """
        from umbel.storage.lineage.upstream import LineageReader

        return LineageReader(self.objects, self.record, self.graph, self.environment_digest).find(x, node)

    def replay(self, trial: int, sweep: object = None, **options: Any) -> Any:
        """Run one trial again, here, with the recorded code, data, config and seed; see `umbel.replay`."""
        # By name: the layers below do not know the runtime, and this is their one door to it.
        return import_module("umbel.runtime.answers.replay").replay(self, trial, sweep, **options)
