"""How does Ray Serve run a served model: one deployment, whose replicas answer HTTP and gRPC themselves?

There is no deployment in front of the models: a second one would cost every request a second hop. Requests for one
group go to the same replica while it has room, so that its models stay in memory there. It must not know how a server
is started.
"""

from __future__ import annotations

import logging
import pickle
from hashlib import blake2b
from typing import Any

from ray import serve
from ray.serve.config import BackpressureConfig, RequestRouterConfig
from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from umbel.cluster.serving.app import ServingApp
from umbel.cluster.serving.calls import Calls
from umbel.cluster.serving.grpc_calls import GrpcCallers, GrpcCalls
from umbel.cluster.serving.server import ModelServer
from umbel.cluster.serving.settings import ServeSettings
from umbel.storage.objects.interface import ObjectStore

__all__ = ["GroupRouter", "application"]


class ServedReplica:
    """One replica: the HTTP interface, calls by handle, and by gRPC.

    Args:
        objects: the store.
        settings: what is served.
        grpc_callers: whom it answers by gRPC.
    """

    def __init__(self, objects: ObjectStore, settings: ServeSettings, grpc_callers: GrpcCallers) -> None:
        name = serve.get_replica_context().replica_id.unique_id
        self._server = ModelServer(objects, settings, replica=name, log=logging.getLogger("ray.serve"))
        self._calls = Calls(self._server)
        self._grpc = GrpcCalls(self._server, grpc_callers)

    def __serve_build_asgi_app__(self) -> ServingApp:
        """The HTTP interface. Serve's proxy adds the id of the request to the answer."""
        return ServingApp(self._server, adds_request_id=False)

    async def predict(self, group: object, inputs: Any, request_id: str, key: str | None = None) -> dict[str, Any]:
        """As ``POST …/groups/{group}:predict``."""
        return await self._calls.call(group, inputs, request_id, key)

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As ``GET /readyz``."""
        return self._server.readiness

    # Serve's proxy calls the methods of ``umbel.serving.v1.Predictor`` by their names.

    async def Predict(self, request: Any, grpc_context: Any) -> Any:
        """By gRPC."""
        return await self._grpc.predict(request, grpc_context)

    async def BatchPredict(self, request: Any, grpc_context: Any) -> Any:
        """By gRPC."""
        return await self._grpc.batch_predict(request, grpc_context)

    async def Describe(self, request: Any, grpc_context: Any) -> Any:
        """By gRPC."""
        return await self._grpc.describe(request, grpc_context)

    async def RecordOutcome(self, request: Any, grpc_context: Any) -> Any:
        """By gRPC."""
        return await self._grpc.record_outcome(request, grpc_context)


class GroupRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray is not typed
    """Sends the requests of one group to the same replica, to others only while that one has no room.

    Replicas are ranked for each group by rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to
    increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998): without a table, and with one more replica a
    group moves only if it moves there.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Replicas in ranks: the first that has room gets the request."""
        group = None if pending_request is None else _group_of(pending_request)
        if group is None:
            return [candidate_replicas]
        ranked = sorted(candidate_replicas, key=lambda replica: _weight(group, replica.replica_id.unique_id))
        return [[replica] for replica in ranked]


def _weight(group: str, replica: str) -> bytes:
    return blake2b(f"{group}\0{replica}".encode(), digest_size=8).digest()


def _group_of(request: PendingRequest) -> str | None:
    """The group that a request names: in its path, in its message, or as the first argument of a call."""
    first = request.args[0] if request.args else None
    if isinstance(first, str):
        return first
    if isinstance(first, bytes):  # what Serve's proxy sends on, and made itself
        first = pickle.loads(first)
    scope = getattr(first, "asgi_scope", None)
    if scope is None:
        return getattr(getattr(first, "user_request_proto", None), "group", None) or None
    _, found, rest = str(scope.get("path", "")).partition("/groups/")
    return rest.rpartition(":")[0] if found else None


def application(
    objects: ObjectStore,
    settings: ServeSettings,
    *,
    replicas: int,
    cpus: float,
    gpus: float,
    max_ongoing: int,
    max_queued: int,
    access_log: bool,
    grpc_callers: GrpcCallers,
) -> serve.Application:
    """The Serve application of a served model.

    Args:
        objects: the store.
        settings: what is served.
        replicas: how many processes.
        cpus: that each holds.
        gpus: that each holds.
        max_ongoing: requests that a replica works on at once.
        max_queued: requests that wait for one before others are turned away with 503 and Retry-After.
        access_log: a line a request in Serve's log.
        grpc_callers: whom it answers by gRPC.
    """
    options: dict[str, Any] = {}
    if replicas > 1:
        options["request_router_config"] = RequestRouterConfig(request_router_class=GroupRouter)
    deployment = serve.deployment(
        serve.ingress()(ServedReplica),
        name="model",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        max_ongoing_requests=max_ongoing,
        max_queued_requests=max_queued,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        graceful_shutdown_timeout_s=20.0,
        logging_config={"enable_access_log": access_log},
        **options,
    )
    return deployment.bind(objects, settings, grpc_callers)
