"""Who started this, when, where and how, with which code and in which environment?

What this process can say of itself, as plain data for the records of a run, credentials left out. Packages are one
document and the difference to the last commit is one text: both are stored once, under the digest of their content,
and named by it. It must not know graphs, trials or Ray, and never writes down environment variables beyond the few
that name an image or a job.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from umbel.runtime.provenance.environment import environment
from umbel.storage.redaction import redact, redact_argv, redact_url
from umbel.storage.runs.process import current_user
from umbel.storage.store import Store

__all__ = ["USER_VARIABLE", "Repository", "describe_process", "repository", "user"]

#: Bytes of a diff that are kept.
DIFF_LIMIT_BYTES = 2**20
#: Seconds that all questions to git may take together; a run does not wait longer for an answer about itself.
GIT_LIMIT_S = 10.0
#: Where `ray job submit` tells the process that it starts about its job; only the job's id is taken from it.
RAY_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
#: Where `umbel submit` says who submitted: processes of a cluster run as one user for everybody.
USER_VARIABLE = "UMBEL_USER"
#: Longest name that is taken from there.
USER_LENGTH = 128

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Repository:
    """The state of the git repository that some source files lie in."""

    #: The commit, 40 hexadecimal digits; None: there is none yet.
    commit: str | None
    #: None: none is checked out.
    branch: str | None
    #: Whether files that git knows have changed since the commit.
    dirty: bool
    #: The changes, without credentials; empty if there are none.
    diff: bytes = b""
    #: True: there were more changes than are kept.
    truncated: bool = False
    #: Where it was cloned from, without credentials.
    remote: str | None = None


def describe_process(store: Store, files: Iterable[Path]) -> dict[str, Any]:
    """Who runs what here: the part of a run's record, and of the record of each sitting, that is about this process.

    Args:
        store: where the environment and the diff are kept.
        files: source files that the run reaches; the first says which repository is meant.

    Raises:
        StoreError: the store can't be written.

    Cost: one look at the folders of installed packages (about a millisecond) and two or three calls of git (about
    10 ms each; ended after ten seconds).
    """
    packages_here = environment()
    described: dict[str, Any] = {
        "user": user(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": redact_argv(sys.argv),
        "job": _ray_job(),
        "versions": {name: _version(name) for name in ("umbel", "ray", "numpy", "pyarrow")}
        | {"python": platform.python_version()},
        "platform": platform.platform(),
        "image": packages_here["image"],
        "environment": store.put_environment(packages_here),
        "git": None,
    }
    found = repository(next(iter(sorted(files)), Path.cwd() / "here").parent)
    if found is not None:
        described["git"] = {
            "commit": found.commit,
            "branch": found.branch,
            "dirty": found.dirty,
            "remote": found.remote,
            "diff": store.put_diff(found.diff) if found.diff else None,
            "truncated": found.truncated,
        }
    return described


def repository(folder: Path, limit_s: float = GIT_LIMIT_S) -> Repository | None:
    """The git repository that a folder lies in; None without one, without git, or if git takes too long."""
    git = _Git(folder, time.monotonic() + limit_s)
    status = git.ask("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status[0].decode(errors="replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and line.count(" ") > 1)
    commit, branch = heads.get("branch.oid"), heads.get("branch.head")
    commit = None if commit in (None, "(initial)") else commit
    dirty = any(not line.startswith("#") for line in lines)
    diff, truncated = b"", False
    if dirty and commit is not None:
        changes = git.ask("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
        if changes is not None:
            text, truncated = changes
            diff = str(redact(text.decode(errors="replace"))).encode()
    remote = git.ask("config", "--get", "remote.origin.url")
    return Repository(
        commit,
        None if branch in (None, "(detached)") else branch,
        dirty,
        diff,
        truncated,
        _CREDENTIALS.sub("", redact_url(remote[0].decode(errors="replace").strip())) if remote and remote[0] else None,
    )


class _Git:
    """Questions to git about one folder, with a deadline for all together."""

    def __init__(self, folder: Path, deadline: float) -> None:
        self._folder = folder
        self._deadline = deadline

    def ask(self, *arguments: str) -> tuple[bytes, bool] | None:
        """What git answers, bounded, and whether it had more to say; None: it has no answer."""
        command = ["git", "-c", "core.quotepath=false", *arguments]
        quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            with subprocess.Popen(
                command, cwd=self._folder, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    return self._read(process)
                finally:
                    process.kill()
        except OSError:
            return None  # there is no git, or no such folder

    def _read(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bool] | None:
        assert process.stdout is not None
        # Reading has no time limit of its own: when time is up the process is ended, and reading with it.
        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), process.kill)
        timer.start()
        try:
            data = process.stdout.read(DIFF_LIMIT_BYTES + 1)
            if len(data) > DIFF_LIMIT_BYTES:
                return data[:DIFF_LIMIT_BYTES], True
            return (data, False) if process.wait() == 0 else None
        finally:
            timer.cancel()


def _ray_job() -> str | None:
    """The id under which `ray job submit` started this process."""
    try:
        config = json.loads(os.environ.get(RAY_JOB_VARIABLE) or "{}")
        metadata: Mapping[str, Any] = config.get("metadata") or {}
        found = metadata.get("job_submission_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def user() -> str:
    """The name of the user that this process works for: in a job who submitted it, else as whom it runs.

    It is what a machine says of itself, and proves nothing.
    """
    given = os.environ.get(USER_VARIABLE, "").strip()
    return given[:USER_LENGTH] if given else current_user()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
