"""How are a run's own modules imported from its stored sources, whatever this machine has under their names?

While inside `recorded_modules`, imports of the run's modules come from the files of its archive, unpacked into a folder
that is removed at the end; what was loaded under these names before is put back. Functions of scripts travel by value:
for them the sources are shown in tracebacks and debuggers under their old paths. It must not know what is run.
"""

from __future__ import annotations

import importlib.util
import linecache
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

__all__ = ["ModuleFinder", "recorded_modules", "unpack"]


@contextmanager
def recorded_modules(files: Mapping[str, str], modules: Mapping[str, Mapping[str, Any]]) -> Iterator[Path]:
    """Import a run's modules from its sources while inside; gives the folder that they lie in.

    Args:
        files: the text of each source file by its name in the archive.
        modules: for each name the original path, and the names of the modules that it is.
    """
    with tempfile.TemporaryDirectory(prefix="umbel-replay-") as folder:
        root = Path(folder)
        finder = unpack(files, modules, root)
        kept = _take_out(finder)
        sys.meta_path.insert(0, finder)
        try:
            yield root
        finally:
            sys.meta_path.remove(finder)
            _take_out(finder)
            sys.modules.update(kept)


def unpack(files: Mapping[str, str], modules: Mapping[str, Mapping[str, Any]], root: Path) -> ModuleFinder:
    """Write a run's sources into a folder; gives what finds its modules there. See `recorded_modules`."""
    places: dict[str, Path] = {}
    for name, text in files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            continue  # no archive of Umbel's has such a name
        place = root.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, newline="")
        known = modules.get(name) or {}
        places.update(dict.fromkeys(known.get("modules") or (), place))
        _show(str(known.get("path", "")), text)
    return ModuleFinder(places)


def _show(path: str, text: str) -> None:
    """Have tracebacks and debuggers show a file that may not be here, or be another by now."""
    if path:
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)


def _take_out(finder: ModuleFinder) -> dict[str, ModuleType]:
    """Forget what is loaded under the run's names; returns it."""
    names = [name for name in sys.modules if finder.knows(name)]
    return {name: sys.modules.pop(name) for name in names}


class ModuleFinder(MetaPathFinder):
    """Finds the run's modules, and makes packages of folders for those whose own ``__init__`` was not needed."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        #: The file of each module.
        self.places = places
        self._packages = {
            ".".join(parts[:length])
            for parts in (name.split(".") for name in places)
            for length in range(1, len(parts))
        } - set(places)

    def knows(self, name: str) -> bool:
        """Whether a module is one of the run's."""
        return name in self.places or name in self._packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of one of the run's modules; None for all others."""
        place = self.places.get(name)
        if place is not None:
            inner = [str(place.parent)] if place.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(name, place, submodule_search_locations=inner)
        if name in self._packages:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        return None
