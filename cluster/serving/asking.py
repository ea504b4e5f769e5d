"""How are loaded models asked: in threads, each by one request at a time, and by all that wait at once where it can be?

A model that takes batches is asked, when it is free, for all that has come meanwhile: nothing waits for a batch to
fill, and batches grow with the load by themselves. (`serve.batch` gathers what comes for all models in one queue, where
a slow one holds up the others, and by a timer.) It must not know versions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from umbel.cluster.serving.errors import AskFailedError, InputsError
from umbel.cluster.serving.models import Loaded
from umbel.cluster.serving.schema import Mistake
from umbel.cluster.serving.versions import one_line
from umbel.storage.registry.predicting import as_taken, plain, predict, predict_many

__all__ = ["Ask", "asked_in"]

#: Asks a model: plain inputs in; plain outputs out, and the seconds that the model took.
Ask = Callable[[Loaded, object], Coroutine[Any, Any, tuple[Any, float]]]
#: What one of a batch got.
_Outcome = tuple[Any, float] | Exception
#: How many requests one batch has at most.
LARGEST_BATCH = 64


def asked_in(threads: Executor) -> Ask:
    """Asks models in threads.

    What is returned raises:
        InputsError: the inputs have not the form that the model takes.
        AskFailedError: the model raised, or its answer can't be said as JSON.
    """

    async def ask(loaded: Loaded, inputs: object) -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        if not loaded.batches:
            await loaded.lock.acquire()
            try:
                asked = loop.run_in_executor(threads, _ask_one, loaded, inputs)
            except BaseException:
                loaded.lock.release()
                raise
            asked.add_done_callback(partial(_asked, loaded))
            return await asyncio.shield(asked)  # a caller that goes away does not end the thread, which holds the model
        answer: asyncio.Future[tuple[Any, float]] = loop.create_future()
        loaded.waiting.append((inputs, answer))
        if loaded.asking is None:  # a task of its own: a caller that goes away must not take the others' answers along
            loaded.asking = loop.create_task(_ask_waiting(loaded, threads))
        return await answer

    return ask


def _asked(loaded: Loaded, asked: asyncio.Future[tuple[Any, float]]) -> None:
    """The model is free again."""
    loaded.lock.release()
    if not asked.cancelled():
        asked.exception()  # which nobody may be left to hear


async def _ask_waiting(loaded: Loaded, threads: Executor) -> None:
    """Ask a model for all that waits, again and again until nothing does."""
    try:
        while loaded.waiting:
            batch = loaded.waiting[:LARGEST_BATCH]
            del loaded.waiting[:LARGEST_BATCH]
            wanted = [(inputs, answer) for inputs, answer in batch if not answer.done()]
            run = asyncio.get_running_loop().run_in_executor
            outcomes = await run(threads, _ask_batch, loaded, [inputs for inputs, _ in wanted])
            for (_, answer), outcome in zip(wanted, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
    finally:
        loaded.asking = None


def _ask_one(loaded: Loaded, inputs: object) -> tuple[Any, float]:
    given = _taken(loaded, inputs)
    began = time.perf_counter()
    try:
        found = predict(loaded.model, given)
        seconds = time.perf_counter() - began
        return plain(found), seconds
    except Exception as error:  # the user's code may raise anything
        raise _failed(loaded, error) from error


def _ask_batch(loaded: Loaded, many: Sequence[object]) -> list[_Outcome]:
    """If the model raises at several, they are asked one by one: one's bad inputs are not another's failure."""
    try:
        return _ask_together(loaded, many)
    except Exception as error:
        if len(many) <= 1:
            return [error if isinstance(error, InputsError) else _failed(loaded, error) for _ in many]
    return [outcome for inputs in many for outcome in _ask_batch(loaded, [inputs])]


def _ask_together(loaded: Loaded, many: Sequence[object]) -> list[_Outcome]:
    given = [_taken(loaded, inputs) for inputs in many]
    began = time.perf_counter()
    found = predict_many(loaded.model, given)
    seconds = time.perf_counter() - began
    return [(plain(each), seconds) for each in found]


def _taken(loaded: Loaded, inputs: object) -> object:
    try:
        return as_taken(inputs, loaded.takes)
    except Exception as error:  # NumPy, Arrow and pandas raise what they like
        wrong = InputsError(f"the inputs are no {loaded.takes}", got=one_line(error))
        wrong.mistakes = [Mistake([], one_line(error), loaded.takes)]
        raise wrong from error


def _failed(loaded: Loaded, error: Exception) -> AskFailedError:
    return AskFailedError(f"the model of {loaded.group!r} failed", got=one_line(error))
