"""Engines with one node and some workers, to be driven step by step."""

from __future__ import annotations

from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import Graph, Input, NodeId, NodeSpec, RetryPolicy, ShapeId
from umbel.scheduler.protocol import (
    Capacity,
    Grant,
    WorkerId,
    WorkerJoined,
)

SHAPE = ShapeId(0)


def single(size: int, **options: object) -> Graph:
    return Graph([NodeSpec(NodeId(0), "trials", size, **options)])  # type: ignore[arg-type]


def engine_with(size: int, workers: int = 1, **options: object) -> tuple[Engine, dict[WorkerId, list[Grant]]]:
    engine = Engine(single(size, **options))
    engine.handle(Capacity(SHAPE, workers), 0.0)
    grants: dict[WorkerId, list[Grant]] = {}
    for number in range(workers):
        for command in engine.handle(WorkerJoined(WorkerId(f"w{number}"), SHAPE), 0.0):
            if isinstance(command, Grant):
                grants.setdefault(command.worker, []).append(command)
    return engine, grants


def reference(groups: int, trials: int, retries: int = 0) -> Graph:
    """load (map) -> sweep -> best -> refit (map) -> report (reduce)."""
    retry = RetryPolicy(retries=retries, base_s=0.05)
    return Graph(
        [
            NodeSpec(NodeId(0), "load", groups, retry=retry),
            NodeSpec(
                NodeId(1),
                "sweep",
                groups * trials,
                (Input(NodeId(0), 1, trials),),
                affinity_block=trials,
                retry=retry,
            ),
            NodeSpec(NodeId(2), "best", groups, (Input(NodeId(1), trials, 1, needs_success=False),), shape=None),
            NodeSpec(NodeId(3), "refit", groups, (Input(NodeId(2)), Input(NodeId(0))), shape=ShapeId(1)),
            NodeSpec(NodeId(4), "report", 1, (Input(NodeId(3), 0),)),
        ]
    )
