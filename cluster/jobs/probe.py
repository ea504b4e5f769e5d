"""What does a machine have for Umbel: which Python, which Ray, which Umbel, and which of its requirements?

This file's text is run on the cluster by itself, before anything is shipped there (`umbel submit`), and its
`package_digest` here. So it may import nothing but the standard library and what comes with Ray, and must not
know Umbel.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

__all__ = ["MARK", "package_digest", "package_files", "probe"]

#: What the line with the answer begins with, among whatever else a cluster prints.
MARK = "umbel-probe:"


def package_files(folder: Path) -> list[Path]:
    """The files of a package that an installation would have, relative to its folder, sorted; links are followed."""
    found: list[Path] = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [Path(here, name).relative_to(folder) for name in files if name.endswith((".py", ".typed"))]
    return sorted(found)


def package_digest(folder: Path) -> str:
    """SHA-256 of a package's files and their names, the same however it was installed; about 10 ms."""
    digest = hashlib.sha256()
    for file in package_files(folder):
        content = (folder / file).read_bytes()
        digest.update(f"{file.as_posix()}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def probe(requirements: list[str]) -> dict[str, Any]:
    """What is there, as JSON can say it.

    Args:
        requirements: of Umbel, as ``numpy>=1.26``; what is not met is given back, but for Ray itself.
    """
    found = util.find_spec("umbel")
    origin = found.origin if found is not None else None
    return {
        "python": list(sys.version_info[:2]),
        "ray": _version("ray"),
        "umbel": package_digest(Path(origin).parent) if origin is not None else None,
        "missing": list(dict.fromkeys(found for text in requirements for found in _missing(text))),
    }


def _missing(text: str) -> list[str]:
    """The requirement, if it is not met; else what its extras require and is not met."""
    from packaging.requirements import Requirement

    asked = Requirement(text)
    if asked.marker is not None and not asked.marker.evaluate():
        return []
    version = _version(asked.name)
    if version is None or not asked.specifier.contains(version, prereleases=True):
        return [] if asked.name == "ray" else [text]
    found: list[str] = []
    for inner in map(Requirement, metadata.requires(asked.name) or [] if asked.extras else []):
        marker = inner.marker
        if marker is not None and any(marker.evaluate({"extra": extra}) for extra in asked.extras):
            inner.marker = None  # it holds
            found += _missing(str(inner))
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(MARK, json.dumps(probe(json.loads(sys.argv[1]))), flush=True)
