"""Which code made this? A fingerprint of a function and of all project code that it reaches.

The walk (`umbel.runtime.provenance.reach`) starts at the function and follows what its code names: functions, classes
with their bases and methods, constants, attributes of project modules, closures, defaults, partials and callable
instances. Each thing reached becomes a node with a digest of its own content; the fingerprint is the digest of this
graph, numbered from the function onwards, so that no module name or path is part of it and the same file gives the
same fingerprint as a script and as an import. Code of Python and of installed packages counts by name only. Values
are those at the time of the call: a module-level dictionary that a function fills as a cache is part of the code that
reads it.

Identity (`key = H(code, data, config, seed)`) and the refusal to resume a run with other code rest on it. It must
not know runs, stores or Ray. How one code object or class is read is in `umbel.runtime.provenance.source`.
"""

from __future__ import annotations

import functools
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.runtime.provenance.project import function_of_task, module_name
from umbel.runtime.provenance.reach import Walk
from umbel.runtime.provenance.source import sha256
from umbel.scheduler.errors import CodeError

__all__ = ["CodeFingerprint", "archive_names", "changed", "fingerprint", "source_zip"]

#: Part of every digest: raise it when the same code must count as different after a change of this module.
_FORMAT = "umbel code 1"


@dataclass(frozen=True, slots=True)
class CodeFingerprint:
    """What a function's code is, whatever file, process or machine it stands in."""

    #: SHA-256, 64 hexadecimal digits.
    digest: str
    #: The function's full name, ``module.function``, as a decorator left it.
    name: str
    #: Qualified name -> SHA-256 of the own content of every function, class and constant that is reached.
    parts: Mapping[str, str] = field(hash=False)
    #: The project's source files that are reached, and those that they import; sorted.
    files: tuple[Path, ...]
    #: What counts by its type only, because its content is too large or can't be read.
    warnings: tuple[str, ...] = ()


def fingerprint(fn: Callable[..., Any]) -> CodeFingerprint:
    """The fingerprint of a function, a task, a partial or any other callable.

    Comments, formatting, docstrings and line numbers don't matter, nor do the decorators of Umbel itself. A module
    of the project that is imported inside a function gets imported.

    Cost: milliseconds for the first function of a file (it is parsed), then tens of microseconds a part;
    a captured object costs its pickling, at most 16 MiB of it.
    """
    walk, name = Walk(), _name(function_of_task(fn))
    root = walk.value(fn, name)
    walk.finish()
    order, index = [root], {id(root): 0}
    for node in order:  # grows while it is walked: breadth first
        for _, target in node.edges:
            if id(target) not in index:
                index[id(target)] = len(order)
                order.append(target)
    graph = [[node.own, [[label, index[id(target)]] for label, target in node.edges]] for node in order]
    parts: dict[str, str] = {}
    for node in order:
        key, copies = node.key, 1
        while key in parts:
            copies += 1
            key = f"{node.key}#{copies}"
        parts[key] = node.own
    return CodeFingerprint(
        digest=sha256(_FORMAT + json.dumps(graph)),
        name=name,
        parts=parts,
        files=tuple(sorted(map(Path, walk.all_files()))),
        warnings=tuple(sorted(set(walk.warnings))),
    )


def _name(fn: Any) -> str:
    """A name for a callable that is not a plain function."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    home = sys.modules.get(getattr(fn, "__module__", None) or "")
    return f"{module_name(vars(home))}.{name}" if home is not None else str(name)


def changed(a: CodeFingerprint, b: CodeFingerprint) -> list[str]:
    """The qualified names that differ between two fingerprints, came or went; sorted, empty when they are equal.

    A class is left out when one of its methods says it more exactly.
    """
    if a.digest == b.digest:
        return []
    names = {name for name in {*a.parts, *b.parts} if a.parts.get(name) != b.parts.get(name)}
    exact = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    return sorted(exact) or [b.name]  # nothing but the wiring differs: which names refer to which code


def source_zip(files: Iterable[Path], root: Path) -> bytes:
    """A zip archive of source files, equal in every byte for equal content, whenever and wherever it is made.

    Args:
        files: the files, in any order.
        root: names in the archive are relative to it; a file elsewhere stands under ``outside/<its folder>/``.

    Raises:
        CodeError: a file can't be read.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # stored: compressors differ in their bytes
        for text, file in sorted(archive_names(files, root).items()):
            info = zipfile.ZipInfo(text, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            try:
                archive.writestr(info, file.read_bytes())
            except OSError as error:
                raise CodeError(
                    "a source file can't be read",
                    got=f"{file} ({error.strerror or error})",
                    expected="the source of the code that runs, to be kept with the run",
                    hint="restore the file, then run again",
                ) from error
    return buffer.getvalue()


def archive_names(files: Iterable[Path], root: Path) -> dict[str, Path]:
    """What source files are called in an archive of them: each name once, and its file."""
    root = root.absolute()
    names: dict[str, Path] = {}
    for file in sorted({file.absolute() for file in files}):
        name = file.relative_to(root) if file.is_relative_to(root) else Path("outside", file.parent.name, file.name)
        unique, copies = name, 1
        while unique.as_posix() in names:
            copies += 1
            unique = name.with_name(f"{name.stem}-{copies}{name.suffix}")
        names[unique.as_posix()] = file
    return names
