"""Which values of a sweep's space are credentials, and how do they stay out of what is stored?

A trial's function gets its config as it is. What is written down, the run's record, the trials table and best trials,
holds `REDACTED` in the place of a value that looks like a credential by its name (``api_key``), or holds one (a URL
with a password). Only listed values and constants can be one, and only if they are no plain number. It must not know
where the result is kept. It is a net, not a proof: the place for credentials is the environment of the workers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from umbel.scheduler.domains import Choice, Constant, Domain
from umbel.scheduler.space import Path, Space
from umbel.storage.redaction import redact

__all__ = ["Hidden", "hidden_values"]


class Hidden:
    """What of a space's configs must not be written down; falsy if that is nothing."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._paths = [path for path, domain in space.dimensions if _redacted_domain(path, domain) is not domain]
        #: The columns that hold something that is to be hidden, with what hides it.
        self.columns: dict[str, Callable[[object], object]] = {
            column: _hider(path)
            for column, (path, _) in zip(space.column_names, space.dimensions, strict=True)
            if path in self._paths
        }

    def __bool__(self) -> bool:
        return bool(self._paths)

    @property
    def names(self) -> list[str]:
        """The dimensions, nested names joined by dots."""
        return [".".join(path) for path in self._paths]

    def space(self) -> Space:
        """The space as it may be described."""
        if not self._paths:
            return self._space
        return Space(tuple((path, _redacted_domain(path, domain)) for path, domain in self._space.dimensions))

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        """A config as it may be stored; the same object if nothing is to be hidden."""
        if not self._paths:
            return config
        found = copy.deepcopy(config)
        for path in self._paths:
            branch = found
            for key in path[:-1]:
                branch = branch[key]
            branch[path[-1]] = _hider(path)(branch[path[-1]])
        return found


def hidden_values(space: Space) -> Hidden:
    """What of a space's configs must not be written down. Cost: a search through the listed values."""
    return Hidden(space)


def _hider(path: Path) -> Callable[[object], object]:
    def hide(value: object) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        found: object = value
        for key in reversed(path):
            found = {key: found}
        found = redact(found)
        for key in path:
            if not isinstance(found, Mapping):
                break  # hidden as a whole, by the name of what it stands in
            found = found[key]
        return found

    return hide


def _redacted_domain(path: Path, domain: Domain) -> Domain:
    """The domain with its credentials hidden; itself if it has none."""
    hide = _hider(path)
    if isinstance(domain, Constant):
        value = hide(domain.value)
        return domain if _same(value, domain.value) else Constant(value)
    if isinstance(domain, Choice):
        values = [hide(value) for value in domain.values]
        same = all(map(_same, values, domain.values))
        return domain if same else replace(domain, values=values)
    return domain


def _same(a: object, b: object) -> bool:
    """Whether redaction has left a value as it was: for plain data by content; anything else it does not touch."""
    if a is b:
        return True
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # arrays and the like inside: their comparison is no truth value, and they hold no text
        return True
