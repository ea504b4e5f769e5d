"""`umbel submit`, `attach`, `stop` and `jobs`: runs as jobs of a Ray cluster, wherever its dashboard is reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umbel.runtime.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

__all__ = ["register"]

AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        metavar="URL",
        help="The dashboard of the cluster, as http://HOST:8265.",
        envvar="RAY_API_SERVER_ADDRESS",
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's name, for its newest attempt, or its id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("submit")(submit_job)
    app.command("attach")(attach)
    app.command("stop")(stop_job)
    app.command("jobs")(list_jobs)


def submit_job(
    target: Annotated[
        str, typer.Argument(metavar="FILE[:OBJECT]", help="A script, or a file with a node as for `umbel run`.")
    ],
    address: AddressOption,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="After `--`: for the script, or for `umbel run`.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The job's name, and the run's; default: the file's.")] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", metavar="URL", help="A store that the cluster reaches.", envvar="UMBEL_STORE"),
    ] = None,
    packages: Annotated[
        list[str] | None, typer.Option("--pip", metavar="PACKAGE", help="Install it there; may be repeated.")
    ] = None,
    requirements: Annotated[
        list[Path] | None, typer.Option("-r", "--requirement", metavar="FILE", help="Install what a file lists.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="A variable for the job; KEY alone: as it is here. Never printed."),
    ] = None,
    runtime_env: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="More of Ray's runtime_env: a YAML file, or JSON.")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The project's folder; default: the nearest above FILE.")
    ] = None,
    script: Annotated[
        bool | None,
        typer.Option("--script/--graph", help="Run it by `python`, or by `umbel run`. Default: what is in it decides."),
    ] = None,
    max_size: Annotated[float, typer.Option(metavar="MIB", help="Ship at most this much.", min=0)] = 100,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show its log until it ends.")] = True,
) -> None:
    """Run a file of this machine on a Ray cluster, as a job; the same again goes on with it.

    The project goes along without what .gitignore names, and Umbel, if the cluster has another.

    Status: the job's own, as of `umbel run`; 75 also if it was killed, stopped or lost, or nobody answers; 130 Ctrl-C.
    """
    import os

    from umbel.cluster.jobs.client import check_address
    from umbel.cluster.jobs.request import (
        asker,
        environment_variables,
        parse_target,
        read_requirements,
        read_runtime_env,
    )
    from umbel.cluster.jobs.submission import JobRequest, submit

    request = JobRequest(
        target=parse_target(target),
        args=args or [],
        name=name,
        store=store,
        variables=environment_variables(env or [], os.environ),
        asker=asker(os.environ),
        script=script,
        packages=[*(packages or []), *(line for file in requirements or [] for line in read_requirements(file))],
        runtime_env=read_runtime_env(runtime_env),
        root=working_dir,
        limit_bytes=int(max_size * 2**20),
    )
    url = check_address(address)
    try:
        found = submit(request, url, _tell)
    except KeyboardInterrupt:
        _tell(f"interrupted; whether the job was submitted, this tells: umbel jobs --address {url}")
        raise typer.Exit(130) from None
    if not follow:
        typer.echo(found.id)
        return
    _follow(found.client, url, found.id)


def attach(job: JobArgument, address: AddressOption) -> None:
    """Follow a job's log until it ends, from its beginning. Status: as of `umbel submit`."""
    from umbel.cluster.jobs.client import check_address, connect
    from umbel.cluster.jobs.submission import find_job

    url = check_address(address)
    client = connect(url)
    _follow(client, url, find_job(client, url, job))


def stop_job(job: JobArgument, address: AddressOption) -> None:
    """Stop a job in good order: what is finished is stored, and submitting it again goes on.

    Status: 0 it has ended, 75 it was asked to and has not yet.
    """
    from umbel.cluster.jobs.client import check_address, connect
    from umbel.cluster.jobs.following import RETRY, wait_until_ended
    from umbel.cluster.jobs.request import STOP_WAIT_S
    from umbel.cluster.jobs.submission import find_job, stop

    url = check_address(address)
    client = connect(url)
    found = find_job(client, url, job)
    was_running = stop(client, url, found)
    ended = wait_until_ended(client, url, found, STOP_WAIT_S + 10)
    if ended is None:
        _tell(f"{found} was asked to stop and has not ended yet")
        raise typer.Exit(RETRY)
    _tell(f"{found}: {ended.text}" if was_running else f"{found} had ended before: {ended.text}")


def list_jobs(address: AddressOption, as_json: JsonOption = False) -> None:
    """List the jobs that were submitted to a cluster by `umbel submit`, oldest first."""
    from datetime import UTC, datetime

    from umbel.cluster.jobs.client import check_address, connect
    from umbel.cluster.jobs.following import outcome
    from umbel.cluster.jobs.submission import attempts
    from umbel.runtime.cli.tables import print_rows
    from umbel.runtime.provenance.sitting import USER_VARIABLE
    from umbel.storage.redaction import redact

    url = check_address(address)
    rows = []
    for attempt in attempts(connect(url), url):
        details, ended = attempt.details, outcome(attempt.details)
        started = datetime.fromtimestamp((details.start_time or 0) / 1000, UTC)
        rows.append(
            {
                "job": attempt.id,
                "name": attempt.name,
                "user": ((details.runtime_env or {}).get("env_vars") or {}).get(USER_VARIABLE),
                "status": str(details.status.value).lower(),
                "exit": None if ended is None else ended.status,
                "started": started.strftime("%Y-%m-%d %H:%M:%S"),
                "command": redact(details.entrypoint.removeprefix("exec ")),
            }
        )
    if as_json:
        print_json(rows)
    elif rows:
        for row in rows:
            row["started"] = str(row["started"])[5:16]  # the year and the seconds are in --json
        print_rows(rows, ["job", "user", "status", "exit", "started", "command"], cut="command")
    else:
        typer.echo(f"no jobs of umbel submit at {url}")


def _follow(client: JobSubmissionClient, url: str, job: str) -> None:
    from umbel.cluster.jobs.following import follow

    def show(text: str) -> None:
        typer.echo(text, nl=False)

    try:
        ended = follow(client, url, job, show)
    except KeyboardInterrupt:
        _tell(f"detached: {job} goes on")
        _tell(f"  umbel attach {job} --address {url}")
        _tell(f"  umbel stop {job} --address {url}")
        raise typer.Exit(130) from None
    _tell(f"{job}: {ended.text}")
    if ended.status:
        raise typer.Exit(ended.status)


def _tell(text: str) -> None:
    """To a person, so that standard output holds the job's own, or its id."""
    typer.echo(text, err=True)
