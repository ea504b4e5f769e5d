from __future__ import annotations

import functools
import pickle
import threading
from typing import Any

import pytest

from umbel.scheduler.errors import CodeError
from umbel.storage.pickling import dumps, find_culprit

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


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": lock}]}, "its item ['a'][1]['b']"),
        (Connection(), "its attribute handle"),
        ([Connection()], "its item [0].handle"),
        (Slotted(lock), "its attribute inner"),
        ((1, Slotted({"x": lock})), "its item [1].inner['x']"),
        (closure(), "its variable connection.handle"),
        (with_global(), "the global variable guard"),
        (with_default(), "its default argument 0"),
        (functools.partial(print, lock), "its attribute args[0]"),
        (functools.partial(print, key=lock), "its attribute keywords['key']"),
        (Connection().__init__, "its attribute __self__.handle"),  # type: ignore[misc]
    ],
)
def test_the_culprit_is_named(value: object, path: str) -> None:
    found, culprit, reason = find_culprit(value)
    assert found == path
    assert isinstance(culprit, type(lock))
    assert "lock" in reason
    with pytest.raises(CodeError) as caught:
        dumps(value)
    assert path in str(caught.value)
    pickle.loads(pickle.dumps(caught.value))


def test_a_value_that_is_itself_to_blame() -> None:
    assert find_culprit(lock)[0] == ""
    with pytest.raises(CodeError, match=r"a value of type _thread\.lock can't be pickled"):
        dumps(lock)


def test_a_cycle_ends() -> None:
    cycle: list[object] = [lock]
    cycle.append(cycle)
    assert find_culprit(cycle)[0] == "its item [0]"


def test_picklable_values() -> None:
    assert pickle.loads(dumps({"a": 1})) == {"a": 1}
    assert find_culprit(1) == ("", 1, "")
