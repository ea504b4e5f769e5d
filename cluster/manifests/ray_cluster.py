"""A RayCluster for KubeRay: its metadata, which RayJobs and RayServices share, and its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umbel.cluster.config.cluster_config import ClusterConfig, FaultTolerance, Queue
from umbel.cluster.config.labels import (
    CODE_ANNOTATION,
    COMMIT_LABEL,
    DIRTY_LABEL,
    MANAGED_LABEL,
    QUEUE_LABELS,
    RUN_LABEL,
)
from umbel.cluster.manifests.pods import head_group, worker_group
from umbel.cluster.manifests.yaml_text import Noted

__all__ = [
    "Lineage",
    "cluster_spec",
    "metadata",
    "ray_cluster",
    "service_account",
]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What resources say of where they come from, as labels."""

    #: The run that is made, if it is one.
    run: str | None = None
    #: The git commit of the project.
    commit: str | None = None
    #: Whether files have changed since.
    dirty: bool = False
    #: A digest of the project's files, which says more than a commit where files have changed since.
    code: str | None = None

    def labels(self) -> dict[str, str]:
        """The labels, by which ``kubectl get pods -l umbel/run=gdp`` finds what belongs to a run."""
        found = {MANAGED_LABEL: "umbel"}
        if self.run is not None:
            found[RUN_LABEL] = self.run
        if self.commit is not None:
            found[COMMIT_LABEL] = self.commit
            if self.dirty:
                found[DIRTY_LABEL] = "true"
        return found

    def annotations(self) -> dict[str, Any]:
        """What is looked up, but selects nothing."""
        if self.code is None:
            return {}
        return {
            CODE_ANNOTATION: Noted(self.code, "A digest of the project's files, as `umbel submit` would ship them.")
        }


def metadata(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """The metadata of what is written: name, namespace, and labels of lineage, queue and user."""
    found: dict[str, Any] = {"name": config.name}
    if config.namespace is not None:
        found["namespace"] = config.namespace
    labels: dict[str, Any] = {**lineage.labels(), **config.labels}
    annotations = lineage.annotations()
    if config.queue is not None:
        labels |= _queue_labels(config.queue, config.name)
        if config.queue.scheduler == "kueue" and _scales(config):
            annotations["kueue.x-k8s.io/elastic-job"] = Noted(
                "true", "Kueue admits a cluster that grows only so (feature gate ElasticJobsViaWorkloadSlices)."
            )
    if annotations:
        found["annotations"] = annotations
    found["labels"] = labels
    return found


def ray_cluster(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """A RayCluster, which stays until it is deleted."""
    spec = cluster_spec(config, lineage)
    if config.queue is not None and config.queue.scheduler == "kueue":
        spec["suspend"] = Noted(True, "Kueue starts it when the queue has room.")
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata(config, lineage), "spec": spec}


def service_account(config: ClusterConfig, lineage: Lineage) -> dict[str, Any] | None:
    """The account that the pods act as, if it is to be made here."""
    if not config.service_account_annotations:
        return None
    found: dict[str, Any] = {"name": config.service_account}
    if config.namespace is not None:
        found["namespace"] = config.namespace
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            **found,
            "labels": {MANAGED_LABEL: lineage.labels()[MANAGED_LABEL]},
            "annotations": Noted(
                dict(config.service_account_annotations),
                "A cloud lends the account a role by these, so that no key has to be kept.",
            ),
        },
    }


def cluster_spec(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """The specification of a cluster, as RayClusters, RayJobs and RayServices hold it."""
    labels = {**lineage.labels(), **config.labels}
    if config.queue is not None and config.queue.scheduler == "kai":
        labels |= {key: value for key, value in _queue_labels(config.queue, config.name).items() if "queue" in key}
    spec: dict[str, Any] = {"rayVersion": config.effective_ray_version}
    if config.token_auth:
        spec["authOptions"] = Noted(
            {"mode": "token"},
            "KubeRay makes a token, keeps it in a Secret of the cluster's name, and gives it to the pods; "
            "`kubectl get secret` shows it to whoever may read it.",
        )
    else:
        spec["authOptions"] = Noted({"mode": "disabled"}, "Whoever reaches the head can run code here.")
    if config.fault_tolerance is not None:
        spec["gcsFaultToleranceOptions"] = _fault_tolerance(config.fault_tolerance)
    held = config.queue is not None and config.queue.scheduler == "kueue" and not _scales(config)
    spec["enableInTreeAutoscaling"] = Noted(
        not held,
        "All groups have one size, and Kueue admits such a cluster as a whole."
        if held
        else "Workers are asked for while trials wait, and go when idle.",
    )
    spec["autoscalerOptions"] = {
        "version": Noted("v2", "The one that knows labels, and which node is idle."),
        "idleTimeoutSeconds": config.idle_timeout_s,
        "upscalingMode": Noted("Default", "As many workers at once as trials wait for."),
        "resources": Noted(
            {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "1Gi"}},
            "KubeRay's own 512Mi are short of what hundreds of workers take.",
        ),
    }
    spec["headGroupSpec"] = head_group(config, labels)
    spec["workerGroupSpecs"] = [worker_group(config, group, labels) for group in config.groups]
    return spec


def _scales(config: ClusterConfig) -> bool:
    return any(group.min < group.max for group in config.groups)


def _fault_tolerance(given: FaultTolerance) -> Noted:
    why = "Workers, and what they hold, outlive the head; a driver on the head does not, and is resumed by its name."
    if given.backend == "redis":
        options: dict[str, Any] = {"backend": "redis", "redisAddress": given.redis_address}
        if given.redis_secret is not None:
            reference = {"name": given.redis_secret, "key": given.redis_key}
            options["redisPassword"] = {"valueFrom": {"secretKeyRef": reference}}
        return Noted(options, why)
    storage = {"size": given.size}
    if given.storage_class is not None:
        storage["storageClassName"] = given.storage_class
    return Noted(
        {"backend": "rocksdb", "storage": storage}, f"{why} The volume is made by KubeRay; its support is alpha."
    )


def _queue_labels(queue: Queue, name: str) -> Mapping[str, Any]:
    name_label, priority_label = QUEUE_LABELS[queue.scheduler]
    labels = {name_label: queue.name} | ({} if queue.priority is None else {priority_label: queue.priority})
    if queue.scheduler == "volcano":
        return {"ray.io/scheduler-name": "volcano", **labels}
    if queue.scheduler == "yunikorn":
        return {
            "ray.io/gang-scheduling-enabled": Noted("true", "The head and the least number of workers start together."),
            "yunikorn.apache.org/app-id": name,
            **labels,
        }
    return labels
