"""The same cluster as values for KubeRay's Helm chart ``ray-cluster``, for sites that install everything by Helm.

The fields of the RayCluster are moved to where the chart takes them. What the chart has no place for is told, and
refused where the cluster would not be what was asked for. It must not build pods itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.config.labels import MANAGED_LABEL
from umbel.cluster.manifests.kinds import documents, of_kind
from umbel.cluster.manifests.ray_cluster import Lineage
from umbel.cluster.manifests.yaml_text import Noted, plain, to_yaml
from umbel.scheduler.errors import UsageError

__all__ = ["CHART_VERSION", "ChartValues", "chart_values", "values_text"]

#: The chart whose values these are. Newer ones take them, too, as far as charts of KubeRay have changed so far.
CHART_VERSION = "1.6.1"
#: Labels that the chart itself writes.
_OF_CHART = (
    MANAGED_LABEL,
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "helm.sh/chart",
)
#: Fields of a pod that the chart takes under their own names.
_OF_POD = ("restartPolicy", "serviceAccountName", "priorityClassName", "nodeSelector", "tolerations")
#: Fields of a group of workers that the chart takes, too; by others it does not, what is lost with them.
_OF_GROUP = ("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template")
_LOST = {
    "labels": "accelerator and spot as labels of Ray's: tasks can't choose the group by them before it has workers",
    "idleTimeoutSeconds": "idle_timeout_s: the cluster's counts",
    "priority": "priority: of the groups that fit any may grow first",
}


@dataclass(frozen=True, slots=True)
class ChartValues:
    """Values, as plain data with comments."""

    document: Mapping[str, Any]
    #: What the chart has no values for.
    lost: tuple[str, ...]


def chart_values(config: ClusterConfig, lineage: Lineage | None = None) -> ChartValues:
    """The values for ``helm install``.

    Raises:
        UsageError: as `umbel.cluster.manifests.kinds.of_kind` for a cluster; or the chart can't make such a cluster.
    """
    config = of_kind(config, "cluster")
    _check(config)
    *accounts, main = documents(config, "cluster", lineage)
    spec = main["spec"]
    head = spec["headGroupSpec"]
    lost = [f"service_account_annotations of {config.service_account!r}: make it beforehand" for _ in accounts]
    repository, _, tag = config.image.rpartition(":")
    token = _token(config)
    container = head["template"]["spec"]["containers"][0]
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "fullnameOverride": Noted(config.name, "Else the chart would add to the release's name."),
        "common": {"containerEnv": [*token, *container.get("env", [])]},
        "service": {"type": head["serviceType"]},
    }
    if config.pull_secret is not None:
        values["imagePullSecrets"] = [{"name": config.pull_secret}]
    if "annotations" in main["metadata"]:
        values["annotations"] = main["metadata"]["annotations"]
    if config.fault_tolerance is not None:
        options = {key: inner for key, inner in _plain(spec["gcsFaultToleranceOptions"]).items() if key != "backend"}
        values["gcsFaultTolerance"] = Noted(
            {"enabled": True, **options},
            "Workers outlive the head; a driver on it does not, and is resumed by its name.",
        )
    values["head"] = {
        "rayVersion": spec["rayVersion"],
        "enableInTreeAutoscaling": spec["enableInTreeAutoscaling"],
        "autoscalerOptions": {
            **spec["autoscalerOptions"],
            "env": Noted([_plain(each) for each in token], "As above: the autoscaler asks the head, too."),
        },
        "rayStartParams": head["rayStartParams"],
        **_pod(head["template"], lost),
    }
    values["worker"] = Noted({"disabled": True}, "The chart's own group; all of ours stand below.")
    values["additionalWorkerGroups"] = {}
    for group in spec["workerGroupSpecs"]:
        name = group["groupName"]
        lost += [f"groups.{name}: {_LOST[field]}" for field in group if field not in _OF_GROUP]
        values["additionalWorkerGroups"][name] = {
            "replicas": Noted(group["minReplicas"], "The autoscaler changes this: `helm upgrade` would put it back."),
            "minReplicas": group["minReplicas"],
            "maxReplicas": group["maxReplicas"],
            "rayStartParams": group["rayStartParams"],
            **_pod(group["template"], lost),
        }
    return ChartValues(values, tuple(dict.fromkeys(lost)))


def values_text(config: ClusterConfig, values: ChartValues) -> str:
    """The file, for ``helm install -f``."""
    namespace = "" if config.namespace is None else f" --namespace {config.namespace}"
    note = (
        f"Written by `umbel manifest values`, for KubeRay's chart ray-cluster {CHART_VERSION}:\n"
        "helm repo add kuberay https://ray-project.github.io/kuberay-helm/\n"
        f"helm install {config.name} kuberay/ray-cluster --version {CHART_VERSION}{namespace} -f FILE"
    )
    return to_yaml([values.document], note=note)


def _check(config: ClusterConfig) -> None:
    import yaml

    if config.queue is not None:
        raise UsageError(
            "the chart ray-cluster puts no labels on the RayCluster, so it can't name a queue",
            got=f"queue {config.queue.name!r} of {config.queue.scheduler}",
            expected="no queue",
            hint="umbel manifest cluster",
        )
    if config.fault_tolerance is not None and config.fault_tolerance.backend != "redis":
        raise UsageError(
            "the chart ray-cluster keeps the head's state in Redis only",
            got=f"fault_tolerance: backend {config.fault_tolerance.backend!r}",
            expected='backend = "redis"',
            hint="umbel manifest cluster",
        )
    for what, name in (("name", config.name), *(("a group", group.name) for group in config.groups)):
        if not isinstance(yaml.safe_load(name), str):
            raise UsageError(f"{what}: the chart writes it without quotes, and YAML reads no name", got=name)


def _token(config: ClusterConfig) -> list[Any]:
    """The environment that makes Ray ask for a token; the chart has no values for KubeRay's own way to say so."""
    if not config.token_auth:
        return [{"name": "RAY_AUTH_MODE", "value": Noted("disabled", "Whoever reaches the head can run code here.")}]
    reference = {"secretKeyRef": {"name": config.name, "key": "auth_token"}}
    return [
        Noted(
            {"name": "RAY_AUTH_MODE", "value": "token"},
            "Ray asks for the token in this Secret, which is to be made first: kubectl create secret generic "
            f'{config.name} --from-literal=auth_token="$(openssl rand -hex 32)"',
        ),
        {"name": "RAY_AUTH_TOKEN", "valueFrom": reference},
    ]


def _pod(template: Mapping[str, Any], lost: list[str]) -> dict[str, Any]:
    spec = template["spec"]
    (container,) = spec["containers"]
    labels = template["metadata"]["labels"]
    kept = {key: value for key, value in labels.items() if key not in _OF_CHART}
    lost += [f"labels: {key}, which is the chart's own" for key in labels if key in _OF_CHART and key != MANAGED_LABEL]
    values: dict[str, Any] = {"labels": kept} if kept else {}
    values |= {field: spec[field] for field in _OF_POD if field in spec}
    if "automountServiceAccountToken" in spec:
        lost.append("that workers get no token of Kubernetes: say so on the service account")
    values["securityContext"] = container["securityContext"]
    if "envFrom" in container:
        values["envFrom"] = container["envFrom"]
    values["resources"] = container["resources"]
    return values


def _plain(given: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = plain(given)
    return found
