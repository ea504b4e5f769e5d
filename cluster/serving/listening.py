"""Where does a server listen: on which Ray, at which host and port, and who reaches it there?

All servers of a cluster share the host and the ports of its Ray Serve, which are fixed when Serve starts. What can be
wrong is found before Ray starts, as far as it can be. It must not know what is served.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from umbel.cluster.serving.grpc_calls import GrpcCallers
from umbel.scheduler.errors import ExecutorError, UsageError

__all__ = ["SERVICER", "Listening", "connect", "is_loopback"]

#: This machine only.
HOST = "127.0.0.1"
#: The port of Ray Serve's own documentation.
PORT = 8000
#: What Serve's gRPC proxy must have been started with.
SERVICER = "umbel.cluster.serving.v1.predictor_pb2_grpc.add_PredictorServicer_to_server"
#: How large a message Serve's gRPC proxy takes in. Serve's default is 2 GiB, of which a few would fill the memory.
_MESSAGE_LIMIT = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
_LEAST_LIMIT, _LARGEST_LIMIT = 64 * 2**20, 2**31 - 1
#: Whether Serve's proxy lets others listen at its HTTP port, too (SO_REUSEPORT), which then get a part of the requests.
#: Of its gRPC port it does, whatever this says: Ray hands the option on as text, which gRPC does not take.
_SHARES_PORTS = "SERVE_SOCKET_REUSE_PORT_ENABLED"
#: Connections that a server has closed keep its port for a minute, on Linux.
_LINGER_S = 75.0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where Ray Serve listens."""

    host: str
    port: int
    #: Whether Ray was started for it.
    owns_ray: bool
    #: None: gRPC was not asked for.
    grpc_port: int | None = None

    @property
    def url(self) -> str:
        """What to ask on this machine, without a path."""
        return f"http://{self._here}:{self.port}"

    @property
    def grpc(self) -> str | None:
        """What to ask by gRPC on this machine: ``127.0.0.1:9000``."""
        return None if self.grpc_port is None else f"{self._here}:{self.grpc_port}"

    @property
    def grpc_callers(self) -> GrpcCallers:
        """Whom replicas are to answer by gRPC: who reaches the host of HTTP."""
        if self.grpc_port is None:
            return GrpcCallers.NOBODY
        return GrpcCallers.THIS_MACHINE if is_loopback(self.host) else GrpcCallers.ALL

    @property
    def _here(self) -> str:
        if self.host in ("0.0.0.0", "::", ""):
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host


def connect(
    address: str | None,
    host: str | None,
    port: int | None,
    *,
    is_guarded: bool,
    grpc_port: int | None = None,
    largest_bytes: int = 0,
) -> Listening:
    """Connect to Ray, or start it, and see to it that Serve listens.

    Args:
        address: of a Ray cluster; None: that of this process, or $RAY_ADDRESS; else one is started here.
        host: where to listen; None: this machine only, or where the cluster's Serve listens already.
        port: where to listen; 0: a free one; None: 8000, or as above.
        is_guarded: a token is asked for, or none is wanted: other machines may reach it.
        grpc_port: where to listen for gRPC; 0: a free one, or where Serve listens already; None: no gRPC.
        largest_bytes: the largest request.

    Raises:
        UsageError: it can't listen there, Serve listens elsewhere already, or not for gRPC, or anybody could ask.
        ExecutorError: Ray can't be reached or started.
    """
    import ray
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions, gRPCOptions
    from ray.serve.context import _get_global_client

    from umbel.runtime.executors import ray_cluster

    was_connected = ray.is_initialized()
    starts = not was_connected and not address and not os.environ.get("RAY_ADDRESS")
    wanted = HOST if host is None else host
    if starts:  # before Ray takes seconds to start
        port, grpc_port = _free_ports(wanted, port, grpc_port)
    if starts or host is not None:
        _check_guarded(wanted, is_guarded)
    if starts and os.environ.get(_SHARES_PORTS, "0") != "1":
        _wait_until_left(wanted, int(port or 0))
    with _environment(_of_proxy(largest_bytes, grpc_port) if starts else {}):
        ray_cluster.connect(address)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        running = client.http_config
        _check_running(running.host, running.port, host, port)
        _check_guarded(running.host, is_guarded)
        return Listening(running.host, running.port, False, _running_grpc_port(client, grpc_port))
    if not starts:
        port, grpc_port = _free_ports(wanted, port, grpc_port)
    assert port is not None
    grpc = None if grpc_port is None else gRPCOptions(port=grpc_port, grpc_servicer_functions=[SERVICER])
    try:
        ray_serve.start(http_options=HTTPOptions(host=wanted, port=port), grpc_options=grpc)
    except Exception as error:
        if starts:
            ray.shutdown()
            _free_ports(wanted, port, grpc_port)  # somebody may have taken one meanwhile
        raise ExecutorError("Ray Serve can't be started", got=f"{type(error).__name__}: {error}") from error
    return Listening(wanted, port, starts, grpc_port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)}
        return all(ipaddress.ip_address(each).is_loopback for each in found)
    except (OSError, ValueError):  # another machine's name, say
        return False


def _check_guarded(host: str, is_guarded: bool) -> None:
    if not is_guarded and not is_loopback(host):
        raise UsageError(
            "anybody who reaches this machine could ask this server",
            got=f"it would listen on {host}, and ask for no token",
            expected="a bearer token (--token-file, --token-env; token=)",
            hint="or say --no-token (no_token=True), where something else keeps others out",
        )


def _check_running(running_host: str, running_port: int, host: str | None, port: int | None) -> None:
    """Refuse what the cluster's Serve, which is there already, can't do."""
    same_host = host in (None, running_host) or (is_loopback(str(host)) and is_loopback(running_host))
    if same_host and port in (None, 0, running_port):
        return
    raise UsageError(
        "Ray Serve listens elsewhere on this cluster, and in one place for all",
        got=f"{running_host if host is None else host}:{running_port if port is None else port}",
        expected=f"{running_host}:{running_port}",
        hint="leave --host and --port out; --prefix tells models apart",
    )


def _running_grpc_port(client: Any, grpc_port: int | None) -> int | None:
    """Where the cluster's Serve listens for gRPC, if gRPC is wanted."""
    if grpc_port is None:
        return None
    import ray

    running = ray.get(client._controller.get_grpc_config.remote())
    if SERVICER not in running.grpc_servicer_functions:
        raise UsageError(
            "Ray Serve runs on this cluster without Umbel's gRPC service, and takes none up while it runs",
            got=", ".join(running.grpc_servicer_functions) or "no gRPC",
            expected=f"grpc_servicer_functions: [{SERVICER}]",
            hint="start Serve anew with it (grpc_options in its config file), or leave --grpc-port out",
        )
    if grpc_port not in (0, running.port):
        raise UsageError(
            "Ray Serve listens elsewhere for gRPC on this cluster, and has one port for all",
            got=grpc_port,
            expected=str(running.port),
            hint=f"say --grpc-port {running.port}, or 0",
        )
    return int(running.port)


def _free_ports(host: str, port: int | None, grpc_port: int | None) -> tuple[int, int | None]:
    """The ports, if nobody listens there; 0: a free one. A Ray Serve that shares ports (SO_REUSEPORT) would not tell.

    Raises:
        UsageError: one is taken, or this machine has no such address.
    """
    with _holding(host, PORT if port is None else port, "--port") as http:
        if grpc_port is None:
            return http, None
        with _holding(_everywhere(), grpc_port, "--grpc-port") as grpc:
            return http, grpc


@contextmanager
def _holding(host: str, port: int, option: str) -> Iterator[int]:
    """A port that nobody else can take meanwhile."""
    try:
        probe = socket.socket(_family(host, port), socket.SOCK_STREAM)
        try:
            # connections that have just ended don't count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError):
            probe.close()
            raise
    except (OSError, OverflowError) as error:
        raise UsageError(
            "this server can't listen there",
            got=f"{host}:{port}: {getattr(error, 'strerror', None) or error}",
            expected="a port that nobody listens on, at an address of this machine",
            hint=f"{option} 0 takes a free one; another server may be running",
        ) from None
    with probe:
        yield int(probe.getsockname()[1])


def _everywhere() -> str:
    """All addresses, which is where Serve's gRPC proxy listens: those of IPv6, too, if this machine has it."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


def _of_proxy(largest_bytes: int, grpc_port: int | None) -> dict[str, str]:
    """What the environment of a Ray that is started tells Serve's proxy: its port is its own, messages are bounded."""
    told = {_SHARES_PORTS: "0"}
    if grpc_port is not None:
        told[_MESSAGE_LIMIT] = str(min(max(_LEAST_LIMIT, 2 * largest_bytes), _LARGEST_LIMIT))
    return told


@contextmanager
def _environment(told: Mapping[str, str]) -> Iterator[None]:
    """While inside, the environment has these variables, too, where the user has not set them."""
    added = {name: value for name, value in told.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _wait_until_left(host: str, port: int) -> None:
    """Wait until the connections of a server that was here are gone: a proxy that shares no port can't bind before."""
    end = time.monotonic() + _LINGER_S
    told = False
    while not _is_left(host, port) and time.monotonic() < end:
        if not told:
            text = f"connections of a server that was at port {port} are still closing: this one starts after them"
            warnings.warn(f"{text}, within a minute", UserWarning, stacklevel=4)
            told = True
        time.sleep(0.2)


def _is_left(host: str, port: int) -> bool:
    """Whether a socket that shares nothing can be bound."""
    with socket.socket(_family(host, port), socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _family(host: str, port: int) -> int:
    return int(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0])
