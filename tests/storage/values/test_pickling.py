from __future__ import annotations

import functools
import pickle
import threading
from types import MappingProxyType
from typing import Any

import pytest

from umbel.scheduler.errors import CodeError
from umbel.storage.values.pickling import (
    PickleTooLargeError,
    dumps,
    dumps_within,
    find_culprit,
    held_by,
    pickled_size_bytes,
)

lock = threading.Lock()


class Connection:
    """Holds what can't be sent."""

    def __init__(self) -> None:
        self.name = "db"
        self.handle = threading.Lock()


class Slotted:
    """Has no __dict__."""

    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


def closure() -> Any:
    connection = Connection()
    fine = 3

    def backtest(config: dict[str, Any]) -> float:
        return float(fine if connection else config["x"])

    return backtest


def with_global() -> Any:
    # As in a script, whose functions are pickled by value.
    scope: dict[str, Any] = {"guard": threading.Lock(), "__name__": "__main__"}
    exec("def trial(config):\n    with guard:\n        return 1.0", scope)
    return scope["trial"]


def with_default() -> Any:
    def trial(config: object, guard: object = threading.Lock()) -> None:
        return None

    return trial


def with_keyword_default() -> Any:
    def trial(config: object, *, guard: object = threading.Lock()) -> None:
        return None

    return trial


class OfATask:
    """A task, as far as pickling knows one."""

    def __init__(self) -> None:
        self.__umbel_function__ = closure()
        self.name = "load"


class Tagged(list[object]):
    """A container with attributes."""

    def __init__(self, tag: object) -> None:
        super().__init__([1])
        self.tag = tag


class Hostile(dict[str, object]):
    """Answers to nothing but to pickling."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def items(self) -> Any:
        raise RuntimeError

    def __reduce_ex__(self, protocol: object) -> Any:
        raise RuntimeError("never\nat all")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": lock}]}, "item 'a', item 1, item 'b'"),
        (Connection(), "attribute 'handle'"),
        ([Connection()], "item 0, attribute 'handle'"),
        (Slotted(lock), "attribute 'inner'"),
        ((1, Slotted({"x": lock})), "item 1, attribute 'inner', item 'x'"),
        (closure(), "captured variable 'connection', attribute 'handle'"),
        (with_global(), "global 'guard'"),
        (with_default(), "default argument 1"),
        (with_keyword_default(), "default of 'guard'"),
        (OfATask(), "function, captured variable 'connection', attribute 'handle'"),
        (Tagged(lock), "attribute 'tag'"),
        (MappingProxyType({"x": lock}), "item 'x'"),
        ({1, lock}, "item"),
        (functools.partial(max, lock), "argument 1"),
        (functools.partial(max, key=lock), "argument 'key'"),
        (Connection().__init__, "instance, attribute 'handle'"),  # type: ignore[misc]
    ],
)
def test_the_culprit_is_named(value: object, path: str) -> None:
    found, culprit, reason = find_culprit(value)
    assert found == path
    assert isinstance(culprit, type(lock))
    assert "lock" in reason
    with pytest.raises(CodeError) as caught:
        dumps(value)
    assert f"its {path} is a value of type _thread.lock" in str(caught.value)
    pickle.loads(pickle.dumps(caught.value))


def test_a_value_that_is_itself_to_blame() -> None:
    assert find_culprit(lock)[0] == ""
    with pytest.raises(CodeError, match=r"a value of type _thread\.lock can't be pickled"):
        dumps(lock)


def test_what_refuses_to_be_looked_at_is_named_itself() -> None:
    hostile = Hostile()
    assert find_culprit([hostile]) == ("item 0", hostile, "RuntimeError: never")


def test_a_global_that_the_code_does_not_read_is_not_to_blame() -> None:
    scope: dict[str, Any] = {"handle": lock, "used": [lock], "__name__": "__main__"}
    exec("def trial(config):\n    return config.handle, used", scope)
    assert find_culprit(scope["trial"]).where == "global 'used', item 0"
    assert [where for where, _ in held_by(scope["trial"])] == ["global 'used'"]


def test_large_pickles_are_stopped() -> None:
    value = b"x" * 1000
    assert pickle.loads(dumps_within(value, 1100)) == value
    with pytest.raises(PickleTooLargeError):
        dumps_within(value, 1000)
    assert 1000 < (pickled_size_bytes(value) or 0) < 1100
    assert pickled_size_bytes([value, lock]) is None


def test_a_cycle_ends() -> None:
    cycle: list[object] = [lock]
    cycle.append(cycle)
    assert find_culprit(cycle)[0] == "item 0"


def test_picklable_values() -> None:
    assert pickle.loads(dumps({"a": 1})) == {"a": 1}
    assert find_culprit(1) == ("", 1, "")
