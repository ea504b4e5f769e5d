"""Is what a job is to run there, and does the file have the object that is named? As far as its syntax tree tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from umbel.cluster.config.work import Job
from umbel.scheduler.errors import UsageError

__all__ = ["check_target"]


def check_target(job: Job, folder: Path) -> None:
    """Refuse a job whose file is not in the project, or has no such object at its top level.

    A file that only the pods have, in an archive or at an absolute path of the image, can't be looked at.

    Raises:
        UsageError: it is not there, or is not Python.
    """
    name, _, wanted = job.target.partition(":")
    if job.working_dir is not None or name.startswith("/"):
        return
    file = folder / name
    if not file.is_file():
        raise UsageError(
            "job: target: there is no such file in the project",
            got=str(file),
            expected="a path from the project's folder, or an absolute one if only the image has it",
        )
    if not wanted:
        return
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise UsageError("job: target: the file is not Python", got=f"{file}: {error}") from None
    names = list(_names(tree.body))
    if wanted not in names and "*" not in names:
        near = get_close_matches(wanted, names, n=3)
        raise UsageError(
            "job: target: the file has no such object at its top level",
            got=job.target,
            expected="the name of a node, or of a function that returns one",
            hint=f"did you mean {' or '.join(near)}?" if near else None,
        )


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that statements bind, and those inside of them that are no scope of their own."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
                elif node is not statement and isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
                ):
                    yield from _names([node])
