"""Values for KubeRay's chart: of keys that it knows, and the cluster that it makes of them is the manifest's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings

from tests.cluster.kuberay_schemas import problems, require_schemas
from tests.cluster.manifests.test_kinds import EXAMPLE
from tests.cluster.random_configs import configs
from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.config.file import from_table
from umbel.cluster.manifests.chart_values import CHART_VERSION, chart_values, values_text
from umbel.cluster.manifests.kinds import documents
from umbel.cluster.manifests.ray_cluster import Lineage
from umbel.cluster.manifests.yaml_text import plain
from umbel.scheduler.errors import UsageError

#: What the chart ray-cluster 1.6.1 takes, by the table of its README and the tests beside its templates.
_POD = {
    "affinity", "annotations", "args", "command", "containerEnv", "dnsConfig", "envFrom", "image", "initArgs",
    "initContainers", "labels", "lifecycle", "nodeSelector", "podSecurityContext", "ports", "priority",
    "priorityClassName", "rayStartParams", "resourceClaims", "resources", "restartPolicy", "runtimeClassName",
    "securityContext", "serviceAccountName", "sidecarContainers", "tolerations", "topologySpreadConstraints",
    "volumeMounts", "volumes",
}  # fmt: skip
_HEAD = _POD | {"autoscalerOptions", "enableInTreeAutoscaling", "headService", "rayVersion"}
_WORKER = _POD | {"disabled", "groupName", "maxReplicas", "minReplicas", "numOfHosts", "replicas"}
_TOP = {
    "additionalWorkerGroups", "annotations", "common", "fullnameOverride", "gcsFaultTolerance", "head", "image",
    "imagePullSecrets", "nameOverride", "service", "worker",
}  # fmt: skip
LINEAGE = Lineage(commit="c" * 40, code="d" * 32)


def made(config: ClusterConfig) -> dict[str, Any]:
    """The values as Helm reads them."""
    found: dict[str, Any] = yaml.safe_load(values_text(config, chart_values(config, LINEAGE)))
    return found


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    """The RayCluster's specification, as far as ours, as the chart's template makes it of values."""

    def group(given: dict[str, Any], container: str) -> dict[str, Any]:
        image = values["image"]
        held: dict[str, Any] = {
            "name": container,
            "image": f"{image['repository']}:{image['tag']}",
            "resources": given["resources"],
            "securityContext": given["securityContext"],
            "env": values["common"]["containerEnv"],
        }
        if "envFrom" in given:
            held["envFrom"] = given["envFrom"]
        pod: dict[str, Any] = {"containers": [held]}
        for name in ("restartPolicy", "serviceAccountName", "priorityClassName", "nodeSelector", "tolerations"):
            if name in given:
                pod[name] = given[name]
        if "imagePullSecrets" in values:
            pod["imagePullSecrets"] = values["imagePullSecrets"]
        labels = {**given.get("labels", {}), "app.kubernetes.io/managed-by": "umbel"}  # Helm, there
        return {"rayStartParams": given["rayStartParams"], "template": {"metadata": {"labels": labels}, "spec": pod}}

    head = values["head"]
    return {
        "rayVersion": head["rayVersion"],
        "enableInTreeAutoscaling": head["enableInTreeAutoscaling"],
        "autoscalerOptions": head["autoscalerOptions"],
        "headGroupSpec": {"serviceType": values["service"]["type"], **group(head, "ray-head")},
        "workerGroupSpecs": [
            {
                "groupName": name,
                **{field: each[field] for field in ("replicas", "minReplicas", "maxReplicas")},
                **group(each, "ray-worker"),
            }
            for name, each in values["additionalWorkerGroups"].items()
        ],
    }


def expected(config: ClusterConfig) -> dict[str, Any]:
    """The specification of the manifest, without what the chart can't say."""
    spec: dict[str, Any] = plain(documents(config, "cluster", LINEAGE))[-1]["spec"]
    auth = {"token": True, "disabled": False}[spec.pop("authOptions")["mode"]]
    spec.pop("gcsFaultToleranceOptions", None)
    secret = {"secretKeyRef": {"name": config.name, "key": "auth_token"}}
    token: list[dict[str, Any]] = [{"name": "RAY_AUTH_MODE", "value": "token" if auth else "disabled"}]
    token += [{"name": "RAY_AUTH_TOKEN", "valueFrom": secret}] if auth else []
    spec["autoscalerOptions"]["env"] = token
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        pod.pop("automountServiceAccountToken", None)
        pod["containers"][0]["env"] = [*token, *pod["containers"][0].get("env", [])]
        for field in ("labels", "idleTimeoutSeconds", "priority"):
            group.pop(field, None)
    return spec


@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(configs(queue=False))
def test_the_chart_knows_the_keys_and_makes_the_manifests_cluster_of_them(config: ClusterConfig) -> None:
    try:
        values = made(config)
    except UsageError as error:
        assume("the chart" not in str(error))
        raise
    assert values.keys() <= _TOP
    assert values["head"].keys() <= _HEAD
    assert values["worker"] == {"disabled": True}
    for group in values["additionalWorkerGroups"].values():
        assert group.keys() <= _WORKER
    assert values["fullnameOverride"] == config.name
    assert values["annotations"] == {"umbel/code": "d" * 32}
    assert rendered(values) == expected(config)


def test_what_the_chart_can_not_say_is_told() -> None:
    table = EXAMPLE | {"labels": {"app.kubernetes.io/name": "x", "team": "y"}, "service_account": "umbel"}
    table |= {"service_account_annotations": {"example.org/role": "r"}}
    groups = EXAMPLE["groups"] | {"cpu": EXAMPLE["groups"]["cpu"] | {"idle_timeout_s": 5, "priority": 2}}
    lost = chart_values(from_table(table | {"groups": groups})).lost
    assert [each.partition(":")[0] for each in lost] == [
        "service_account_annotations of 'umbel'",
        "labels",
        "groups.cpu",
        "groups.cpu",
        "that workers get no token of Kubernetes",
        "groups.gpu",
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"queue": {"scheduler": "kueue", "name": "research"}}, "can't name a queue"),
        ({"fault_tolerance": {"backend": "rocksdb", "size": "1Gi"}}, "in Redis only"),
        ({"name": "true"}, "YAML reads no name"),
        ({"groups": {"no": EXAMPLE["groups"]["cpu"]}}, "YAML reads no name"),
        ({"groups": {}}, "there are no workers"),
    ],
)
def test_what_would_be_another_cluster_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chart_values(from_table(EXAMPLE | table))


def test_redis_and_the_token_come_from_secrets() -> None:
    redis = {"backend": "redis", "redis_address": "redis:6379", "redis_secret": "redis", "redis_key": "password"}
    config = from_table(EXAMPLE | {"fault_tolerance": redis})
    assert made(config)["gcsFaultTolerance"] == {
        "enabled": True,
        "redisAddress": "redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    text = values_text(config, chart_values(config))
    assert f"kuberay/ray-cluster --version {CHART_VERSION} -f FILE" in text
    assert 'kubectl create secret generic umbel --from-literal=auth_token="$(openssl rand -hex 32)"' in " ".join(
        text.replace("#", " ").split()
    )


def test_the_chart_itself_takes_them(tmp_path: Path) -> None:
    chart, helm = os.environ.get("UMBEL_KUBERAY_CHART"), shutil.which("helm")
    if not chart or not helm:
        pytest.skip("needs helm, and in UMBEL_KUBERAY_CHART the folder of KubeRay's chart ray-cluster")
    require_schemas()
    config = from_table(EXAMPLE | {"pull_secret": "pull", "priority_class": "high"})
    (tmp_path / "values.yaml").write_text(values_text(config, chart_values(config, LINEAGE)))
    done = subprocess.run(
        [helm, "template", "gdp", chart, "-f", str(tmp_path / "values.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    (main,) = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "RayCluster"]
    assert main["metadata"]["name"] == "umbel"
    made_of = _without_nothing(main)
    assert problems(made_of) == []
    for name, value in _without_nothing(expected(config)).items():
        assert _covers(made_of["spec"][name], value), name


def _without_nothing(value: Any) -> Any:
    """Without nulls, as an API server takes it, and without what is empty."""
    if isinstance(value, dict):
        found = {key: _without_nothing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner not in (None, {}, []) or key == "rayStartParams"}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list) else value


def _covers(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; who manages it is Helm."""
    if isinstance(wanted, dict):
        return all(key in found and (key.endswith("managed-by") or _covers(found[key], wanted[key])) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_covers, found, wanted))
    return bool(found == wanted)
