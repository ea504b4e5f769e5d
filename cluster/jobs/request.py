"""What did the user ask a job to be: which command, called what, in which environment?

Pure: options become a command for a shell and a ``runtime_env`` of Ray's, and every contradiction is found before
anything is sent. It must not know the cluster, or read anything but the files that options name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

from umbel.cluster.jobs.files import Project
from umbel.runtime.provenance.sitting import USER_VARIABLE, user
from umbel.runtime.sharing.share import VARIABLE as SHARE_VARIABLE
from umbel.scheduler.errors import UsageError
from umbel.storage.layout import check_name
from umbel.storage.redaction import redact_url

__all__ = [
    "STOP_WAIT_S",
    "Target",
    "asker",
    "check_store",
    "default_name",
    "entrypoint",
    "environment_variables",
    "parse_target",
    "read_requirements",
    "read_runtime_env",
    "same_environment",
    "with_packages",
]

#: Seconds that a job gets to end in good order when it is stopped. Ray's default, three, is less than a store may need.
STOP_WAIT_S = 60
#: Parts of a runtime_env that decide by themselves which packages there are.
_WHOLE = ("conda", "image_uri", "container")
#: Variables that say who asks.
_ASKER = (USER_VARIABLE, SHARE_VARIABLE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Target:
    """``FILE[:OBJECT]``."""

    file: Path
    #: A node of the file, or a function that returns one; None: not said.
    object_name: str | None


def parse_target(text: str) -> Target:
    """``FILE[:OBJECT]``, parted; a drive's colon is none of ours."""
    file, colon, name = text.rpartition(":")
    if colon and file and re.fullmatch(r"[A-Za-z_]\w*", name):
        return Target(Path(file), name)
    return Target(Path(text), None)


def default_name(target: Target) -> str:
    """What a job is called if nobody says: as `umbel run` would call the run.

    Raises:
        UsageError: the file's name can't be a name.
    """
    stem = target.file.stem
    name = stem if target.object_name in (None, "graph") else f"{stem}-{target.object_name}"
    check_name("job", name)
    return name


def entrypoint(project: Project, target: Target, *, script: bool, name: str, args: Sequence[str]) -> str:
    """The command, for a shell.

    ``exec``: so that a signal to the job is one to Python, once.
    """
    if script:
        words = ["python", project.file]
    else:
        what = project.file if target.object_name is None else f"{project.file}:{target.object_name}"
        words = ["python", "-m", "umbel", "run", what, "--name", name]
    return "exec " + shlex.join([*words, *args])


def environment_variables(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """``KEY=VALUE``, or ``KEY`` for the value that it has here, so that it need not stand in a command.

    Raises:
        UsageError: one is neither. The value is not repeated.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not _VARIABLE.fullmatch(key):
            raise UsageError("--env needs KEY=VALUE, or KEY", got=f"{key!r} as the name" if equals else repr(text))
        if not equals:
            if key not in environ:
                raise UsageError(
                    f"--env {key}: there is no such variable here", hint=f"set it, or say --env {key}=VALUE"
                )
            value = environ[key]
        found[key] = value
    return found


def asker(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that tell a job who submitted it, and which share is asked for here: on the cluster everybody's
    processes run as one user."""
    share = environ.get(SHARE_VARIABLE, "")
    return {USER_VARIABLE: user()} | ({SHARE_VARIABLE: share} if share else {})


def check_store(store: str | None, *, script: bool, args: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """The store that a job is told of; None: it is told by its arguments or variables, or the script knows its own.

    Raises:
        UsageError: there is none, it would lie in the job's own folder, which Ray throws away, or its URL holds a
            credential.
    """
    told = [_check_place(place) for place in [*_stores(args, script=script), variables.get("UMBEL_STORE")] if place]
    if store is None:
        if script or told:
            return None
        raise UsageError(
            "the job needs a store that the cluster reaches: its own folder is thrown away",
            expected="--store URL (or $UMBEL_STORE): s3://bucket/folder, or a shared folder's absolute path",
        )
    return _check_place(store)


def _stores(args: Sequence[str], *, script: bool) -> list[str]:
    """The stores that arguments name. A script's own ``-s`` may mean anything."""
    found = [word.partition("=")[2] for word in args if word.startswith("--store=")]
    names = ("--store",) if script else ("--store", "-s")
    return [*found, *(following for word, following in pairwise(args) if word in names)]


def _check_place(store: str) -> str:
    if redact_url(store) != store:
        raise UsageError(
            "the store's URL holds a credential, which commands and Ray's dashboard would show",
            got=redact_url(store),
            expected="a URL without one",
            hint="credentials of the storage travel as variables: --env AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY",
        )
    if "://" in store or os.path.isabs(store):  # noqa: PTH117 - it may be a path of another machine
        return store
    raise UsageError(
        "the store is a relative path, which leads into the job's own folder, and that is thrown away",
        got=store,
        expected="s3://bucket/folder, or a shared folder's absolute path",
    )


def read_runtime_env(text: str | None) -> dict[str, Any]:
    """Ray's ``runtime_env``, from a YAML file, or as JSON.

    Raises:
        UsageError: it is neither, or says what `umbel submit` itself decides.
    """
    if text is None:
        return {}
    import yaml

    source = "the JSON of --runtime-env"
    try:
        if not text.lstrip().startswith("{"):
            source = text
            text = Path(text).read_text(encoding="utf-8")
        found = yaml.safe_load(text)  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        lines = str(error).splitlines() if isinstance(error, OSError) else [type(error).__name__]
        raise UsageError("--runtime-env can't be read", got=f"{source}: {lines[0]}") from None
    if not isinstance(found, dict):
        raise UsageError("--runtime-env is not a mapping", got=source, expected='as {"pip": ["scikit-learn"]}')
    _check_keys(found, source)
    if "working_dir" in found:
        raise UsageError(
            "the runtime_env has a working_dir, but umbel submit ships the project by itself",
            got=source,
            hint="leave it out, and name the folder with --working-dir",
        )
    variables = found.get("env_vars") or {}
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise UsageError("env_vars of the runtime_env must be a mapping of strings", got=source)
    return found


def _check_keys(runtime_env: Mapping[str, Any], source: str) -> None:
    """Refuse keys of a runtime_env that Ray would pass over."""
    from ray.runtime_env import RuntimeEnv

    if "RAY_RUNTIME_ENV_PLUGINS" in os.environ:  # they bring keys of their own
        return
    options = {name for name in signature(RuntimeEnv.__init__).parameters if not name.startswith("_")}
    known = sorted((set(RuntimeEnv.known_fields) | options) - {"self", "kwargs", "working_dir"})
    for name in runtime_env:
        if name not in (*known, "working_dir"):
            near = get_close_matches(str(name), known, n=2)
            raise UsageError(
                "the runtime_env has a key that Ray does not know",
                got=f"{name!r} in {source}",
                expected=f"one of {', '.join(each for each in known if not each.startswith('_'))}",
                hint=f"did you mean {' or '.join(near)}?" if near else None,
            )


def read_requirements(file: Path) -> list[str]:
    """The lines of a requirements file that mean something.

    Raises:
        UsageError: it can't be read, or names what is on this machine only.
    """
    try:
        lines = file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the requirements can't be read", got=str(error)) from None
    found: list[str] = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text.startswith(("-r", "--requirement")):
            inner = re.split(r"[\s=]+", text, maxsplit=1)[1] if re.search(r"[\s=]", text) else text[2:]
            found += read_requirements(file.parent / inner)
        elif text.startswith(("-e", "--editable", ".", "/", "-c", "--constraint", "file:")) or "@ file:" in text:
            raise UsageError(
                "the requirements name something of this machine, which the cluster does not have",
                got=f"{file}: {text}",
                hint="the project itself is shipped anyway; give its requirements only",
            )
        elif text:
            found.append(text)
    return found


def with_packages(runtime_env: Mapping[str, Any], packages: Sequence[str]) -> dict[str, Any]:
    """A runtime_env that installs packages, too.

    Raises:
        UsageError: it has a way of its own to say what is installed.
    """
    result = dict(runtime_env)
    if not packages:
        return result
    whole = [name for name in _WHOLE if result.get(name)]
    if whole:
        raise UsageError(
            f"packages can't be added to a runtime_env with {whole[0]}",
            got=", ".join(map(redact_url, packages)),
            hint=f"have them in its {whole[0]}",
        )
    way = "uv" if result.get("uv") else "pip"
    there = result.get(way)
    if isinstance(there, str):
        there = read_requirements(Path(there))
    if isinstance(there, Mapping):
        result[way] = {**there, "packages": [*there.get("packages", []), *packages]}
    else:
        result[way] = [*(there or []), *packages]
    return result


def same_environment(asked: Mapping[str, str], there: Mapping[str, Any] | None) -> bool:
    """Whether a job that runs has the variables that are asked for; who asks, and for which share, is no difference."""
    held = (there or {}).get("env_vars") or {}
    ours, theirs = ({key: value for key, value in given.items() if key not in _ASKER} for given in (asked, held))
    return ours == theirs
