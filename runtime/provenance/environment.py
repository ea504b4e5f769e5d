"""What does this process run on: Python, system, image, and the packages that are installed?

It must not know runs beyond where a worker's note is kept, and imports little, since every worker imports it.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from umbel.scheduler.errors import StoreConflictError
from umbel.storage import layout
from umbel.storage.documents import create_document, document_digest, put_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.redaction import redact_url

__all__ = ["environment", "environment_digest", "note_worker", "packages"]

#: Environment variables by which images say what they are called; the first that is set counts.
IMAGE_VARIABLES = (
    "UMBEL_IMAGE",
    "CONTAINER_IMAGE",
    "DOCKER_IMAGE",
    "RAY_CONTAINER_IMAGE",
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
)
_DISTRIBUTION = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist-info|egg-info)")


def note_worker(objects: ObjectStore, run_id: str, drivers: str) -> None:
    """Note that this process, a worker's, has another environment than the driver, if it has.

    Args:
        objects: the store.
        run_id: the run.
        drivers: the digest of the driver's environment.

    Raises:
        StoreError: the store can't be written.

    Cost: about a millisecond; two writes if it differs.
    """
    here = environment()
    digest = document_digest(here)
    if digest == drivers:
        return
    host = socket.gethostname()
    put_document(objects, layout.environment, here)
    try:
        note = {"host": host, "environment": digest}
        create_document(objects, layout.worker_note(run_id, host, digest), note)
    except StoreConflictError:
        return  # another worker of this host has said so


def environment_digest() -> str:
    """The digest of what this process runs on."""
    return document_digest(environment())


def environment() -> dict[str, Any]:
    """What this process runs on: equal for equal installations, whatever the host and the time."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": "-".join(platform.libc_ver()).strip("-"),
        "image": _image(),
        "packages": packages(sys.path),
    }


def packages(path: Iterable[str]) -> dict[str, str]:
    """The installed packages and their versions, by normalised name, sorted; of two of one name the first on the path.

    Read from the names of their metadata folders: opening each costs a hundred times as much.
    """
    found: dict[str, str] = {}
    for folder in path:
        if {parent.name for parent in Path(folder).parents} & {"site-packages", "dist-packages"}:
            continue  # what a package brings along for itself, and puts on the path when it is imported
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208 - names are all that is needed
        except OSError:
            continue  # an archive, or a folder that is not there
        for name in names:
            match = _DISTRIBUTION.fullmatch(name)
            if match is not None:
                found.setdefault(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    return dict(sorted(found.items()))


def _image() -> str | None:
    return next((redact_url(os.environ[name]) for name in IMAGE_VARIABLES if os.environ.get(name)), None)
