"""What did the user ask a job to be: which command, called what, in which environment?

Pure: options become a command for a shell and a ``runtime_env`` of Ray's, and every contradiction is found before
anything is sent. It must not know the cluster, or read anything but the files that options name.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.cluster.jobs.files import Project
from umbel.scheduler.errors import UsageError
from umbel.storage.layout import check_name

__all__ = [
    "STOP_WAIT_S",
    "Target",
    "check_store",
    "default_name",
    "entrypoint",
    "environment_variables",
    "parse_target",
    "read_requirements",
    "read_runtime_env",
    "runs_itself",
    "same_environment",
    "with_packages",
]

#: Seconds that a job gets to end in good order when it is stopped. Ray's default, three, is less than a store may need.
STOP_WAIT_S = 60
#: Parts of a runtime_env that decide by themselves which packages there are.
_WHOLE = ("conda", "image_uri", "container")
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


def runs_itself(file: Path) -> bool:
    """Whether a file is a script that runs something, and not only the description of a graph.

    It is one if it has ``if __name__ == "__main__":``, or at its top level calls ``umbel.run(…)`` or ``….fit(…)``.

    Raises:
        UsageError: it is not Python.
    """
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise UsageError("the file is not Python", got=f"{file}: {error}") from None
    return any(_is_main_guard(node) or _runs(node) for node in tree.body)


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


def check_store(store: str | None, *, script: bool, args: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """The store that a job is told of; None: the script knows its own.

    Raises:
        UsageError: there is none, or it would lie in the job's own folder, which Ray throws away.
    """
    if store is None:
        told = any(word in ("--store", "-s") or word.startswith("--store=") for word in args)
        if script or told or variables.get("UMBEL_STORE"):
            return None
        raise UsageError(
            "the job needs a store that the cluster reaches: its own folder is thrown away",
            expected="--store URL (or $UMBEL_STORE): s3://bucket/folder, or a shared folder's absolute path",
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
            got=", ".join(_public(text) for text in packages),
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
    """Whether a job that runs has the variables that are asked for."""
    held = (there or {}).get("env_vars") or {}
    return json.dumps(dict(asked), sort_keys=True) == json.dumps(dict(held), sort_keys=True)


def _public(text: str) -> str:
    """A requirement without credentials."""
    from umbel.storage.redaction import redact_url

    return redact_url(text)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.Name) and inner.id == "__name__" for inner in ast.walk(node.test)
    )


def _runs(node: ast.stmt) -> bool:
    """Whether a statement at the top level calls what runs a graph, or an experiment."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            owner = inner.func.value
            if inner.func.attr == "fit" or (
                inner.func.attr == "run" and isinstance(owner, ast.Name) and owner.id == "umbel"
            ):
                return True
    return False
