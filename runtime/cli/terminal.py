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

__all__ = ["keep_for_answer", "tidy_warnings"]


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
def keep_for_answer(as_json: bool) -> Iterator[TextIO]:
    """While inside, standard output is kept for the command's answer, which goes to the stream that this gives.

    Ray's threads print what its workers tell (``(raylet) …``), and the graph's own file may print, as may programs that
    it starts: that all goes to standard error. Only a person who looks on gets it as ever.

    Args:
        as_json: whether the answer is JSON, to which nobody may add a word.
    """
    if not as_json and sys.stdout.isatty():
        yield sys.stdout
        return
    sys.stdout.flush()
    with _standard_output_elsewhere() as answer, redirect_stdout(sys.stderr):
        yield answer
        answer.flush()


@contextmanager
def _standard_output_elsewhere() -> Iterator[TextIO]:
    """While inside, file descriptor 1 is standard error; gives what stands for standard output instead."""
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield sys.stdout
        return
    try:
        os.dup2(2, 1)
        if _is_descriptor_1(sys.stdout):
            with open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False) as answer:
                yield answer
        else:
            yield sys.stdout
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _is_descriptor_1(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):  # it is none of the system's
        return False
