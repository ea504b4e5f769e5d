"""The small sweep and task that tests of bad input vary, and how they run it: in this process, quietly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune

import umbel
from umbel.runtime.graph.nodes import Sweep


def score(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": config["alpha"]}


def score_with_data(config: dict[str, Any], data: Any) -> float:
    return float(config["alpha"])


@umbel.task
def load(name: str, scale: int = 1) -> str:
    return name * scale


def a_sweep(fn: Callable[..., Any] = score, **changed: Any) -> Sweep:
    """A sweep of two trials, with some arguments changed, or left out where they are ``...``."""
    given: dict[str, Any] = {"space": {"alpha": tune.uniform(0, 1)}, "metric": "loss", "trials": 2, "name": "search"}
    return umbel.sweep(fn, **{name: value for name, value in (given | changed).items() if value is not ...})


def run(node: Any, store: object, **options: Any) -> umbel.Run:
    """Run it inline as "work"."""
    given: dict[str, Any] = {"store": store, "name": "work", "executor": "inline", "progress": "quiet"}
    return umbel.run(node, **(given | options))
