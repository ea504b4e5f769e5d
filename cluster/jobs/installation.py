"""Does a cluster have this Umbel, and if not, how does a job get it?

A short job asks the cluster (`job_probe.py`). If its Umbel is not the same, file by file, the one installed here is
staged as what a wheel of it unpacks to, the package and its metadata, in two folders that Ray puts on the path of the
driver and of all workers. The files are taken from where this process imported them, so that it makes no difference
whether Umbel is installed normally or in editable mode, and nothing has to be built. (Ray would install a wheel as such
by pip together with all that it requires, a second Ray too.) Requirements that the cluster lacks are for pip there.
It must not know the user's project.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from umbel.cluster.jobs import probe as job_probe
from umbel.scheduler.errors import ExecutorError, UsageError

__all__ = ["ClusterSide", "package_folder", "probe_command", "read_answer", "requirements", "stage_umbel"]

#: The earliest Python that Umbel runs with.
EARLIEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class ClusterSide:
    """What a cluster has."""

    python: tuple[int, int]
    #: Ray's version; None: its Python has none.
    ray: str | None
    #: Whether its Umbel is the one that is installed here.
    has_umbel: bool
    #: Umbel's requirements that are not met there.
    missing: tuple[str, ...]


def package_folder() -> Path:
    """Where this process has Umbel from."""
    import umbel

    return Path(umbel.__file__).parent


def requirements() -> list[str]:
    """What Umbel requires, without extras; nothing if it runs from a folder, uninstalled."""
    try:
        listed = metadata.requires("umbel") or []
    except metadata.PackageNotFoundError:
        return []
    return [text for text in listed if "extra ==" not in text]


def probe_command() -> list[str]:
    """The command that answers, on the cluster, what is there."""
    return ["python", "-c", Path(job_probe.__file__).read_text(encoding="utf-8"), json.dumps(requirements())]


def read_answer(log: str) -> ClusterSide:
    """What `probe_command` printed, checked: whether the cluster can run Umbel at all.

    Raises:
        ExecutorError: there is no answer in it.
        UsageError: its Python is too old, or has no Ray.
    """
    lines = [line for line in log.splitlines() if line.startswith(job_probe.MARK)]
    try:
        answer: Mapping[str, Any] = json.loads(lines[-1].removeprefix(job_probe.MARK))
        major, minor = answer["python"]
        found = ClusterSide(
            (int(major), int(minor)),
            answer["ray"],
            answer["umbel"] == job_probe.package_digest(package_folder()),
            tuple(map(str, answer["missing"])),
        )
    except (IndexError, KeyError, TypeError, ValueError):
        raise ExecutorError(
            "the cluster did not answer what is installed there",
            got=" | ".join(log.strip().splitlines()[-3:]) or "no output",
            expected="that `python`, as a job on the head node finds it, is the cluster's own",
            hint="start Ray with its environment activated, or give jobs its path: --env PATH=/there/bin:/usr/bin:/bin",
        ) from None
    if found.ray is None or found.python < EARLIEST_PYTHON:
        raise UsageError(
            "the cluster's `python` can't run Umbel",
            got=f"Python {major}.{minor}, {'no Ray' if found.ray is None else f'Ray {found.ray}'}",
            expected=f"Python {EARLIEST_PYTHON[0]}.{EARLIEST_PYTHON[1]} or later that has Ray"
            f" (here it is {sys.version_info[0]}.{sys.version_info[1]})",
            hint="start Ray with its environment activated, or give jobs its path: --env PATH=/there/bin:/usr/bin:/bin",
        )
    return found


def stage_umbel(folder: Path) -> list[Path]:
    """Copy the Umbel of this process into a folder; returns what is to be put on the path there.

    Raises:
        OSError: it can't be written.
    """
    source, package = package_folder(), folder / "umbel"
    for file in job_probe.package_files(source):
        target = package / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target)
    staged = [package]
    try:
        found = metadata.distribution("umbel")
    except metadata.PackageNotFoundError:
        return staged
    described = folder / f"umbel-{found.version}.dist-info"
    described.mkdir()
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""  # an egg-info has the latter
    (described / "METADATA").write_text(text, encoding="utf-8")
    return [*staged, described]
