"""The pods of a Ray cluster on Kubernetes: the head's and those of each group of workers, as plain data with comments.

It must not know which kind of resource they become part of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.cluster.config.cluster_config import ClusterConfig, Credentials, Group
from umbel.cluster.manifests.yaml_text import Noted

__all__ = ["ACCELERATOR_LABEL", "MARKET_LABEL", "SPOT_TAINTS", "STORE_VARIABLE", "head_group", "worker_group"]

#: Ray's label for the kind of GPU.
ACCELERATOR_LABEL = "ray.io/accelerator-type"
#: Ray's label for machines that can be taken away.
MARKET_LABEL = "ray.io/market-type"
#: What clouds taint such machines with (GKE, AKS; EKS does not).
SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")
#: Where `umbel` looks for the store if it is not told.
STORE_VARIABLE = "UMBEL_STORE"


def head_group(config: ClusterConfig, labels: Mapping[str, str]) -> dict[str, Any]:
    """The ``headGroupSpec``."""
    head = config.head
    resources: dict[str, Any] = {"cpu": str(head.cpus), "memory": head.memory}
    return {
        "serviceType": Noted("ClusterIP", "Reached inside the cluster only; from elsewhere by kubectl port-forward."),
        "rayStartParams": {
            "num-cpus": Noted("0", "No trials on the head: one that takes too much memory would end the cluster.")
        },
        "template": _template(config, labels, "ray-head", resources, head.node_selector),
    }


def worker_group(config: ClusterConfig, group: Group, labels: Mapping[str, str]) -> dict[str, Any]:
    """One of the ``workerGroupSpecs``."""
    resources: dict[str, Any] = {"cpu": str(group.cpus), "memory": group.memory}
    if group.gpus:
        resources[group.gpu_resource] = str(group.gpus)
    node_labels: dict[str, Any] = {}
    if group.accelerator is not None:
        node_labels[ACCELERATOR_LABEL] = Noted(
            group.accelerator, f"What umbel.task(labels={{{ACCELERATOR_LABEL!r}: …}}) selects, also of workers to be."
        )
    if group.spot:
        node_labels[MARKET_LABEL] = "spot"
    spec: dict[str, Any] = {
        "groupName": group.name,
        "replicas": Noted(group.min, "The autoscaler changes this: with `kubectl apply` it would be put back."),
        "minReplicas": group.min,
        "maxReplicas": group.max,
    }
    if group.idle_timeout_s is not None:
        spec["idleTimeoutSeconds"] = group.idle_timeout_s
    if group.priority:
        spec["priority"] = Noted(group.priority, "Of the groups that fit, the highest grows first.")
    if node_labels:
        spec["labels"] = node_labels
    return {
        **spec,
        "rayStartParams": {},
        "template": _template(config, labels, "ray-worker", resources, group.node_selector, _tolerations(group)),
    }


def _tolerations(group: Group) -> list[Any]:
    found: list[Any] = []
    if group.gpus:
        found.append(
            Noted(
                {"key": group.gpu_resource, "operator": "Exists", "effect": "NoSchedule"},
                "Nodes with GPUs are commonly tainted, so that nothing else fills them.",
            )
        )
    if group.spot:
        why = "Machines that can be taken away: a trial that is lost with one runs again, and uses up no retry."
        for taint in SPOT_TAINTS:
            toleration = {"key": taint, "operator": "Exists", "effect": "NoSchedule"}
            found.append(Noted(toleration, why) if taint == SPOT_TAINTS[0] else toleration)
    return found


def _template(
    config: ClusterConfig,
    labels: Mapping[str, str],
    container: str,
    resources: Mapping[str, str],
    node_selector: Mapping[str, str],
    tolerations: list[Any] | None = None,
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": Noted("Never", "The second autoscaler wants it: lost pods are replaced, not started again.")
    }
    if config.service_account is not None:
        spec["serviceAccountName"] = config.service_account
    if container == "ray-worker":
        spec["automountServiceAccountToken"] = Noted(False, "Trials need not talk to Kubernetes.")
    if config.queue is not None and config.queue.scheduler == "kai":
        spec["schedulerName"] = "kai-scheduler"
    if config.priority_class is not None:
        spec["priorityClassName"] = config.priority_class
    if config.pull_secret is not None:
        spec["imagePullSecrets"] = [{"name": config.pull_secret}]
    if node_selector:
        spec["nodeSelector"] = dict(node_selector)
    if tolerations:
        spec["tolerations"] = tolerations
    held: dict[str, Any] = {
        "name": container,
        "image": config.image,
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    environment = _environment(config)
    if environment:
        held["env"] = environment
    if config.credentials is not None and not config.credentials.keys:
        held["envFrom"] = Noted([{"secretRef": {"name": config.credentials.secret}}], _secret_note(config.credentials))
    held["resources"] = Noted(
        {"requests": dict(resources), "limits": dict(resources)},
        "Limits equal requests: Ray counts on what it was promised, and such pods are evicted last.",
    )
    spec["containers"] = [held]
    return {"metadata": {"labels": dict(labels)}, "spec": spec}


def _environment(config: ClusterConfig) -> list[Any]:
    found: list[Any] = []
    if config.store is not None:
        found.append({"name": STORE_VARIABLE, "value": config.store})
    found += [{"name": name, "value": value} for name, value in config.env.items()]
    if config.credentials is not None:
        for place, key in enumerate(config.credentials.keys):
            entry = {
                "name": key,
                "valueFrom": {"secretKeyRef": {"name": config.credentials.secret, "key": key}},
            }
            found.append(entry if place else Noted(entry, _secret_note(config.credentials)))
    return found


def _secret_note(credentials: Credentials) -> str:
    keys = " ".join(f"--from-literal={key}=…" for key in credentials.keys) or "--from-env-file=FILE"
    return f"The store's credentials, from: kubectl create secret generic {credentials.secret} {keys}"
