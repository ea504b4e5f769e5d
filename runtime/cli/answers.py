"""The commands that ask what happened: logs, lineage, downstream, diff, why-failed, replay.

Like all commands they import what they need when they run.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from umbel.runtime.cli.options import (
    JsonOption,
    RunArgument,
    StoreOption,
    SweepOption,
    open_for_command,
    print_json,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (logs, lineage, downstream, diff, why_failed, replay):
        app.command(command.__name__.replace("_", "-"))(command)


def logs(
    name: RunArgument,
    trial: Annotated[int, typer.Argument(help="Index of the trial, or of an element of --node.")],
    node: Annotated[str | None, typer.Option(help="Which sweep or node, if there are several.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a trial, or an element of a node, printed."""
    from umbel.runtime.answers.printed import what_was_printed

    found = what_was_printed(open_for_command(store).run(name), trial, node)
    if as_json:
        print_json({"run": name, "node": found.node, "trial": trial, "output": found.text, "note": found.note})
    elif found.text:
        typer.echo(found.text, nl=not found.text.endswith("\n"))
    if found.note is not None:
        typer.echo(found.note, err=True)
    if not found.ended:
        raise typer.Exit(1)


def lineage(
    name: RunArgument,
    what: Annotated[
        str | None,
        typer.Argument(metavar="[X]", help="A trial's index, NODE, NODE:ELEMENT, or a digest; default: the whole run."),
    ] = None,
    sweep: SweepOption = None,
    page: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page with a picture; .svg: the picture.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a trial, model, value or a whole run was made from."""
    from pathlib import Path

    found = open_for_command(store).run(name).lineage(int(what) if what and what.isdecimal() else what, sweep)
    if page is not None:
        Path(page).write_text(found.svg() if page.endswith(".svg") else found.html())
        typer.echo(f"wrote {page}")
    elif as_json:
        print_json(found.as_dict())
    else:
        typer.echo(found.text())


def downstream(
    digest: Annotated[str, typer.Argument(help="Of data, code, a model, …: all of it, or its first 8 digits or more.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every run that was made from some data or code, and the registered versions that hold its models."""
    from dataclasses import asdict

    found = open_for_command(store).downstream(digest)
    if as_json:
        print_json([asdict(use) for use in found.uses])
    else:
        typer.echo(found.text())


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A run's name.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another's, which is compared to it.")],
    store: StoreOption = None,
    other: Annotated[
        str | None, typer.Option("--other-store", metavar="URL", help="Where B lives, if elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two runs: code, data, space, arguments, environment, results."""
    from umbel.runtime.answers.comparison import diff as compare

    found = compare(open_for_command(store).run(before), open_for_command(other or store).run(after))
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo(found.text())


def why_failed(name: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what failed, by cause, and what the trials that failed have in common."""
    from umbel.runtime.answers.why_failed import why_failed as explain

    found = explain(open_for_command(store).run(name))
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo(found.text())


def replay(
    name: RunArgument,
    trial: Annotated[int, typer.Argument(help="Index of the trial.")],
    sweep: SweepOption = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in the debugger: where it fails, or where it begins.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Replace a value of the config (JSON, or text); repeatable."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Run one trial again, here, with the recorded code, data, config and seed. It runs code that is in the store."""
    from umbel.runtime.answers.replay import replay as run_again

    found = run_again(open_for_command(store).run(name), trial, sweep, config=_settings(given or []), debug=debug)
    typer.echo(found.text())
    if not found.same:
        raise typer.Exit(1)


def _settings(given: list[str]) -> dict[str, Any]:
    import json

    from umbel.scheduler.errors import UsageError

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("--set needs a name and a value", got=text, expected="NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
