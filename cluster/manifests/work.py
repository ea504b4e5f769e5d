"""RayJob, RayCronJob and RayService for KubeRay: what runs on a cluster of its own."""

from __future__ import annotations

import re
from typing import Any

from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.manifests.ray_cluster import Lineage, cluster_spec, metadata
from umbel.cluster.manifests.yaml_text import Noted, to_yaml
from umbel.scheduler.errors import InternalError

__all__ = ["entrypoint", "ray_cron_job", "ray_job", "ray_service"]


def entrypoint(config: ClusterConfig, run: str | None = None) -> str:
    """The command of a job: `umbel run`, with the run's name, so that a retry resumes the run.

    KubeRay puts it into a shell's script as it is, and `ray job submit` hands it to another shell; the configuration
    holds only words that no shell changes.

    Args:
        run: what stands for the run's name; None: the name itself.
    """
    if config.job is None or config.store is None:
        raise InternalError("a job's command was asked for without job or store")
    job = config.job
    name = run or job.run_name
    return " ".join(["umbel", "run", job.target, "--name", name, "--store", config.store, *job.args])


def ray_job(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """A RayJob: a cluster that is there for one run."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(config, lineage),
        "spec": _job_spec(config, lineage, entrypoint(config)),
    }


def ray_cron_job(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """A RayCronJob: a RayJob by the calendar."""
    if config.cron is None:
        raise InternalError("a cron job was asked for without a schedule")
    cron = config.cron
    run = f"$({'date -u' if cron.time_zone is None else f'TZ={cron.time_zone} date'} +{cron.run})"
    spec: dict[str, Any] = {
        "schedule": Noted(cron.schedule, "KubeRay's RayCronJob is alpha: the operator needs its feature gate."),
    }
    if cron.time_zone is not None:
        spec["timeZone"] = cron.time_zone
    if cron.suspend:
        spec["suspend"] = True
    spec["jobTemplate"] = _job_spec(config, lineage, entrypoint(config, run))
    return {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": metadata(config, lineage), "spec": spec}


def ray_service(config: ClusterConfig, lineage: Lineage) -> dict[str, Any]:
    """A RayService: a Serve application that outlives what it runs on."""
    if config.service is None:
        raise InternalError("a service was asked for without one")
    service = config.service
    application: dict[str, Any] = {
        "name": config.name,
        "import_path": service.import_path,
        "route_prefix": service.route_prefix,
    }
    if service.args:
        application["args"] = dict(service.args)
    spec: dict[str, Any] = {
        "serveConfigV2": Noted(to_yaml([{"applications": [application]}]), "Serve's own configuration, as text."),
        "upgradeStrategy": Noted(
            {"type": service.upgrade},
            "A changed cluster is started beside the old one; a changed application is updated in place."
            if service.upgrade == "NewCluster"
            else "A changed cluster is not started by itself.",
        ),
        "rayClusterConfig": cluster_spec(config, lineage),
    }
    if config.queue is not None and config.queue.scheduler == "kueue":
        spec["suspend"] = Noted(True, "Kueue starts it when the queue has room.")
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata(config, lineage), "spec": spec}


def _job_spec(config: ClusterConfig, lineage: Lineage, command: str) -> dict[str, Any]:
    if config.job is None:
        raise InternalError("a job was asked for without one")
    job = config.job
    by_calendar = not re.search(r"--name [A-Za-z0-9]", command)
    spec: dict[str, Any] = {
        "entrypoint": Noted(
            command,
            "Each firing makes a run of its own, which takes over what earlier ones did with the same code and data. "
            "A retry after midnight is another day's run, and takes over as much."
            if by_calendar
            else "The name is what a retry resumes the run by: what is finished is not done again.",
        ),
        "submissionMode": Noted("K8sJobMode", "A pod of its own submits the job, and its logs are the job's."),
        "backoffLimit": Noted(
            job.retries,
            "Each retry begins on a new cluster. KubeRay does not look at the status: a mistake (2), or more failures "
            "than allowed (1), is tried again, too, and ends again as soon as the cluster is there.",
        ),
        "shutdownAfterJobFinishes": Noted(True, "Nothing is paid for that has nothing to do."),
        "ttlSecondsAfterFinished": Noted(job.ttl_s, "Time to look at the cluster before it goes."),
    }
    if job.deadline_s is not None:
        spec["activeDeadlineSeconds"] = job.deadline_s
    if job.working_dir is not None:
        spec["runtimeEnvYAML"] = Noted(
            to_yaml([{"working_dir": job.working_dir}]), "Only code; what it imports belongs into the image."
        )
    if config.queue is not None and config.queue.scheduler == "kueue":
        spec["suspend"] = Noted(True, "Kueue starts it when the queue has room.")
    spec["rayClusterSpec"] = cluster_spec(config, lineage)
    return spec
