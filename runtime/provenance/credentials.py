"""Which values are credentials, and how do they stay out of what is stored?

A trial's function gets its config as it is. What is written down, the run's record, the trials table and best trials,
holds `REDACTED` in the place of a value that looks like a credential by its name (``api_key``), or holds one (a URL
with a password). Only listed values and constants can be one, and only if they are no plain number. From errors and
from what trials print, the values of all that this process knows to be a credential are taken out, too. It must not
know where the result is kept. It is a net, not a proof: the place for credentials is the environment of the workers.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from umbel.scheduler.search.domains import Choice, Constant, Domain
from umbel.scheduler.search.space import Path, Space
from umbel.storage.redaction import REDACTED, is_secret_name, redact, redact_url

__all__ = ["SECRET_LENGTH", "Hidden", "KnownCredentials", "hidden_values", "known"]

#: Shorter values are no credentials, but words that stand everywhere.
SECRET_LENGTH = 8


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
    def values(self) -> list[str]:
        """The texts that are hidden."""
        found: list[str] = []
        for path, domain in self._space.dimensions:
            if path in self._paths:
                listed = [domain.value] if isinstance(domain, Constant) else getattr(domain, "values", ())
                found += [value for value in listed if isinstance(value, str)]
        return found

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


class KnownCredentials:
    """The credentials that this process knows of, by their values."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def note(self, values: Iterable[object]) -> None:
        """Remember texts that are credentials."""
        new = {value for value in values if isinstance(value, str) and len(value) >= SECRET_LENGTH}
        if not new <= set(self._values):
            self._values = tuple(sorted({*self._values, *new}, key=lambda value: (-len(value), value)))

    def look_at_environment(self) -> None:
        """Remember what the environment holds under names of credentials. Cost: some tens of microseconds."""
        self.note(value for name, value in os.environ.items() if _is_secret_variable(name))

    def scrub(self, text: str) -> str:
        """A text without them, and without what looks like one by its form."""
        text = redact_url(text)
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        return text


#: Those of this process.
known = KnownCredentials()


@lru_cache(maxsize=4096)
def _is_secret_variable(name: str) -> bool:
    return is_secret_name(name)


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
