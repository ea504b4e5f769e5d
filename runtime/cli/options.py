"""What the commands of `umbel` share: options, the store that they mean, and JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from umbel.runtime.graph.target import Target
    from umbel.storage.store import Store

__all__ = [
    "JsonOption",
    "LimitOption",
    "RunArgument",
    "StoreOption",
    "SweepOption",
    "TargetArgument",
    "open_for_command",
    "open_target",
    "print_json",
]

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", metavar="URL", help="Where runs live: a path or any fsspec URL.", envvar="UMBEL_STORE"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="Rows to print; 0 prints all.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name.")]
TargetArgument = Annotated[str, typer.Argument(metavar="FILE[:OBJECT]", help="A node, or a function that returns one.")]
SweepOption = Annotated[str | None, typer.Option("--sweep", help="Which sweep, if the run has several.")]


def open_for_command(store: str | None) -> Store:
    """The store that a command means.

    Raises:
        StoreError: it can't be opened.
    """
    from umbel.runtime.driver.run import default_store
    from umbel.storage.store import open_store

    return open_store(store or default_store())


def open_target(text: str) -> Target:
    """The node that ``FILE[:OBJECT]`` names. What the file raises is shown as the user's own, and ends the command.

    Raises:
        UsageError: there is no such node.
        typer.Exit: the file, or its function, raised something.
    """
    from umbel.runtime.graph.target import ScriptError, load_target

    try:
        return load_target(text)
    except ScriptError as error:
        typer.echo(error.text, nl=False, err=True)
        raise typer.Exit(2) from None


def print_json(value: object, stream: TextIO | None = None) -> None:
    """Print a value as JSON, to standard output if no stream is given."""
    from umbel.runtime.cli.tables import json_text

    typer.echo(json_text(value), file=stream)
