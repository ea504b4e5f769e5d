"""`umbel run`: run the graph in a Python file."""

from __future__ import annotations

from typing import Annotated

import typer

from umbel.runtime.cli.options import JsonOption, StoreOption, TargetArgument, open_target, print_json
from umbel.runtime.cli.terminal import keep_for_answer

__all__ = ["STOPPED", "run"]

#: The status of a run that a limit or a cancellation stopped: EX_TEMPFAIL of sysexits.h, "try again later".
STOPPED = 75


def run(
    target: TargetArgument,
    store: StoreOption = None,
    name: Annotated[
        str | None, typer.Option(help="The run's name; default: the file's, and OBJECT's if the file has others.")
    ] = None,
    executor: Annotated[str, typer.Option(help='"ray", or "inline": in this process, without Ray.')] = "ray",
    address: Annotated[str | None, typer.Option(help="The Ray cluster to join.", envvar="RAY_ADDRESS")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="At most this many workers of each kind.")] = None,
    progress: Annotated[str, typer.Option(help='"auto", "bar", "plain" or "quiet".')] = "auto",
    max_failures: Annotated[int | None, typer.Option(min=0, help="Stop when more than this have failed.")] = None,
    deadline_s: Annotated[float | None, typer.Option("--deadline", help="Stop after this many seconds.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="Stop after trials=N or core_seconds=N; may be repeated."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take nothing over from earlier runs.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed before in this run.")
    ] = False,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=V,…",
            help="Its part in a shared cluster, as tenant=climate,weight=2,priority=1,minimum.CPU=8,cap.GPU=4,"
            "preemptible=true; or off. Default: $UMBEL_SHARE.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the graph in a Python file, or go on with the run of that name.

    Status: 0 done, 1 failed (an error, or nothing came of the target), 2 usage, 75 stopped by a limit or cancelled, or
    the cluster does not answer (run it again to go on), 130 Ctrl-C.
    """
    from umbel.runtime.cli.views import print_best, run_facts
    from umbel.runtime.driver.run import run as run_graph
    from umbel.runtime.executors.ray_cluster import own_connection
    from umbel.runtime.sharing.share import Share

    limits = _budget(budget or [])
    part = None if share is None else Share.parse(share, "--share") or False
    with keep_for_answer(as_json) as answer, own_connection():
        found = open_target(target)
        ended = run_graph(
            found.node,
            store=store,
            name=name or found.name,
            executor=executor,
            address=address,
            workers=workers,
            progress=progress,
            max_failures=max_failures,
            deadline_s=deadline_s,
            budget=limits,
            fresh=fresh,
            retry_failed=retry_failed,
            share=part,
        )
        facts = run_facts(ended) if as_json else {"status": ended.status}
        if as_json:
            print_json(facts, answer)
    if not as_json:
        for sweep in ended.sweeps:
            print_best(ended, sweep, limit=10)
    if facts["status"] == "stopped":
        raise typer.Exit(STOPPED)
    if ended.failed_targets:
        raise typer.Exit(1)


def _budget(given: list[str]) -> dict[str, float] | None:
    from umbel.scheduler.errors import UsageError

    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise UsageError(
                "--budget needs a name and a number", got=text, expected="trials=5000 or core_seconds=3600"
            ) from None
    return found or None
