"""What does a job say, how did it end, and which status tells that to a program?

Logs are followed by Ray's own stream, which is begun again where it broke off. It must not know how a job was made.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umbel.cluster.jobs.client import spoken
from umbel.scheduler.errors import ClusterUnavailableError, NotFoundError
from umbel.storage.redaction import redact_url

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

__all__ = ["PATIENCE_S", "RETRY", "Outcome", "follow", "job_info", "outcome", "wait_until_ended"]

#: "Run it again to go on": EX_TEMPFAIL of sysexits.h, as of `umbel run`.
RETRY = 75
#: Seconds without an answer after which a cluster that answered before is given up.
PATIENCE_S = 60.0
#: Seconds between looks at a job.
_POLL_S = 0.5
#: Seconds of silence after which a stream may be dead, so that the job's details are asked for.
_SILENCE_S = 20.0
#: Ray's names for ways of failing that are not the cluster's loss but stay so, and the logs that tell more.
_LASTING = {
    "RUNTIME_ENV_SETUP_FAILURE": "runtime_env_agent.log, runtime_env_setup-*.log",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR": "job-driver-*.log",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    #: For programs: 0 done, `RETRY`: it may be run again to go on, anything else: its own.
    status: int
    #: In a few words.
    text: str


def outcome(details: Any) -> Outcome | None:
    """What a job's details (Ray's `JobDetails`) say of its end; None: it has not ended.

    What a signal ended, and what was lost with its node or its cluster, may be run again: 75. A status of the job's own
    is passed on.
    """
    state = str(getattr(details.status, "value", details.status))
    if state == "SUCCEEDED":
        return Outcome(0, "done")
    if state == "STOPPED":
        return Outcome(RETRY, "stopped; the same command again goes on with it")
    if state != "FAILED":
        return None
    code = details.driver_exit_code
    if code is None:
        what = _reason(str(details.message or "for an unknown reason"))
        if details.error_type in _LASTING:
            log = f"logs of session_latest on the node: {_LASTING[details.error_type]}"
            return Outcome(1, f"could not be started\n  got:      {what}\n  to do:    mend it; more in the {log}")
        return Outcome(RETRY, f"lost; the same command again goes on with it: {what}")
    number = -code if code < 0 else code - 128 if 128 < code < 128 + 65 else 0
    if number and code != 130:
        return Outcome(RETRY, f"ended by signal {number}; the same command again goes on with it")
    named = {1: "failed", 2: "a mistake in the command or the script", RETRY: "stopped by a limit", 130: "interrupted"}
    return Outcome(code, f"{named.get(code, 'failed')} (status {code})")


def job_info(client: JobSubmissionClient, address: str, job: str) -> Any:
    """A job's details, as Ray tells them.

    Raises:
        NotFoundError: there is no such job.
        ClusterUnavailableError: the cluster does not answer.
    """
    with spoken(address):
        try:
            return client.get_job_info(job)
        except RuntimeError as error:
            if "does not exist" in str(error):
                raise NotFoundError(
                    "the cluster has no such job", got=job, hint=f"umbel jobs --address {address}"
                ) from None
            raise


def follow(client: JobSubmissionClient, address: str, job: str, show: Callable[[str], None]) -> Outcome:
    """Show what a job prints until it ends; say how.

    Raises:
        ClusterUnavailableError: the cluster has not answered for a minute; what became of the job is not known.
        NotFoundError: there is no such job.
    """
    return asyncio.run(_follow(client, address, job, show))


def wait_until_ended(client: JobSubmissionClient, address: str, job: str, limit_s: float) -> Outcome | None:
    """How a job ended; None: it did not within the time.

    Raises:
        ClusterUnavailableError: the cluster does not answer.
        NotFoundError: there is no such job.
    """
    end = time.monotonic() + limit_s
    while True:
        ended = outcome(job_info(client, address, job))
        if ended is not None or time.monotonic() > end:
            return ended
        time.sleep(_POLL_S / 2)


async def _stream(client: JobSubmissionClient, job: str) -> AsyncIterator[str]:
    """What a job prints, from its beginning; empty texts when it has been silent for a while; ends if it breaks off.

    Silence may mean that the connection is dead: nobody tells a reader so.
    """
    import aiohttp

    stream = aiter(client.tail_job_logs(job))
    while True:
        waiting = asyncio.ensure_future(anext(stream))
        try:
            while not (await asyncio.wait({waiting}, timeout=_SILENCE_S))[0]:
                yield ""
            yield waiting.result()
        except StopAsyncIteration:
            return
        except (OSError, RuntimeError, aiohttp.ClientError):  # what it means, the job's details say
            return
        finally:
            waiting.cancel()


async def _follow(client: JobSubmissionClient, address: str, job: str, show: Callable[[str], None]) -> Outcome:
    shown = 0  # characters: a stream that is begun again begins with the first
    answered = time.monotonic()

    def ended() -> Outcome | None:
        nonlocal answered
        try:
            found = outcome(job_info(client, address, job))
        except ClusterUnavailableError as error:
            if time.monotonic() - answered < PATIENCE_S:
                return None
            raise ClusterUnavailableError(
                f"the cluster does not answer any more; what became of the job {job} is not known",
                got=error.got,
                hint=f"umbel attach {job} --address {address}, when it does; or submit it again, which is safe",
            ) from None
        answered = time.monotonic()
        return found

    while True:
        passed = 0
        async for text in _stream(client, job):
            new = text[max(0, shown - passed) :]
            passed += len(text)
            shown = max(shown, passed)
            if new:
                show(new)
            elif not text and ended() is not None:
                break
        found = ended()
        if found is not None:
            return found
        await asyncio.sleep(_POLL_S)


def _reason(message: str, length: int = 400) -> str:
    """What a long message says, without credentials in URLs: its lines that are errors of a program, else the last line
    of a traceback that names an exception, else its end."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    text = redact_url(" ".join(errors or raised[-1:] or lines))
    return text if len(text) <= length else f"… {text[-length:]}"
