"""From which configuration was a manifest written?

The settings are read from the fields that they were written to, so that a change made by hand is read, too. Then the
manifest is built again from what was read: where the two differ, the file holds something that no setting says, and
that is told. It must not guess.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umbel.cluster.config.cluster_config import ClusterConfig, Credentials, FaultTolerance, Group, Head, Queue
from umbel.cluster.config.labels import (
    CODE_ANNOTATION,
    COMMIT_LABEL,
    DIRTY_LABEL,
    QUEUE_LABELS,
    RUN_LABEL,
    is_reserved,
)
from umbel.cluster.config.work import Cron, Job, Service
from umbel.cluster.manifests.kinds import documents
from umbel.cluster.manifests.pods import ACCELERATOR_LABEL, MARKET_LABEL, SPOT_TAINTS, STORE_VARIABLE
from umbel.cluster.manifests.ray_cluster import Lineage
from umbel.cluster.manifests.yaml_text import plain
from umbel.scheduler.errors import UsageError

__all__ = ["ReadManifest", "read_manifest"]

_KINDS = {"RayCluster": "cluster", "RayJob": "job", "RayService": "service", "RayCronJob": "cron"}


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """What a manifest says."""

    #: One of `umbel.cluster.manifests.kinds.KINDS`.
    kind: str
    config: ClusterConfig
    lineage: Lineage
    #: Paths in the file that no setting says, or that differ from what the settings would give.
    lost: tuple[str, ...]


def read_manifest(text: str) -> ReadManifest:
    """Read a manifest that `umbel.cluster.manifests.kinds.write_manifest` wrote.

    Raises:
        UsageError: it is no YAML, holds not exactly one of KubeRay's resources, lacks what all manifests of Umbel
            have, or says what the settings can't say together.
    """
    import yaml

    if text.startswith("#!") or "#SBATCH" in text:
        raise UsageError(
            "a Slurm script can't be read back",
            got="what `umbel manifest slurm` writes, or its like",
            expected="a manifest for KubeRay: cluster, job, service or cron",
        )
    try:
        parts = [part for part in yaml.safe_load_all(text) if part is not None]
    except yaml.YAMLError as error:
        raise UsageError("the manifest is no YAML", got=" ".join(str(error).split())) from None
    if "umbel manifest values" in text or any(_is_values(part) for part in parts):
        raise UsageError(
            "values for the Helm chart can't be read back",
            got="what `umbel manifest values` writes, or its like",
            expected="a manifest for KubeRay: cluster, job, service or cron",
        )
    mains = [part for part in parts if isinstance(part, dict) and part.get("kind") in _KINDS]
    if len(mains) != 1:
        raise UsageError(
            "a manifest holds one resource of KubeRay's",
            got=f"{len(mains)} of {', '.join(_KINDS)}",
            expected="what `umbel manifest` wrote",
        )
    (main,) = mains
    kind = _KINDS[main["kind"]]
    try:
        config, lineage = _config(main, kind, parts)
    except yaml.YAMLError as error:
        raise UsageError(
            "a text inside the manifest (runtimeEnvYAML or serveConfigV2) is no YAML", got=" ".join(str(error).split())
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UsageError(
            "the manifest lacks something that all of Umbel's have",
            got=f"{type(error).__name__}: {error}",
            expected="what `umbel manifest` wrote, with changed values",
        ) from error
    rebuilt = plain(documents(config, kind, lineage))
    return ReadManifest(kind, config, lineage, tuple(_differences(parts, rebuilt)))


def _is_values(part: object) -> bool:
    return isinstance(part, dict) and "kind" not in part and {"head", "worker"} <= part.keys()


def _config(main: Mapping[str, Any], kind: str, parts: list[Any]) -> tuple[ClusterConfig, Lineage]:
    labels: Mapping[str, str] = main["metadata"]["labels"]
    spec = main["spec"]
    job_spec = spec["jobTemplate"] if kind == "cron" else spec
    cluster = {"cluster": spec, "service": spec.get("rayClusterConfig")}.get(kind) or job_spec["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    container = head["containers"][0]
    store, environment, credentials = _environment(container)
    job, cron = _job(spec, job_spec, kind) if kind in ("job", "cron") else (None, None)
    options = cluster["autoscalerOptions"]
    accounts = [part for part in parts if isinstance(part, dict) and part.get("kind") == "ServiceAccount"]
    config = ClusterConfig(
        name=main["metadata"]["name"],
        namespace=main["metadata"].get("namespace"),
        image=container["image"],
        ray_version=cluster["rayVersion"],
        service_account=head.get("serviceAccountName"),
        service_account_annotations=accounts[0]["metadata"].get("annotations", {}) if accounts else {},
        pull_secret=head["imagePullSecrets"][0]["name"] if "imagePullSecrets" in head else None,
        priority_class=head.get("priorityClassName"),
        idle_timeout_s=options["idleTimeoutSeconds"],
        token_auth=cluster["authOptions"]["mode"] == "token",
        store=store,
        env=environment,
        labels={key: value for key, value in labels.items() if not is_reserved(key)},
        head=Head(
            cpus=int(container["resources"]["limits"]["cpu"]),
            memory=container["resources"]["limits"]["memory"],
            node_selector=head.get("nodeSelector", {}),
        ),
        groups=tuple(_group(group) for group in cluster["workerGroupSpecs"]),
        credentials=credentials,
        fault_tolerance=_fault_tolerance(cluster.get("gcsFaultToleranceOptions")),
        queue=_queue(labels),
        job=job,
        cron=cron,
        service=_service(spec) if kind == "service" else None,
    )
    code = main["metadata"].get("annotations", {}).get(CODE_ANNOTATION)
    return config, Lineage(labels.get(RUN_LABEL), labels.get(COMMIT_LABEL), labels.get(DIRTY_LABEL) == "true", code)


def _group(spec: Mapping[str, Any]) -> Group:
    pod = spec["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    gpus = {key: int(amount) for key, amount in limits.items() if key.endswith("gpu")}
    tolerated = {each.get("key") for each in pod.get("tolerations", [])}
    gpu: dict[str, Any] = {}
    if gpus:
        ((resource, count),) = gpus.items()
        gpu = {"gpus": count, "gpu_resource": resource}
    return Group(
        name=spec["groupName"],
        min=spec["minReplicas"],
        max=spec["maxReplicas"],
        cpus=int(limits["cpu"]),
        memory=limits["memory"],
        accelerator=spec.get("labels", {}).get(ACCELERATOR_LABEL),
        idle_timeout_s=spec.get("idleTimeoutSeconds"),
        spot=spec.get("labels", {}).get(MARKET_LABEL) == "spot" or tolerated >= set(SPOT_TAINTS),
        node_selector=pod.get("nodeSelector", {}),
        priority=spec.get("priority", 0),
        **gpu,
    )


def _environment(container: Mapping[str, Any]) -> tuple[str | None, dict[str, str], Credentials | None]:
    store, environment, secrets, keys = None, {}, [], []
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            secrets.append(entry["valueFrom"]["secretKeyRef"]["name"])
            keys.append(entry["name"])
        elif entry["name"] == STORE_VARIABLE:
            store = entry["value"]
        else:
            environment[entry["name"]] = entry["value"]
    secrets += [source["secretRef"]["name"] for source in container.get("envFrom", [])]
    return store, environment, Credentials(secret=secrets[0], keys=tuple(keys)) if secrets else None


def _fault_tolerance(options: Mapping[str, Any] | None) -> FaultTolerance | None:
    if options is None:
        return None
    if options["backend"] == "rocksdb":
        storage = options["storage"]
        return FaultTolerance(backend="rocksdb", size=storage["size"], storage_class=storage.get("storageClassName"))
    reference = options.get("redisPassword", {}).get("valueFrom", {}).get("secretKeyRef", {})
    return FaultTolerance(
        backend=options["backend"],
        redis_address=options["redisAddress"],
        redis_secret=reference.get("name"),
        redis_key=reference.get("key"),
    )


def _queue(labels: Mapping[str, str]) -> Queue | None:
    for scheduler, (name, priority) in QUEUE_LABELS.items():
        if name in labels:
            return Queue(scheduler=scheduler, name=labels[name], priority=labels.get(priority))
    return None


def _job(spec: Mapping[str, Any], job_spec: Mapping[str, Any], kind: str) -> tuple[Job, Cron | None]:
    import yaml

    # the name of a cron job's run is a command of the shell; its spaces are no ends of words
    words = shlex.split(re.sub(r"\$\((?:TZ=\S+ date|date -u) \+([^)]*)\)", r"\1", job_spec["entrypoint"]))
    if words[:2] != ["umbel", "run"] or words[3:7:2] != ["--name", "--store"]:
        raise UsageError(
            "the manifest's entrypoint is not Umbel's",
            got=job_spec["entrypoint"],
            expected="umbel run FILE[:OBJECT] --name RUN --store URL …",
        )
    target, run, arguments = words[2], words[4], words[7:]
    working_dir = yaml.safe_load(job_spec.get("runtimeEnvYAML", "{}")).get("working_dir")
    cron = None
    if kind == "cron":
        cron = Cron(
            schedule=spec["schedule"],
            run=run,
            time_zone=spec.get("timeZone"),
            suspend=spec.get("suspend", False),
        )
    job = Job(
        target=target,
        run=run if cron is None else None,
        args=tuple(arguments),
        working_dir=working_dir,
        retries=job_spec["backoffLimit"],
        ttl_s=job_spec["ttlSecondsAfterFinished"],
        deadline_s=job_spec.get("activeDeadlineSeconds"),
    )
    return job, cron


def _service(spec: Mapping[str, Any]) -> Service:
    import yaml

    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    return Service(
        import_path=application["import_path"],
        route_prefix=application["route_prefix"],
        args={name: str(value) for name, value in application.get("args", {}).items()},
        upgrade=spec["upgradeStrategy"]["type"],
    )


def _differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Paths at which two trees differ; an element of a list is called by its name, or the kind of a document."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = [*found, *(key for key in expected if key not in found)]
        return [
            path
            for key in keys
            for path in _differences(found.get(key, _ABSENT), expected.get(key, _ABSENT), f"{where}.{key}".lstrip("."))
        ]
    if isinstance(found, list) and isinstance(expected, list):
        ours = {_called(place, each): each for place, each in enumerate(expected)}
        theirs = {_called(place, each): each for place, each in enumerate(found)}
        return [
            path
            for name in [*theirs, *(name for name in ours if name not in theirs)]
            for path in _differences(theirs.get(name, _ABSENT), ours.get(name, _ABSENT), f"{where}[{name}]")
        ]
    return [] if found == expected else [where]


def _called(place: int, element: Any) -> str:
    named = element if isinstance(element, Mapping) else {}
    return str(next((named[key] for key in ("name", "groupName", "kind") if key in named), place))


_ABSENT = object()
