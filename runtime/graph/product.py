"""`umbel.product`: every combination of the elements of several lists or fan-outs, as arguments of one `map`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from umbel.runtime.graph.nodes import Elements, Node, Sweep
from umbel.runtime.graph.sequences import as_sequence
from umbel.scheduler.errors import GraphError

__all__ = ["Crossed", "product"]


@dataclass(frozen=True, slots=True)
class Crossed:
    """One factor of a product: its element for combination i is the one at ``i // repeat % size``."""

    source: Any
    #: How many combinations in a row have the same element of this factor.
    repeat: int
    #: True: this is not the first factor, so its elements come again and again.
    wraps: bool
    #: How many combinations there are; None: only the run reveals it.
    length: int | None


def product(*factors: Any) -> tuple[Crossed, ...]:
    """Every combination of the elements of lists and fan-outs, the last one changing fastest, for use as arguments.

    ``fit.map(*umbel.product(regions, models))`` calls ``fit(region, model)`` for each pair; a pair starts when its own
    two elements are there.

    Args:
        factors: lists, tuples, ranges, one-dimensional arrays, or fan-outs. Only the first may have a length that the
            run reveals (`Node.elements`).

    Raises:
        GraphError: a factor is a single value, or not the first and of unknown length, or there is none.
    """
    sizes: list[int | None] = []
    sources: list[Any] = []
    for position, factor in enumerate(factors, 1):
        source = factor.best() if isinstance(factor, Sweep) else factor
        known: int | None = None
        if isinstance(source, Node):
            known, fits = source.size, source.fans_out
        elif isinstance(source, Elements):
            fits = True
        else:
            source = as_sequence(factor)
            fits = source is not None
            known = None if source is None else len(source)
        if known is None and fits and position > 1:
            raise GraphError(
                f"how long factor {position} of umbel.product is, only the run reveals",
                got=factor,
                expected="lengths known before the run, except for the first factor's",
                hint="put it first; or let a task return the list of pairs, and map over its elements()",
            )
        if not fits:
            raise GraphError(
                f"factor {position} of umbel.product is a single value",
                got=factor,
                expected="lists, tuples, ranges, arrays or fan-outs",
                hint="a value for all calls is passed to map as it is",
            )
        sizes.append(known)
        sources.append(source)
    if not sizes:
        raise GraphError("umbel.product has no factors", expected="at least one list or fan-out")
    lengths = [1 if size is None else size for size in sizes]  # what only the run reveals repeats nothing
    length = None if sizes[0] is None else math.prod(lengths)
    return tuple(
        Crossed(source, max(1, math.prod(lengths[position + 1 :])), position > 0, length)
        for position, source in enumerate(sources)
    )
