"""What must a configuration say for each kind of manifest? All that is missing is told at once, as settings."""

from __future__ import annotations

from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.scheduler.errors import UsageError

__all__ = ["check_complete"]


def check_complete(config: ClusterConfig, kind: str) -> None:
    """Refuse a configuration that does not say what a kind of manifest is made from.

    Args:
        config: the configuration.
        kind: cluster, job, service, cron or slurm.

    Raises:
        UsageError: something is missing; the message names all of it.
    """
    called = {"cron": "a cron job", "slurm": "a job under Slurm"}.get(kind, f"a {kind}")
    needs: list[tuple[bool, str, str, tuple[str, ...]]] = [
        (
            kind != "slurm" and not config.groups,
            "there are no workers",
            "a group at least, [tool.umbel.cluster.groups.cpu] with max, cpus and memory",
            ("groups.cpu.max=4", "groups.cpu.cpus=8", "groups.cpu.memory=32Gi"),
        ),
        (
            kind == "slurm" and config.slurm is None,
            f"{called} needs an allocation",
            "[tool.umbel.cluster.slurm] cpus = 32",
            ("slurm.cpus=32", "slurm.time=04:00:00"),
        ),
        (
            kind in ("job", "cron", "slurm") and config.job is None,
            f"{called} needs to know what to run",
            '[tool.umbel.cluster.job] target = "FILE.py"',
            ("job.target=FILE.py",),
        ),
        (
            kind in ("job", "cron") and config.store is None,
            f"{called} needs a store",
            'store = "s3://bucket/folder", or another URL',
            ("store=s3://bucket/folder",),
        ),
        (
            kind == "cron" and config.cron is None,
            f"{called} needs a schedule, and a name with the time in it",
            '[tool.umbel.cluster.cron] schedule = "0 3 * * *", run = "nightly-%Y%m%d"',
            ("cron.schedule='0 3 * * *'", "cron.run=nightly-%Y%m%d"),
        ),
        (
            kind == "service" and config.service is None,
            f"{called} needs a model, or an application of your own",
            '[tool.umbel.cluster.service] import_path = "MODULE:NAME", or args with model and token_env',
            ("service.args.model=MODEL", "service.args.token_env=TOKEN"),
        ),
    ]
    missing = [(what, expected, settings) for lacks, what, expected, settings in needs if lacks]
    if missing:
        lines = " ".join(_option(setting) for _, _, settings in missing for setting in settings)
        raise UsageError(
            "; ".join(what for what, _, _ in missing),
            expected="; ".join(expected for _, expected, _ in missing),
            hint=f"in pyproject.toml, or: umbel manifest {kind} {lines}",
        )


def _option(setting: str) -> str:
    return f'--set "{setting}"' if " " in setting else f"--set {setting}"
