"""The `umbel` command. Each command imports what it needs when it runs, so that `umbel --help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umbel.runtime.cli import answers, export, registry, run, serving_answers, upkeep
from umbel.runtime.cli.options import (
    JsonOption,
    LimitOption,
    RunArgument,
    StoreOption,
    SweepOption,
    TargetArgument,
    open_for_command,
    open_target,
    print_json,
)
from umbel.runtime.cli.terminal import tidy_warnings

__all__ = ["app", "main"]

app = typer.Typer(
    help="Umbel: massively parallel sweeps and task graphs on Ray, durable and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(export.app, name="export")


app.command()(run.run)


@app.command("ls")
def list_runs(store: StoreOption = None, as_json: JsonOption = False, limit: LimitOption = 20) -> None:
    """List the runs of a store, newest first."""
    from dataclasses import asdict

    from umbel.runtime.cli.tables import print_rows

    opened = open_for_command(store)
    rows = [asdict(summary) for summary in opened.runs()]
    if as_json:
        print_json(rows)
    elif rows:
        for row in rows:
            row["created"] = row["created"][:19].replace("T", " ")
        print_rows(rows, ["name", "status", "created", "user", "nodes", "trials"], limit=limit)
    else:
        typer.echo(f"no runs in {opened.url}")


@app.command()
def show(name: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what a run is and how far it has come."""
    from umbel.runtime.cli.tables import print_rows
    from umbel.runtime.cli.views import run_facts

    found = open_for_command(store).run(name)
    facts = run_facts(found)
    if as_json:
        print_json(facts)
        return
    record = found.record
    typer.echo(f"{found.name}: {facts['status']}, in {found.store_url}")
    if facts["reason"]:
        typer.echo(f"  because   {facts['reason']}")
    typer.echo(f"  made      {str(record.get('created'))[:19]} UTC by {record.get('user')} on {record.get('host')}")
    typer.echo(f"  command   {' '.join(record.get('command', []))}")
    git = record.get("git")
    if git:
        changed = ", with changes since" if git.get("dirty") else ""
        typer.echo(f"  commit    {str(git.get('commit'))[:12]} on {git.get('branch') or 'no branch'}{changed}")
    typer.echo(f"  versions  {', '.join(f'{k} {v}' for k, v in record.get('versions', {}).items())}")
    print_rows(facts["nodes"], ["name", "kind", "size", "done", "failed", "seconds"])


@app.command()
def best(
    name: RunArgument,
    sweep: SweepOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 20,
) -> None:
    """Show the best trial of each group; with several metrics, its Pareto set."""
    from umbel.runtime.cli.views import print_best

    found = open_for_command(store).run(name)
    if as_json:
        from umbel.storage.values.columns import python_rows

        print_json(python_rows(found.best(sweep)))
        return
    print_best(found, sweep, limit=limit)


@app.command()
def failures(
    name: RunArgument,
    every: Annotated[bool, typer.Option("--all", help="Also those that were not run because of others.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 20,
) -> None:
    """Show the trials and elements of a run that did not succeed, and why."""
    from umbel.runtime.cli.views import print_failures
    from umbel.storage.values.columns import python_rows

    rows = python_rows(open_for_command(store).run(name).failures())
    if as_json:
        print_json(rows)
    elif rows:
        print_failures(rows, limit, every=every)
    else:
        typer.echo("nothing failed")


@app.command()
def cancel(name: RunArgument, store: StoreOption = None) -> None:
    """Ask the process that carries out a run, wherever it is, to stop in good order."""
    open_for_command(store).run(name).cancel()
    typer.echo(f"asked: {name} will stop within ten seconds or so, and can be resumed")


answers.register(app)


@app.command("plan")
def plan_run(
    target: TargetArgument,
    nodes: Annotated[int, typer.Option(min=1, help="How many machines.")],
    slots: Annotated[float, typer.Option(help="CPUs of each.")] = 8,
    gpus: Annotated[float, typer.Option(help="GPUs of each.")] = 0,
    earlier: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Take over the times that this run measured.")
    ] = None,
    seconds: Annotated[
        list[str] | None,
        typer.Option(metavar="[NODE=]S", help="Mean seconds of an element, of all nodes or of one; may be repeated."),
    ] = None,
    spread: Annotated[float, typer.Option(help="How much these vary: standard deviation of their logarithm.")] = 0.3,
    price: Annotated[float | None, typer.Option(help="Price of a machine for an hour.")] = None,
    losses: Annotated[float, typer.Option(help="Share of the machines that is lost an hour.")] = 0.0,
    lag: Annotated[float | None, typer.Option(help="Machines come this many seconds after they are asked for.")] = None,
    chart: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the chart into a file, too.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast a run: how long, how busy, how much money. Nothing is run."""
    from umbel.runtime.planning.forecast import parse_seconds, plan
    from umbel.runtime.planning.forecast_text import print_forecast, save_chart

    forecast = plan(
        open_target(target).node,
        nodes=nodes,
        slots=slots,
        gpus=gpus,
        run=None if earlier is None else open_for_command(store).run(earlier),
        seconds=parse_seconds(seconds or []),
        spread=spread,
        price_per_node_hour=price,
        losses_per_hour=losses,
        lag_s=lag,
    )
    if chart is not None:
        save_chart(forecast, chart)
    if as_json:
        print_json(forecast.as_dict())
    else:
        print_forecast(forecast)


registry.register_commands(app)
serving_answers.register_commands(app)

app.command("gc")(upkeep.gc)
app.command("compact")(upkeep.compact)


def main() -> None:
    """The `umbel` command: errors as messages, with a status for scripts (2: usage; 75: what may pass by
    itself; 1: anything else; 130: interrupted)."""
    from umbel.scheduler.errors import ClusterUnavailableError, RunInterrupted, UmbelError, UsageError

    try:
        with tidy_warnings():
            app()
    except RunInterrupted:
        sys.exit(130)  # progress has said what to do
    except UmbelError as error:
        typer.secho(f"{type(error).__name__}: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(str(error), err=True)
        may_pass = isinstance(error, ClusterUnavailableError)
        sys.exit(2 if isinstance(error, UsageError) else run.STOPPED if may_pass else 1)
