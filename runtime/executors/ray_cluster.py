"""Which Ray cluster a run uses: the one given, the one of the environment, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from umbel.runtime.executors.own_ray import start_own_ray
from umbel.runtime.executors.reaching import control_service
from umbel.runtime.graph.task import Resources
from umbel.scheduler.errors import ExecutorError

__all__ = [
    "connect",
    "has_ended",
    "is_asked_for",
    "is_scaling",
    "nothing_fits",
    "object_store_bytes",
    "own_connection",
    "ray_amounts",
    "resources_text",
    "slots",
]


def connect(address: str | None) -> bool:
    """Connect this process to Ray; True if the cluster is one that this process started, on this machine.

    A process that is connected stays so. Otherwise ``address``, else ``$RAY_ADDRESS`` (which `ray job submit` sets),
    names the cluster to join; without either, one is started here, which only this machine reaches, and ends with this
    process.

    Raises:
        UsageError: there is no such cluster, or it refuses the token.
        ExecutorError: the cluster can't be reached (`ClusterUnavailableError` if nobody answers) or started.
    """
    import ray

    if ray.is_initialized():
        return _started_here()
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if target != "local":
        target = control_service(target) or target
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if target == "local":
            start_own_ray(**options)
        else:
            ray.init(address=target, **options)
    except Exception as error:
        raise ExecutorError(
            "Ray can't be started on this machine" if target == "local" else "the Ray cluster can't be reached",
            got=f"{target}: {type(error).__name__}: {error}",
            expected="a running cluster at the address (address=, or $RAY_ADDRESS), or room to start one here",
            hint='executor="inline" runs without Ray',
        ) from error
    return target == "local"


@contextmanager
def own_connection() -> Iterator[None]:
    """A connection to Ray that is made inside ends with it, and with it the threads that print what Ray tells."""
    ray = sys.modules.get("ray")
    before = ray is not None and ray.is_initialized()
    try:
        yield
    finally:
        ray = sys.modules.get("ray")
        if ray is not None and not before and ray.is_initialized():
            ray.shutdown()


def _started_here() -> bool:
    """Whether this process started the cluster that it is connected to: such a one does not grow."""
    from ray._private import worker

    return bool(worker._global_node is not None and worker._global_node.head)


def has_ended() -> bool:
    """Whether a process of the Ray that this process started is gone, without which it answers nothing."""
    from ray._private import worker

    node = worker._global_node
    return node is None or any(kind in ("raylet", "gcs_server") for kind, _ in node.dead_processes())


def slots(resources: Resources) -> int:
    """How many workers that hold these resources fit on the cluster's nodes as they are, whoever uses them now."""
    import ray

    needed = ray_amounts(resources)
    nodes = (node for node in ray.nodes() if node["Alive"])
    return sum(_fit(needed, node["Resources"], resources.labels, node.get("Labels") or {}) for node in nodes)


def object_store_bytes() -> float:
    """Bytes of shared memory that the object stores of all nodes have together."""
    import ray

    return sum(float(node["Resources"].get("object_store_memory", 0.0)) for node in ray.nodes() if node["Alive"])


def is_scaling() -> bool:
    """Whether the cluster's autoscaler is starting nodes."""
    status = _status()
    return status is not None and bool(status.pending_launches or status.pending_nodes)


def is_asked_for(resources: Resources) -> bool:
    """Whether a task or an actor that holds just these resources waits for a node with room."""
    status, needed = _status(), _counted(ray_amounts(resources))
    if status is None:
        return False
    asked = (each for demand in status.resource_demands.ray_task_actor_demand for each in demand.bundles_by_count)
    return any(_counted(each.bundle) == needed for each in asked)


def _counted(amounts: Mapping[str, float]) -> dict[str, int]:
    """Amounts that are not zero, in ten-thousandths, in which Ray counts."""
    return {name: round(amount * 10_000) for name, amount in amounts.items() if amount > 0}


def _status() -> Any:
    """What the cluster's nodes and its autoscaler have reported; None: it can't be asked."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        return get_cluster_status(ray.get_runtime_context().gcs_address)
    except Exception:  # it is told in various ways
        return None


def nothing_fits(
    resources: Resources,
    what: str = "a worker of this graph",
    hint: str = "lower the task's cpus, gpus, memory, resources or labels, or use a cluster that has them",
) -> ExecutorError:
    """The error that says what no node of the cluster has.

    Args:
        resources: that it holds.
        what: has no node.
        hint: what to do next.
    """
    import ray

    needed = ray_amounts(resources)
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node["Resources"] for node in alive]
    carried = [node.get("Labels") or {} for node in alive]
    missing = [
        f"{name} {amount:g} (largest node: {max((held.get(name, 0.0) for held in nodes), default=0.0):g})"
        for name, amount in needed.items()
        if not any(held.get(name, 0.0) >= amount for held in nodes)
    ]
    for key, value in resources.labels.items():
        there = {str(held[key]) for held in carried if key in held}
        if value not in there:
            missing.append(f"label {key}={value} (nodes carry: {', '.join(sorted(there)) or 'none'})")
    labels = f" with labels {dict(resources.labels)}" if resources.labels else ""
    return ExecutorError(
        f"no node of the Ray cluster can hold {what}, and none that could is being started",
        got=f"{len(nodes)} nodes; missing: {', '.join(missing) or 'a node that has it all at once'}",
        expected=f"a node with {', '.join(f'{name} {amount:g}' for name, amount in needed.items())}{labels}",
        hint=hint,
    )


def resources_text(resources: Resources) -> str:
    """Resources in words: "CPU 2, GPU 1"."""
    return ", ".join(f"{name} {amount:g}" for name, amount in ray_amounts(resources).items()) or "nothing"


def ray_amounts(resources: Resources) -> dict[str, float]:
    """Resources by Ray's names, those that are not zero."""
    amounts: dict[str, float] = {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}
    if resources.memory_bytes:
        amounts["memory"] = resources.memory_bytes
    return {name: amount for name, amount in amounts.items() if amount > 0}


def _fit(
    needed: Mapping[str, float], held: Mapping[str, float], wanted: Mapping[str, str], labels: Mapping[str, str]
) -> int:
    if any(labels.get(key) != value for key, value in wanted.items()):
        return 0
    if not needed:  # a task that holds nothing still occupies a processor's time
        return int(held.get("CPU", 0)) or 1
    return min(int(held.get(name, 0.0) / amount + 1e-9) for name, amount in needed.items())
