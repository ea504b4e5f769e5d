"""What a command writes to the terminal besides its answer: warnings as one line, and nothing else between the answer.

It must not know what the commands do.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

import typer

__all__ = ["answers_only", "tidy_warnings"]


@contextmanager
def tidy_warnings() -> Iterator[None]:
    """While inside, a warning is one line on standard error: ``warning: …``.

    Umbel's own (UserWarning) say all by themselves; of others the kind and the place are told, too.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if category is not UserWarning:
            text = f"{category.__name__}: {text} ({os.path.basename(filename)}:{lineno})"  # noqa: PTH119 - may be no path
        with suppress(OSError, ValueError):
            typer.secho("warning: ", fg="yellow", nl=False, err=True)
            typer.echo(text, err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def answers_only() -> Iterator[None]:
    """While inside, all that is printed goes to standard error: standard output is kept for the command's answer.

    Ray's threads print what workers tell (``(raylet) …``), and a graph's file may print as well.
    """
    with redirect_stdout(sys.stderr):
        yield
