"""What a function captures, when it can't be sent: beyond what `test_code` asks of `check_picklable`."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

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
