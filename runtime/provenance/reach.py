"""What does a function reach? A walk over the project code and the values that a callable uses when it runs.

Each function, class, module, constant or captured object becomes a `Node` with a digest of its own content and
edges to what it refers to. Code of Python, of installed packages and of Umbel becomes a node that counts by name
only; project functions that were handed to it (a decorator's closure) are still followed.

It must not know what is done with the nodes: `umbel.runtime.provenance.fingerprint` makes a fingerprint of them. How
one code object is read is in `umbel.runtime.provenance.source`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from umbel.runtime.provenance.project import (
    MISSING,
    attribute_of,
    function_of_task,
    in_project,
    is_code,
    is_project,
    label,
    module_name,
    qualified_name,
)
from umbel.runtime.provenance.source import CodeFacts, class_digest, describe, module_imports, sha256

__all__ = ["Node", "Walk", "with_packages"]

#: An object that is captured counts by content up to this size.
_VALUE_LIMIT_BYTES = 16 * 2**20
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis)})
#: An unpicklable value is searched to this depth for what can be read.
_DEPTH = 8
#: Random generators count by type: what they have drawn is not code.
_RANDOM = ("numpy.random", "random")
_BINARIES = (".so", ".pyd", ".pyc")


class Node:
    """One thing that is reached: its own content, and what it refers to under which names."""

    __slots__ = ("edges", "key", "own")

    def __init__(self, key: str) -> None:
        self.key = key
        self.own = ""
        self.edges: list[tuple[str, Node]] = []


class Walk:
    """One walk: call `value` on the root, then `finish`, then read the nodes."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        #: File -> the package that its relative imports start from.
        self._files: dict[str, str] = {}
        #: The objects are kept so that no identity is used twice.
        self._known: dict[tuple[str, int], tuple[object, Node]] = {}
        self._queue: deque[tuple[Any, Node]] = deque()

    def value(self, obj: Any, key: str) -> Node:
        """The node of whatever a name is bound to; ``key`` names it if it does not name itself."""
        obj = function_of_task(obj)
        if is_code(obj):
            return self.code(obj)
        return self._node(obj, key, (key, id(obj)))

    def code(self, obj: Any) -> Node:
        """The node of a function, class, module or wrapped callable."""
        return self._node(obj, qualified_name(obj), ("", id(obj)))

    def _node(self, obj: Any, key: str, known_as: tuple[str, int]) -> Node:
        if known_as not in self._known:
            node = Node(key)
            self._known[known_as] = (obj, node)
            self._queue.append((obj, node))  # a queue: a long chain of calls must not exhaust the stack
        return self._known[known_as][1]

    def finish(self) -> None:
        """Expand nodes until nothing new is reached."""
        while self._queue:
            obj, node = self._queue.popleft()
            if isinstance(obj, FunctionType):
                self._function(obj, node)
            elif isinstance(obj, type):
                self._class(obj, node)
            elif isinstance(obj, ModuleType):
                self._module(obj, node)
            elif is_code(obj):
                node.own = sha256(f"wrapped by {label(type(obj))}")
                node.edges.append(("__wrapped__", self.value(obj.__wrapped__, f"{node.key}.__wrapped__")))
            else:
                node.own = self.digest(obj, node.key, node.edges)

    def _function(self, fn: FunctionType, node: Node) -> None:
        cells: dict[str, Any] = {}
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:
                continue  # a name that its function has not bound yet
        if not in_project(fn):
            # Known by name; but what the project handed to a decorator of another package is in its closure.
            plain = [(name, value) for name, value in sorted(cells.items()) if type(value) in _ATOMS]
            node.own = sha256(f"{label(fn)} {plain}")
            handed = {**cells, "__wrapped__": getattr(fn, "__wrapped__", None)}
            for name, value in sorted(handed.items()):
                if is_code(value) or isinstance(value, functools.partial):
                    node.edges.append((name, self.value(value, f"{node.key}[{name}]")))
            return
        facts = describe(fn.__code__, fn.__globals__)
        node.own = facts.digest
        self._file(fn.__code__.co_filename, fn.__globals__.get("__package__"))
        for chain in facts.chains:
            self._chain(chain, fn.__globals__, node)
        for imported in facts.imports:
            self._import(imported, facts, fn.__globals__, node)
        captured = {f"[{name}]": value for name, value in cells.items()}
        captured |= {f"(default {i})": value for i, value in enumerate(fn.__defaults__ or ())}
        captured |= {f"({name}=)": value for name, value in (fn.__kwdefaults__ or {}).items()}
        captured |= {f".{name}": value for name, value in vars(fn).items() if name == "__wrapped__" or name[:2] != "__"}
        for name, value in sorted(captured.items()):
            node.edges.append((name, self.value(value, node.key + name)))

    def _chain(self, chain: tuple[str, ...], namespace: dict[str, Any], node: Node) -> None:
        """Follow ``name.attribute…`` through project modules to the function, class or constant it means."""
        value, owner, name = namespace.get(chain[0], MISSING), namespace, chain[0]
        for attribute in chain[1:]:
            if not isinstance(value, ModuleType) or not in_project(value):
                break
            self.module_file(value)
            owner, name = vars(value), attribute
            value = attribute_of(value, attribute)
        if value is not MISSING and not name.startswith("__"):  # __file__ and __name__ are places, not code
            node.edges.append((".".join(chain), self.value(value, f"{module_name(owner)}.{name}")))

    def _import(
        self, imported: tuple[str, int, tuple[str, ...]], facts: CodeFacts, namespace: dict[str, Any], node: Node
    ) -> None:
        """Follow an import that the function makes itself; of a whole module, the attributes that it uses."""
        module, level, names = imported
        module = _absolute(module, level, namespace.get("__package__"))
        home = self._project_module(module)
        if home is None:
            return
        self.module_file(home)
        targets: list[tuple[ModuleType, Iterable[str]]] = [(home, names)] if names else [(home, facts.attributes)]
        for name in names:
            inner = attribute_of(home, name)
            inner = self._project_module(f"{module}.{name}") if inner is MISSING else inner
            if isinstance(inner, ModuleType) and in_project(inner):
                self.module_file(inner)
                targets.append((inner, facts.attributes))
        for owner, wanted in targets:
            for name in wanted:
                value = attribute_of(owner, name) if name in vars(owner) else MISSING
                if value is not MISSING and not isinstance(value, ModuleType) and not name.startswith("__"):
                    key = f"{module_name(vars(owner))}.{name}"
                    node.edges.append((f"import {name}", self.value(value, key)))

    def _project_module(self, name: str) -> ModuleType | None:
        """A module of the project, imported if it is not yet; ``None`` for all others."""
        if name not in sys.modules:
            try:
                spec = importlib.util.find_spec(name.partition(".")[0])
                places = [] if spec is None else [spec.origin] if spec.has_location else spec.submodule_search_locations
                if not places or not is_project(next(iter(places)), name):
                    return None
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # importing runs foreign code
                self.warnings.append(f"module {name} does not count: it can't be imported ({error!r})")
                return None
        module = sys.modules[name]
        return module if in_project(module) else None

    def _class(self, cls: type, node: Node) -> None:
        if not in_project(cls):
            node.own = sha256(label(cls))
            return
        methods: list[FunctionType] = []
        for name, attribute in sorted(vars(cls).items()):
            functions = _functions_in(attribute)
            methods.extend(functions)
            for fn in functions:
                node.edges.append((name, self.code(fn)))
            if functions or name == "_abc_impl" or (name.startswith("_") and name.endswith("_")):
                continue
            if isinstance(attribute, type) or not hasattr(type(attribute), "__get__"):
                node.edges.append((name, self.value(attribute, f"{node.key}.{name}")))
        for base in (*cls.__bases__, type(cls)):
            if base not in (object, type):
                node.edges.append(("base", self.code(base)))
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        if isinstance(namespace.get("__file__"), str):
            self._file(namespace["__file__"], namespace.get("__package__"))
        node.own = class_digest(cls, methods, namespace)

    def _module(self, module: ModuleType, node: Node) -> None:
        node.own = sha256("module" if in_project(module) else f"module {module.__name__}")
        if not in_project(module):
            return
        self.module_file(module)
        for name, value in sorted(vars(module).items()):  # passed around as a value: anything in it may be used
            if not name.startswith("__"):
                node.edges.append((name, self.value(value, f"{module_name(vars(module))}.{name}")))

    # ---- values --------------------------------------------------------------------------------------------

    def digest(self, value: Any, key: str, edges: list[tuple[str, Node]], depth: int = 0) -> str:
        """SHA-256 of a value's content; code inside it becomes edges."""
        if type(value) in _ATOMS:
            return sha256(f"{type(value).__name__} {hex(value) if type(value) is int else repr(value)}")
        why = "it can't be pickled"
        # Without a memo, equal values give equal bytes whatever objects they share; a cycle needs the memo.
        for memo in (False, True):
            found: list[tuple[str, Node]] = []
            try:
                text = _Pickler.digest(value, self, key, found, memo=memo)
            except _TooLargeError:
                why = f"it is over {_VALUE_LIMIT_BYTES // 2**20} MiB"
            except Exception:  # pickling runs foreign code: whatever it raises means the same
                continue
            else:
                edges.extend(found)
                return text
        inside: list[Any] | None = None
        if type(value) in (list, tuple):
            inside = list(value)
        elif type(value) is dict:
            inside = [part for item in value.items() for part in item]
        elif in_project(type(value)) and isinstance(state := attribute_of(value, "__dict__"), dict):
            inside = [part for item in state.items() for part in item]
        if inside is not None and depth < _DEPTH:
            parts = [self.digest(part, key, edges, depth + 1) for part in inside]
            return sha256(f"{self.refer(type(value), edges)} {parts}")
        self.warnings.append(f"{key}: a {label(type(value))} counts by its type only, because {why}")
        return sha256(f"object {self.refer(type(value), edges)}")

    def refer(self, obj: Any, edges: list[tuple[str, Node]]) -> str:
        """Name code that stands inside a value; an edge leads there unless its name says all."""
        if in_project(obj) or (is_code(obj) and not isinstance(obj, type | ModuleType)):
            edges.append(("in", self.code(obj)))
        return label(obj)

    # ---- files ---------------------------------------------------------------------------------------------

    def module_file(self, module: ModuleType) -> None:
        """Note a module's file as reached."""
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            self._file(file, module.__package__)

    def _file(self, filename: str, package: str | None) -> None:
        if filename in self._files or filename.endswith(_BINARIES) or not is_project(filename, package):
            return
        if Path(filename).is_file():
            self._files[filename] = package or ""

    def all_files(self) -> list[str]:
        """The files reached, and the project's modules that they import: without these they would not load."""
        todo = list(self._files)
        for filename in todo:
            for module, level, names in module_imports(filename):
                parts = _absolute(module, level, self._files[filename]).split(".")
                packages = [".".join(parts[: i + 1]) for i in range(len(parts))]
                for name in (*packages, *(f"{packages[-1]}.{inner}" for inner in names)):
                    found = sys.modules.get(name)
                    if found is not None and getattr(found, "__file__", None) not in self._files:
                        before = len(self._files)
                        self.module_file(found)
                        todo.extend(list(self._files)[before:])
        return list(self._files)


def with_packages(files: Iterable[str]) -> list[str]:
    """Project files, with the ``__init__`` of the packages that they are in and what these import; sorted."""
    wanted = set(files)
    walk = Walk()
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in wanted:
            parts = name.split(".")
            for length in range(1, len(parts)):
                package = sys.modules.get(".".join(parts[:length]))
                if package is not None and in_project(package):
                    walk.module_file(package)
    return sorted({*wanted, *walk.all_files()})


class _TooLargeError(Exception):
    pass


class _Hash:
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> None:
        self._size += memoryview(data).nbytes
        if self._size > _VALUE_LIMIT_BYTES:
            raise _TooLargeError
        self.sha.update(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles a value for its digest: code by reference to the walk, sets in an order of their own."""

    def __init__(self, file: _Hash, walk: Walk, key: str, edges: list[tuple[str, Node]]) -> None:
        super().__init__(file, protocol=5)
        self._walk, self._key, self._edges = walk, key, edges

    @classmethod
    def digest(cls, value: Any, walk: Walk, key: str, edges: list[tuple[str, Node]], *, memo: bool) -> str:
        file = _Hash()
        pickler = cls(file, walk, key, edges)
        pickler.fast = not memo
        pickler.dump(value)
        return file.sha.hexdigest()

    def persistent_id(self, obj: Any) -> str | None:
        if type(obj) in _ATOMS:
            return None
        if isinstance(obj, set | frozenset):
            members: list[tuple[str, list[tuple[str, Node]]]] = []
            for item in obj:
                edges: list[tuple[str, Node]] = []
                members.append((self._walk.digest(item, self._key, edges), edges))
            members.sort(key=lambda member: member[0])
            self._edges.extend(edge for _, edges in members for edge in edges)
            return f"{label(type(obj))} {[text for text, _ in members]}"
        if isinstance(obj, logging.Logger):
            return "logger"  # its name is its module's
        if type(obj).__module__.startswith(_RANDOM) and hasattr(obj, "__getstate__"):
            self._walk.warnings.append(f"{self._key}: a random generator counts by its type only")
            return label(type(obj))
        inner = function_of_task(obj)
        return self._walk.refer(inner, self._edges) if is_code(inner) else None


def _functions_in(attribute: Any) -> list[FunctionType]:
    """The functions behind a class attribute: methods of all kinds, and what decorators wrapped."""
    if isinstance(attribute, FunctionType):
        return [attribute]
    if isinstance(attribute, property):
        inner: list[Any] = [attribute.fget, attribute.fset, attribute.fdel]
    elif isinstance(attribute, staticmethod | classmethod):
        inner = [attribute.__func__]
    elif isinstance(attribute, functools.cached_property | functools.partialmethod):
        inner = [attribute.func]
    elif callable(attribute) and not isinstance(attribute, type):
        inner = [attribute_of(function_of_task(attribute), "__wrapped__")]
    else:
        inner = []
    return [fn for each in inner if each is not MISSING for fn in _functions_in(each)]


def _absolute(module: str, level: int, package: str | None) -> str:
    if level == 0:
        return module
    base = (package or "").split(".")
    return ".".join(part for part in (*base[: len(base) - level + 1], module) if part)
