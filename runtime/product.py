"""`umbel.product`: every combination of the elements of several lists or fan-outs, as arguments of one `map`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from umbel.runtime.nodes import Node, Sweep
from umbel.runtime.task import as_sequence
from umbel.scheduler.errors import GraphError

__all__ = ["Crossed", "product"]


@dataclass(frozen=True, slots=True)
class Crossed:
    """One factor of a product: its element for combination i is the one at ``i // repeat % size``."""

    source: Any
    #: How many combinations in a row have the same element of this factor.
    repeat: int
    #: How many combinations there are.
    length: int


def product(*factors: Any) -> tuple[Crossed, ...]:
    """Every combination of the elements of lists and fan-outs, the last one changing fastest, for use as arguments.

    ``fit.map(*umbel.product(regions, models))`` calls ``fit(region, model)`` for each pair; a pair starts when its own
    two elements are there.

    Args:
        factors: lists, tuples, ranges, one-dimensional arrays, or fan-outs.

    Raises:
        GraphError: a factor is a single value, or there is none.
    """
    sizes: list[int] = []
    sources: list[Any] = []
    for position, factor in enumerate(factors, 1):
        source = factor.best() if isinstance(factor, Sweep) else factor
        if isinstance(source, Node):
            known = source.size if source.fans_out else None
        else:
            source = as_sequence(factor)
            known = None if source is None else len(source)
        if known is None:
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
    length = math.prod(sizes)
    return tuple(
        Crossed(source, max(1, math.prod(sizes[position + 1 :])), length) for position, source in enumerate(sources)
    )
