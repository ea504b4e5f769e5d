"""How does a fused function run a single trial? As a batch of one, so that one trial can be run again.

It must not know where the trial comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel.runtime.fused.batches import Fusion
from umbel.runtime.fused.configs import Configs
from umbel.runtime.fused.context import BatchContext
from umbel.runtime.fused.results import read_results
from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.context import TrialContext, TrialPruned
from umbel.runtime.leases.results import Result

__all__ = ["run_alone"]


def run_alone(function: Callable[..., Any], fusion: Fusion, seed: int) -> Callable[..., Result]:
    """A function of one config, and the data if there are any, that runs a fused function.

    It runs within a `TrialContext`, as functions of one trial do.

    Args:
        function: the fused function.
        fusion: how it was fused.
        seed: the trial's.
    """

    def alone(config: dict[str, Any], *data: object) -> Result:
        outer = trial_context.current.context
        assert isinstance(outer, TrialContext)
        courses = None if outer.course is None else [outer.course]
        batch = f"sweep {outer.sweep!r}, trial {outer.index}"
        context = BatchContext(1, outer.metrics, batch, courses)
        configs = Configs([config], by=fusion.by, seeds=[seed], trials=[outer.index])
        given = [[each] for each in data] if fusion.fuse_groups else data
        trial_context.current.context = context
        try:
            returned = function(configs, *given)
            if context.pruned:
                raise TrialPruned
            results = read_results(returned, context.reported, outer.metrics, 1, batch)
            return Result(results.of(0), None if results.model is None else results.model(0))
        finally:
            trial_context.current.context = outer
            outer.reported, outer.pruned = context.reported_of(0) or {}, context.pruned

    return alone
