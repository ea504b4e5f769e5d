"""`umbel export`: runs, for the tools that a team has already."""

from __future__ import annotations

from typing import Annotated

import typer

from umbel.runtime.cli.options import RunArgument, StoreOption, open_for_command

__all__ = ["app"]

app = typer.Typer(help="Hand a run on to other tools.", no_args_is_help=True)


@app.command()
def openlineage(
    name: RunArgument,
    store: StoreOption = None,
    url: Annotated[str | None, typer.Option(help="Endpoint that takes events, such as Marquez's.")] = None,
    file: Annotated[str | None, typer.Option(help="Append the events to this file, one JSON object a line.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the jobs.")] = "umbel",
) -> None:
    """Send a run as OpenLineage events: to --url, to --file, or where OPENLINEAGE_URL and the like say."""
    from umbel.runtime.exports.openlineage import client, events

    sender = client(url, file)
    count = 0
    for event in events(open_for_command(store).run(name), namespace):
        sender.emit(event)
        count += 1
    typer.echo(f"{count} events sent")


@app.command()
def mlflow(
    name: RunArgument,
    store: StoreOption = None,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's server.", envvar="MLFLOW_TRACKING_URI")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="Its name; default: the run's.")] = None,
    trials: Annotated[str, typer.Option(help='"best", one a group, or "all".')] = "best",
    models: Annotated[bool, typer.Option(help="Log the models of these trials.")] = True,
) -> None:
    """Write a run to MLflow: one run with the trials under it."""
    from umbel.runtime.exports.mlflow import export

    found = open_for_command(store).run(name)
    last = 0

    def show(done: int, total: int) -> None:
        nonlocal last
        if done == total or done >= last + 100:
            last = done
            typer.echo(f"{done:,} of {total:,} trials", err=True)

    made = export(found, tracking_uri, experiment=experiment, trials=trials, models=models, progress=show)
    typer.echo(f"MLflow run {made}")
