"""`FILE[:OBJECT]` on the command line: load a Python file and find the node in it that is to be run."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from umbel.scheduler.errors import UsageError

__all__ = ["load_target"]


def load_target(text: str) -> Any:
    """The node (or list of nodes) that ``FILE[:OBJECT]`` names.

    OBJECT is a node, or a function that needs no arguments and returns one. Without OBJECT the file's only node, or
    its function ``graph``, is taken.

    Raises:
        UsageError: there is no such file or object, or it is not a node; whatever the file itself raises passes
            through.
    """
    file, _, name = text.partition(":") if not _is_drive(text) else (text, "", "")
    path = Path(file)
    if not path.is_file():
        raise UsageError("there is no such file", got=file, expected="FILE[:OBJECT], as examples/gdp.py:graph")
    module = _load(path.resolve())
    found = _named(module, name, file) if name else _only(module, file)
    if inspect.isfunction(found):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise UsageError(
                f"{name or found.__name__!r} in {file} needs arguments: {error}",
                expected="a function that can be called without, and returns a node",
            ) from None
        found = found()
    if not _is_target(found):
        raise UsageError(
            f"{name!r} in {file} is not a node",
            got=f"{type(found).__name__}",
            expected="a node (task.bind(…), task.map(…), umbel.sweep(…)), a list of them, or a function of one",
        )
    return found


def _is_drive(text: str) -> bool:
    return len(text) > 2 and text[1] == ":" and text[2] in "\\/" and text.count(":") == 1


def _load(path: Path) -> ModuleType:
    import cloudpickle

    # As for a script: workers on this machine take over the path, so the file's neighbours can be imported there.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError("this is not a Python file", got=str(path), expected="a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    # Its functions travel by value, as those of a script do, so workers need not have the file.
    cloudpickle.register_pickle_by_value(module)
    return module


def _named(module: ModuleType, name: str, file: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"{file} has no {name!r}",
                expected=f"one of: {', '.join(_candidates(module)) or 'a node, but it has none'}",
            )
        found = getattr(found, part)
    return found


def _only(module: ModuleType, file: str) -> Any:
    graph = getattr(module, "graph", None)
    if inspect.isfunction(graph) or _is_target(graph):
        return graph
    names = _candidates(module)
    if len(names) == 1:
        return getattr(module, names[0])
    raise UsageError(
        f"{file} has {'several nodes' if names else 'no node at its top level'}",
        got=", ".join(names) or None,
        expected=f"one, or its name: {file}:{names[0] if names else 'NAME'}",
    )


def _candidates(module: ModuleType) -> list[str]:
    """Names of the module's nodes that no other of its nodes uses."""
    from umbel.runtime.nodes import Node

    nodes = {name: value for name, value in vars(module).items() if isinstance(value, Node)}
    used = {id(parent) for node in nodes.values() for parent in _ancestors(node)}
    return [name for name, node in nodes.items() if id(node) not in used]


def _ancestors(node: Any) -> list[Any]:
    found: dict[int, Any] = {}
    stack = list(node.parents())
    while stack:
        parent = stack.pop()
        if id(parent) not in found:
            found[id(parent)] = parent
            stack.extend(parent.parents())
    return list(found.values())


def _is_target(value: object) -> bool:
    from umbel.runtime.nodes import Node

    if isinstance(value, Node):
        return True
    return isinstance(value, Sequence) and bool(value) and all(isinstance(item, Node) for item in value)
