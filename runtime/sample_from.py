"""What does a function of ``tune.sample_from`` make of a trial's config? The same whenever and wherever it is called.

Such functions draw from the global generators of `random` and NumPy. These are seeded for the call and put back as they
were. A function gets what Tune gives it: the spec, whose ``config`` it reads by attribute or by key, or the config
itself. It must not know what a dimension is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from umbel.scheduler.domains import NotDrawnYetError, Pending

__all__ = ["SampleFrom"]


@dataclass(frozen=True, slots=True)
class SampleFrom:
    """A user's function of ``tune.sample_from``, as the function of a `umbel.scheduler.domains.Derived`.

    Args:
        function: takes the spec or the config, or nothing.
        takes_config: False: it takes nothing.
    """

    function: Callable[..., Any]
    takes_config: bool = True

    def __call__(self, config: Mapping[str, object], seed: int) -> object:
        """The value for a config.

        Raises:
            NotDrawnYetError: it needs a value that is not computed yet.
            Exception: whatever the function raises.
        """
        with _seeded(seed):
            if not self.takes_config:
                return self.function()
            view = _View(config)
            try:
                return self.function(_View({"config": view}))
            except (AttributeError, KeyError) as error:
                first = error
        with _seeded(seed):
            try:
                return self.function(view)
            except (AttributeError, KeyError):
                raise first from None  # it was meant for the spec


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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
