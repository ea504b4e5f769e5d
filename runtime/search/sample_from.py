"""What does a function of ``tune.sample_from`` make of a trial's config? The same whenever and wherever it is called.

Such functions draw from the global generators of `random` and NumPy, or from generators of their own. These are seeded
for the call and put back as they were. A function gets what Tune gives it: the spec, whose ``config`` it reads by
attribute or by key, or the config itself. It must not know what a dimension is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cloudpickle
import numpy as np

from umbel.scheduler.search.domains import NotDrawnYetError, Pending
from umbel.storage.values.pickling import held_by

__all__ = ["SampleFrom"]


@dataclass(frozen=True, slots=True)
class SampleFrom:
    """A user's function of ``tune.sample_from``, as the function of a `umbel.scheduler.search.domains.Derived`.

    Args:
        function: takes the spec or the config, or nothing.
        takes_config: False: it takes nothing.
    """

    function: Callable[..., Any]
    takes_config: bool = True

    def __reduce__(self) -> tuple[object, ...]:
        # Generators that it brings along travel in one state, so that equal functions have equal digests.
        with _seeded(self.function, 0):
            return _rebuild, (bytes(cloudpickle.dumps(self.function)), self.takes_config)

    def __call__(self, config: Mapping[str, object], seed: int) -> object:
        """The value for a config.

        Raises:
            NotDrawnYetError: it needs a value that is not computed yet.
            Exception: whatever the function raises.
        """
        with _seeded(self.function, seed):
            if not self.takes_config:
                return self.function()
            view = _View(config)
            try:
                return self.function(_View({"config": view}))
            except (AttributeError, KeyError) as error:
                first = error
        with _seeded(self.function, seed):
            try:
                return self.function(view)
            except (AttributeError, KeyError):
                raise first from None  # it was meant for the spec


def _rebuild(function: bytes, takes_config: bool) -> SampleFrom:
    return SampleFrom(cloudpickle.loads(function), takes_config)


class _View(dict[str, Any]):
    """A config that can be read by attribute, too, and says if a value is not there yet."""

    def __getitem__(self, name: str) -> Any:
        return _known(name, super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        return _known(name, super().get(name, default))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _known(name: str, value: object) -> object:
    if isinstance(value, Pending):
        raise NotDrawnYetError(name)
    return _View(value) if type(value) is dict else value


@lru_cache(maxsize=256)
def _generators_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The random generators that a function brings along: the one whose method it is, and those that it captures."""
    held = [getattr(function, "__self__", None), *(item for _, item in held_by(function))]
    return tuple(item for item in held if isinstance(item, (random.Random, np.random.RandomState, np.random.Generator)))


@contextmanager
def _seeded(function: Callable[..., Any], seed: int) -> Iterator[None]:
    generators = _generators_of(function)
    before = random.getstate(), np.random.get_state(), [_state(each) for each in generators]
    random.seed(seed)
    np.random.seed(seed)
    for place, each in enumerate(generators):
        if isinstance(each, np.random.Generator):
            each.bit_generator.state = type(each.bit_generator)([seed, place]).state
        else:
            each.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        for each, state in zip(generators, before[2], strict=True):
            _set_state(each, state)


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.bit_generator.state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state
