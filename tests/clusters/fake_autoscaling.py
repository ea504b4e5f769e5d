"""Ray's fake multi-node autoscaler: nodes are raylets on this machine, started and ended by Ray's real autoscaler.

``AutoscalingCluster`` reads a configuration file that Ray's wheel does not ship, so the configuration is here.
"""

from __future__ import annotations

import copy
from typing import Any

from ray.cluster_utils import AutoscalingCluster

_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_BASE: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 8,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "auth": {},
    "docker": {},
    "provider": {
        "type": "external",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "module": _PROVIDER,
    },
    "head_node_type": "ray.head.default",
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
}


class FakeAutoscalingCluster(AutoscalingCluster):  # type: ignore[misc]
    """A head and node types; see `ray.cluster_utils.AutoscalingCluster`."""

    def _generate_config(
        self, head_resources: dict[str, float], worker_node_types: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        config = copy.deepcopy(_BASE)
        head = {"resources": head_resources, "node_config": {}, "max_workers": 0}
        config["available_node_types"] = {**worker_node_types, "ray.head.default": head}
        config["provider"].update(launch_multiple=True, head_node_id=FAKE_HEAD_NODE_ID)
        return config


def node_type(resources: dict[str, float], most: int) -> dict[str, Any]:
    """A kind of node of which there may be ``most``, and none until it is needed."""
    memory = {"object_store_memory": 100 * 2**20}
    return {"resources": {**resources, **memory}, "node_config": {}, "min_workers": 0, "max_workers": most}
