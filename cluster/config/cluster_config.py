"""What a cluster is to be, in a small typed configuration that refuses what can't work.

These are the tables of ``[tool.umbel.cluster]``; `umbel.cluster.config.file` reads them. Each class checks itself when
it is made, and cross-checks are those of the class that sees both sides, so that whoever holds a `ClusterConfig` holds
one that can be written down. It must not know how a manifest or script looks, nor which kind is to be written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from umbel.cluster.config.checks import (
    MOST_PROCESSORS,
    check_amount,
    check_at_least,
    check_environment,
    check_image,
    check_label_value,
    check_labels,
    check_name,
    check_one_of,
    check_plain_words,
    check_set,
)
from umbel.cluster.config.labels import QUEUE_LABELS, is_reserved
from umbel.cluster.config.work import Cron, Job, Service, Slurm
from umbel.scheduler.errors import UsageError

__all__ = ["BACKENDS", "SCHEDULERS", "ClusterConfig", "Credentials", "FaultTolerance", "Group", "Head", "Queue"]

#: The batch schedulers whose queues a manifest can name.
SCHEDULERS = tuple(QUEUE_LABELS)
#: What can keep the state of Ray's control service (GCS) beyond the head's life.
BACKENDS = ("redis", "rocksdb")

#: Bytes below which Ray does not come up, or ends what it runs at once: for a head, for a worker's node, and for a
#: process of a worker, one a processor.
_HEAD_BYTES, _WORKER_BYTES, _PROCESS_BYTES = 2 * 2**30, 2**30, 128 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The pod that coordinates the cluster, and holds the driver; no trials run there."""

    #: Whole processors for Ray's own processes and the driver.
    cpus: int = 2
    #: Kubernetes' notation, as "8Gi".
    memory: str = "8Gi"
    #: Labels that its node must carry.
    node_selector: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least("head: cpus", self.cpus, 1, most=MOST_PROCESSORS)
        check_amount("head: memory", self.memory, _HEAD_BYTES)
        check_labels("head: node_selector", self.node_selector)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Workers of one shape, of which the autoscaler keeps between `min` and `max`."""

    #: What the group is called.
    name: str
    #: Workers that are there even if there is nothing to do.
    min: int = 0
    #: Workers that there are at most.
    max: int
    #: Whole processors of a worker. One large pod a node is what Ray is best at.
    cpus: int
    #: Memory of a worker, in Kubernetes' notation.
    memory: str
    #: GPUs of a worker.
    gpus: int = 0
    #: What Kubernetes calls the GPUs.
    gpu_resource: str = "nvidia.com/gpu"
    #: The kind of GPU, as tasks ask for it (the label ``ray.io/accelerator-type``), as "L4" or "H100".
    accelerator: str | None = None
    #: Seconds without work after which a worker goes; None: the cluster's.
    idle_timeout_s: int | None = None
    #: Whether workers may be placed on machines that can be taken away at any time.
    spot: bool = False
    #: Labels that its nodes must carry.
    node_selector: Mapping[str, str] = field(default_factory=dict)
    #: Of the groups that fit, the autoscaler grows the one with the highest first.
    priority: int = 0

    def __post_init__(self) -> None:
        what = f"group {self.name!r}"
        check_name("a group", self.name, longest=40)
        check_at_least(f"{what}: min", self.min, 0)
        check_at_least(f"{what}: max", self.max, 1)
        if self.min > self.max:
            raise UsageError(
                f"{what}: min is larger than max", got=f"min {self.min}, max {self.max}", expected="min <= max"
            )
        check_at_least(f"{what}: cpus", self.cpus, 1, most=MOST_PROCESSORS)
        check_amount(f"{what}: memory", self.memory, max(_WORKER_BYTES, self.cpus * _PROCESS_BYTES))
        check_at_least(f"{what}: gpus", self.gpus, 0, most=MOST_PROCESSORS)
        if self.accelerator is not None:
            check_set(f"{what}: accelerator", self.accelerator)
            check_label_value(f"{what}: accelerator", self.accelerator)
            if self.gpus == 0:
                raise UsageError(
                    f"{what}: it names an accelerator, but has no GPUs",
                    got=f"accelerator {self.accelerator!r}, gpus 0",
                    expected="gpus = 1 or more",
                    hint="set gpus to how many each worker holds",
                )
        if not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]*gpu", self.gpu_resource):
            raise UsageError(
                f"{what}: this is not the name of a GPU resource",
                got=self.gpu_resource,
                expected="a name that ends in gpu, as nvidia.com/gpu or amd.com/gpu: KubeRay counts only such",
            )
        if self.gpu_resource != "nvidia.com/gpu" and self.gpus == 0:
            raise UsageError(f"{what}: gpu_resource is of no use without gpus", got="gpus 0", expected="gpus >= 1")
        if self.idle_timeout_s is not None:
            check_at_least(f"{what}: idle_timeout_s", self.idle_timeout_s, 1)
        check_labels(f"{what}: node_selector", self.node_selector)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """The Secret of the cluster that holds what the store asks for. Its values are never seen here."""

    #: The Secret's name.
    secret: str
    #: Its keys that become environment variables of the same names; none given: all that it has.
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("a Secret (credentials: secret)", self.secret, longest=253, dots=True)
        if len(set(self.keys)) < len(self.keys):
            raise UsageError("credentials: a key is listed twice", got=", ".join(self.keys), expected="each once")
        for key in self.keys:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise UsageError(
                    "credentials: a key must be the name of an environment variable",
                    got=repr(key),
                    expected="a name as AWS_ACCESS_KEY_ID, which is also the key in the Secret",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultTolerance:
    """Where Ray's control service keeps its state, so that workers outlive the head."""

    #: "redis", an external server, or "rocksdb", a volume of the head (alpha in KubeRay).
    backend: str
    #: Redis: its address, as "redis:6379".
    redis_address: str | None = None
    #: Redis: the Secret with its password, and the key in it.
    redis_secret: str | None = None
    redis_key: str | None = None
    #: RocksDB: the size of the volume.
    size: str | None = None
    #: RocksDB: the volume's storage class; None: the cluster's default one.
    storage_class: str | None = None

    def __post_init__(self) -> None:
        check_one_of("fault_tolerance: backend", self.backend, BACKENDS)
        of_redis = (self.redis_address, self.redis_secret, self.redis_key)
        of_rocksdb = (self.size, self.storage_class)
        if self.backend == "redis":
            if not self.redis_address:
                raise UsageError(
                    "fault_tolerance: Redis needs an address", expected='redis_address = "redis:6379", or its like'
                )
            if not re.fullmatch(r"(rediss?://)?[A-Za-z0-9.-]+:[0-9]{1,5}", self.redis_address):
                raise UsageError(
                    "fault_tolerance: this is not Redis's address",
                    got=self.redis_address.rpartition("@")[2],
                    expected="HOST:PORT, without user and password",
                    hint="the password is read from a Secret: redis_secret, redis_key",
                )
            if (self.redis_secret is None) != (self.redis_key is None):
                raise UsageError(
                    "fault_tolerance: a password needs both the Secret and the key in it",
                    got=f"redis_secret {self.redis_secret!r}, redis_key {self.redis_key!r}",
                    expected="both, or neither",
                )
            if self.redis_secret is not None:
                check_name("a Secret (fault_tolerance: redis_secret)", self.redis_secret, longest=253, dots=True)
                check_set("fault_tolerance: redis_key", self.redis_key or "")
            if any(of_rocksdb):
                raise UsageError("fault_tolerance: size and storage_class are RocksDB's", got='backend = "redis"')
        else:
            if self.size is None:
                raise UsageError(
                    "fault_tolerance: RocksDB needs the size of its volume", expected='size = "1Gi", or its like'
                )
            check_amount("fault_tolerance: size", self.size)
            if self.storage_class is not None:
                check_name("a storage class", self.storage_class, longest=253, dots=True)
            if any(of_redis):
                raise UsageError("fault_tolerance: redis_… are Redis's", got='backend = "rocksdb"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """The batch scheduler that decides when the cluster may start."""

    #: One of `SCHEDULERS`.
    scheduler: str
    #: The queue's name there.
    name: str
    #: The priority class there; None: its default.
    priority: str | None = None

    def __post_init__(self) -> None:
        check_one_of("queue: scheduler", self.scheduler, SCHEDULERS)
        check_set("queue: name", self.name)
        check_label_value("queue: name", self.name)
        if self.priority is not None:
            check_set("queue: priority", self.priority)
            check_label_value("queue: priority", self.priority)


def official_image() -> str:
    """Ray's own image of the version that is installed here."""
    return f"rayproject/ray:{version('ray')}-py311"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """All of ``[tool.umbel.cluster]``."""

    #: What the cluster, job or service is called.
    name: str = "umbel"
    #: The namespace; None: kubectl's.
    namespace: str | None = None
    #: Ray with what the project needs in it; `umbel manifest image` gives a Dockerfile.
    image: str = field(default_factory=official_image)
    #: The Ray in the image; None: as the image's tag says, if it begins with a version like the one installed here.
    ray_version: str | None = None
    #: The account that the pods act as; None: the namespace's default one.
    service_account: str | None = None
    #: Annotations of that account, as those by which clouds lend it a role; given, the account is written, too.
    service_account_annotations: Mapping[str, str] = field(default_factory=dict)
    #: The Secret by which the image is pulled.
    pull_secret: str | None = None
    #: Kubernetes' class of priority for the pods.
    priority_class: str | None = None
    #: Seconds without work after which a worker goes.
    idle_timeout_s: int = 120
    #: Whether Ray asks for a token. Only a network that nobody else reaches does without.
    token_auth: bool = True
    #: Where runs live: a URL that all pods reach.
    store: str | None = None
    #: Environment of all pods, in clear.
    env: Mapping[str, str] = field(default_factory=dict)
    #: More labels of what is written.
    labels: Mapping[str, str] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    groups: tuple[Group, ...] = ()
    credentials: Credentials | None = None
    fault_tolerance: FaultTolerance | None = None
    queue: Queue | None = None
    job: Job | None = None
    cron: Cron | None = None
    service: Service | None = None
    slurm: Slurm | None = None

    def __post_init__(self) -> None:
        check_name("a cluster", self.name, longest=53)
        check_image(self.image)
        for what, given in (
            ("a namespace", self.namespace),
            ("a service account", self.service_account),
            ("a Secret (pull_secret)", self.pull_secret),
            ("a priority class", self.priority_class),
        ):
            if given is not None:
                check_name(what, given, longest=63, dots=what != "a namespace")
        self._check_ray_version()
        if self.service_account_annotations and self.service_account is None:
            raise UsageError(
                "service_account_annotations need the account's name", expected='service_account = "umbel", or its like'
            )
        check_labels("service_account_annotations", self.service_account_annotations, values=False)
        check_at_least("idle_timeout_s", self.idle_timeout_s, 1)
        if self.store is not None:
            check_plain_words("store", (self.store,))
        check_environment(
            "env", self.env, reserved=("UMBEL_STORE", *(self.credentials.keys if self.credentials else ()))
        )
        check_labels("labels", self.labels)
        for key in self.labels:
            if is_reserved(key):
                raise UsageError("labels: this one is written by Umbel", got=key, expected="another name")
        if self.cron is not None and self.cron.within_a_day and self.job is not None and self.job.retries:
            raise UsageError(
                "cron: run has hours or less in its name, which each retry would read off the clock anew",
                got=f"{self.cron.run}, retries {self.job.retries}",
                expected="days in the name, or job.retries = 0",
                hint="the next firing takes over what the failed one did",
            )
        names = [group.name for group in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError("two groups have one name", got=", ".join(twice), expected="a name for each group")

    def _check_ray_version(self) -> None:
        if self.ray_version is not None and not re.fullmatch(r"\d+\.\d+\.\d+", self.ray_version):
            raise UsageError(
                "ray_version: this is no version", got=self.ray_version, expected="three numbers, as 2.60.0"
            )
        tagged = _tagged(self.image) if self.image.startswith("rayproject/") else ray_version_of(self.image)
        if self.ray_version is not None and tagged is not None and tagged != self.ray_version:
            raise UsageError(
                "ray_version is another than the image's tag says",
                got=f"ray_version {self.ray_version}, image {self.image}",
                expected="the Ray that is in the image, or no ray_version",
            )
        if self.ray_version is not None and self.ray_version == ray_version_of(self.image):
            object.__setattr__(self, "ray_version", None)  # said by the tag: equal configurations are equal objects
        if self.effective_ray_version is None:
            raise UsageError(
                "ray_version: which Ray is in the image can't be told from its tag",
                got=self.image,
                expected=f'ray_version = "{version("ray")}", or its like',
                hint=f"only a tag that begins with {'.'.join(version('ray').split('.')[:2])}., the Ray of this Umbel, "
                "says it; another number may be the project's own version",
            )

    @property
    def effective_ray_version(self) -> str | None:
        """The Ray in the image: `ray_version`, or what the image's tag begins with."""
        return self.ray_version or ray_version_of(self.image)


def ray_version_of(image: str) -> str | None:
    """The version that an image's tag begins with, if that can be Ray's: it has the minor version that is installed
    here. Another number may as well be the project's own."""
    found = _tagged(image)
    return found if found and found.split(".")[:2] == version("ray").split(".")[:2] else None


def _tagged(image: str) -> str | None:
    """The version that an image's tag begins with, whoever's it is."""
    found = re.match(r"\d+\.\d+\.\d+(?=$|[-.+_])", image.partition("@")[0].rpartition(":")[2])
    return found[0] if found else None
