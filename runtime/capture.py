"""Can this function be sent to workers, and if not, which captured object is at fault?

The function is pickled as a worker would receive it. On failure, or when it is too large, what it captures is
searched: closures, globals that its code names, defaults, attributes of a callable instance, arguments of a partial,
and the inside of containers. It must not know runs or Ray, and must not change what it looks at.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import cloudpickle

from umbel.runtime.source import describe
from umbel.scheduler.errors import CodeError

__all__ = ["check_picklable"]

#: A function travels to every worker: data does not belong in it.
_LIMIT_BYTES = 8 * 2**20
#: Measuring a captured object stops here.
_MEASURE_BYTES = 2**30
_DEPTH = 6
_ITEMS = 1000


def check_picklable(fn: Callable[..., Any], role: str) -> bytes:
    """Pickle a function for workers.

    Args:
        fn: the function, task, partial or callable instance.
        role: what it is to the user, for messages: ``"the trial function"``.

    Returns:
        The pickle, made by cloudpickle.

    Raises:
        CodeError: something that it captures can't be pickled (it is named, with its type), or the pickle is over
            8 MiB (the largest captured objects are named, with their sizes).

    Cost: one pickling; on failure one more for each captured object.
    """
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    file = _Limited(_LIMIT_BYTES, keep=True)
    try:
        cloudpickle.dump(fn, file, protocol=5)
    except _LimitError:
        raise _too_large(fn, f"{role} {name!r}") from None
    except Exception as error:  # pickling runs the code of whatever is captured
        raise _unpicklable(fn, f"{role} {name!r}", error) from error
    return file.kept.getvalue()


class _LimitError(Exception):
    pass


class _Limited:
    """A file that stops a pickling which grows too large before it fills the memory."""

    def __init__(self, limit_bytes: int, *, keep: bool) -> None:
        self.kept = io.BytesIO()
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._keep = keep

    def write(self, data: Any) -> None:
        self.size_bytes += memoryview(data).nbytes
        if self.size_bytes > self._limit_bytes:
            raise _LimitError
        if self._keep:
            self.kept.write(data)


def _size_bytes(value: object) -> int | None:
    """The pickled size; ``None`` when it can't be pickled."""
    file = _Limited(_MEASURE_BYTES, keep=False)
    try:
        cloudpickle.dump(value, file, protocol=5)
    except _LimitError:
        return file.size_bytes
    except Exception:
        return None
    return file.size_bytes


def _captured(value: Any) -> Iterator[tuple[str, Any]]:
    """What a thing holds that travels with it: (where, object)."""
    inner = getattr(value, "__umbel_function__", None)
    if callable(inner):
        yield "function", inner
    elif isinstance(value, FunctionType):
        yield from _captured_by_function(value)
    elif isinstance(value, MethodType):
        yield "instance", value.__self__
        yield "method", value.__func__
    elif isinstance(value, functools.partial):
        yield "function", value.func
        yield from ((f"argument {i + 1}", item) for i, item in enumerate(value.args))
        yield from ((f"argument {name!r}", item) for name, item in value.keywords.items())
    elif isinstance(value, dict):
        yield from ((f"item {key!r}", item) for key, item in list(value.items())[:_ITEMS])
    elif isinstance(value, list | tuple):
        yield from ((f"item {i}", item) for i, item in enumerate(value[:_ITEMS]))
    elif isinstance(value, set | frozenset):
        yield from (("item", item) for item in sorted(value, key=repr)[:_ITEMS])
    elif isinstance(value, type):
        yield from ((f"attribute {name!r}", item) for name, item in vars(value).items() if name[:2] != "__")
    elif not isinstance(value, ModuleType):
        state = getattr(value, "__dict__", None)
        if isinstance(state, dict):
            yield from ((f"attribute {name!r}", item) for name, item in state.items())


def _captured_by_function(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield f"captured variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # not bound yet
    for name in sorted({chain[0] for chain in describe(fn.__code__, fn.__globals__).chains}):
        if name in fn.__globals__:
            yield f"global {name!r}", fn.__globals__[name]
    yield from ((f"default argument {i + 1}", item) for i, item in enumerate(fn.__defaults__ or ()))
    yield from ((f"default of {name!r}", item) for name, item in (fn.__kwdefaults__ or {}).items())
    yield from ((f"attribute {name!r}", item) for name, item in vars(fn).items())


def _unpicklable(fn: Any, what: str, error: Exception) -> CodeError:
    path, culprit = _culprit(fn, {id(fn)}, 0)
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if not path:
        return CodeError(
            f"{what} can't be sent to workers: it can't be pickled",
            got=f"{_type_name(fn)} ({reason})",
            expected="a function that can be pickled",
            hint="define it at the top level of a module or script",
        )
    where = ", ".join(path)
    return CodeError(
        f"{what} can't be sent to workers: its {where} can't be pickled",
        got=f"{_type_name(culprit)} in {where} ({reason})",
        expected="captured objects that can be pickled: numbers, strings, containers, arrays, plain objects",
        hint="create it inside the function, so that each worker makes its own, or pass what it is made from as data",
    )


def _culprit(value: Any, seen: set[int], depth: int) -> tuple[list[str], Any]:
    """The way to the innermost object that can't be pickled, and that object; an empty way: it is this one."""
    if depth < _DEPTH:
        for where, item in _captured(value):
            if id(item) not in seen and _size_bytes(item) is None:
                seen.add(id(item))
                path, found = _culprit(item, seen, depth + 1)
                return [where, *path], found
    return [], value


def _too_large(fn: Any, what: str) -> CodeError:
    sizes: list[tuple[int, str]] = []
    _measure(fn, [], {id(fn)}, 0, sizes)
    sizes.sort(key=lambda pair: (-pair[0], pair[1]))
    largest = "; ".join(f"{text}, {size / 2**20:.1f} MiB" for size, text in sizes[:3] if size >= 2**16)
    return CodeError(
        f"{what} is too large to be sent to every worker",
        got=largest or f"over {_LIMIT_BYTES // 2**20} MiB pickled",
        expected=f"at most {_LIMIT_BYTES // 2**20} MiB pickled, with all that it captures",
        hint="pass large objects as data= (a worker fetches them once), or load them inside the function",
    )


def _measure(value: Any, path: list[str], seen: set[int], depth: int, sizes: list[tuple[int, str]]) -> None:
    """Collect the sizes of captured objects; functions that are captured themselves are looked into."""
    for where, item in _captured(value):
        if id(item) in seen or isinstance(item, ModuleType):
            continue
        seen.add(id(item))
        inward = callable(item) and not isinstance(item, type)
        if inward and depth < _DEPTH:
            _measure(item, [*path, where], seen, depth + 1, sizes)
        else:
            sizes.append((_size_bytes(item) or 0, f"{', '.join([*path, where])} ({_type_name(item)})"))


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
