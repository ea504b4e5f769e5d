"""How many nodes does a Ray cluster have, and when are there enough of them? No driver is registered for the asking."""

from __future__ import annotations

import time

from umbel.runtime.executors.reaching import control_service
from umbel.scheduler.errors import AccessRefusedError, ExecutorError, UmbelError

__all__ = ["wait_for_nodes"]

_PAUSE_S = 0.2


def wait_for_nodes(address: str, nodes: int, timeout_s: float) -> int:
    """How many nodes are alive, as soon as there are enough, or when the time is up.

    Args:
        address: ``HOST:PORT`` of the cluster's control service, or "auto" for the one on this machine.
        nodes: how many are enough.
        timeout_s: seconds to wait.

    Raises:
        AccessRefusedError: the cluster refuses the token; that is not waited for.
        ExecutorError: the time is up, and there is none at all, or nobody answers.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled

    deadline = time.monotonic() + timeout_s
    there, said = 0, "nobody answers"
    client: GcsClient | None = None
    while True:
        try:
            if client is None:
                client = GcsClient(address=control_service(address) or address)
            infos = client.get_all_node_info(timeout=5).values()
            there = sum(info.state == 0 for info in infos)  # GcsNodeInfo.ALIVE
        except AccessRefusedError:
            raise
        except UmbelError as error:  # the host's name, or the cluster, may be known in a moment
            said = error.what
        except Exception as error:  # it has not started yet, says Ray in various ways
            said = f"{type(error).__name__}: {error}"
        if there >= nodes or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)
    if there == 0:
        where = "this machine, as $RAY_ADDRESS is not set" if address == "auto" else address
        raise ExecutorError(
            f"there is no Ray cluster after {timeout_s:g} s",
            got=f"{where}: {' '.join(said.split())[:300]}",
            expected="a running cluster at the address (--address, or $RAY_ADDRESS)",
        )
    return there
