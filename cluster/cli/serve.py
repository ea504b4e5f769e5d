"""``umbel serve``: a server of a registered model, until it is interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umbel.runtime.cli.options import StoreOption

if TYPE_CHECKING:
    from umbel.cluster.serving.serve import Serving

__all__ = ["register"]

#: Seconds between two looks at how the server is.
_LOOK_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve_model)


def serve_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A registered model.")],
    store: StoreOption = None,
    alias: Annotated[str, typer.Option(help="Whose version answers.")] = "champion",
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[GROUP:]ALIAS=PERCENT,…",
            help="Shares of the callers, as champion=90,challenger=10; may be repeated for single groups.",
        ),
    ] = None,
    shadow: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Asked, too, after the answer is given, and recorded beside it.")
    ] = None,
    log: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the requests that is logged to the store, 0 to 1. [all, if versions compete]",
        ),
    ] = None,
    log_inputs: Annotated[bool, typer.Option("--log-inputs", help="Log inputs, not only their digest.")] = False,
    sticky_per_group: Annotated[
        bool, typer.Option("--sticky-per-group", help="A caller may meet another version in another group.")
    ] = False,
    salt: Annotated[str | None, typer.Option(help="Assigns callers to versions; another one shuffles them.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Where to listen: 0.0.0.0 for other machines, too. [127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one. [8000]")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Answer gRPC, too; 0 takes a free port. [no gRPC]")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Path under which the interface lies.")] = "/",
    name: Annotated[
        str | None, typer.Option(help="Of the Serve application: two servers of a model need two. [umbel-MODEL]")
    ] = None,
    token_file: Annotated[str | None, typer.Option(metavar="FILE", help="Ask for the bearer token in a file.")] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask for the bearer token in an environment variable.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Ask for no token, even if other machines reach the server.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load models that carry code: I trust who can write the store.")
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    cpus: Annotated[float | None, typer.Option(min=0, help="CPUs that each holds.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that each holds.")] = 0.0,
    cached_groups: Annotated[int, typer.Option(min=1, help="Models that a replica keeps in memory.")] = 64,
    max_ongoing: Annotated[int, typer.Option(min=1, help="Requests that a replica works on at once.")] = 100,
    max_queued: Annotated[int, typer.Option(min=0, help="Requests that may wait; others get 503.")] = 200,
    max_body: Annotated[float, typer.Option(metavar="MB", help="Largest request, in 10^6 bytes.")] = 8.0,
    poll: Annotated[float, typer.Option(metavar="SECONDS", help="How often to look at the aliases.")] = 1.0,
    load_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long a request waits for a model to be loaded, and a new version for one of its models.",
        ),
    ] = 30.0,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line a request in Ray Serve's log.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to deploy to. [$RAY_ADDRESS, or one is started]")
    ] = None,
) -> None:
    """Serve a registered model by HTTP, and by gRPC with --grpc-port, with Ray Serve, until Ctrl-C.

    Moving an alias (umbel promote, umbel rollback) reaches it within seconds, without a restart.
    """
    with _told_to_stop() as stop:
        try:
            from umbel.cluster.serving.listening import is_loopback
            from umbel.cluster.serving.serve import serve
            from umbel.cluster.serving.settings import read_token

            token = read_token(token_file, token_env)
            serving = serve(
                model,
                store=store,
                alias=alias,
                split=split,
                shadow=shadow,
                log=log,
                log_inputs=log_inputs,
                sticky_per_group=sticky_per_group,
                salt=salt,
                token=token,
                no_token=no_token,
                trust=trust,
                host=host,
                port=port,
                grpc_port=grpc_port,
                prefix=prefix,
                name=name,
                replicas=replicas,
                cpus=cpus,
                gpus=gpus,
                cached_groups=cached_groups,
                max_ongoing=max_ongoing,
                max_queued=max_queued,
                max_body_bytes=int(max_body * 1e6),
                poll_s=poll,
                load_timeout_s=load_timeout,
                access_log=access_log,
                address=address,
            )
        except BaseException as error:  # whatever Ray makes of an interrupt
            if isinstance(error, SystemExit):  # Ray has a handler of its own while it starts
                stop.number = stop.number or signal.SIGTERM
            if stop.number is None:
                raise
            typer.echo("interrupted before it answered: nothing of it is left", err=True)
            raise typer.Exit(128 + stop.number) from None
        stop.begin_to_serve()
        try:
            typer.echo(f"{serving.url}/v1/models/{model}  (Ctrl-C ends it)")
            if serving.grpc is not None:
                typer.echo(f"gRPC at {serving.grpc}, application {serving.name}")
            if not is_loopback(serving.host):
                who = "anybody who reaches this machine" if token is None else "who has the token"
                typer.echo(f"it listens on {serving.host}: {who} can ask it", err=True)
            _watch(serving, stop.asked)
        finally:
            typer.echo("ending: requests under way are answered, logs are written", err=True)
            serving.stop()


def _watch(serving: Serving, stopped: threading.Event) -> None:
    """Print what changes, until told to stop."""
    from umbel.scheduler.errors import UmbelError

    before: dict[str, Any] = {}
    while not stopped.is_set():
        try:
            _, told = serving.readiness()
        except UmbelError as error:
            told = {"serving": before.get("serving", {}), "problems": [{"what": str(error.what)}]}
        for line in _changes(before, told):
            typer.echo(f"{time.strftime('%H:%M:%S')} {line}")
        before = told
        stopped.wait(_LOOK_S)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is new, in lines."""
    was, known = before.get("serving", {}), {problem["what"] for problem in before.get("problems", [])}
    lines = [f"{alias} is version {number}" for alias, number in now["serving"].items() if was.get(alias) != number]
    new = [problem["what"] for problem in now["problems"] if problem["what"] not in known]
    if known and not now["problems"]:
        lines.append("all is well again")
    return lines + new


class _Stop:
    """What SIGINT and SIGTERM do: while the server starts they interrupt, then they set an event; the next interrupts.

    They are taken from the beginning: a shell has what it starts by ``&`` ignore SIGINT, and Ray takes SIGTERM.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        #: The first signal that came.
        self.number: int | None = None
        self._serves = False

    def take(self) -> dict[int, Any]:
        """Take the signals; what they did before."""
        return {int(number): signal.signal(number, self._come) for number in (signal.SIGINT, signal.SIGTERM)}

    def begin_to_serve(self) -> None:
        """From now on the first signal ends the server in order."""
        self._serves = True
        self.take()  # Ray has taken one

    def _come(self, number: int, frame: object) -> None:
        had = self.number
        self.number = had or number
        self.asked.set()
        if had is not None or not self._serves:
            raise KeyboardInterrupt


@contextmanager
def _told_to_stop() -> Iterator[_Stop]:
    """While inside, SIGINT and SIGTERM are what `_Stop` says."""
    stop = _Stop()
    before = stop.take()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
