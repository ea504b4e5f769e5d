"""What is said before Ray is asked: a small gRPC server stands for a cluster's control service."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from ray.core.generated.gcs_service_pb2 import GetClusterIdReply, GetClusterIdRequest

from umbel.runtime.executors import ray_cluster, reaching
from umbel.runtime.executors.reaching import cluster_address, reach, unresolved
from umbel.scheduler.errors import AccessRefusedError, ClusterUnavailableError, UsageError


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC is untyped
    """Answers `GetClusterId` as it is told."""

    def __init__(self) -> None:
        self.answer: grpc.StatusCode | None = None
        self.address = ""

    def service(self, call_details: Any) -> Any:
        def answer(request: Any, context: Any) -> Any:
            if self.answer is not None:
                context.abort(self.answer, "InvalidAuthToken: missing or incorrect")
            return GetClusterIdReply()

        return grpc.unary_unary_rpc_method_handler(
            answer, GetClusterIdRequest.FromString, GetClusterIdReply.SerializeToString
        )


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    server = grpc.server(ThreadPoolExecutor(1), handlers=[found])
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None).wait()


def test_a_cluster_that_answers_is_reached(service: Service) -> None:
    reach(service.address)


@pytest.mark.parametrize(("sent", "said"), [(True, "refuses the token"), (False, "none was sent")])
def test_a_refused_token_is_said_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, sent: bool, said: str
) -> None:
    service.answer = grpc.StatusCode.UNAUTHENTICATED
    monkeypatch.setattr(reaching, "_has_token", lambda found_here: sent)
    with pytest.raises(AccessRefusedError, match=said):
        ray_cluster.connect(service.address)


def test_what_is_not_a_control_service_is_said(service: Service) -> None:
    service.answer = grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(UsageError, match="not the control service"):
        reach(service.address)


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ClusterUnavailableError, match="does not answer"):
        reach(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["http://head:8265", "https://head"])
def test_a_dashboard_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="dashboard"):
        cluster_address(address)


def test_where_a_cluster_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert cluster_address("auto") == "head:6379"
    assert cluster_address("ray://head:10001") is None
    monkeypatch.delenv("RAY_ADDRESS")

    def nothing(address: str) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", nothing)
    with pytest.raises(UsageError, match="no Ray cluster was found on this machine"):
        cluster_address("auto")


def test_an_unknown_name_is_told_from_a_name_server_that_does_not_answer() -> None:
    unknown = OSError("connection failed")
    unknown.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert isinstance(unresolved("nonsense", unknown), UsageError)
    assert unresolved("head", socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")) is None
    assert unresolved("head", ConnectionRefusedError()) is None
