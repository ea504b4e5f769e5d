"""Gates that a version of a registered model passes before it is promoted (docs/models.md).

Importing this module loads nothing; what a gate needs is loaded when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.runtime.production.gates import (
        Gate,
        GateResult,
        GroupEvidence,
        better_on_most,
        held_out,
        max_latency_s,
        max_size_bytes,
        no_group_worse,
    )

__all__ = [
    "Gate",
    "GateResult",
    "GroupEvidence",
    "better_on_most",
    "held_out",
    "max_latency_s",
    "max_size_bytes",
    "no_group_worse",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'umbel.gates' has no attribute {name!r}")
    value = getattr(import_module("umbel.runtime.production.gates"), name)
    globals()[name] = value  # the next look-up is free
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
