"""`umbel cluster …`: a cluster on this machine to try things out on, and waiting for one."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["register"]

_cluster = typer.Typer(help="Start a Ray cluster on this machine, or wait for one.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_cluster, name="cluster")


@_cluster.command("up")
def up(
    nodes: Annotated[
        int, typer.Option("--local", min=1, max=64, metavar="N", help="How many nodes, all on this machine.")
    ],
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs that each has; default: this machine's, shared out.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs that each pretends to have, or has.")] = 0,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="With the dashboard, which `umbel submit` needs.")
    ] = True,
) -> None:
    """Start a Ray cluster of N nodes on this machine, for this machine only. Ctrl-C ends it."""
    from umbel.cluster.local.local_cluster import LocalCluster

    with LocalCluster(nodes, cpus=cpus, gpus=gpus, dashboard=dashboard) as cluster:
        typer.echo(f"a Ray cluster of {nodes} nodes; Ctrl-C ends it. To use it, elsewhere:")
        for name, value in cluster.environment.items():
            typer.echo(f"  export {name}={value}")
        typer.echo("  umbel run FILE")
        if dashboard:
            typer.echo("  umbel submit FILE --store /folder")
        typer.echo("  umbel top")
        ended = cluster.wait()
    if ended is not None:
        from umbel.scheduler.errors import ExecutorError

        raise ExecutorError("a node of the cluster has ended by itself", got=ended, hint="its messages are above")


@_cluster.command("wait")
def wait(
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes must be there.")] = 1,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait.")] = 300.0,
    address: Annotated[str, typer.Option(help="The cluster's.", envvar="RAY_ADDRESS")] = "auto",
) -> None:
    """Wait until a Ray cluster has so many nodes. With fewer, it goes on with a warning; with none, it fails."""
    from umbel.cluster.local.waiting import wait_for_nodes

    there = wait_for_nodes(address, nodes, timeout)
    if there < nodes:
        typer.echo(f"warning: {there} of {nodes} nodes are there after {timeout:g} s", err=True)
