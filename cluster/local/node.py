"""`ray start` for one node of a cluster that is this machine's alone: ``python -m umbel.cluster.local.node ARGUMENTS``.

Ray puts the machine's own address in the place of 127.0.0.1, so that the node listens to all who reach the machine. It
leaves 127.0.0.1 alone where it takes clusters to be impossible (Windows, macOS), but then no second node may join. Here
the address stays, and nodes may join; nothing else of Ray is changed.
"""

from __future__ import annotations

__all__ = ["LOOPBACK_ONLY", "main"]

#: The environment with which a driver finds such a cluster: it leaves 127.0.0.1 alone, too.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def main() -> None:
    """Run `ray start` with this process's arguments."""
    import os
    import sys

    from ray._private import services
    from ray.scripts import scripts

    os.environ.update(LOOPBACK_ONLY)  # for what it starts, and jobs; Ray has looked at it in this process already
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    sys.argv[1:1] = ["start"]
    scripts.main()


if __name__ == "__main__":
    main()
