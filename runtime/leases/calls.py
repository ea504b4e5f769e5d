"""The user's function with what surrounds each call of it: its arguments, its retries, and its errors as text."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from umbel.runtime.driver.programs import InputKind, Parameter, Program, SweepProgram
from umbel.runtime.graph.sequences import item
from umbel.runtime.leases.values import (
    ValueCache,
    ValueHandle,
    item_digest,
)
from umbel.runtime.provenance.credentials import hidden_values, known
from umbel.scheduler.errors import StoreCorruptError, StoreError, UmbelError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.redaction import is_secret_name

__all__ = ["Call", "describe_error", "input_digests", "item_place", "store_failed"]

#: Characters of a traceback that are kept: its end, where the cause stands.
ERROR_LIMIT = 8000


class Call:
    """The user's function with what surrounds each call of it."""

    __slots__ = ("attempt", "cache", "function", "may_retry", "objects", "program", "retry_on")

    def __init__(
        self,
        program: Program,
        function: Callable[..., Any],
        retry_on: tuple[type[BaseException], ...],
        attempt: int,
        cache: ValueCache,
        objects: ObjectStore,
    ) -> None:
        self.program = program
        self.function = function
        self.retry_on = retry_on
        self.attempt = attempt
        self.cache = cache
        self.objects = objects
        self.may_retry = attempt <= program.retries
        known.look_at_environment()
        if isinstance(program, SweepProgram):
            known.note(hidden_values(program.source.space).values)

    def retries(self, error: BaseException) -> bool:
        """Whether an element that raised this is to be tried again."""
        return self.may_retry and isinstance(error, self.retry_on)

    def fill(self, handles: list[tuple[ValueHandle, ...]], element: int) -> tuple[list[object], dict[str, object]]:
        """The arguments that an element's handles stand for (of a sweep: a group's)."""
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for parameter, held in zip(self.program.parameters, handles, strict=True):
            values = [self.cache.get(handle) for handle in held]
            value = values if parameter.kind is InputKind.ALL else values[0]
            if parameter.kind is InputKind.ITEM:
                value = item(value, item_place(parameter, held[0], element))
            if parameter.keyword is not None and is_secret_name(parameter.keyword):
                known.note([value])
            if parameter.keyword is None:
                args.append(value)
            else:
                kwargs[parameter.keyword] = value
        return args, kwargs


def item_place(parameter: Parameter, handle: ValueHandle, element: int) -> int:
    """Which item of a list an element gets."""
    assert handle.length is not None  # of what is no list the driver has not granted any element
    return element // parameter.repeat % handle.length


def input_digests(parameters: Sequence[Parameter], handles: list[tuple[ValueHandle, ...]], element: int) -> list[str]:
    """What identifies the inputs of an element (of a sweep: of a group)."""
    found: list[str] = []
    for parameter, held in zip(parameters, handles, strict=True):
        if is_secret_name(parameter.keyword):
            continue  # no digest of a credential is kept
        if parameter.kind is InputKind.ITEM:
            found.append(item_digest(held[0], item_place(parameter, held[0], element)))
        else:
            found.extend(handle.digest for handle in held)
    return found


def describe_error(error: BaseException) -> str:
    """An exception as the text of a row: its traceback from the user's function on, the end of it if it is long."""
    if isinstance(error, UmbelError):
        return known.scrub(f"{type(error).__name__}: {error}")
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = known.scrub("".join(traceback.format_exception(type(error), error, frames)).rstrip())
    return text if len(text) <= ERROR_LIMIT else "…" + text[-ERROR_LIMIT:]


def store_failed(error: BaseException) -> bool:
    """Whether the store could not do its part: no element is to blame for that, and the run can't go on."""
    return isinstance(error, StoreError) and not isinstance(error, StoreCorruptError)
