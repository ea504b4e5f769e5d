"""`umbel top`: who holds what on a Ray cluster that several runs share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umbel.runtime.cli.options import JsonOption, print_json
from umbel.runtime.cli.terminal import keep_for_answer

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["register", "top"]

#: Seconds between two looks.
EVERY_S = 1.0
#: Seconds that the broker gets to answer.
ANSWER_S = 5.0
#: Columns where nobody looks on.
FILE_WIDTH = 200


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(top)


def top(
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster; default: the one on this machine.", envvar="RAY_ADDRESS")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, instead of until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show who holds what on a shared cluster, live: tenant, run, weight, workers wanted, held and allowed, share.

    Status: 0, also if no run shares the cluster; 2 if there is none, or it refuses the token; 75 if it does not answer.
    """
    from umbel.runtime.executors.ray_cluster import connect, own_connection

    with keep_for_answer(as_json) as answer, own_connection():
        connect(address or "auto")
        if as_json:
            print_json(_look(), answer)
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=answer)
        if not console.is_terminal:
            console = Console(file=answer, width=FILE_WIDTH)
        if once or not console.is_terminal:
            console.print(_shown(_look()))
            return
        with Live(_shown(_look()), console=console, auto_refresh=False, screen=True) as live:
            try:
                while True:
                    time.sleep(EVERY_S)
                    live.update(_shown(_look()), refresh=True)
            except KeyboardInterrupt:
                pass


def _look() -> dict[str, Any]:
    """What the broker says; nothing, if there is none, or it is being started again or can't say."""
    import ray
    from ray.exceptions import RayError

    from umbel.runtime.sharing.broker import find_broker

    broker = find_broker()
    empty: dict[str, Any] = {"capacity": {}, "total": {}, "runs": []}
    if broker is None:
        return empty
    try:
        view: dict[str, Any] = ray.get(broker.view.remote(), timeout=ANSWER_S)
    except RayError:
        return empty
    return view


def _shown(view: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    capacity, total = view["capacity"], view["total"]
    parts = []
    for name, amount in sorted(total.items()):
        if name != "memory" and not name.startswith("accelerator_type:"):
            others = amount - capacity.get(name, 0.0)
            parts.append(f"{name} {amount:g}" + (f" ({others:g} in use by others)" if others > 0 else ""))
    if not view["runs"]:
        return Group("no run shares this cluster now", *([", ".join(parts)] if parts else []))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tenant")
    table.add_column("run", overflow="fold")
    for name in ("weight", "prio", "wants", "may have", "holds", "share"):
        table.add_column(name, justify="right")
    table.add_column("resources")
    table.add_column("driver")
    rows = sorted(view["runs"], key=lambda run: (-run["priority"], run["tenant"], -run["share"]))
    for run in rows:
        held = ", ".join(f"{name} {amount:g}" for name, amount in sorted(run["resources"].items()) if name != "memory")
        table.add_row(
            escape(run["tenant"]),
            escape(run["name"]),
            f"{run['weight']:g}",
            str(run["priority"]),
            str(run["wants"]),
            str(run["may_have"]),
            str(run["holds"]),
            f"{run['share']:.0%}",
            held,
            f"{escape(run['host'])}:{run['pid']}",
        )
    return Group(table, "", ", ".join(parts))
