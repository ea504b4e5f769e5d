"""Can this function be sent to workers, and if not, which captured object is at fault?

The function is pickled as a worker would receive it. On failure, or when it is too large, what it takes along
(`umbel.storage.values.pickling.held_by`) is searched. It must not know runs or Ray, and must not change what it looks
at.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from umbel.scheduler.errors import CodeError
from umbel.storage.values.pickling import (
    PickleTooLargeError,
    dumps_within,
    find_culprit,
    held_by,
    pickled_size_bytes,
    type_name,
)

__all__ = ["check_picklable"]

#: A function travels to every worker: data does not belong in it.
_LIMIT_BYTES = 8 * 2**20
#: Captured objects below this are not what makes a function too large.
_SMALL_BYTES = 2**16
_DEPTH = 6


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
    what = f"{role} {getattr(fn, '__qualname__', type(fn).__qualname__)!r}"
    try:
        return dumps_within(fn, _LIMIT_BYTES)
    except PickleTooLargeError:
        raise _too_large(fn, what) from None
    except Exception as error:  # pickling runs the code of whatever is captured
        raise _unpicklable(fn, what, error) from error


def _unpicklable(fn: Any, what: str, error: Exception) -> CodeError:
    where, culprit, reason = find_culprit(fn)
    reason = reason or f"{type(error).__name__}: {error}"
    if not where:
        return CodeError(
            f"{what} can't be sent to workers: it can't be pickled",
            got=f"{type_name(fn)} ({reason})",
            expected="a function that can be pickled",
            hint="define it at the top level of a module or script",
        )
    return CodeError(
        f"{what} can't be sent to workers: its {where} can't be pickled",
        got=f"{type_name(culprit)} in {where} ({reason})",
        expected="captured objects that can be pickled: numbers, strings, containers, arrays, plain objects",
        hint="create it inside the function, so that each worker makes its own, or pass what it is made from as data",
    )


def _too_large(fn: Any, what: str) -> CodeError:
    sizes: list[tuple[int, str]] = []
    _measure(fn, [], {id(fn): fn}, sizes)
    sizes.sort(key=lambda pair: (-pair[0], pair[1]))
    largest = "; ".join(f"{text}, {size / 2**20:.1f} MiB" for size, text in sizes[:3])
    return CodeError(
        f"{what} is too large to be sent to every worker",
        got=largest or f"over {_LIMIT_BYTES // 2**20} MiB pickled",
        expected=f"at most {_LIMIT_BYTES // 2**20} MiB pickled, with all that it captures",
        hint="pass large objects as data= (a worker fetches them once), or load them inside the function",
    )


def _measure(value: Any, path: list[str], seen: dict[int, object], sizes: list[tuple[int, str]]) -> None:
    """Collect the large captured objects; functions that are captured themselves are looked into."""
    for where, item in held_by(value):
        if id(item) in seen or isinstance(item, ModuleType):
            continue
        seen[id(item)] = item
        size_bytes = pickled_size_bytes(item)
        if size_bytes is not None and size_bytes < _SMALL_BYTES:
            continue  # also a function that travels by its name only, whatever its module holds
        if callable(item) and not isinstance(item, type) and len(path) < _DEPTH:
            _measure(item, [*path, where], seen, sizes)
        elif size_bytes is not None:
            sizes.append((size_bytes, f"{', '.join([*path, where])} ({type_name(item)})"))
