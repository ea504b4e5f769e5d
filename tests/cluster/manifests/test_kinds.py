"""Manifests: as KubeRay's schemas want them, without credentials, and read back to what they were written from."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster.kuberay_schemas import problems, require_schemas
from tests.cluster.random_configs import configs
from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.config.file import from_table, to_toml
from umbel.cluster.manifests.kinds import KINDS, documents, of_kind, write_manifest
from umbel.cluster.manifests.ray_cluster import Lineage
from umbel.cluster.manifests.reading import read_manifest
from umbel.cluster.manifests.yaml_text import plain
from umbel.scheduler.errors import UsageError

EXAMPLE: dict[str, Any] = {
    "store": "s3://bucket/umbel",
    "credentials": {"secret": "store", "keys": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]},
    "groups": {
        "cpu": {"min": 1, "max": 20, "cpus": 16, "memory": "64Gi"},
        "gpu": {"max": 4, "cpus": 8, "memory": "32Gi", "gpus": 1, "accelerator": "L4", "spot": True},
    },
    "job": {"target": "examples/gdp.py:graph", "run": "gdp"},
    "cron": {"schedule": "0 3 * * *", "run": "nightly-%Y%m%d"},
    "service": {"import_path": "app:serve"},
}


JOB_WITH_CODE = write_manifest(
    from_table(EXAMPLE | {"job": {"target": "gdp.py", "working_dir": "s3://bucket/project.zip"}}), "job"
)
SERVICE = write_manifest(from_table(EXAMPLE), "service")


def kinds_and_configs() -> st.SearchStrategy[tuple[str, ClusterConfig]]:
    return st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), configs(queue=kind != "cron")))


@settings(max_examples=60)
@given(kinds_and_configs())
def test_a_manifest_is_read_back_to_what_it_was_written_from(drawn: tuple[str, ClusterConfig]) -> None:
    kind, config = drawn
    lineage = Lineage(commit="c" * 40, dirty=True, code="d" * 32)
    read = read_manifest(write_manifest(config, kind, lineage))
    assert read.kind == kind
    assert read.config == of_kind(config, kind)
    assert read.lost == ()
    assert replace(read.lineage, run=None) == lineage


@settings(max_examples=40)
@given(kinds_and_configs())
def test_the_text_is_the_data(drawn: tuple[str, ClusterConfig]) -> None:
    kind, config = drawn
    assert list(yaml.safe_load_all(write_manifest(config, kind))) == plain(documents(config, kind))


@settings(max_examples=40)
@given(configs())
def test_settings_are_read_back_from_toml(config: ClusterConfig) -> None:
    assert from_table(tomllib.loads(to_toml(config))["tool"]["umbel"]["cluster"]) == config


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(kinds_and_configs())
def test_manifests_are_as_the_schemas_want_them(drawn: tuple[str, ClusterConfig]) -> None:
    require_schemas()
    kind, config = drawn
    lineage = Lineage(commit="c" * 40, code="d" * 32)
    for document in yaml.safe_load_all(write_manifest(config, kind, lineage)):
        if document["kind"] != "ServiceAccount":
            assert problems(document) == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(kinds_and_configs())
def test_pods_and_accounts_are_as_kubernetes_wants_them(drawn: tuple[str, ClusterConfig]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    kind, config = drawn
    *accounts, main = plain(documents(config, kind))
    for document in [*accounts, *_pods(main)]:
        validator.validate(document, "1.37", strict=True)


def _cluster(main: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = main["spec"]
    if main["kind"] == "RayCluster":
        return spec
    found: dict[str, Any] = spec.get("rayClusterConfig") or spec.get("jobTemplate", spec)["rayClusterSpec"]
    return found


def _pods(main: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = _cluster(main)
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **pod["metadata"]}, "spec": pod["spec"]}
        for pod in templates
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_is_strict(kind: str) -> None:
    require_schemas()
    main = plain(documents(from_table(EXAMPLE), kind))[-1]
    assert problems(main) == []
    cluster = _cluster(main)
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    cluster["autoscalerOptions"]["version"] = "v3"
    container["env"].append({"name": "N", "value": 1})
    container["imagepullpolicy"] = "Always"
    cluster["workerGroupSpecs"][0]["minReplicas"] = "1"
    assert len(problems(main)) == 4


def test_core_kinds_are_as_kubernetes_wants_them() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    table = EXAMPLE | {"service_account": "umbel", "service_account_annotations": {"example.org/role": "r"}}
    account, main = plain(documents(from_table(table), "cluster"))
    pod = _pods(main)[2]
    validator.validate(account, "1.37", strict=True)
    validator.validate(pod, "1.37", strict=True)
    pod["spec"]["containers"][0]["imagepullpolicy"] = "Always"
    with pytest.raises(validator.ValidationError):
        validator.validate(pod, "1.37", strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_keys_are_never_in_the_text(kind: str) -> None:
    text = write_manifest(from_table(EXAMPLE), kind)
    document = yaml.safe_load(text)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        entries = [entry for entry in _entries(document) if entry.get("name") == variable]
        assert entries
        assert all(set(entry) == {"name", "valueFrom"} for entry in entries)
    assert "mode: token" in text
    assert "RAY_AUTH_TOKEN" not in text


def _entries(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(found for inner in value.values() for found in _entries(inner))]
    return [found for inner in value for found in _entries(inner)] if isinstance(value, list) else []


def test_what_was_changed_by_hand_is_read_or_told() -> None:
    text = write_manifest(from_table(EXAMPLE), "job").replace("maxReplicas: 20", "maxReplicas: 40")
    text = text.replace("submissionMode: K8sJobMode", "submissionMode: HTTPMode\n  entrypointNumCpus: 1")
    read = read_manifest(text)
    assert read.config.groups[0].max == 40
    assert set(read.lost) == {"[RayJob].spec.submissionMode", "[RayJob].spec.entrypointNumCpus"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is no YAML"),
        ("#!/bin/bash\n#SBATCH --nodes=1\n", "a Slurm script can't be read back"),
        ("head: {}\nworker: {}\n", "values for the Helm chart can't be read back"),
        ("kind: Pod", "one resource of KubeRay's"),
        ("kind: RayJob\nmetadata: {}", "lacks something"),
        (JOB_WITH_CODE.replace("working_dir:", "- a: [\n    working_dir:"), "a text inside the manifest"),
        (SERVICE.replace("applications:", "- a: ["), "a text inside the manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_manifest(text)


@pytest.mark.parametrize("scheduler", ["kueue", "volcano", "yunikorn", "kai"])
def test_queues_are_named_as_each_scheduler_wants_it(scheduler: str) -> None:
    table = EXAMPLE | {"queue": {"scheduler": scheduler, "name": "research", "priority": "high"}}
    (main,) = plain(documents(from_table(table), "job"))
    labels = main["metadata"]["labels"]
    assert "research" in labels.values()
    assert "high" in labels.values()
    assert ("suspend" in main["spec"]) == (scheduler == "kueue")
    assert main["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert ("annotations" in main["metadata"]) == (scheduler == "kueue")


def test_kueue_admits_a_cluster_of_one_size_without_the_autoscaler() -> None:
    fixed = {"cpu": {"min": 4, "max": 4, "cpus": 16, "memory": "64Gi"}}
    table = EXAMPLE | {"queue": {"scheduler": "kueue", "name": "research"}, "groups": fixed}
    (main,) = plain(documents(from_table(table), "job"))
    assert not main["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert "annotations" not in main["metadata"]


def test_labels_say_what_it_was_made_from() -> None:
    (main,) = plain(documents(from_table(EXAMPLE), "job", Lineage(commit="a" * 40, dirty=True)))
    wanted = {"umbel/run": "gdp", "umbel/commit": "a" * 40, "umbel/uncommitted-changes": "true"}
    pods = [main["spec"]["rayClusterSpec"]["headGroupSpec"], *main["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    for labels in (main["metadata"]["labels"], *(pod["template"]["metadata"]["labels"] for pod in pods)):
        assert labels.items() >= wanted.items()


@pytest.mark.parametrize(
    ("zone", "command"),
    [(None, "$(date -u +nightly-%Y%m%d)"), ("Europe/Rome", "$(TZ=Europe/Rome date +nightly-%Y%m%d)")],
)
def test_the_day_of_a_run_is_that_of_the_schedules_clock(zone: str | None, command: str) -> None:
    cron = EXAMPLE["cron"] | ({} if zone is None else {"time_zone": zone})
    (main,) = plain(documents(from_table(EXAMPLE | {"cron": cron}), "cron"))
    assert f"--name {command} " in main["spec"]["jobTemplate"]["entrypoint"]
