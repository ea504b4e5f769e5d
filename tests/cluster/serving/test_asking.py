"""How models are asked: one request at a time, or all that wait at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from umbel.cluster.serving.asking import asked_in
from umbel.cluster.serving.errors import AskFailedError, InputsError
from umbel.cluster.serving.models import Loaded


class Batches:
    """Counts; waits for leave at its first batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()

    def predict(self, inputs: Any) -> Any:
        raise AssertionError("it takes batches")

    def predict_batch(self, many: list[Any]) -> list[Any]:
        self.sizes.append(len(many))
        if len(self.sizes) == 1:
            assert self.go.wait(10)
        return [10 / inputs for inputs in many]


async def ask_all(model: Any, inputs: list[Any], *, cancel: int | None = None, takes: str = "json") -> list[Any]:
    with ThreadPoolExecutor(4) as threads:
        ask, loaded = asked_in(threads), Loaded.of(model, "d", "DEU", takes)
        tasks = [asyncio.create_task(ask(loaded, each)) for each in inputs]
        await asyncio.sleep(0.01)
        if cancel is not None:
            tasks[cancel].cancel()
        if isinstance(model, Batches):
            model.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return [each[0] if isinstance(each, tuple) else each for each in found]


def test_what_waits_is_asked_at_once() -> None:
    model = Batches()
    assert asyncio.run(ask_all(model, [1, 2, 5, 10])) == [10, 5, 2, 1]
    assert sum(model.sizes) == 4
    assert len(model.sizes) == 2 or model.sizes == [4]


def test_bad_inputs_of_one_are_not_the_failure_of_another() -> None:
    found = asyncio.run(ask_all(Batches(), [1, 0, 5]))
    assert (found[0], found[2]) == (10, 2)
    assert isinstance(found[1], AskFailedError)
    assert "ZeroDivisionError" in str(found[1])


@pytest.mark.parametrize("gone", [0, 2])
def test_a_caller_that_goes_away_leaves_the_others_theirs(gone: int) -> None:
    found = asyncio.run(ask_all(Batches(), [1, 2, 5, 10], cancel=gone))
    assert [each for n, each in enumerate(found) if n != gone] == [v for n, v in enumerate([10, 5, 2, 1]) if n != gone]


def test_a_model_is_asked_by_one_thread_at_a_time() -> None:
    class Alone:
        def __init__(self) -> None:
            self.inside = 0

        def predict(self, inputs: Any) -> Any:
            self.inside += 1
            assert self.inside == 1
            threading.Event().wait(0.002)
            self.inside -= 1
            return inputs

    assert asyncio.run(ask_all(Alone(), list(range(10)))) == list(range(10))


def test_a_caller_that_goes_away_does_not_let_a_second_thread_in() -> None:
    go, begun = threading.Event(), []

    def model(inputs: Any) -> Any:
        begun.append(inputs)
        assert go.wait(10)
        if inputs == 1:
            raise ZeroDivisionError  # which nobody hears
        return inputs

    async def run() -> None:
        with ThreadPoolExecutor(4) as threads:
            ask, loaded = asked_in(threads), Loaded.of(model, "d", "DEU", "json")
            gone, waiting, second = (asyncio.create_task(ask(loaded, n)) for n in (1, 2, 3))
            while not begun:
                await asyncio.sleep(0.001)
            gone.cancel()
            waiting.cancel()
            await asyncio.sleep(0.02)
            assert gone.cancelled()
            assert begun == [1]
            go.set()
            assert (await second)[0] == 3
            assert begun == [1, 3]
            assert not loaded.lock.locked()

    asyncio.run(run())


def test_inputs_that_have_no_such_form() -> None:
    [found] = asyncio.run(ask_all(lambda frame: frame, [{"a": [1], "b": [1, 2]}], takes="frame"))
    assert isinstance(found, InputsError)
    assert found.mistakes[0].as_dict()["loc"] == ["body", "inputs"]


def test_an_answer_that_json_cannot_say() -> None:
    [found] = asyncio.run(ask_all(lambda inputs: object(), [1]))
    assert isinstance(found, AskFailedError)
