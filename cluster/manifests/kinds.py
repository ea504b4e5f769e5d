"""Which kinds of manifest are there, what must a configuration hold for each, and how is it written as text?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from umbel.cluster.config.checks import unknown
from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.manifests.needs import check_complete
from umbel.cluster.manifests.ray_cluster import Lineage, ray_cluster, service_account
from umbel.cluster.manifests.work import ray_cron_job, ray_job, ray_service
from umbel.cluster.manifests.yaml_text import to_yaml
from umbel.scheduler.errors import UsageError

__all__ = ["KINDS", "documents", "of_kind", "write_manifest"]

_BUILDERS = {"cluster": ray_cluster, "job": ray_job, "service": ray_service, "cron": ray_cron_job}
#: What can be written for KubeRay.
KINDS = tuple(_BUILDERS)
#: Characters of a name: KubeRay derives names of services from it, of at most 63 characters, by adding to it.
_LONGEST = {"cluster": 53, "job": 47, "service": 47, "cron": 41}


def of_kind(config: ClusterConfig, kind: str) -> ClusterConfig:
    """The part of a configuration that a kind of manifest holds.

    Args:
        kind: one of `KINDS`.

    Raises:
        UsageError: it lacks what this kind needs, or has what this kind can't have.
    """
    if kind not in KINDS:
        unknown("kind of manifest", kind, KINDS)
    if len(config.name) > _LONGEST[kind]:
        raise UsageError(f"the name is too long for a {kind}", got=config.name, expected=f"at most {_LONGEST[kind]}")
    check_complete(config, kind)
    scheme, separator, _ = (config.store or "://").partition("://")
    if not separator or scheme in ("file", "local", "memory"):
        raise UsageError(
            "store: pods on other machines don't reach it",
            got=config.store,
            expected="a URL of an object store, as s3://bucket/folder",
        )
    if kind == "cron" and config.queue is not None:
        raise UsageError(
            "a cron job can't name a queue: KubeRay does not hand its labels on to the jobs that it makes",
            got=f"queue {config.queue.name!r} of {config.queue.scheduler}",
            expected="no queue",
            hint="apply what `umbel manifest job` writes, by whatever else keeps the calendar",
        )
    job = config.job if kind in ("job", "cron") else None
    if job is not None and kind == "cron":
        job = replace(job, run=None)  # the calendar names its runs
    return replace(
        config,
        job=job,
        cron=config.cron if kind == "cron" else None,
        service=config.service if kind == "service" else None,
        slurm=None,
    )


def documents(config: ClusterConfig, kind: str, lineage: Lineage | None = None) -> list[dict[str, Any]]:
    """The resources of a manifest, as plain data with comments.

    Raises:
        UsageError: as `of_kind`.
    """
    config = of_kind(config, kind)
    lineage = lineage or Lineage()
    if kind == "job" and config.job is not None:
        lineage = replace(lineage, run=config.job.run_name)
    account = service_account(config, lineage)
    main = _BUILDERS[kind](config, lineage)
    return [main] if account is None else [account, main]


def write_manifest(config: ClusterConfig, kind: str, lineage: Lineage | None = None) -> str:
    """The manifest as text, for ``kubectl apply -f``.

    Raises:
        UsageError: as `of_kind`.
    """
    note = f"Written by `umbel manifest {kind}`; `umbel manifest read` gives the settings it was made from."
    return to_yaml(documents(config, kind, lineage), note=note)
