"""How are counts put into words? For messages and tables of all layers."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural where English wants it.

    >>> counted(1, "run"), counted(2_000, "run"), counted(0, "match of it")
    ('1 run', '2,000 runs', '0 matches of it')
    """
    word, space, rest = noun.partition(" ")
    if count != 1:
        word += "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count:,} {word}{space}{rest}"
