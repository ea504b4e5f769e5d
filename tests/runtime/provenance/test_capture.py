"""What can be sent to workers, and which captured thing is at fault where it can't."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest

import umbel
from umbel.runtime.provenance.capture import check_picklable
from umbel.scheduler.errors import CodeError


def test_the_function_of_a_task_is_looked_into() -> None:
    lock = threading.Lock()

    @umbel.task
    def load(name: str) -> object:
        return lock

    with pytest.raises(CodeError, match="its function, captured variable 'lock' can't be pickled"):
        check_picklable(load, "the task")


def test_a_function_that_travels_by_its_name_is_not_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("an_installed_module")
    vars(module)["TABLE"] = b"x" * 2**24
    exec("def look_up(key): return TABLE[key]", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    look_up, table = module.look_up, b"y" * 2**24

    def trial(config: dict[str, Any]) -> Any:
        return look_up(table[0])

    with pytest.raises(CodeError) as caught:
        check_picklable(trial, "the trial function")
    assert caught.value.got == "captured variable 'table' (bytes), 16.0 MiB"


def test_many_small_captured_objects_are_not_named() -> None:
    parts = [bytes([i % 256]) * 2**15 for i in range(300)]
    scope: dict[str, Any] = {"__name__": "__main__", **{f"part_{i}": part for i, part in enumerate(parts)}}
    exec(f"def trial(config): return {', '.join(f'part_{i}' for i in range(len(parts)))}", scope)
    with pytest.raises(CodeError) as caught:
        check_picklable(scope["trial"], "the trial function")
    assert caught.value.got == "over 8 MiB pickled"


def test_a_function_that_can_be_sent_comes_back() -> None:
    scale = 3
    assert cloudpickle.loads(check_picklable(lambda x: x * scale, "the trial function"))(2) == 6


class Holder:
    def __init__(self) -> None:
        self.parts = {"ok": 1, "bad": threading.Lock()}

    def __call__(self, config: object) -> None: ...


def _by_value(text: str) -> Callable[..., Any]:
    """A function as a script defines it: sent with its globals, not by the name of its module."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(text, namespace)
    return namespace["fn"]  # type: ignore[no-any-return]


def _closure() -> Callable[..., Any]:
    lock = threading.Lock()
    return lambda config: lock


def _partial() -> Callable[..., Any]:
    return functools.partial(Holder.__call__, config=[1, threading.RLock()])


@pytest.mark.parametrize(
    ("fn", "where", "kind"),
    [
        (_closure(), "captured variable 'lock'", "_thread.lock"),
        (_by_value("import threading\nL = threading.Lock()\ndef fn(c): return L"), "global 'L'", "_thread.lock"),
        (
            _by_value("import threading\nL = [1, threading.Lock()]\ndef help(): return L\ndef fn(c): return help()"),
            "global 'help', global 'L', item 1",
            "_thread.lock",
        ),
        (_by_value("def fn(c, g=(i for i in '')): ..."), "default argument 1", "generator"),
        (_by_value("def fn(c, *, g=(i for i in '')): ..."), "default of 'g'", "generator"),
        (Holder(), "attribute 'parts', item 'bad'", "_thread.lock"),
        (_partial(), "argument 'config', item 1", "_thread.RLock"),
    ],
)
def test_what_can_not_be_sent_is_named(fn: Callable[..., Any], where: str, kind: str) -> None:
    with pytest.raises(CodeError) as caught:
        check_picklable(fn, "the trial function")
    text = str(caught.value)
    assert "the trial function" in text
    assert f"its {where} can't be pickled" in text
    assert kind in (caught.value.got or "")
    assert "inside the function" in (caught.value.hint or "")


def test_a_function_that_is_too_large_names_what_makes_it_so() -> None:
    table, small = np.zeros(2 * 2**20), np.zeros(3)

    def helper() -> Any:
        return table

    with pytest.raises(CodeError) as caught:
        check_picklable(lambda config: (helper(), small), "the trial function")
    assert caught.value.got == "captured variable 'helper', captured variable 'table' (numpy.ndarray), 16.0 MiB"
    assert "8 MiB" in (caught.value.expected or "")
    assert "data=" in (caught.value.hint or "")
