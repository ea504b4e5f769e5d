"""How is a Ray started that is this process's alone? For nobody else to reach, and a token that only its user reads.

Left to itself, Ray listens on all of the machine's addresses, and keeps its token in a file that everybody on the
machine may read. It must not know what the Ray is for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["start_own_ray"]

#: With any of these the user has chosen a token.
_CHOICES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_OTHERS = 0o077


def start_own_ray(**options: Any) -> None:
    """Start Ray on this machine, on the loopback interface, and connect this process to it.

    Args:
        options: further arguments of `ray.init`.

    Raises:
        Exception: whatever Ray raises if it can't be started.

    Cost: some four seconds, as Ray takes anyway.
    """
    import ray

    _keep_token_private()
    with _loopback():
        ray.init(address="local", include_dashboard=False, **options)


@contextmanager
def _loopback() -> Iterator[None]:
    """Ray takes 127.0.0.1 for its address, as it does on Windows and macOS.

    It does not if it is told so by ``_node_ip_address``: it puts the machine's own address in that one's place.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _keep_token_private() -> None:
    """See to it that only the user can read the token that Ray takes unless told otherwise.

    Ray would make the file if it is missing, readable by everybody. Without a home that can be written to, the token
    is in this process's environment only.
    """
    if any(name in os.environ for name in _CHOICES) or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            _create(path)
    except (OSError, RuntimeError):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    with suppress(OSError):  # it is somebody else's, or can't be changed
        mode = path.stat().st_mode
        if mode & _OTHERS:
            path.chmod(mode & 0o7777 & ~_OTHERS)


def _create(path: Path) -> None:
    """Write a token as a whole, unless another process has been faster."""
    mine = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(mine)  # which fails where renaming would replace
    finally:
        mine.unlink(missing_ok=True)
