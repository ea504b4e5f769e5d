"""With which options is a worker's actor started, and what does Ray's error say about the end of one?

It must not know how many workers there are, nor what they do.
"""

from __future__ import annotations

from typing import Any

from umbel.runtime.graph.task import Resources
from umbel.scheduler.protocol import LossCause

__all__ = ["actor_options", "cause_of_death"]


def cause_of_death(error: Any) -> LossCause:
    """Who is to blame for a worker's death, as far as Ray tells."""
    from ray.exceptions import ActorUnavailableError, ObjectLostError

    # A process that dies on a live node is known to be dead within a second. If Ray can only say that it can't be
    # reached, it is the node or the network; and large answers lie on the worker's node and are lost with it.
    unreachable = isinstance(error, (ActorUnavailableError, ObjectLostError))
    text = str(error)
    if unreachable or getattr(error, "preempted", False) or "node has died" in text or "node was terminated" in text:
        return LossCause.PREEMPTED
    return LossCause.CRASHED


def actor_options(resources: Resources) -> dict[str, Any]:
    """Ray's options for a worker that holds these resources."""
    options: dict[str, Any] = {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        # One thread waits in a poll while others take commands.
        "max_concurrency": 4,
        # Ray's own events would cost more than a short lease.
        "enable_task_events": False,
    }
    if resources.memory_bytes:
        options["memory"] = resources.memory_bytes
    if resources.custom:
        options["resources"] = dict(resources.custom)
    if resources.labels:
        options["label_selector"] = dict(resources.labels)
    return options
