"""How does a replica import the modules that pickled models name, where this machine has none of these names?

A pickle names the module of its class, and holds none of its code. The run that made the model has recorded its
sources; from these the module is imported. A process has one module of a name: so if versions bring different sources
of it, the second is refused, naming both, rather than run with the first one's code. Modules that can be imported here
anyway are taken as they are. All this runs code that the store holds: only for stores that are trusted.

One a process. It must not know aliases or requests.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from umbel.runtime.provenance.recorded_modules import ModuleFinder, unpack
from umbel.scheduler.errors import NotFoundError, StoreError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.runs.origins import read_sources
from umbel.storage.runs.records import read_run_record

__all__ = ["RecordedCode"]

_SOURCE = "source"


@dataclass(frozen=True, slots=True)
class _Archive:
    """The sources of a run, unpacked."""

    digest: str
    #: The version that it was unpacked for.
    version: int
    folder: tempfile.TemporaryDirectory[str]
    finder: ModuleFinder
    #: Of each module the digest of its text.
    texts: Mapping[str, str]


class RecordedCode(MetaPathFinder):
    """Imports modules from the sources that versions were made of. Safe to use from several threads.

    Args:
        objects: the store, which is trusted.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._archives: dict[str, _Archive] = {}
        #: Those that imports are answered from; and those of versions that have passed.
        self._offered: dict[str, _Archive] = {}
        self._kept: set[str] = set()
        # Never held while something is imported or read: who imports may wait for another that asks this object.
        self._lock = threading.RLock()
        self._loading = threading.local()

    # ---- asked by who loads models -------------------------------------------------------------------------

    def load(self, version: ModelVersion, group: str) -> object:
        """The model of a group; see `ModelVersion.load`.

        Raises:
            StoreError: it needs a module that is neither here nor recorded, or another source of it is in use.
        """
        source = version.row(group).get(_SOURCE)
        try:
            model = version.load(group, trust=True)
        except StoreError as error:
            if source is None or not isinstance(error.__cause__, ImportError):
                raise
            try:
                archive = self._offer(version, version.row(group))
            except NotFoundError:  # the sources are gone: what is missing is what is to be told
                raise error from None
            with self._loaded_from(archive):
                model = version.load(group, trust=True)
        if source is not None:
            self._check(version, [str(source)])
        return model

    def check(self, version: ModelVersion) -> None:
        """Raise StoreError if modules are in use that are others than those that a version was made of."""
        self._check(version, _sources(version))

    def keep(self, version: ModelVersion) -> None:
        """A version has passed: what it has imported stays."""
        self._kept.update(_sources(version))

    def forget(self, version: ModelVersion) -> None:
        """A version was refused: what was imported for it alone is imported by nobody else."""
        if not self._archives:
            return
        for source in set(_sources(version)) - self._kept:
            self._remove(source)

    def close(self) -> None:
        """Import nothing more, and remove what was unpacked."""
        for source in list(self._archives):
            self._remove(source)

    # ---- asked by Python -----------------------------------------------------------------------------------

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module that nobody else has found."""
        with self._lock:
            loading = getattr(self._loading, "archive", None)
            found = [archive for archive in self._offered.values() if archive.finder.knows(name)]
        if loading is not None and loading in found:
            found = [loading]
        if len({archive.texts.get(name) for archive in found}) > 1:  # imported when it is used: for which of them?
            versions = " and ".join(str(archive.version) for archive in found)
            raise ModuleNotFoundError(f"versions {versions} have different sources of the module {name!r}", name=name)
        return found[0].finder.find_spec(name, path, target) if found else None

    # ---- archives ------------------------------------------------------------------------------------------

    @contextmanager
    def _loaded_from(self, archive: _Archive) -> Iterator[None]:
        self._loading.archive = archive
        try:
            yield
        finally:
            self._loading.archive = None

    def _offer(self, version: ModelVersion, row: Mapping[str, Any]) -> _Archive:
        archive = self._archive(version, str(row[_SOURCE]))
        with self._lock:
            self._offered[archive.digest] = archive
            if self not in sys.meta_path:
                sys.meta_path.append(self)  # the last: what is installed goes first
        return archive

    def _archive(self, version: ModelVersion, source: str) -> _Archive:
        known = self._archives.get(source)
        if known is not None:
            return known
        files = read_sources(self._objects, source)
        folder = tempfile.TemporaryDirectory(prefix="umbel-code-")
        finder = unpack(files, _modules(self._objects, version, source, files), Path(folder.name))
        texts = {name: sha256(place.read_bytes()).hexdigest() for name, place in finder.places.items()}
        made = _Archive(source, version.number, folder, finder, texts)
        with self._lock:
            kept = self._archives.setdefault(source, made)
        if kept is not made:  # another thread was faster
            folder.cleanup()
        return kept

    def _check(self, version: ModelVersion, sources: Sequence[str]) -> None:
        with self._lock:
            used = [(name, archive) for archive in self._offered.values() for name in _imported(archive)]
        for source in sources:
            for name, archive in used:
                text = None if archive.digest == source else self._archive(version, source).texts.get(name)
                if text not in (None, archive.texts[name]):
                    raise _conflict(name, archive.version, version.number)

    def _remove(self, source: str) -> None:
        with self._lock:
            self._offered.pop(source, None)
            archive = self._archives.pop(source, None)
            if archive is not None:
                for name in _imported(archive):
                    del sys.modules[name]
                archive.folder.cleanup()
            if not self._offered and self in sys.meta_path:
                sys.meta_path.remove(self)


def _sources(version: ModelVersion) -> list[str]:
    """The archives of sources that a version's models were made of."""
    table = version.table()
    return table[_SOURCE].drop_null().unique().to_pylist() if _SOURCE in table.column_names else []


def _imported(archive: _Archive) -> list[str]:
    """The modules that were imported from it, by whichever way."""
    folder = archive.folder.name
    loaded = [(name, str(getattr(module, "__file__", None))) for name, module in list(sys.modules.items())]
    return [name for name, file in loaded if file.startswith(folder) and name in archive.texts]


def _modules(
    objects: ObjectStore, version: ModelVersion, source: str, files: Mapping[str, str]
) -> Mapping[str, Mapping[str, Any]]:
    """Which modules the files are: as the run has recorded it; if that is deleted, as their names tell."""
    table = version.table()
    row = table.slice(table[_SOURCE].to_pylist().index(source), 1).to_pylist()[0]
    record = read_run_record(objects, str(row["run"]))
    if record is not None and record.get("source") == source:
        return record.get("modules") or {}
    return _guessed(files)


def _guessed(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Any end of a path may be what a module was imported by; one that two files have is neither's."""
    names: dict[str, list[str]] = {}
    for file in files:
        parts = PurePosixPath(file).with_suffix("").parts
        parts = parts[:-1] if parts and parts[-1] == "__init__" else parts
        for begin in range(len(parts)):
            names.setdefault(".".join(parts[begin:]), []).append(file)
    found: dict[str, dict[str, Any]] = {file: {"modules": []} for file in files}
    for name, its in names.items():
        if len(its) == 1:
            found[its[0]]["modules"].append(name)
    return found


def _conflict(name: str, used_by: int, version: int) -> StoreError:
    return StoreError(
        "two versions were made of different sources of one module, and a process can have one",
        got=f"the module {name!r} is in use as version {used_by} has it, and version {version} has another",
        expected="versions that were made of one source of it",
        hint="restart the server to serve the other version; or let the new code be a module of another name",
    )
