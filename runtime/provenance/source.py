"""Which source does a running code object or class come from, and what does that code name?

A file is parsed and compiled once. A running code object is then matched with its twin in the compiled file, by
its instructions and not by its line number: so a file that was edited after it was imported is never mistaken for
the code that runs. What matches is described by its syntax tree, without comments, formatting, docstrings and line
numbers; what has no matching source (``exec``, some interactive shells, rewritten test modules) is described by its
instructions.

It must not know what a fingerprint is or follow any reference: it looks at one code object at a time.
"""

from __future__ import annotations

import ast
import copy
import dis
import hashlib
import linecache
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["CodeFacts", "class_digest", "describe", "module_imports", "sha256"]

_GLOBAL_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTE_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_NOISE = frozenset({"EXTENDED_ARG", "CACHE", "PUSH_NULL", "PRECALL"})
#: Flags that change what a call does (varargs, generator, coroutine); the others are the compiler's own notes.
_CALL_FLAGS = 0xFF
_FACTS_KEPT = 8192


def sha256(text: str) -> str:
    """The hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---- the normal form of a syntax tree ----------------------------------------------------------------------

_SKIPPED_FIELDS = frozenset({"ctx", "type_comment", "type_ignores", "kind"})
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


def _dump(node: object, out: list[str]) -> None:
    """Like `ast.dump`, without docstrings and empty fields, so that Python's minor versions agree."""
    if isinstance(node, ast.AST):
        out.append(type(node).__name__)
        out.append("(")
        for field in node._fields:
            value = getattr(node, field, None)
            if (value is None and not isinstance(node, ast.Constant)) or value == [] or field in _SKIPPED_FIELDS:
                continue
            if (
                value is not None
                and field == "body"
                and isinstance(node, _DOCUMENTED)
                and ast.get_docstring(node, clean=False) is not None
            ):
                value = value[1:]
            out.append(field)
            out.append("=")
            _dump(value, out)
            out.append(",")
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for item in node:
            _dump(item, out)
            out.append(",")
        out.append("]")
    else:
        out.append(_constant(node))


def _constant(value: object) -> str:
    """A text for a constant that appears in code: equal for equal constants, in every process."""
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, tuple):
        return "(" + ",".join(map(_constant, value)) + ")"
    if isinstance(value, frozenset):
        return "{" + ",".join(sorted(map(_constant, value))) + "}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"0x{value:x}"  # decimal conversion of huge integers is refused by Python
    return repr(value)


def _instructions(code: CodeType) -> str:
    """The normal form of a code object that has no source: what it does, not where it stands."""
    head = (code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    parts = [repr((*head, code.co_flags & _CALL_FLAGS, code.co_varnames, code.co_freevars, code.co_cellvars))]
    for ins in dis.get_instructions(code):
        if ins.opname not in _NOISE:
            parts.append(f"{ins.opname} {_constant(ins.argval)}")
    return "\n".join(parts)


# ---- files -------------------------------------------------------------------------------------------------

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class _Source:
    """One parsed and compiled file."""

    def __init__(self, text: str, filename: str) -> None:
        self.tree = ast.parse(text)
        self._filename = filename
        self._definitions: dict[tuple[int, str], _Definition] = {}
        for node in _statements(self.tree.body):
            if isinstance(node, _Definition):
                line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                self._definitions[line, node.name] = node

    @cached_property
    def _codes(self) -> dict[str, list[CodeType]]:
        """The code objects of the file by qualified name; compiled only if something is looked up."""
        # The flag lets notebook cells with a top-level await compile; functions come out the same.
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        codes: dict[str, list[CodeType]] = {}
        try:
            top = compile(self.tree, self._filename, "exec", flags=flags, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            return codes
        for code in _nested(top):
            codes.setdefault(code.co_qualname, []).append(code)
        return codes

    def function(self, code: CodeType) -> ast.AST | None:
        """The definition or lambda that a running code object comes from; ``None`` when none does the same."""
        twins = sorted(
            self._codes.get(code.co_qualname, ()), key=lambda twin: twin.co_firstlineno != code.co_firstlineno
        )
        for twin in twins:
            if _same(twin, code):
                if code.co_name == "<lambda>":
                    return self._lambda(twin)
                return self._definitions.get((twin.co_firstlineno, twin.co_name))
        return None

    def class_body(self, qualname: str, methods: Iterable[CodeType]) -> ast.ClassDef | None:
        """The class statement of this name whose body makes exactly these methods."""
        methods = list(methods)
        for body in self._codes.get(qualname, ()):
            inner = [const for const in body.co_consts if isinstance(const, CodeType)]
            node = self._definitions.get((body.co_firstlineno, body.co_name))
            if isinstance(node, ast.ClassDef) and all(
                any(twin.co_name == method.co_name and _same(twin, method) for twin in inner) for method in methods
            ):
                return node
        return None

    def _lambda(self, code: CodeType) -> ast.AST | None:
        """Several lambdas may stand on one line: the right one is the innermost that spans the instructions."""
        spans = [
            ((line, column), (end_line, end_column))
            for line, end_line, column, end_column in code.co_positions()
            if line is not None and end_line is not None and column is not None and end_column is not None
            if (line, column) != (end_line, end_column)
        ]
        if not spans:
            return None
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        found: list[tuple[tuple[int, int], ast.Lambda]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Lambda):
                body = node.body
                end = (body.end_lineno or 0, body.end_col_offset or 0)
                if (body.lineno, body.col_offset) <= first and last <= end:
                    found.append(((body.lineno, body.col_offset), node))
        return max(found, key=lambda pair: pair[0])[1] if found else None


def _statements(body: Iterable[ast.stmt], *, functions: bool = True) -> Iterator[ast.stmt]:
    """All statements under these, without walking into expressions, nor into functions unless asked to."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not functions:
            continue
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                yield from _statements(inner, functions=functions)
        for field in ("handlers", "cases"):
            for branch in getattr(node, field, ()):
                yield from _statements(branch.body, functions=functions)


def _nested(code: CodeType) -> Iterator[CodeType]:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _nested(const)


def _same(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects do the same; names of files and line numbers aside."""
    if (
        a.co_code != b.co_code
        or a.co_names != b.co_names
        or a.co_varnames != b.co_varnames
        or a.co_freevars != b.co_freevars
        or a.co_cellvars != b.co_cellvars
        or a.co_argcount != b.co_argcount
        or a.co_kwonlyargcount != b.co_kwonlyargcount
        or (a.co_flags ^ b.co_flags) & _CALL_FLAGS
        or len(a.co_consts) != len(b.co_consts)
    ):
        return False
    for mine, its in zip(a.co_consts, b.co_consts, strict=True):
        if isinstance(mine, CodeType) and isinstance(its, CodeType):
            if not _same(mine, its):
                return False
        elif mine is not its and _constant(mine) != _constant(its):
            return False
    return True


_sources: dict[str, tuple[list[str], _Source | None]] = {}


def _load(filename: str, namespace: dict[str, Any] | None = None) -> _Source | None:
    """The parsed file as it is now; ``None`` when it can't be read or parsed. Cached while it is unchanged."""
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, namespace)
    known = _sources.get(filename)
    if known is not None and known[0] is lines:
        return known[1]
    source: _Source | None = None
    if lines:
        try:
            source = _Source("".join(lines), filename)
        except (SyntaxError, ValueError, RecursionError):
            source = None
    _sources[filename] = (lines, source)
    return source


def module_imports(filename: str) -> list[tuple[str, int, tuple[str, ...]]]:
    """The imports that a file makes when it is loaded: (module, relative level, imported names)."""
    source = _load(filename)
    found: list[tuple[str, int, tuple[str, ...]]] = []
    for node in _statements(source.tree.body, functions=False) if source is not None else ():
        if isinstance(node, ast.Import):
            found.extend((alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level, tuple(alias.name for alias in node.names)))
    return found


# ---- one code object, one class ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """What one function says, and the names it uses; all sorted."""

    #: SHA-256 of the normal form.
    digest: str
    #: Global names with the attributes taken from them: ``("config", "ALPHA")``.
    chains: tuple[tuple[str, ...], ...]
    #: Imports made inside the function: (module, relative level, imported names).
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    #: Every attribute name the function uses.
    attributes: tuple[str, ...]


_facts: dict[int, tuple[CodeType, CodeFacts]] = {}


def describe(code: CodeType, namespace: dict[str, Any]) -> CodeFacts:
    """What a function's code says and names.

    Decorators count, but those that come from Umbel do not: how many CPUs a task is given is not what it computes.
    Cost: a parse of its file the first time, then a look-up.
    """
    known = _facts.get(id(code))  # by identity: equal code objects may stand under different decorators
    if known is not None and known[0] is code:
        return known[1]
    source = _load(code.co_filename, namespace)
    node = source.function(code) if source is not None else None
    text = _tree_text(node, namespace) if node is not None else None
    chains: set[tuple[str, ...]] = set()
    imports: set[tuple[str, int, tuple[str, ...]]] = set()
    attributes: set[str] = set()
    for inner in (code, *_nested(code)):
        _collect(inner, chains, imports, attributes)
    facts = CodeFacts(
        digest=sha256(text if text is not None else _instructions(code)),
        chains=tuple(sorted(chains)),
        imports=tuple(sorted(imports)),
        attributes=tuple(sorted(attributes)),
    )
    if len(_facts) >= _FACTS_KEPT:
        _facts.clear()
    _facts[id(code)] = (code, facts)
    return facts


def class_digest(cls: type, methods: Iterable[FunctionType], namespace: dict[str, Any]) -> str:
    """SHA-256 of the normal form of a class statement, or of the names in the class when it has no source."""
    codes = [fn.__code__ for fn in methods]
    # Generated methods (of a dataclass) and wrappers stand elsewhere under other names.
    own = [code for code in codes if code.co_qualname == f"{cls.__qualname__}.{code.co_name}"]
    file = own[0].co_filename if own else namespace.get("__file__")
    source = _load(file, namespace) if isinstance(file, str) else None
    node = source.class_body(cls.__qualname__, own) if source is not None else None
    text = _tree_text(node, namespace) if node is not None else None
    if text is None:
        names = sorted(name for name in vars(cls) if not (name.startswith("__") and name.endswith("__")))
        text = f"class {cls.__qualname__} {names}"
    return sha256(text)


def _tree_text(node: ast.AST, namespace: dict[str, Any]) -> str | None:
    decorators = getattr(node, "decorator_list", None)
    if decorators:
        node = copy.copy(node)
        node.decorator_list = [each for each in decorators if not _from_umbel(each, namespace)]  # type: ignore[attr-defined]
    out: list[str] = []
    try:
        _dump(node, out)
    except RecursionError:
        return None
    return "".join(out)


def _from_umbel(decorator: ast.expr, namespace: dict[str, Any]) -> bool:
    node: ast.AST = decorator
    while isinstance(node, ast.Call | ast.Attribute):
        node = node.func if isinstance(node, ast.Call) else node.value
    if not isinstance(node, ast.Name):
        return False
    value = namespace.get(node.id)
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return isinstance(home, str) and (home == "umbel" or home.startswith("umbel."))


def _collect(
    code: CodeType,
    chains: set[tuple[str, ...]],
    imports: set[tuple[str, int, tuple[str, ...]]],
    attributes: set[str],
) -> None:
    """Read the names out of one code object's instructions."""
    chain: list[str] = []
    before: tuple[Any, Any] = (None, None)  # what the last two instructions loaded: an import's level and names
    for ins in dis.get_instructions(code):
        if ins.opname in _NOISE:
            continue
        if ins.opname in _ATTRIBUTE_LOADS:
            attributes.add(ins.argval)
            if chain:
                chain.append(ins.argval)
            continue
        if chain:
            chains.add(tuple(chain))
        chain = [ins.argval] if ins.opname in _GLOBAL_LOADS else []
        if ins.opname == "IMPORT_NAME":
            imports.add((ins.argval, int(before[0] or 0), tuple(before[1] or ())))
        before = (before[1], ins.argval)
