"""Where a server listens, and whom that lets in; without Ray."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from umbel.cluster.serving import listening
from umbel.cluster.serving.grpc_calls import GrpcCallers
from umbel.cluster.serving.listening import SERVICER, Listening, connect, is_loopback
from umbel.scheduler.errors import ExecutorError, UsageError


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", start)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def running(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A cluster whose Serve listens already."""
    client = SimpleNamespace(http_config=SimpleNamespace(host=host, port=8123))
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", lambda address: False)
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda **options: client)


@pytest.mark.parametrize(
    ("host", "is_only_here"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("127.3.2.1", True),
        ("0.0.0.0", False),
        ("", False),
        ("10.1.2.3", False),
    ],
)
def test_who_reaches_a_host(host: str, is_only_here: bool) -> None:
    assert is_loopback(host) is is_only_here


def test_other_machines_are_let_in_only_with_a_token(no_ray: None) -> None:
    with pytest.raises(UsageError, match="no-token"):
        connect(None, "0.0.0.0", 0, is_guarded=False)
    with pytest.raises(AssertionError, match="Ray was started"):
        connect(None, "0.0.0.0", 0, is_guarded=True)
    with pytest.raises(AssertionError, match="Ray was started"):
        connect(None, None, 0, is_guarded=False)


def test_a_serve_that_other_machines_reach_asks_for_a_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, "0.0.0.0")
    with pytest.raises(UsageError, match=r"it would listen on 0\.0\.0\.0"):
        connect("auto", None, None, is_guarded=False)
    found = connect("auto", None, None, is_guarded=True)
    assert (found.host, found.url, found.owns_ray) == ("0.0.0.0", "http://127.0.0.1:8123", False)
    with pytest.raises(UsageError, match="listens elsewhere"):  # not what was asked for
        connect("auto", "127.0.0.1", None, is_guarded=True)


@pytest.mark.parametrize(
    ("host", "port"), [(None, None), (None, 0), (None, 8123), ("127.0.0.1", 8123), ("localhost", 0)]
)
def test_a_serve_that_runs_is_used(monkeypatch: pytest.MonkeyPatch, host: Any, port: Any) -> None:
    running(monkeypatch, "127.0.0.1")
    assert connect("auto", host, port, is_guarded=False) == Listening("127.0.0.1", 8123, False)


@pytest.mark.parametrize(("host", "port"), [(None, 8000), ("0.0.0.0", None)])
def test_a_serve_that_runs_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch, host: Any, port: Any) -> None:
    running(monkeypatch, "127.0.0.1")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:8123"):
        connect("auto", host, port, is_guarded=True)


def test_addresses_as_urls_have_them() -> None:
    assert Listening("::1", 80, True).url == "http://[::1]:80"
    assert Listening("::", 80, True).url == "http://127.0.0.1:80"
    assert Listening("10.1.2.3", 80, True).url == "http://10.1.2.3:80"


def with_grpc(monkeypatch: pytest.MonkeyPatch, *servicers: str) -> None:
    """A cluster whose Serve was started with these services on port 9123."""
    config = SimpleNamespace(port=9123, grpc_servicer_functions=list(servicers))
    controller = SimpleNamespace(get_grpc_config=SimpleNamespace(remote=lambda: config))
    client = SimpleNamespace(http_config=SimpleNamespace(host="127.0.0.1", port=8123), _controller=controller)
    running(monkeypatch, "127.0.0.1")
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda **options: client)
    monkeypatch.setattr("ray.get", lambda answer: answer)


def test_grpc_of_a_serve_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with_grpc(monkeypatch, "theirs.add", SERVICER)
    for port in (0, 9123):
        found = connect("auto", None, None, is_guarded=False, grpc_port=port)
        assert (found.grpc, found.grpc_callers) == ("127.0.0.1:9123", GrpcCallers.THIS_MACHINE)
    assert connect("auto", None, None, is_guarded=False).grpc_callers is GrpcCallers.NOBODY
    with pytest.raises(UsageError, match="listens elsewhere for gRPC"):
        connect("auto", None, None, is_guarded=False, grpc_port=9000)


def test_a_serve_that_was_started_without_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with_grpc(monkeypatch, "theirs.add")
    with pytest.raises(UsageError, match="without Umbel's gRPC service") as refused:
        connect("auto", None, None, is_guarded=False, grpc_port=0)
    assert refused.value.got == "theirs.add"
    assert SERVICER in str(refused.value.expected)
    assert connect("auto", None, None, is_guarded=False).grpc is None


def test_grpc_is_for_who_reaches_the_host() -> None:
    assert Listening("0.0.0.0", 80, True, 81).grpc_callers is GrpcCallers.ALL
    assert Listening("0.0.0.0", 80, True, 81).grpc == "127.0.0.1:81"
    assert Listening("::1", 80, True, 81).grpc == "[::1]:81"


def test_messages_are_bounded_and_ports_not_shared_where_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    ports: list[Any] = []

    def start(address: object) -> None:
        ports.append(os.environ.get("SERVE_SOCKET_REUSE_PORT_ENABLED"))
        seen.append(os.environ.get("RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"))
        raise ExecutorError("no Ray here")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", start)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for name in ("RAY_ADDRESS", "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE", "SERVE_SOCKET_REUSE_PORT_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    for options in ({"grpc_port": 0, "largest_bytes": 2**20}, {"grpc_port": 0, "largest_bytes": 2**30}, {}):
        with pytest.raises(ExecutorError):
            connect(None, None, 0, is_guarded=False, **options)
    assert ports == ["0"] * 3  # what Ray starts inherits it
    assert "SERVE_SOCKET_REUSE_PORT_ENABLED" not in os.environ
    assert seen == [str(64 * 2**20), str(2**31 - 1), None]
    assert "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE" not in os.environ


def test_who_loses_the_race_for_a_port_is_told_so(no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    winners: list[socket.socket] = []

    def start(http_options: Any, **options: Any) -> None:
        winners.append(socket.create_server((http_options.host, http_options.port)))
        raise RuntimeError("Failed to bind to address")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", lambda address: True)
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda **options: None)
    monkeypatch.setattr("ray.serve.start", start)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    try:
        with pytest.raises(UsageError, match="can't listen there"):
            connect(None, None, 0, is_guarded=False)
    finally:
        for winner in winners:
            winner.close()


def test_connections_that_a_server_has_closed_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # first, as a server that ends does
            assert client.recv(1) == b""
    assert not listening._is_left("127.0.0.1", port)
    looks = iter([False, False, True])
    monkeypatch.setattr(listening, "_is_left", lambda host, port: next(looks))
    with pytest.warns(UserWarning, match="still closing"):
        listening._wait_until_left("127.0.0.1", port)
    assert next(looks, None) is None
