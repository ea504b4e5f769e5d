"""Hypothesis strategies for configurations of clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from umbel.cluster.config.cluster_config import (
    SCHEDULERS,
    ClusterConfig,
    Credentials,
    FaultTolerance,
    Group,
    Head,
    Queue,
)
from umbel.cluster.config.work import UPGRADES, Cron, Job, Service, Slurm

__all__ = ["configs"]

_LETTERS = "abcxyz019"
names = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
variables = st.sampled_from(["AWS_REGION", "OMP_NUM_THREADS", "no", "_x", "MODE", "y", "TZ"])
label_values = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True) | st.sampled_from(
    ["", "true", "1e3", "0x1f", "null", "2020-01-01", "1_000", "on"]
)
labels = st.dictionaries(
    st.sampled_from(["team", "example.org/cost-centre", "y", "tier", "null"]), label_values, max_size=3
)
amounts = st.builds(lambda n, unit: f"{n}{unit}", st.integers(32, 999), st.sampled_from(["Gi", "G", "Ti"]))
counts = st.integers(0, 2**31 - 1)
texts = st.text(max_size=20) | st.sampled_from(
    ["", "yes", "1", "a: b", "# no", "two\nlines\n", "\\", '"', "- x", "é\u2028"]
)


@st.composite
def groups(draw: st.DrawFn, name: str) -> Group:
    least = draw(st.integers(0, 50))
    gpus = draw(st.integers(0, 8))
    gpu: dict[str, Any] = {}
    if gpus:
        gpu = {
            "gpus": gpus,
            "gpu_resource": draw(st.sampled_from(["nvidia.com/gpu", "amd.com/gpu"])),
            "accelerator": draw(st.none() | st.sampled_from(["L4", "H100", "A100-80G"])),
        }
    return Group(
        name=name,
        min=least,
        max=draw(st.integers(max(least, 1), 100)),
        cpus=draw(st.integers(1, 192)),
        memory=draw(amounts),
        idle_timeout_s=draw(st.none() | st.integers(1, 9999)),
        spot=draw(st.booleans()),
        node_selector=draw(labels),
        priority=draw(st.integers(-10, 10)),
        **gpu,
    )


credentials = st.builds(
    Credentials,
    secret=names,
    keys=st.lists(st.sampled_from(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "X"]), unique=True).map(tuple),
)
fault_tolerance = st.builds(
    FaultTolerance, backend=st.just("rocksdb"), size=amounts, storage_class=st.none() | names
) | st.builds(
    lambda address, secret: FaultTolerance(
        backend="redis",
        redis_address=address,
        redis_secret=secret,
        redis_key=None if secret is None else "password",
    ),
    st.sampled_from(["redis:6379", "rediss://redis.example:6380"]),
    st.none() | names,
)
queues = st.builds(
    Queue, scheduler=st.sampled_from(SCHEDULERS), name=names, priority=st.none() | st.sampled_from(["high", "1", "no"])
)
jobs = st.builds(
    Job,
    target=st.sampled_from(["job.py", "examples/gdp.py:graph", "a/b-c.py:x.y"]),
    run=st.none() | st.sampled_from(["gdp", "job", "no", "2020-01-01", "1"]),
    args=st.lists(st.sampled_from(["--fresh", "--workers", "8", "--budget", "trials=5"]), max_size=3).map(tuple),
    working_dir=st.none() | st.just("s3://bucket/project.zip"),
    retries=counts,
    ttl_s=counts,
    deadline_s=st.none() | st.integers(1, 10**6),
)
crons = st.builds(
    Cron,
    schedule=st.sampled_from(["0 3 * * *", "*/5 8-18 1,15 * mon-fri", "@daily"]),
    run=st.sampled_from(["nightly-%Y%m%d", "%H", "h%H%M"]),
    time_zone=st.none() | st.sampled_from(["Europe/Rome", "Etc/UTC", "Etc/GMT+1"]),
    suspend=st.booleans(),
)
services = st.builds(
    Service,
    args=st.fixed_dictionaries(
        {"model": st.just("gdp"), "token_env": st.just("TOKEN")},
        optional={"trust": st.just("true"), "log": st.just("0.5")},
    ),
    route_prefix=st.sampled_from(["/", "/gdp"]),
) | st.builds(
    Service,
    import_path=st.sampled_from(["app:serve", "a.b.c:build"]),
    route_prefix=st.sampled_from(["/", "/gdp", "/v1/x.y"]),
    args=st.dictionaries(
        st.sampled_from(["model", "alias", "no"]), st.sampled_from(["gdp", "1", "true", ""]), max_size=2
    ),
    upgrade=st.sampled_from(UPGRADES),
)
slurms = st.builds(
    Slurm,
    partition=st.none() | st.just("cpu"),
    nodes=st.integers(1, 100),
    cpus=st.integers(1, 128),
    memory=st.none() | st.just("64G"),
    gpus=st.integers(1, 8),
    gpu_type=st.none() | st.just("a100"),
    time=st.sampled_from(["60", "04:00:00", "2-00:00:00"]),
    setup=st.lists(st.sampled_from(["module load python", "source ~/venv/bin/activate"]), max_size=2).map(tuple),
    requeue=st.booleans(),
)


def _may_be_in_clear(value: str) -> bool:
    from umbel.storage.redaction import redact

    return bool(redact(value) == value)


@st.composite
def configs(draw: st.DrawFn, *, queue: bool = True) -> ClusterConfig:
    """Configurations from which every kind can be written; a cron job can't have a queue."""
    account = draw(st.none() | names)
    cron = draw(crons)
    job = draw(jobs)
    if cron.within_a_day:
        job = replace(job, retries=0)
    image, ray_version = draw(
        st.sampled_from(
            [
                ("rayproject/ray:2.60.0-py311", None),
                ("rayproject/ray:2.60.0-py311", "2.60.0"),
                ("registry.example:5000/team/umbel:v3", "2.60.1"),
                ("team/umbel:2.60.1@sha256:" + "0" * 64, None),
            ]
        )
    )
    return ClusterConfig(
        name=draw(names),
        namespace=draw(st.none() | names),
        image=image,
        ray_version=ray_version,
        service_account=account,
        service_account_annotations=draw(st.dictionaries(st.just("example.org/role"), texts)) if account else {},
        pull_secret=draw(st.none() | names),
        priority_class=draw(st.none() | names),
        idle_timeout_s=draw(st.integers(1, 9999)),
        token_auth=draw(st.booleans()),
        store=draw(st.sampled_from(["s3://bucket/folder", "gs://bucket"])),
        env=draw(st.dictionaries(variables, texts.filter(_may_be_in_clear), max_size=3)),
        labels=draw(labels),
        head=draw(st.builds(Head, cpus=st.integers(1, 64), memory=amounts, node_selector=labels)),
        groups=tuple(draw(groups(name)) for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))),
        credentials=draw(st.none() | credentials),
        fault_tolerance=draw(st.none() | fault_tolerance),
        queue=draw(st.none() | queues) if queue else None,
        job=job,
        cron=cron,
        service=draw(services),
        slurm=draw(slurms),
    )
