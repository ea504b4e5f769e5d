"""The `umbel` command. Each command imports what it needs when it runs, so that `umbel --help` answers at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umbel.runtime import cli_answers, cli_export, cli_upkeep
from umbel.runtime.cli_options import (
    JsonOption,
    LimitOption,
    RunArgument,
    StoreOption,
    SweepOption,
    open_for_command,
    print_json,
)
from umbel.runtime.cli_terminal import tidy_warnings

if TYPE_CHECKING:
    from umbel.storage.run import Run

__all__ = ["app", "main"]

app = typer.Typer(
    help="Umbel: massively parallel sweeps and task graphs on Ray, durable and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cli_export.app, name="export")


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="FILE[:OBJECT]", help="A node, or a function that returns one.")],
    store: StoreOption = None,
    name: Annotated[str | None, typer.Option(help="The run's name; default: the file's name.")] = None,
    executor: Annotated[str, typer.Option(help='"ray", or "inline": in this process, without Ray.')] = "ray",
    address: Annotated[str | None, typer.Option(help="The Ray cluster to join.", envvar="RAY_ADDRESS")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="At most this many workers of each kind.")] = None,
    progress: Annotated[str, typer.Option(help='"auto", "bar", "plain" or "quiet".')] = "auto",
    max_failures: Annotated[int | None, typer.Option(min=0, help="Stop when more than this have failed.")] = None,
    deadline_s: Annotated[float | None, typer.Option("--deadline", help="Stop after this many seconds.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take nothing over from earlier runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the graph in a Python file, or go on with the run of that name."""
    from pathlib import Path

    from umbel.runtime.run import run as run_graph
    from umbel.runtime.target import load_target

    found = load_target(target)
    ended = run_graph(
        found,
        store=store,
        name=name or Path(target.partition(":")[0]).stem,
        executor=executor,
        address=address,
        workers=workers,
        progress=progress,
        max_failures=max_failures,
        deadline_s=deadline_s,
        fresh=fresh,
    )
    if as_json:
        print_json(_facts(ended))
        return
    for sweep in ended.sweeps:
        _print_best(ended, sweep, limit=10)


@app.command("ls")
def list_runs(store: StoreOption = None, as_json: JsonOption = False, limit: LimitOption = 20) -> None:
    """List the runs of a store, newest first."""
    from dataclasses import asdict

    from umbel.runtime.tables import print_rows

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
    from umbel.runtime.tables import print_rows

    found = open_for_command(store).run(name)
    facts = _facts(found)
    if as_json:
        print_json(facts)
        return
    record = found.record
    typer.echo(f"{found.name}: {facts['status']}, in {found.store_url}")
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
    """Show the best trial of each group."""
    found = open_for_command(store).run(name)
    if as_json:
        from umbel.storage.columns import python_rows

        print_json(python_rows(found.best(sweep)))
        return
    _print_best(found, sweep, limit=limit)


@app.command()
def failures(
    name: RunArgument, store: StoreOption = None, as_json: JsonOption = False, limit: LimitOption = 20
) -> None:
    """Show the trials and elements of a run that did not succeed, and why."""
    from umbel.runtime.tables import print_rows
    from umbel.storage.columns import python_rows

    rows = python_rows(open_for_command(store).run(name).failures())
    if as_json:
        print_json(rows)
    elif rows:
        for row in rows:
            row["error"] = (row["error"] or "").strip().rpartition("\n")[2]
        print_rows(rows, ["node", "index", "group", "status", "attempt", "error"], limit=limit)
    else:
        typer.echo("nothing failed")


@app.command()
def cancel(name: RunArgument, store: StoreOption = None) -> None:
    """Ask the process that carries out a run, wherever it is, to stop in good order."""
    open_for_command(store).run(name).cancel()
    typer.echo(f"asked: {name} will stop within ten seconds or so, and can be resumed")


@app.command()
def logs(
    name: RunArgument,
    trial: Annotated[int, typer.Argument(help="Index of the trial (or of an element of --node).")],
    node: Annotated[str | None, typer.Option(help="Which sweep or node, if there are several.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a trial printed."""
    text = open_for_command(store).run(name).output(trial, node)
    if as_json:
        print_json({"run": name, "node": node, "trial": trial, "output": text})
    else:
        typer.echo(text, nl=not text.endswith("\n"))


cli_answers.register(app)


@app.command("plan")
def plan_run(
    target: Annotated[str, typer.Argument(metavar="FILE[:OBJECT]", help="A node, or a function that returns one.")],
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
    from umbel.runtime.forecast_text import print_forecast, save_chart
    from umbel.runtime.planning import parse_seconds, plan
    from umbel.runtime.target import load_target

    forecast = plan(
        load_target(target),
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


app.command("gc")(cli_upkeep.gc)
app.command("compact")(cli_upkeep.compact)


def main() -> None:
    """The `umbel` command: errors as messages, with a status for scripts (2: usage; 1: anything else; 130:
    interrupted)."""
    from umbel.scheduler.errors import RunInterrupted, UmbelError, UsageError

    try:
        with tidy_warnings():
            app()
    except RunInterrupted:
        sys.exit(130)  # progress has said what to do
    except UmbelError as error:
        typer.secho(f"{type(error).__name__}: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(str(error), err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _facts(found: Run) -> dict[str, Any]:
    import pyarrow.compute as pc

    from umbel.storage.columns import contains
    from umbel.storage.trial_rows import SUCCEEDED

    nodes = []
    sizes = found.graph.nodes
    for node in found.record.get("graph", {}).get("nodes", []):
        rows = found.elements(node["name"], ["status", "seconds"])
        ok = int(contains(rows["status"], SUCCEEDED).sum())
        nodes.append(
            {
                "name": node["name"],
                "kind": node["kind"],
                "size": sizes[node["name"]].size,
                "done": rows.num_rows,
                "failed": rows.num_rows - ok,
                "seconds": pc.sum(rows["seconds"]).as_py() or 0.0,
            }
        )
    keys = ("created", "user", "host", "command", "versions")
    facts = {key: found.record.get(key) for key in keys}
    return {"name": found.name, "status": found.status, "store": found.store_url, **facts, "nodes": nodes}


def _print_best(found: Run, sweep: str | None, limit: int) -> None:
    from umbel.runtime.tables import print_rows
    from umbel.storage.columns import python_rows

    rows = python_rows(found.best(sweep))
    if not rows:
        typer.echo("no trial has succeeded")
        return
    groups = found.graph.sweep(sweep).group_names
    metrics = [name for name in rows[0] if name.startswith("metric_")]
    shown = [
        {
            **{name: row[name] for name in groups},
            "trial": row["trial"],
            **{name.removeprefix("metric_"): row[name] for name in metrics},
            "config": _config_text(row),
        }
        for row in rows
    ]
    print_rows(shown, list(shown[0]), title=f"best trial of each group, sweep {rows[0]['sweep']!r}", limit=limit)


def _config_text(row: dict[str, Any]) -> str:
    items = ((name.removeprefix("config_"), value) for name, value in row.items() if name.startswith("config_"))
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in items)
