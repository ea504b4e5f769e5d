"""Is a file a script that runs something by itself, or only the description of a graph?

As far as its syntax tree tells; nothing is imported or run. It must not know jobs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from umbel.scheduler.errors import UsageError

__all__ = ["runs_itself"]

#: What scripts call their entry, by convention.
_ENTRY = "main"


def runs_itself(file: Path) -> bool:
    """Whether a file runs something when `python` is given it.

    It does if it has ``if __name__ == "__main__":``, or at its top level calls `umbel.run`, under whatever name it was
    imported, ``….fit()`` without arguments, as tuners and trainers have it (models are given data), ``main()``, or a
    function of its own that does one of these.

    Raises:
        UsageError: it is not Python.
    """
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise UsageError("the file is not Python", got=f"{file}: {error}") from None
    top = [node for node in tree.body if not isinstance(node, ast.ClassDef)]
    functions = {node.name: node for node in top if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    modules, running = _imported(tree)
    running |= {_ENTRY}
    while True:  # what calls a function that runs something runs something
        more = {name for name, node in functions.items() if _calls(node.body, modules, running)} - running
        if not more:
            break
        running |= more
    statements = [node for node in top if node not in functions.values()]
    return any(map(_is_main_guard, statements)) or _calls(statements, modules, running)


def _imported(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The names that mean the module umbel, and those that mean `umbel.run`."""
    modules, running = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {each.asname or "umbel" for each in node.names if each.name == "umbel"}
            modules |= {"umbel" for each in node.names if each.name.startswith("umbel.") and each.asname is None}
        elif isinstance(node, ast.ImportFrom) and node.module == "umbel" and node.level == 0:
            running |= {each.asname or each.name for each in node.names if each.name == "run"}
    return modules, running


def _is_main_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    sides = [node.test.left, *node.test.comparators]
    names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    main = any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
    return names and main and isinstance(node.test.ops[0], ast.Eq)


def _calls(statements: Iterable[ast.AST], modules: set[str], running: set[str]) -> bool:
    """Whether statements, when they are executed, call what runs a graph, an experiment or the script."""
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue  # only defined
        if isinstance(node, ast.Call) and _is_run(node, modules, running):
            return True
        if _calls(ast.iter_child_nodes(node), modules, running):
            return True
    return False


def _is_run(call: ast.Call, modules: set[str], running: set[str]) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in running
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr == "fit":
        return not call.args and not call.keywords
    return call.func.attr == "run" and isinstance(call.func.value, ast.Name) and call.func.value.id in modules
