"""`FILE[:OBJECT]` on the command line: load a Python file and find the node in it that is to be run."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from umbel.scheduler.errors import UmbelError, UsageError

__all__ = ["ScriptError", "Target", "load_target"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be run."""

    #: A node, or a list of them.
    node: Any
    #: What a run of it is called if nobody says: the file's name, and that of an object which is not the default one.
    name: str


class ScriptError(Exception):
    """The user's file, or its function, raised an error.

    Args:
        text: its traceback, from the user's code on.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def load_target(text: str) -> Target:
    """The node (or list of nodes) that ``FILE[:OBJECT]`` names.

    OBJECT is a node, or a function that needs no arguments and returns one. Without OBJECT the file's only node, or
    its function ``graph``, is taken.

    Raises:
        UsageError: there is no such file or object, or it is not a node.
        ScriptError: the file raised an error, unless it is one of Umbel's, or an exit: these pass through.
    """
    file, _, name = text.partition(":") if not _is_drive(text) else (text, "", "")
    path = Path(file)
    if not path.is_file():
        raise UsageError("there is no such file", got=file, expected="FILE[:OBJECT], as examples/gdp.py:graph")
    module = _of_user(_load, path.resolve())
    default = _default(module)
    found = _named(module, name, file) if name else _only(module, file)
    if inspect.isfunction(found):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise UsageError(
                f"{name or found.__name__!r} in {file} needs arguments: {error}",
                expected="a function that can be called without, and returns a node",
            ) from None
        found = _of_user(found)
    if not _is_target(found):
        raise UsageError(
            f"{name!r} in {file} is not a node",
            got=f"{type(found).__name__}",
            expected="a node (task.bind(…), task.map(…), umbel.sweep(…)), a list of them, or a function of one",
        )
    return Target(found, path.stem if name in ("", default) else f"{path.stem}-{name}")


def _of_user(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call something that runs the user's code."""
    try:
        return function(*arguments)
    except UsageError as error:
        where = _user_line(error)
        if where is None:
            raise
        raise type(error)(f"{error.what} ({where})", got=error.got, expected=error.expected, hint=error.hint) from error
    except UmbelError:
        raise
    except Exception as error:
        told = traceback.TracebackException.from_exception(error)
        told.stack = traceback.StackSummary.from_list(
            [frame for frame in told.stack if frame.filename != __file__ and not frame.filename.startswith("<frozen ")]
        )
        raise ScriptError("".join(told.format())) from error


def _user_line(error: BaseException) -> str | None:
    """The last line on the way to an error that is none of Umbel's or of the import system, as ``gdp.py, line 3``."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("umbel", "importlib"):
            found = f"{Path(frame.f_code.co_filename).name}, line {line}"
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
                expected=f"one of: {known}"
                if (known := ", ".join(_runnable(module)))
                else "a node, but the file has none",
            )
        found = getattr(found, part)
    return found


def _default(module: ModuleType) -> str | None:
    """The name of what is taken if none is given, if that is clear."""
    graph = getattr(module, "graph", None)
    if inspect.isfunction(graph) or _is_target(graph):
        return "graph"
    names = _candidates(module)
    return names[0] if len(names) == 1 else None


def _only(module: ModuleType, file: str) -> Any:
    default = _default(module)
    if default is not None:
        return getattr(module, default)
    names = _candidates(module)
    raise UsageError(
        f"{file} has {'several nodes' if names else 'no node at its top level'}",
        got=", ".join(names) or None,
        expected=f"one, or its name: {file}:{names[0] if names else 'NAME'}",
    )


def _runnable(module: ModuleType) -> list[str]:
    """Names of what may be run, as far as that can be seen: nodes, and functions of the file without arguments."""
    functions = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not inspect.signature(value).parameters
    ]
    return [*_candidates(module), *functions]


def _candidates(module: ModuleType) -> list[str]:
    """Names of the module's nodes that no other of its nodes uses."""
    from umbel.runtime.graph.nodes import Node

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
    from umbel.runtime.graph.nodes import Node

    if isinstance(value, Node):
        return True
    return isinstance(value, Sequence) and bool(value) and all(isinstance(item, Node) for item in value)
