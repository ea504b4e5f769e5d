"""What tests of spaces share: a domain of each kind, spaces made of them, and how thoroughly properties are tried."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from umbel.scheduler.search.domains import Choice, Column, Constant, Domain
from umbel.scheduler.search.numeric import Integer, LogInteger, LogUniform, Normal, Stepped, Uniform

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)

#: Names, domains and their parameters are part of what `test_sampling` pins.
FLAT: dict[str, Domain] = {
    "lags": Integer(1, 9),
    "alpha": LogUniform(1e-4, 1e2),
    "window": Choice((15, 25, 40)),
    "trend": Choice(("none", None, 1.5)),
    "noise": Normal(0, 1),
    "units": LogInteger(8, 1025, 8),
    "drop": Stepped(0, 0.5, 0.1),
    "fixed": Constant("x"),
}
NESTED: dict[str, Any] = {
    "model": {"lags": Integer(1, 9), "opt": {"lr": LogUniform(1e-4, 1), "sizes": Choice(([1, 2], [3]))}},
    "k": Uniform(0, 1),
}


@st.composite
def flat_spaces(draw: st.DrawFn) -> dict[str, Domain]:
    """Some of the dimensions of `FLAT`, in any order."""
    names = draw(st.lists(st.sampled_from(sorted(FLAT)), min_size=1, unique=True))
    return {name: FLAT[name] for name in names}


def listed(column: Column) -> list[Any]:
    """A column's values as Python objects."""
    return column.tolist() if isinstance(column, np.ndarray) else column
