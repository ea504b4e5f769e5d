"""Which functions differ between two runs, and how? From the fingerprints' parts and the stored sources.

A part of a fingerprint is named ``module.function``; the archives of sources hold files. A function is looked for in
the file whose path ends like its module, and cut out of it. It must not know runs, and executes nothing.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CodeChange", "code_changes", "source_of"]

#: What a fingerprint calls captured values and defaults: ``module.function[name]``, ``module.function(default 0)``.
_CAPTURED = re.compile(r"(.*?)[\[(].*")


@dataclass(frozen=True, slots=True)
class CodeChange:
    """A function, class or constant that differs."""

    name: str
    #: "changed", "new" or "gone".
    how: str
    #: As a unified diff; "" where the sources are not at hand or say the same (then it is a value that differs).
    diff: str


def code_changes(
    old_parts: Mapping[str, str], new_parts: Mapping[str, str], old: Mapping[str, str], new: Mapping[str, str]
) -> list[CodeChange]:
    """The parts that differ, sorted by name.

    Args:
        old_parts: the digest of each part, of one run.
        new_parts: of the other.
        old: the text of each source file, of one run.
        new: of the other.
    """
    moved = _moved(old_parts, new_parts)
    gone = {*moved.values()}
    old_parts = {name: digest for name, digest in old_parts.items() if name not in gone} | {
        name: old_parts[was] for name, was in moved.items()
    }
    names = {name for name in {*old_parts, *new_parts} if old_parts.get(name) != new_parts.get(name)}
    # A class is left out when one of its methods says it more exactly.
    names -= {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    changes = []
    for name in sorted(names):
        how = "new" if name not in old_parts else "gone" if name not in new_parts else "changed"
        was = moved.get(name, name)
        before, after = source_of(was, old) or "", source_of(name, new) or ""
        if how == "changed" and not (before and after):
            before = after = ""  # only one side is known: that would look like a function that came or went
        changes.append(CodeChange(name, how, _unified(before, after, was, name)))
    return changes


def _moved(old_parts: Mapping[str, str], new_parts: Mapping[str, str]) -> dict[str, str]:
    """By its name now, what a part was called that is in a file of another name now.

    A part that is gone and one that is new are the same if their names end alike and no others do: among those of the
    same content first, then among all.
    """
    gone = {name: digest for name, digest in old_parts.items() if name not in new_parts}
    new = {name: digest for name, digest in new_parts.items() if name not in old_parts}
    found: dict[str, str] = {}
    for same_content in (True, False):
        by_end: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
        for side, (parts, taken) in enumerate(((gone, {*found.values()}), (new, {*found}))):
            for name, digest in parts.items():
                if name not in taken:
                    by_end.setdefault((_end(name), digest if same_content else ""), ([], []))[side].append(name)
        found |= {after[0]: before[0] for before, after in by_end.values() if len(before) == len(after) == 1}
    return found


def _end(name: str) -> str:
    """The last name of a part, with what it captures: ``fit[rate]`` of ``module.Model.fit[rate]``."""
    match = _CAPTURED.fullmatch(name)
    whole = match[1] if match else name
    return whole.rpartition(".")[2] + name[len(whole) :]


def _unified(before: str, after: str, was: str, name: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{was}", f"b/{name}", lineterm="")
    return "\n".join(lines)


def source_of(name: str, files: Mapping[str, str]) -> str | None:
    """The source of a function, class or module-level name; None if it is not found.

    Args:
        name: ``package.module.Class.method``.
        files: the text of each source file by its path in the archive.
    """
    match = _CAPTURED.fullmatch(name)
    parts = (match[1] if match else name).replace(".<locals>", "").split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module, inner = parts[:cut], parts[cut:]
        for path in sorted(files):
            stem = path.removesuffix(".py").removesuffix("/__init__").split("/")
            if stem[-len(module) :] == module:
                found = _cut_out(files[path], inner)
                if found is not None:
                    return found
    # A module may have been loaded under another name than its file's: then the only file that has the name counts.
    anywhere = [found for text in files.values() if (found := _cut_out(text, parts[1:])) is not None]
    return anywhere[0] if len(anywhere) == 1 and len(parts) > 1 else None


def _cut_out(text: str, path: list[str]) -> str | None:
    try:
        node: ast.AST = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    for name in path:
        inner = next((child for child in _definitions(node) if name in _names(child)), None)
        if inner is None:
            return None
        node = inner
    lines = text.splitlines()
    decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
    first = min([node.lineno, *decorators])  # type: ignore[attr-defined]
    return "\n".join(lines[first - 1 : node.end_lineno])  # type: ignore[attr-defined]


def _definitions(node: ast.AST) -> list[ast.AST]:
    """What a module, class or function defines, also within ``if`` and ``try``."""
    found: list[ast.AST] = []
    stack = list(ast.iter_child_nodes(node))
    while stack:
        child = stack.pop(0)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign):
            found.append(child)
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            stack.extend(ast.iter_child_nodes(child))
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
