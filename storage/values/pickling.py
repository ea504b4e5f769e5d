"""Which bytes stand for any Python object, and if none do, which part of it is to blame?

`dumps` is cloudpickle with an error that names the culprit: the attribute, item, closure or global variable deepest
inside the object that can't be pickled on its own. `held_by` is the one place that says what an object takes along
when it is pickled. It must not know what the object is for, and must not change what it looks at.
"""

from __future__ import annotations

import dis
import functools
import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import cloudpickle

from umbel.scheduler.errors import CodeError

__all__ = [
    "PICKLE_PROTOCOL",
    "Culprit",
    "PickleTooLargeError",
    "dumps",
    "dumps_within",
    "find_culprit",
    "held_by",
    "pickled_size_bytes",
    "type_name",
]

#: The protocol of all pickles in a store; it is the newest that every supported Python reads.
PICKLE_PROTOCOL = 5
#: How deep the search for a culprit goes, and how many objects it tries. Each try is a pickling.
_MAX_DEPTH = 12
_MAX_TRIES = 2000
#: Of a container this many items are looked at.
_MAX_ITEMS = 1000
#: Measuring an object stops here.
_MEASURE_BYTES = 2**30
#: The instructions by which cloudpickle, too, finds the globals that a function takes along.
_GLOBAL_INSTRUCTIONS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})


class PickleTooLargeError(ValueError):
    """A pickle would be larger than allowed."""


class Culprit(NamedTuple):
    """The part of a value that keeps it from being pickled."""

    #: How to reach it: ``"global 'L', item 1"``; "" for the value itself.
    where: str
    part: object
    #: What pickling it raised, on one line; "": it can be pickled.
    reason: str


# ---- bytes -----------------------------------------------------------------------------------------------------


def dumps(value: object) -> bytes:
    """Pickle any object, functions and classes of scripts and notebooks included.

    Raises:
        CodeError: something in it can't be pickled; it is named.
    """
    try:
        data: bytes = cloudpickle.dumps(value, protocol=PICKLE_PROTOCOL)
    except Exception as error:
        culprit = find_culprit(value)
        where = f": its {culprit.where} is {_describe(culprit.part)}" if culprit.where else ""
        raise CodeError(
            f"{_describe(value)} can't be pickled{where}",
            got=culprit.reason or _reason(error),
            expected="an object that can be sent to another process",
            hint="make it inside the function that uses it (connections, locks, open files), or leave it out",
        ) from error
    return data


def dumps_within(value: object, limit_bytes: int) -> bytes:
    """Pickle any object, if that takes no more than so many bytes; memory is not filled by more.

    Raises:
        PickleTooLargeError: it takes more.
        Exception: whatever the pickling raised; `find_culprit` says why.
    """
    sink = _Sink(limit_bytes, io.BytesIO())
    cloudpickle.dump(value, sink, protocol=PICKLE_PROTOCOL)
    assert sink.kept is not None
    return sink.kept.getvalue()


def pickled_size_bytes(value: object) -> int | None:
    """How many bytes an object takes when pickled, counted up to 1 GiB; None when it can't be pickled."""
    size_bytes, _ = _measure(value)
    return size_bytes


class _Sink:
    """A file that stops a pickling which grows too large; without a place to keep it, the bytes are only counted."""

    def __init__(self, limit_bytes: int, kept: io.BytesIO | None = None) -> None:
        self.kept = kept
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    def write(self, data: Any) -> None:
        self.size_bytes += memoryview(data).nbytes
        if self.size_bytes > self._limit_bytes:
            raise PickleTooLargeError
        if self.kept is not None:
            self.kept.write(data)


def _measure(value: object) -> tuple[int | None, str]:
    """The pickled size, or None and why there is none."""
    sink = _Sink(_MEASURE_BYTES)
    try:
        cloudpickle.dump(value, sink, protocol=PICKLE_PROTOCOL)
    except PickleTooLargeError:
        return sink.size_bytes, ""
    except Exception as error:  # objects may raise anything when asked for their state
        return None, _reason(error)
    return sink.size_bytes, ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


# ---- what is to blame ------------------------------------------------------------------------------------------


def find_culprit(value: object) -> Culprit:
    """The deepest part of a value that can't be pickled; the value itself if no part of it is to blame.

    Cost: one pickling for each part that is looked at; meant for the way to an error message only.
    """
    steps: list[str] = []
    part, reason = value, _measure(value)[1]
    seen = {id(value): value}  # held, so that no other object can get an id that is in here
    for _ in range(_MAX_DEPTH):
        for step, inner in held_by(part):
            if id(inner) in seen or len(seen) > _MAX_TRIES:
                continue
            seen[id(inner)] = inner
            why = _measure(inner)[1]
            if why:
                steps.append(step)
                part, reason = inner, why
                break
        else:
            break
    return Culprit(", ".join(steps), part, reason)


def held_by(value: object) -> Iterator[tuple[str, object]]:
    """What a value takes along when it is pickled, in a fixed order, as (where, part).

    Closures, the globals that a function's code names, defaults, attributes, arguments of a partial, the function of a
    task, and items of containers, each named in words: ``"captured variable 'lock'"``, ``"item 1"``.
    """
    task_function = _attribute(value, "__umbel_function__")
    if callable(task_function):
        yield "function", task_function
    if isinstance(value, FunctionType):
        yield from _held_by_function(value)
    elif isinstance(value, MethodType):
        yield "instance", value.__self__
        yield "method", value.__func__
    elif isinstance(value, functools.partial):
        yield "function", value.func
        yield from ((f"argument {i}", part) for i, part in enumerate(value.args, 1))
        yield from ((f"argument {name!r}", part) for name, part in value.keywords.items())
    elif isinstance(value, Mapping):
        yield from ((f"item {_text(key)}", part) for key, part in _items(value))
    elif isinstance(value, list | tuple):
        yield from ((f"item {i}", part) for i, part in enumerate(_items(value)))
    elif isinstance(value, set | frozenset):
        yield from (("item", part) for part in sorted(_items(value), key=_text))
    if not isinstance(value, ModuleType):  # a module travels by its name
        yield from ((f"attribute {name!r}", part) for name, part in _attributes(value).items())


def _held_by_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"captured variable {name!r}", cell.cell_contents
        except ValueError:  # an empty cell: the variable has no value yet
            continue
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
    yield from ((f"default argument {i}", part) for i, part in enumerate(function.__defaults__ or (), 1))
    yield from ((f"default of {name!r}", part) for name, part in (function.__kwdefaults__ or {}).items())


def _global_names(code: CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL_INSTRUCTIONS}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _items(container: Iterable[Any]) -> list[Any]:
    """The first items, of a mapping as pairs; none if it can't be iterated: a class of the user's may do anything."""
    try:
        return list(islice(container.items() if isinstance(container, Mapping) else container, _MAX_ITEMS))
    except Exception:
        return []


def _attributes(value: object) -> dict[str, object]:
    if isinstance(value, type):
        return {name: part for name, part in vars(value).items() if name[:2] != "__"}
    state = _attribute(value, "__dict__")
    attributes: dict[str, object] = dict(state) if isinstance(state, dict) else {}
    for cls in type(value).__mro__:
        slots: str | Iterable[str] = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            part = _attribute(value, name)
            if part is not None and name[:2] != "__":
                attributes.setdefault(name, part)
    return attributes


def _attribute(value: object, name: str) -> object:
    """The attribute; None if it is missing or can't be read: reading one may run any code."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


# ---- words -----------------------------------------------------------------------------------------------------


def type_name(value: object) -> str:
    """The name of an object's type, as a user knows it."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _describe(value: object) -> str:
    if isinstance(value, FunctionType | MethodType):
        return f"the function {value.__qualname__}"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"a value of type {type_name(value)}"


def _text(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = type_name(value)
    return text if len(text) <= 60 else text[:59] + "…"
