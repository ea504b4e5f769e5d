"""A thing with all that it was made from. How such trees are found is in `umbel.storage.lineage.upstream`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Lineage"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """A thing, and what it was made from."""

    #: "trial", "value", "model", "node", "argument", "config", "code", "source", "run", "environment", or "more".
    kind: str
    #: What it is called: ``"trial 17 of backtest"``, ``"load[3]"``.
    name: str
    #: Its content: of a value, model or argument the sha256, of code the fingerprint.
    digest: str | None = None
    #: What else is known of it.
    facts: tuple[tuple[str, Any], ...] = ()
    #: What it was made from. Things that went into several others are the same object there.
    inputs: tuple[Lineage, ...] = ()

    def walk(self) -> Iterator[Lineage]:
        """It and all that went into it, each once, nearest first."""
        seen = {id(self)}
        front = [self]
        while front:
            yield from front
            following = {id(item): item for thing in front for item in thing.inputs if id(item) not in seen}
            seen.update(following)
            front = list(following.values())

    def of_kind(self, kind: str) -> list[Lineage]:
        """All of a kind that went into it: ``"source"`` for where the data came from."""
        return [item for item in self.walk() if item.kind == kind]

    def fact(self, name: str) -> Any:
        """One of its facts; None: it is not known."""
        return dict(self.facts).get(name)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: every thing once, by number, the inputs as numbers; the first is the thing itself."""
        things = list(self.walk())
        number = {id(thing): position for position, thing in enumerate(things)}
        return {
            "things": [
                {
                    "kind": thing.kind,
                    "name": thing.name,
                    "digest": thing.digest,
                    "facts": dict(thing.facts),
                    "inputs": [number[id(item)] for item in thing.inputs],
                }
                for thing in things
            ]
        }

    def text(self) -> str:
        """As a tree of lines."""
        from umbel.storage.lineage.view import as_text

        return as_text(self)

    def svg(self) -> str:
        """As a picture: boxes from left (sources) to right."""
        from umbel.storage.lineage.view import as_svg

        return as_svg(self)

    def html(self) -> str:
        """As a page with the picture and all facts."""
        from umbel.storage.lineage.view import as_html

        return as_html(self)

    def _repr_html_(self) -> str:
        return self.svg()

    def __str__(self) -> str:
        return self.text()
