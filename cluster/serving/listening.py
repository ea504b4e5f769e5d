"""Where does a server listen: on which Ray, at which host and port, and who reaches it there?

All servers of a cluster share the host and the port of its Ray Serve. What can be wrong is found before Ray starts, as
far as it can be. It must not know what is served.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from dataclasses import dataclass

from umbel.scheduler.errors import ExecutorError, UsageError

__all__ = ["Listening", "connect", "is_loopback"]

#: This machine only.
HOST = "127.0.0.1"
#: The port of Ray Serve's own documentation.
PORT = 8000


@dataclass(frozen=True, slots=True)
class Listening:
    """Where Ray Serve listens."""

    host: str
    port: int
    #: Whether Ray was started for it.
    owns_ray: bool

    @property
    def url(self) -> str:
        """What to ask on this machine, without a path."""
        if self.host in ("0.0.0.0", "::", ""):
            return f"http://127.0.0.1:{self.port}"
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def connect(address: str | None, host: str | None, port: int | None, *, is_guarded: bool) -> Listening:
    """Connect to Ray, or start it, and see to it that Serve listens.

    Args:
        address: of a Ray cluster; None: that of this process, or $RAY_ADDRESS; else one is started here.
        host: where to listen; None: this machine only, or where the cluster's Serve listens already.
        port: where to listen; 0: a free one; None: 8000, or as above.
        is_guarded: a token is asked for, or none is wanted: other machines may reach it.

    Raises:
        UsageError: it can't listen there, Serve listens elsewhere already, or anybody could ask.
        ExecutorError: Ray can't be reached or started.
    """
    import ray
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client

    from umbel.runtime.executors import ray_cluster

    was_connected = ray.is_initialized()
    starts = not was_connected and not address and not os.environ.get("RAY_ADDRESS")
    wanted = HOST if host is None else host
    if starts:  # before Ray takes seconds to start
        port = _free_port(wanted, port)
    if starts or host is not None:
        _check_guarded(wanted, is_guarded)
    ray_cluster.connect(address)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        running = client.http_config
        _check_running(running.host, running.port, host, port)
        _check_guarded(running.host, is_guarded)
        return Listening(running.host, running.port, False)
    if not starts:
        port = _free_port(wanted, port)
    assert port is not None
    try:
        ray_serve.start(http_options=HTTPOptions(host=wanted, port=port))
    except Exception as error:
        if starts:
            ray.shutdown()
        raise ExecutorError("Ray Serve can't be started", got=f"{type(error).__name__}: {error}") from error
    return Listening(wanted, port, starts)


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


def _free_port(host: str, port: int | None) -> int:
    """The port, if nobody listens there; 0: a free one. Ray Serve shares ports (SO_REUSEPORT), so it would not tell.

    Raises:
        UsageError: it is taken, or this machine has no such address.
    """
    wanted = PORT if port is None else port
    try:
        family = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # connections that have just ended don't count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, wanted))
            probe.listen(1)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UsageError(
            "this server can't listen there",
            got=f"{host}:{wanted}: {getattr(error, 'strerror', None) or error}",
            expected="a port that nobody listens on, at an address of this machine",
            hint="--port 0 takes a free one; another server may be running",
        ) from None
