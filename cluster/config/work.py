"""What is to be done on a cluster: a job, a job by the calendar, a service, a job under Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from umbel.cluster.config.calendar import check_schedule, check_time_zone
from umbel.cluster.config.checks import (
    MOST_PROCESSORS,
    check_at_least,
    check_label_value,
    check_no_secret,
    check_one_of,
    check_plain_words,
    check_set,
)
from umbel.cluster.serving.app_builder import BUILDER, read_arguments
from umbel.scheduler.errors import UsageError
from umbel.storage.redaction import is_secret_name

__all__ = ["NOTICE_S", "UPGRADES", "Cron", "Job", "Service", "Slurm"]

#: How a service goes over to another configuration.
UPGRADES = ("NewCluster", "None")
#: Seconds before Slurm's time limit at which a run is asked to end in good order. It needs a few.
NOTICE_S = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run of a graph, which ends."""

    #: ``FILE[:OBJECT]``, as for `umbel run`; the file is in the image, or in `working_dir`.
    target: str
    #: The run's name, by which each retry resumes it; None: the file's.
    run: str | None = None
    #: More arguments of `umbel run`.
    args: tuple[str, ...] = ()
    #: A URL of an archive with the project, as Ray's ``runtime_env`` takes it; None: the project is in the image.
    working_dir: str | None = None
    #: How often it is tried again, each time on a new cluster.
    retries: int = 3
    #: Seconds that the cluster stays after the end, to be looked at.
    ttl_s: int = 600
    #: Seconds after which it is ended, finished or not; None: never.
    deadline_s: int | None = None

    def __post_init__(self) -> None:
        check_plain_words("job: target", (self.target,))
        file, _, name = self.target.partition(":")
        if not file.endswith(".py") or (":" in self.target and not name):
            raise UsageError("job: target is no FILE[:OBJECT]", got=self.target, expected="as examples/gdp.py:graph")
        stem = PurePosixPath(file).stem
        if self.run == stem:
            object.__setattr__(self, "run", None)  # the default: equal configurations are equal objects
        check_run(f"job: {'run' if self.run else 'the run is called as the file, and'}", self.run_name)
        check_plain_words("job: args", self.args)
        for taken in ("--name", "--store", "-s", "--address"):
            if any(arg == taken or arg.startswith(f"{taken}=") for arg in self.args):
                raise UsageError(f"job: args: {taken} is written already", expected="run, store and nothing of these")
        if self.working_dir is not None:
            check_plain_words("job: working_dir", (self.working_dir,))
            if "://" not in self.working_dir or not self.working_dir.endswith((".zip", ".whl", ".jar", ".tar.gz")):
                raise UsageError(
                    "job: working_dir is no archive that pods could fetch",
                    got=self.working_dir,
                    expected="a URL that ends in .zip, as s3://bucket/project.zip",
                    hint="a local folder is shipped by `umbel submit`, or built into the image",
                )
        check_at_least("job: retries", self.retries, 0)
        check_at_least("job: ttl_s", self.ttl_s, 0)
        if self.deadline_s is not None:
            check_at_least("job: deadline_s", self.deadline_s, 1)

    @property
    def run_name(self) -> str:
        """The run's name: as given, or the file's."""
        return self.run or PurePosixPath(self.target.partition(":")[0]).stem


@dataclass(frozen=True, kw_only=True, slots=True)
class Cron:
    """When a job is begun anew."""

    #: Five fields, as for cron: "0 3 * * *" is at three every night.
    schedule: str
    #: The run's name with the time in it (as ``date`` writes it), so that each begins a run of its own.
    run: str
    #: Whose clock it is, as "Europe/Rome"; None: the operator's for the schedule, UTC for the run's name.
    time_zone: str | None = None
    #: Whether it pauses.
    suspend: bool = False

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        if not re.search(r"%[YymdHMjs]", self.run):
            raise UsageError(
                "cron: run has no time in it, so that every night would find last night's run, and nothing to do",
                got=self.run,
                expected='a name as "nightly-%Y%m%d"',
            )
        check_run("cron: run", re.sub(r"%[YymdHMjs]", "0", self.run))
        if self.time_zone is not None:
            check_time_zone(self.time_zone)

    @property
    def within_a_day(self) -> bool:
        """Whether the run's name tells times of one day apart."""
        return re.search(r"%[HMs]", self.run) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A Serve application, which stays."""

    #: ``MODULE:APPLICATION`` in the image, as Serve imports it; the default serves a registered model.
    import_path: str = BUILDER
    #: The path below which it answers.
    route_prefix: str = "/"
    #: What its builder is called with; for a registered model the options of `umbel serve`, as ``model``.
    args: Mapping[str, str] = field(default_factory=dict)
    #: "NewCluster": a changed cluster is started beside the old one, which goes when the new one answers.
    upgrade: str = "NewCluster"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", self.import_path):
            raise UsageError(
                "service: import_path names no application", got=self.import_path, expected="MODULE:NAME, as app:serve"
            )
        if not re.fullmatch(r"/[A-Za-z0-9_./-]*", self.route_prefix):
            raise UsageError("service: this is no path", got=self.route_prefix, expected="as /gdp")
        if self.import_path == BUILDER:
            read_arguments(self.args)
        check_plain_words("service: args", [value for value in self.args.values() if value])
        for name, value in self.args.items():
            check_plain_words("service: the name of an argument", (name,))
            elsewhere = name.endswith(("_env", "_file"))  # they say where it is
            if is_secret_name(name) and not elsewhere and value not in ("true", "false"):
                raise UsageError(
                    f"service: args: {name} would stand in the manifest in clear",
                    got="a credential",
                    expected=f"{name}_env: the name of a variable, which comes from a Secret",
                    hint="kubectl create secret generic NAME --from-literal=VARIABLE=…, and credentials.secret = NAME",
                )
        check_one_of("service: upgrade", self.upgrade, UPGRADES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slurm:
    """The allocation that an sbatch script asks for."""

    #: The partition; None: the site's default one.
    partition: str | None = None
    nodes: int = 1
    #: Processors of each node.
    cpus: int
    #: Memory of each node, in Slurm's notation, as "64G"; None: the site's default.
    memory: str | None = None
    #: GPUs of each node.
    gpus: int = 0
    #: Their kind, as the site calls it.
    gpu_type: str | None = None
    #: The time limit: minutes, hours:minutes:seconds, or days-hours:minutes:seconds. The last two are for the end.
    time: str = "04:00:00"
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    #: Lines of shell that make `umbel` and the project available on each node, as "module load python".
    setup: tuple[str, ...] = ()
    #: Whether a job that ran into its time limit is queued again, to go on.
    requeue: bool = True

    def __post_init__(self) -> None:
        check_at_least("slurm: nodes", self.nodes, 1)
        check_at_least("slurm: cpus", self.cpus, 1, most=MOST_PROCESSORS)
        check_at_least("slurm: gpus", self.gpus, 0, most=MOST_PROCESSORS)
        if self.gpu_type is not None and self.gpus == 0:
            raise UsageError(
                "slurm: it names a kind of GPU, but has none",
                got=f"gpu_type {self.gpu_type!r}, gpus 0",
                expected="gpus >= 1",
            )
        if self.memory is not None and not re.fullmatch(r"[1-9][0-9]*[KMGT]", self.memory):
            raise UsageError("slurm: memory is no size", got=repr(self.memory), expected='as "64G"')
        if not re.fullmatch(r"[1-9][0-9]*|\d+:\d\d(?::\d\d)?|\d+-\d+(?::\d\d){0,2}", self.time):
            raise UsageError("slurm: this is no time limit", got=self.time, expected='as "04:00:00" or "2-00:00:00"')
        if self.time_s <= NOTICE_S:
            raise UsageError(
                "slurm: the time limit leaves no time to run anything",
                got=self.time,
                expected=f"more than {NOTICE_S // 60} minutes: so long before the end the run is asked to finish",
            )
        for name in ("partition", "gpu_type", "account", "qos", "constraint"):
            given = getattr(self, name)
            if given is not None and not re.fullmatch(r"[\w.,&|()-]+", given):
                raise UsageError(f"slurm: {name} has characters that it can't have", got=repr(given), expected="a name")
        for line in self.setup:
            check_set("slurm: a line of setup", line.strip())
            if "\n" in line:
                raise UsageError("slurm: a line of setup is several", got=repr(line), expected="one line an element")
            check_no_secret("slurm: a line of setup", line)

    @property
    def time_s(self) -> int:
        """The time limit in seconds."""
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash or len(parts) == 3:  # hours first
            hours, minutes, seconds = [*parts, 0, 0][:3]
        else:  # minutes first
            hours, minutes, seconds = 0, *[*parts, 0][:2]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def check_run(what: str, given: str) -> None:
    """Refuse what can't be both the name of a run and the value of a label."""
    check_set(what, given)
    check_label_value(what, given)
