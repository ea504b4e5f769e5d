"""How does a user's file become a job of a Ray cluster that can be submitted again and goes on?

A job has a name; each time it is submitted is an attempt, and Ray's submission id is both: ``gdp-1``, ``gdp-2``. What
makes an attempt go on where the one before ended is the run's name in the store, not anything kept here. A job that
runs is not submitted twice: asking for the same again gives the one that runs, so that a scheduler which lost its
connection may simply start its command again. It must not know terminals.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.cluster.jobs.client import connect, spoken
from umbel.cluster.jobs.files import DEFAULT_LIMIT_BYTES, Project, find_project, write_zip
from umbel.cluster.jobs.following import job_info, wait_until_ended
from umbel.cluster.jobs.installation import ClusterSide, probe_command, read_answer, stage_umbel
from umbel.cluster.jobs.request import (
    STOP_WAIT_S,
    Target,
    check_store,
    default_name,
    entrypoint,
    same_environment,
    with_packages,
)
from umbel.cluster.jobs.script import runs_itself
from umbel.scheduler.errors import ExecutorError, NotFoundError, UmbelError, UsageError
from umbel.storage.layout import check_name
from umbel.storage.redaction import redact_argv, redact_url

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

__all__ = ["Attempt", "JobRequest", "Submitted", "attempts", "find_job", "stop", "submit"]

#: Seconds that the cluster gets to say what is installed there; it may have to start a process first.
PROBE_LIMIT_S = 120.0
#: Seconds that a probe which is not wanted any more gets to end.
REMOVE_LIMIT_S = 10.0
#: What of a job's metadata is Umbel's.
_NAME, _ATTEMPT, _PROJECT = "umbel_name", "umbel_attempt", "umbel_project"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is to be submitted."""

    target: Target
    args: Sequence[str] = ()
    #: None: what a run of the file would be called.
    name: str | None = None
    store: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Variables that tell who asks; what else says the same goes before them.
    asker: Mapping[str, str] = field(default_factory=dict)
    #: Whether the file is run by `python`, or by `umbel run`; None: what is in it decides.
    script: bool | None = None
    packages: Sequence[str] = ()
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    #: The project's folder; None: it is looked for.
    root: Path | None = None
    limit_bytes: int = DEFAULT_LIMIT_BYTES


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a job."""

    name: str
    number: int
    #: Ray's submission id.
    id: str
    details: Any


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of asking for a job."""

    client: JobSubmissionClient
    id: str
    command: str
    #: False: the same job was running already.
    is_new: bool


def submit(request: JobRequest, address: str, tell: Callable[[str], None]) -> Submitted:
    """Submit a job, or find the one that runs already if it is the same: same command, files and variables.

    Args:
        request: what is to run.
        address: a checked address.
        tell: is told, in a line each, what is done. Values of variables are never told.

    Raises:
        UsageError: the request is wrong, or another job of this name is running.
        ClusterUnavailableError: the cluster does not answer.
        ExecutorError: it refuses.

    Cost: the upload, if the cluster does not have these files yet, and a second or two for what is installed there.
    """
    target = request.target
    project = find_project(target.file, request.root, request.limit_bytes)
    if request.script and target.object_name is not None:
        raise UsageError(
            "a script is run as a whole", got=f"{target.file.name}:{target.object_name}", expected="FILE, or --graph"
        )
    script = request.script
    if script is None:
        script = target.object_name is None and runs_itself(target.file)
    name = request.name or default_name(target)
    check_name("job", name)
    variables = {**request.asker, **(request.runtime_env.get("env_vars") or {}), **request.variables}
    store = check_store(request.store, script=script, args=request.args, variables=variables)
    command = entrypoint(project, target, script=script, name=name, args=request.args)
    if store is not None:
        variables["UMBEL_STORE"] = store
    # Ray's own setting for the process that watches over the job, which takes it from the job's variables.
    variables.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_WAIT_S))

    with tempfile.TemporaryDirectory(prefix="umbel-submit-") as text:
        folder = Path(text)
        archive = folder / "project.zip"
        write_zip(project, archive)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        size = f"{project.size_bytes / 2**20:.1f} MiB"
        tell(f"project   {project.root}: {len(project.files)} files, {size}")
        if project.left_out:
            tell(f"          left out, being links to folders: {', '.join(project.left_out)}")
        client = connect(address)
        side: ClusterSide | None = None
        while True:
            earlier = attempts(client, address, name)
            running = _running(earlier, command, digest, variables, address)
            if running is not None:
                tell(f"job       {running.id} is this one, and is running already")
                return Submitted(client, running.id, command, is_new=False)
            if side is None:
                side = _ask(client, address, {**request.runtime_env, "env_vars": variables})
                environment = _environment(request, side, project, folder, archive, variables, tell)
            number = max((attempt.number for attempt in earlier), default=0) + 1
            metadata = {_NAME: name, _ATTEMPT: str(number), _PROJECT: digest}
            job = f"{name}-{number}"
            if _submitted(client, address, command, job, environment, metadata):
                break
    tell(f"job       {job}: {' '.join(redact_argv(shlex.split(command.removeprefix('exec '))))}")
    return Submitted(client, job, command, is_new=True)


def attempts(client: JobSubmissionClient, address: str, name: str | None = None) -> list[Attempt]:
    """Submissions that `umbel submit` made, oldest first; of one name if one is given.

    Raises:
        ClusterUnavailableError: the cluster does not answer.
    """
    with spoken(address):
        jobs = client.list_jobs()
    found: list[Attempt] = []
    for job in jobs:
        metadata = job.metadata or {}
        number = str(metadata.get(_ATTEMPT, ""))
        if metadata.get(_NAME) and number.isdecimal() and job.submission_id and name in (None, metadata[_NAME]):
            found.append(Attempt(metadata[_NAME], int(number), job.submission_id, job))
    return sorted(found, key=lambda attempt: (attempt.details.start_time or 0, attempt.number))


def find_job(client: JobSubmissionClient, address: str, text: str) -> str:
    """The submission id that a user means: an id, or a name for its newest attempt.

    Raises:
        NotFoundError: there is none.
        ClusterUnavailableError: the cluster does not answer.
    """
    named = attempts(client, address, text)
    if named:
        return named[-1].id
    try:
        return str(job_info(client, address, text).submission_id or text)
    except NotFoundError as error:
        known = sorted({attempt.name for attempt in attempts(client, address)})
        raise NotFoundError(
            error.what, got=text, expected=f"one of {', '.join(known[-10:])}" if known else None, hint=error.hint
        ) from None


def stop(client: JobSubmissionClient, address: str, job: str) -> bool:
    """Ask a job to end in good order: it is sent SIGTERM, and SIGKILL if it is still there after `STOP_WAIT_S`.

    Returns:
        Whether it was running.

    Raises:
        ClusterUnavailableError: the cluster does not answer.
    """
    with spoken(address):
        return bool(client.stop_job(job))


def _running(
    earlier: Sequence[Attempt], command: str, digest: str, variables: Mapping[str, str], address: str
) -> Attempt | None:
    """The attempt that runs and is what is asked for.

    Raises:
        UsageError: something else runs under the name.
    """
    for attempt in earlier:
        details = attempt.details
        if details.status.is_terminal():
            continue
        differs = [
            what
            for what, same in {
                "command": details.entrypoint == command,
                "files": details.metadata.get(_PROJECT) == digest,
                "variables": same_environment(variables, details.runtime_env),
            }.items()
            if not same
        ]
        if differs:
            verb = "differs" if differs == ["command"] else "differ"
            raise UsageError(
                f"another job of this name is running: its {' and '.join(differs)} {verb} from what is asked",
                got=attempt.id,
                expected="the same job, which would be followed, or a name that is free",
                hint=f"umbel stop {attempt.id} --address {address}, or --name another",
            )
        return attempt
    return None


def _ask(client: JobSubmissionClient, address: str, environment: Mapping[str, Any]) -> ClusterSide:
    """What is installed on the cluster, as a job with this environment finds it."""
    kept = ("env_vars", "conda", "image_uri", "container")
    job = f"umbel-probe-{secrets.token_hex(4)}"
    try:
        with spoken(address):
            client.submit_job(
                entrypoint=shlex.join(probe_command()),
                submission_id=job,
                runtime_env={name: value for name, value in environment.items() if name in kept},
            )
        if wait_until_ended(client, address, job, PROBE_LIMIT_S) is None:
            raise ExecutorError(
                f"the cluster has not started a small job within {PROBE_LIMIT_S:.0f} s",
                got=f"{job} at {address}",
                hint="is its head node overloaded? `ray job list` and the dashboard show what it does",
            )
        with spoken(address):
            log = client.get_job_logs(job)
            details = client.get_job_info(job)
    finally:
        _remove(client, address, job)
    return read_answer(log or str(details.message))


def _remove(client: JobSubmissionClient, address: str, job: str) -> None:
    """Let the cluster forget a job of our own, however far it came: its variables are kept with it."""
    try:
        with spoken(address):
            if not client.get_job_info(job).status.is_terminal():
                client.stop_job(job)
                wait_until_ended(client, address, job, REMOVE_LIMIT_S)
            client.delete_job(job)
    except UmbelError:
        pass  # it was never taken up, or nobody answers any more: that is told already


def _staged_packages(project: Project, folder: Path) -> list[str]:
    """Copies of the packages in ``src/``, each to be put on the path."""
    packages = project.packages_in_src()
    for name in project.files:
        if any(name.startswith(f"{package}/") for package in packages):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(project.read(name))
            target.chmod(project.mode(name))
    return [str(folder / package) for package in packages]


def _environment(
    request: JobRequest,
    side: ClusterSide,
    project: Project,
    folder: Path,
    archive: Path,
    variables: Mapping[str, str],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The job's runtime_env, with what goes along staged in a folder."""
    tell(f"umbel     {'the cluster has this one' if side.has_umbel else 'goes along'}")
    if side.missing:
        tell(f"packages  the cluster lacks {', '.join(side.missing)}: installed there by pip")
    environment = with_packages(request.runtime_env, [*request.packages, *side.missing])
    environment |= {"working_dir": str(archive), "env_vars": dict(variables)}
    environment["py_modules"] = [
        *(environment.get("py_modules") or []),
        *_staged_packages(project, folder / "src"),
        *([] if side.has_umbel else map(str, stage_umbel(folder / "umbel"))),
    ]
    # On the cluster Ray falls over parts that are there and empty, py_modules of all.
    return {name: value for name, value in environment.items() if value}


def _submitted(
    client: JobSubmissionClient,
    address: str,
    command: str,
    job: str,
    environment: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> bool:
    """Submit a job; False: somebody else has just submitted one under this id. The cluster lets only one have it."""
    try:
        with spoken(address):
            client.submit_job(
                entrypoint=command, submission_id=job, runtime_env=dict(environment), metadata=dict(metadata)
            )
    except ExecutorError as error:
        if "already exists" in str(error):
            return False
        raise
    except (ValueError, TypeError) as error:  # what Ray itself finds wrong with a runtime_env
        raise UsageError("Ray refuses the runtime_env", got=type(error).__name__, hint=_first_line(error)) from None
    return True


def _first_line(error: Exception) -> str:
    return redact_url(next(iter(str(error).splitlines()), "")[:200])
