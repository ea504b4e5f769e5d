"""Is there a Ray cluster at an address, and does it take this process's token? Asked before Ray is, without a driver.

Ray itself would try for minutes, and print a line a second of its own meanwhile. The cluster's control service is asked
for its id, which it tells whoever has the token. It must not know what the cluster is wanted for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from pathlib import Path

from umbel.scheduler.errors import AccessRefusedError, ClusterUnavailableError, UmbelError, UsageError

__all__ = ["REACH_S", "cluster_address", "control_service", "reach", "token_error", "unresolved"]

#: Seconds that a cluster gets to accept a connection, and to answer.
REACH_S = 10.0
_ADDRESSES = "HOST:PORT of the cluster's head, as $RAY_ADDRESS holds it (port 6379 unless it was started with another)"


def cluster_address(address: str) -> str | None:
    """The control service's ``HOST:PORT`` for an address as `ray.init` takes it; None: it is for Ray to make sense of.

    Args:
        address: ``HOST:PORT``, or "auto": ``$RAY_ADDRESS``, else the cluster that was started on this machine last.

    Raises:
        UsageError: it is a dashboard's, or there is no cluster on this machine.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            found = canonicalize_bootstrap_address(address)
        except (ConnectionError, ValueError):
            found = None
        if found is None:
            raise UsageError(
                "no Ray cluster was found on this machine, and no other was named",
                expected=f"--address, or $RAY_ADDRESS: {_ADDRESSES}",
                hint="`umbel cluster up --local N` or `ray start --head` starts one, and says its address",
            )
        return str(found)
    if address.startswith(("http://", "https://")):
        raise UsageError(
            "this is the address of a dashboard, which is for `umbel submit`", got=address, expected=_ADDRESSES
        )
    host, _, port = address.rpartition(":")
    return address if host and port.isdecimal() and "://" not in address else None


def reach(address: str, *, found_here: bool = False) -> None:
    """Return if a cluster answers at ``HOST:PORT``, and takes this process's token.

    Args:
        address: of its control service.
        found_here: nobody named it; then Ray takes a token that is there, whether or not its use is switched on.

    Raises:
        AccessRefusedError: the token is wrong or missing.
        UsageError: the host's name is unknown, or it is not Ray that answers.
        ClusterUnavailableError: nobody answers.

    Cost: some 20 ms; `REACH_S` at most, twice.
    """
    import grpc
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise unresolved(address, error) or _silent(address, f"{type(error).__name__}: {error}") from None
    try:
        has_token = _has_token(found_here=found_here)
        channel = create_gcs_channel(address)
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=REACH_S)
        finally:
            channel.close()
    except AuthenticationError:
        raise token_error("token authentication is on, but there is no token", address) from None
    except grpc.RpcError as error:
        text = str(error.details())
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            what = "the cluster refuses the token" if has_token else "the cluster asks for a token, and none was sent"
            raise token_error(what, address) from None
        if error.code() == grpc.StatusCode.UNIMPLEMENTED or "http1.x" in text or "HTTP/2" in text:
            raise UsageError(
                "what answers there is not the control service of a Ray cluster",
                got=address,
                expected=_ADDRESSES,
                hint="the dashboard's address, $RAY_API_SERVER_ADDRESS, is for `umbel submit` and `umbel jobs`",
            ) from None
        raise _silent(address, text) from None


def control_service(address: str) -> str | None:
    """Find a cluster, and see that it answers: `cluster_address` and `reach` in one; None: Ray is to make sense of it.

    Raises:
        UsageError, ClusterUnavailableError: as these two.
    """
    found = cluster_address(address)
    if found is not None:
        reach(found, found_here=address == "auto" and not os.environ.get("RAY_ADDRESS"))
    return found


def token_error(what: str, address: str) -> AccessRefusedError:
    """The error that says which token was tried, without the token."""
    return AccessRefusedError(
        what,
        got=f"{address}, {_token_source()}",
        expected="the token that the cluster was started with",
        hint="set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that holds it (or RAY_AUTH_TOKEN)",
    )


def unresolved(address: str, error: BaseException) -> UsageError | None:
    """The error that says that a host's name is unknown, if that is what went wrong; None: it is something else.

    A name server that does not answer is something else: it may pass.
    """
    seen: BaseException | None = error
    text = ""
    while seen is not None:
        if isinstance(seen, socket.gaierror) and seen.errno == socket.EAI_AGAIN:
            return None
        text += f" {seen}"
        seen = seen.__cause__ or seen.__context__
    if not re.search(r"Name or service not known|No address associated|nodename nor servname", text):
        return None
    return UsageError(
        "there is no host of this name", got=address, expected="the name or IP address of the cluster's head"
    )


def _silent(address: str, text: str) -> UmbelError:
    return ClusterUnavailableError(
        "the Ray cluster does not answer",
        got=f"{address}: {' '.join(text.split())[:300]}",
        expected=_ADDRESSES,
        hint="is it running, and can it be reached from here? Running the command again later is safe",
    )


def _has_token(*, found_here: bool) -> bool:
    """Whether Ray sends a token to the cluster.

    Raises:
        ray.exceptions.AuthenticationError: it is to, and has none.
    """
    from ray._private.authentication import authentication_token_setup as ray_setup
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    if found_here:
        logging.getLogger(ray_setup.__name__).setLevel(logging.ERROR)  # it warns of what is all right
        ray_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if not is_token_auth_enabled():
        return False
    ray_setup.ensure_token_if_auth_enabled(create_token_if_missing=False)
    return bool(AuthenticationTokenLoader.instance().has_token())


def _token_source() -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return f"RAY_AUTH_MODE={mode}, {name} is set"
    there = "is there" if Path("~/.ray/auth_token").expanduser().is_file() else "is not there"
    return f"RAY_AUTH_MODE={mode}, neither RAY_AUTH_TOKEN nor RAY_AUTH_TOKEN_PATH is set, ~/.ray/auth_token {there}"
