"""The commands of `umbel` that keep a store small: ``gc`` and ``compact``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from umbel.runtime.cli.options import JsonOption, RunArgument, StoreOption, open_for_command, print_json

if TYPE_CHECKING:
    from umbel.storage.garbage import Garbage

__all__ = ["compact", "gc"]


def gc(
    store: StoreOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it. Otherwise it is only listed.")] = False,
    grace_hours: Annotated[
        float, typer.Option("--grace", min=0, metavar="HOURS", help="Leave what is younger than this.")
    ] = 24.0,
    corrupt: Annotated[bool, typer.Option("--corrupt", help="Also what was set aside because it was damaged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find, and with --delete remove, what nothing in a store needs: models, values and code that no run names.

    What a run reaches stays, whatever its state. It may be done while runs go on.
    """
    from datetime import timedelta

    from umbel.storage.garbage import find_garbage, remove_garbage

    opened, grace = open_for_command(store), timedelta(hours=grace_hours)
    found = find_garbage(opened.objects, grace=grace, corrupt=corrupt)
    if delete:
        found = remove_garbage(opened.objects, found, grace=grace)
    if as_json:
        print_json({"deleted": delete, "size_bytes": found.size_bytes, **asdict(found)})
        return
    _print_garbage(found, opened.url, deleted=delete)


def _print_garbage(found: Garbage, url: str, *, deleted: bool) -> None:
    from umbel.runtime.cli.tables import print_rows

    if found.items:
        rows = [{"what": kind, "objects": n, "MB": size / 1e6} for kind, (n, size) in found.by_kind().items()]
        print_rows(rows, ["what", "objects", "MB"], title="removed" if deleted else "nothing needs these")
        if not deleted:
            typer.echo("umbel gc --delete removes them; --json names them all")
    else:
        typer.echo(f"nothing to remove in {url}")
    if found.young:
        they = "it" if found.young == 1 else "they"
        typer.echo(f"{found.young} more may be removed later: {they}, or runs that go on, are too young")
    if found.live:
        typer.echo(f"runs that go on: {', '.join(found.live)}")
    for path in found.unreadable[:10]:
        typer.echo(f"can't be read, so no models, values or code were touched: {path}", err=True)


def compact(name: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Merge the many small segments of a run into few. It must not be going on; readers need not stop."""
    from umbel.scheduler.words import counted
    from umbel.storage.runs.compaction import compact_run

    opened = open_for_command(store)
    done = compact_run(opened.objects, opened.run(name).id)
    if as_json:
        print_json({"run": name, **asdict(done)})
    else:
        before, are = counted(done.segments_before, "segment"), "is" if done.segments_before == 1 else "are"
        typer.echo(
            f"{name}: {before} ({done.bytes_before / 1e6:.1f} MB) {are} {done.segments_after} "
            f"({done.bytes_after / 1e6:.1f} MB) now"
        )
