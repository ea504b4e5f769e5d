"""`umbel manifest …`: what Kubernetes and Slurm need to run a project, from its pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umbel.runtime.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from umbel.cluster.config.cluster_config import ClusterConfig
    from umbel.cluster.manifests.ray_cluster import Lineage

__all__ = ["register"]

_manifest = typer.Typer(
    help="Write what Kubernetes (KubeRay) or Slurm need, from \\[tool.umbel.cluster] of pyproject.toml and flags.",
    no_args_is_help=True,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The TOML file; default: the nearest pyproject.toml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, as groups.cpu.max=8; may be repeated."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_manifest, name="manifest")


@_manifest.command("cluster")
def write_cluster(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a RayCluster: it stays, and is submitted to."""
    _write("cluster", config, settings, output)


@_manifest.command("job")
def write_job(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a RayJob: a cluster for one run. A retry resumes the run by its name."""
    _write("job", config, settings, output)


@_manifest.command("service")
def write_service(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a RayService: a Serve application."""
    _write("service", config, settings, output)


@_manifest.command("cron")
def write_cron(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a RayCronJob: a RayJob by the calendar."""
    _write("cron", config, settings, output)


@_manifest.command("slurm")
def write_slurm(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a script for sbatch that starts Ray across the allocation, runs the job there, and goes on if requeued."""
    from umbel.cluster.manifests.slurm import slurm_script

    given = _read(config, settings)
    text = slurm_script(given)
    _check_target(given, config)
    _give(text, output)


@_manifest.command("values")
def write_values(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write values for KubeRay's Helm chart ray-cluster: the cluster that `umbel manifest cluster` writes."""
    from umbel.cluster.manifests.chart_values import chart_values, values_text

    given = _read(config, settings)
    values = chart_values(given, _lineage(given, config))
    for what in values.lost:
        typer.echo(f"warning: the chart has no value for this: {what}", err=True)
    _give(values_text(given, values), output)


@_manifest.command("image")
def write_image(config: ConfigOption = None, settings: SetOption = None, output: OutputOption = None) -> None:
    """Write a Dockerfile that puts Umbel and the project on Ray's official image."""
    from umbel.cluster.manifests.image import dockerfile

    folder = _folder(config)
    in_src = any((folder / "src").glob("*/__init__.py"))
    listed = next((name for name in ("requirements.txt", "pyproject.toml") if (folder / name).is_file()), None)
    _give(dockerfile(_read(config, settings), in_src=in_src, requirements=listed), output)


@_manifest.command("explain")
def explain(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="cluster, job, service, cron or slurm. Default: what is configured."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[GROUP=]PRICE", help="Of a node for an hour: of all, of a group, or head=…; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a manifest would take: nodes, CPUs, GPUs, and the bounds of its cost. Nothing is written."""
    from umbel.cluster.manifests.cluster_plan import default_kind, parse_prices, plan_cluster

    given = _read(config, settings)
    plan = plan_cluster(given, kind or default_kind(given), parse_prices(price or []))
    if as_json:
        print_json(plan.as_dict())
        return
    from umbel.runtime.cli.tables import print_rows

    rows = plan.rows()
    print_rows(rows, list(rows[0]), title=f"{plan.kind} {plan.name!r}")
    for sentence in plan.sentences:
        typer.echo(f"- {sentence}")
    if plan.most is not None:
        typer.echo(f"- all tries together cost {plan.most:,.2f} at most")


@_manifest.command("read")
def read_back(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A manifest that `umbel manifest` wrote.")],
) -> None:
    """Print the settings that a manifest was written from, changes by hand included, as pyproject.toml has them."""
    from umbel.cluster.config.file import to_toml
    from umbel.cluster.manifests.reading import read_manifest
    from umbel.scheduler.errors import UsageError

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the manifest can't be read", got=f"{file}: {error}") from None
    read = read_manifest(text)
    typer.echo(to_toml(read.config), nl=False)
    for path in read.lost:
        typer.echo(f"warning: no setting says this: {path}", err=True)


def _write(kind: str, config: Path | None, settings: list[str] | None, output: Path | None) -> None:
    from umbel.cluster.manifests.kinds import write_manifest

    given = _read(config, settings)
    text = write_manifest(given, kind, _lineage(given, config))
    if kind in ("job", "cron"):
        _check_target(given, config)
    if kind != "cluster" and given.image.startswith("rayproject/"):
        typer.echo(
            f"warning: {given.image} has neither Umbel nor the project in it (umbel manifest image > Dockerfile)",
            err=True,
        )
    _give(text, output)


def _folder(file: Path | None) -> Path:
    """The project's: where its configuration is, or else this one."""
    from umbel.runtime.provenance.project import nearest

    return file.resolve().parent if file else nearest(Path.cwd(), "pyproject.toml") or Path.cwd()


def _check_target(config: ClusterConfig, file: Path | None) -> None:
    from umbel.cluster.config.target import check_target

    if config.job is not None:
        check_target(config.job, _folder(file))


def _lineage(config: ClusterConfig, file: Path | None) -> Lineage:
    from umbel.cluster.manifests.ray_cluster import Lineage
    from umbel.runtime.provenance.sitting import repository

    folder = file.resolve().parent if file else Path.cwd()
    found = repository(folder)
    code = _code(config, folder)
    return Lineage(commit=found.commit, dirty=found.dirty, code=code) if found else Lineage(code=code)


def _code(config: ClusterConfig, folder: Path) -> str | None:
    """A digest of the project's files; None if what is to run is not here, or the project too large to be shipped."""
    from umbel.cluster.jobs.files import find_project
    from umbel.scheduler.errors import UsageError

    if config.job is None:
        return None
    try:
        return find_project(folder / config.job.target.partition(":")[0]).digest()
    except UsageError:
        return None


def _read(config: Path | None, settings: list[str] | None) -> ClusterConfig:
    from umbel.cluster.config.file import read_config

    return read_config(config, settings or [])


def _give(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    from umbel.scheduler.errors import UsageError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("it can't be written there", got=f"{output}: {error}") from None
    typer.echo(f"wrote {output}", err=True)
