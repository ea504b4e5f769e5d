"""What the commands of `umbel` share: options, the store that they mean, and JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from umbel.storage.store import Store

__all__ = [
    "JsonOption",
    "LimitOption",
    "RunArgument",
    "StoreOption",
    "SweepOption",
    "open_for_command",
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
SweepOption = Annotated[str | None, typer.Option("--sweep", help="Which sweep, if the run has several.")]


def open_for_command(store: str | None) -> Store:
    """The store that a command means.

    Raises:
        StoreError: it can't be opened.
    """
    from umbel.runtime.run import default_store
    from umbel.storage.store import open_store

    return open_store(store or default_store())


def print_json(value: object) -> None:
    """Print a value as JSON."""
    from umbel.runtime.tables import json_text

    typer.echo(json_text(value))
