"""What would a manifest, or a job under Slurm, take at least and at most: machines, processors, GPUs, money?

Everything is computed from the configuration; nobody is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from umbel.cluster.config.checks import unknown
from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.manifests.kinds import KINDS, of_kind
from umbel.cluster.manifests.slurm import slurm_script
from umbel.scheduler.errors import UsageError

__all__ = ["PLANNED", "ClusterPlan", "Share", "default_kind", "parse_prices", "plan_cluster"]

#: What can be planned.
PLANNED = (*KINDS, "slurm")


@dataclass(frozen=True, slots=True)
class Share:
    """What a group of nodes takes; pairs are the least and the most."""

    group: str
    nodes: tuple[int, int]
    #: For trials: the head runs none.
    cpus: tuple[int, int]
    gpus: tuple[int, int]
    #: Memory of a node, as configured.
    memory: str
    #: Money an hour; None: no price is known.
    hourly: tuple[float, float] | None
    #: What is special: the kind of GPU, spot.
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What a manifest would take."""

    kind: str
    name: str
    shares: tuple[Share, ...]
    #: What happens, in sentences.
    sentences: tuple[str, ...]
    #: The most that all tries of a job can cost; None: it has no deadline, or prices are missing.
    most: float | None

    @property
    def total(self) -> Share:
        """All groups together."""
        hourly = [share.hourly for share in self.shares]
        known = [pair for pair in hourly if pair is not None]
        return Share(
            "all",
            _sum([share.nodes for share in self.shares]),
            _sum([share.cpus for share in self.shares]),
            _sum([share.gpus for share in self.shares]),
            "",
            (sum(pair[0] for pair in known), sum(pair[1] for pair in known)) if len(known) == len(hourly) else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {**asdict(self), "total": asdict(self.total)}

    def rows(self) -> list[dict[str, Any]]:
        """A table for people: one row a group, and one for all."""
        return [
            {
                "group": share.group,
                "nodes": _range(share.nodes),
                "CPUs": _range(share.cpus),
                "GPUs": _range(share.gpus),
                "memory each": share.memory,
                "cost an hour": "?" if share.hourly is None else _range(share.hourly),
                "": share.notes,
            }
            for share in (*self.shares, self.total)
        ]


def plan_cluster(config: ClusterConfig, kind: str, prices: Mapping[str, float]) -> ClusterPlan:
    """What a kind of manifest takes.

    Args:
        config: the configuration.
        kind: one of `PLANNED`.
        prices: of a node for an hour, by group, "head", or "" for all others.

    Raises:
        UsageError: the configuration lacks what the kind needs, or a price is that of no group.
    """
    if kind == "slurm":
        return _plan_slurm(config, prices)
    if kind not in KINDS:
        unknown("kind of manifest", kind, PLANNED)
    config = of_kind(config, kind)
    known = ["head", *(group.name for group in config.groups)]
    for name in prices:
        if name and name not in known:
            unknown("group in a price", name, known)

    def hourly(name: str, nodes: tuple[int, int]) -> tuple[float, float] | None:
        price = prices.get(name, prices.get(""))
        return None if price is None else (price * nodes[0], price * nodes[1])

    shares = [
        Share("head", (1, 1), (0, 0), (0, 0), config.head.memory, hourly("head", (1, 1)), "the driver, no trials")
    ]
    for group in config.groups:
        nodes = (group.min, group.max)
        shares.append(
            Share(
                group.name,
                nodes,
                (group.min * group.cpus, group.max * group.cpus),
                (group.min * group.gpus, group.max * group.gpus),
                group.memory,
                hourly(group.name, nodes),
                ", ".join(filter(None, [group.accelerator, "spot" if group.spot else None])),
            )
        )
    plan = ClusterPlan(kind, config.name, tuple(shares), tuple(_sentences(config)), None)
    hourly_most = plan.total.hourly
    job = config.job
    if job is None or job.deadline_s is None or hourly_most is None:
        return plan
    hours = ((job.retries + 1) * job.deadline_s + job.ttl_s) / 3600
    return ClusterPlan(kind, plan.name, plan.shares, plan.sentences, hourly_most[1] * hours)


def default_kind(config: ClusterConfig) -> str:
    """The kind that is meant if none is named: what the configuration holds, a job first."""
    if config.job is not None:
        if config.slurm is not None and not config.groups:
            return "slurm"
        return "cron" if config.cron is not None else "job"
    if config.service is not None:
        return "service"
    return "cluster" if config.groups else "job"


def _plan_slurm(config: ClusterConfig, prices: Mapping[str, float]) -> ClusterPlan:
    slurm_script(config)  # refuses what can't be written
    assert config.slurm is not None
    assert config.job is not None
    slurm, job = config.slurm, config.job
    for name in prices:
        if name not in ("", "nodes"):
            unknown("group in a price", name, ["nodes"])
    price = prices.get("nodes", prices.get(""))
    hourly = None if price is None else price * slurm.nodes
    share = Share(
        "nodes",
        (slurm.nodes, slurm.nodes),
        (slurm.nodes * slurm.cpus,) * 2,
        (slurm.nodes * slurm.gpus,) * 2,
        slurm.memory or "the site's default",
        None if hourly is None else (hourly, hourly),
        slurm.gpu_type or "",
    )
    most = None if hourly is None else hourly * slurm.time_s / 3600
    where = "umbel-store, in the folder that it is submitted in" if config.store is None else config.store
    sentences = [f"runs {job.target} as {job.run_name!r} into {where}", f"ends after {slurm.time} at the latest"]
    if slurm.requeue:
        cost = "" if most is None else f", each time for {most:,.2f} at most"
        sentences.append(f"is queued again until it is done{cost}")
    return ClusterPlan("slurm", job.run_name, (share,), tuple(sentences), None if slurm.requeue else most)


def parse_prices(given: list[str]) -> dict[str, float]:
    """Prices from ``[GROUP=]PRICE``.

    Raises:
        UsageError: one is no number, or below zero.
    """
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            price = float(number)
        except ValueError:
            price = -1.0
        if not 0 <= price < float("inf"):
            raise UsageError("this is no price", got=text, expected="a number, or GROUP=NUMBER")
        found[name] = price
    return found


def _sentences(config: ClusterConfig) -> list[str]:
    found = []
    if config.job is not None:
        name = config.cron.run if config.cron is not None else config.job.run_name
        found.append(f"runs {config.job.target} as {name!r} into {config.store}, up to {config.job.retries + 1} times")
    if config.cron is not None:
        found.append(f"at {config.cron.schedule!r}, {config.cron.time_zone or 'by the clock of the operator'}")
    if config.service is not None:
        found.append(f"serves {config.service.import_path} at {config.service.route_prefix}")
    found.append(f"a worker goes after {config.idle_timeout_s} s without work")
    if config.queue is not None:
        found.append(f"waits in the queue {config.queue.name!r} of {config.queue.scheduler}")
    found.append("Ray asks for a token" if config.token_auth else "Ray asks nobody who they are")
    return found


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _range(pair: tuple[float, float]) -> str:
    least, most = (f"{each:,.10g}" if isinstance(each, int) else f"{each:,.2f}" for each in pair)
    return least if least == most else f"{least} to {most}"
