"""How is an application put on a cluster's Ray Serve, if there may be no room for it, or the user thinks better of it?

`ray.serve.run` says nothing while replicas wait for a node, and leaves what it has begun where it is. So this only
hands the application over, and looks itself at what Serve and the cluster tell. It must not know what is served.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import Any

from umbel.cluster.serving.waiting import Patience, Room
from umbel.runtime.executors import ray_cluster
from umbel.runtime.graph.task import Resources
from umbel.scheduler.errors import ExecutorError, UmbelError

__all__ = ["check_room", "deploy"]

#: Seconds between two questions to Serve; and, while replicas are missing, between two looks at the cluster.
POLL_S = 0.25
LOOK_S = 2.0
#: Seconds that Serve gets to take up that what was begun is to end.
WITHDRAW_S = 15.0
_A_REPLICA = "a replica of this server"
_HINT = "lower --cpus or --gpus (cpus=, gpus=), or use a cluster that has them"


def check_room(resources: Resources, replicas: int) -> None:
    """See to it that replicas fit on a Ray that this process started: it has nobody else in it, and does not grow.

    Args:
        resources: that each holds.
        replicas: how many.

    Raises:
        ExecutorError: they never will.
    """
    if not ray_cluster.ray_amounts(resources):
        return
    fitting = ray_cluster.slots(resources)
    if not fitting:
        raise ray_cluster.nothing_fits(resources, _A_REPLICA, _HINT)
    if fitting < replicas:
        raise ExecutorError(
            "this machine can't hold all replicas at once",
            got=f"{replicas} replicas with {ray_cluster.resources_text(resources)} each",
            expected=f"{fitting} at most, which take all there is",
            hint="lower --replicas, --cpus or --gpus (replicas=, cpus=, gpus=), or join a larger cluster (--address)",
        )


def deploy(application: Any, name: str, prefix: str, resources: Resources, replicas: int) -> Any:
    """Deploy an application of one deployment, and wait until its replicas are ready.

    It waits as long as there may be room one day, and tells the user by a UserWarning what is missing. Whatever ends
    the waiting before its time, Ctrl-C too, removes the application.

    Args:
        application: of Ray Serve.
        name: that no other application has.
        prefix: the path under which it answers.
        resources: that a replica holds.
        replicas: how many.

    Returns:
        Serve's handle.

    Raises:
        ExecutorError: no node can hold a replica, or it could not be started.
    """
    from ray import serve as ray_serve

    try:
        [handle] = ray_serve.run_many(
            [ray_serve.RunTarget(application, name=name, route_prefix=prefix)], wait_for_applications_running=False
        )
        _wait_until_running(name, resources, replicas)
        return handle
    except BaseException as error:
        _withdraw(name)
        if isinstance(error, UmbelError) or not isinstance(error, Exception):
            raise
        raise _failed(str(error)) from error


def _wait_until_running(name: str, resources: Resources, replicas: int) -> None:
    """As long as there may be room one day; Serve itself gives up a replica that fails to start again and again."""
    from ray import serve as ray_serve

    began = next_look = time.monotonic()
    patience = Patience(ray_cluster.ray_amounts(resources), replicas, began)
    while True:
        there = ray_serve.status().applications.get(name)
        if there is None:
            raise _failed("somebody has removed it meanwhile")
        if there.status.value == "RUNNING":
            return
        if there.status.value == "DEPLOY_FAILED":
            raise _failed(there.message)
        now = time.monotonic()
        if now >= next_look:
            next_look = now + LOOK_S
            room = _room(resources)
            if patience.is_over(room, now):
                raise ray_cluster.nothing_fits(resources, _A_REPLICA, _HINT)
            text = patience.tell(_running(there), room, now)
            if text is not None:
                warnings.warn(text, UserWarning, stacklevel=4)
        time.sleep(POLL_S)


def _failed(why: str) -> ExecutorError:
    return ExecutorError(
        "Ray Serve could not start the server",
        got=why[:1000],
        hint="the cluster needs Umbel and what the models need, and room for the replicas",
    )


def _room(resources: Resources) -> Room:
    import ray

    return Room(
        holds=ray_cluster.slots(resources),
        free=ray.available_resources(),
        total=ray.cluster_resources(),
        is_asked_for=ray_cluster.is_asked_for(resources),
        is_scaling=ray_cluster.is_scaling(),
    )


def _running(application: Any) -> int:
    """The replicas of an application that are ready."""
    return sum(int(each.replica_states.get("RUNNING", 0)) for each in application.deployments.values())


def _withdraw(name: str) -> None:
    """Remove an application, however far it has been deployed.

    Serve goes on by itself once it has begun. Its end is not waited for: replicas that never had a place are given
    their whole time to stop.
    """
    removing = threading.Thread(target=_remove, args=(name,), name="umbel-withdraw", daemon=True)
    removing.start()  # Ray never answers if its own processes are gone
    removing.join(WITHDRAW_S)
    if removing.is_alive():
        text = f"Ray Serve did not answer within {WITHDRAW_S:g} s: the application {name} may be left on the cluster"
        warnings.warn(text, UserWarning, stacklevel=4)


def _remove(name: str) -> None:
    from ray import serve as ray_serve

    end = time.monotonic() + WITHDRAW_S
    while time.monotonic() < end:
        ray_serve.delete(name, _blocking=False)
        time.sleep(POLL_S)
        there = ray_serve.status().applications.get(name)
        if there is None or there.status.value == "DELETING":
            return
