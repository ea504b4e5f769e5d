"""Which bytes stand for any Python object, and if none do, which part of it is to blame?

`dumps` is cloudpickle with an error that names the culprit: the attribute, item, closure or global variable deepest
inside the object that can't be pickled on its own. It must not know what the object is for.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping

import cloudpickle

from umbel.scheduler.errors import CodeError

__all__ = ["PICKLE_PROTOCOL", "dumps", "find_culprit"]

#: The protocol of all pickles in a store; it is the newest that every supported Python reads.
PICKLE_PROTOCOL = 5
#: How deep the search for a culprit goes, and how many objects it tries. Each try is a pickling.
_MAX_DEPTH = 12
_MAX_TRIES = 2000


def dumps(value: object) -> bytes:
    """Pickle any object, functions and classes of scripts and notebooks included.

    Raises:
        CodeError: something in it can't be pickled; it is named.
    """
    try:
        data: bytes = cloudpickle.dumps(value, protocol=PICKLE_PROTOCOL)
    except Exception as error:
        path, culprit, reason = find_culprit(value)
        where = f": {path} is {_describe(culprit)}" if path else ""
        raise CodeError(
            f"{_describe(value)} can't be pickled{where}",
            got=reason or f"{type(error).__name__}: {error}",
            expected="an object that can be sent to another process",
            hint="make it inside the function that uses it (connections, locks, open files), or leave it out",
        ) from error
    return data


def find_culprit(value: object) -> tuple[str, object, str]:
    """The deepest part of a value that can't be pickled: how to reach it ("" for the value itself), it, and why.

    Cost: one pickling for each part that is looked at; meant for the way to an error message only.
    """
    path, culprit, reason = "", value, _why_not(value) or ""
    seen = {id(value)}
    tries = 0
    for _ in range(_MAX_DEPTH):
        for step, part in _parts(culprit):
            if id(part) in seen or tries >= _MAX_TRIES:
                continue
            seen.add(id(part))
            tries += 1
            why = _why_not(part)
            if why is not None:
                path, culprit, reason = (f"{path}{step}" if path else _first(step)), part, why
                break
        else:
            break
    return path, culprit, reason


def _first(step: str) -> str:
    if step.startswith("."):
        return f"its attribute {step[1:]}"
    return f"its item {step}" if step.startswith("[") else step.lstrip(", ")


def _why_not(value: object) -> str | None:
    try:
        cloudpickle.dumps(value, protocol=PICKLE_PROTOCOL)
    except Exception as error:  # objects may raise anything when asked for their state
        return f"{type(error).__name__}: {error}"
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a value is made of, as (step in a path, part)."""
    if isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{i}]", part) for i, part in enumerate(value.args))
        yield from ((f".keywords[{name!r}]", part) for name, part in value.keywords.items())
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("[…]", part) for part in value)
    if isinstance(value, types.ModuleType):
        return
    yield from ((f".{name}", part) for name, part in _attributes(value).items())


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f", its variable {name}", cell.cell_contents
        except ValueError:  # an empty cell: the variable has no value yet
            continue
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f", the global variable {name}", function.__globals__[name]
    for i, part in enumerate(function.__defaults__ or ()):
        yield f", its default argument {i}", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f", the default of its argument {name}", part


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _attributes(value: object) -> dict[str, object]:
    if isinstance(value, type):
        members: Mapping[str, object] = vars(value)
        return {name: part for name, part in members.items() if not name.startswith("__")}
    attributes: dict[str, object] = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                attributes.setdefault(name, getattr(value, name))
    return attributes


def _describe(value: object) -> str:
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return f"the function {value.__qualname__}"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    return f"a value of type {name}"
