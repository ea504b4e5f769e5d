"""What a job's end means, and following its log over connections that break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from umbel.cluster.jobs import following as job_following
from umbel.cluster.jobs.following import RETRY, follow, outcome
from umbel.runtime.cli.run import STOPPED
from umbel.scheduler.errors import ClusterUnavailableError, NotFoundError


def details(status: str, code: int | None = None, error: str | None = None, message: str = "gone") -> Any:
    return SimpleNamespace(status=status, driver_exit_code=code, error_type=error, message=message)


@pytest.mark.parametrize(
    ("job", "status", "said"),
    [
        (details("SUCCEEDED", 0), 0, "done"),
        (details("STOPPED"), 75, "goes on with it"),
        (details("FAILED", 1), 1, "failed (status 1)"),
        (details("FAILED", 2), 2, "mistake"),
        (details("FAILED", 3), 3, "failed (status 3)"),
        (details("FAILED", 75), 75, "stopped by a limit"),
        (details("FAILED", 130), 130, "interrupted"),
        (details("FAILED", -9), 75, "signal 9"),
        (details("FAILED", 137), 75, "signal 9"),
        (details("FAILED", 255), 255, "failed"),
        (details("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED"), 75, "lost"),
        (details("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", "no such package"), 1, "no such package"),
        (
            details("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", "a\nERROR: b\nc"),
            1,
            "could not be started\n  got:      ERROR: b\n",
        ),
        (
            details("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", "Traceback:\n" + "in f()\n" * 99 + "TypeError: b"),
            1,
            "could not be started\n  got:      TypeError: b\n  to do:    mend it; more in the logs of session_latest",
        ),
    ],
)
def test_how_a_job_ended(job: Any, status: int, said: str) -> None:
    found = outcome(job)
    assert found is not None
    assert found.status == status
    assert said in found.text


def test_what_has_not_ended() -> None:
    assert outcome(details("PENDING")) is None
    assert outcome(details("RUNNING")) is None


def test_the_status_for_retries_is_the_one_of_umbel_run() -> None:
    assert RETRY == STOPPED


class Client:
    """A cluster whose streams break off as told, and that says what it is told of the job."""

    def __init__(self, streams: list[list[str | Exception]], answers: list[Any]) -> None:
        self._streams = iter(streams)
        self._answers: Iterator[Any] = iter(answers)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for item in next(self._streams):
            if isinstance(item, Exception):
                raise item
            yield item

    def get_job_info(self, job: str) -> Any:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_following, "_POLL_S", 0.0)


def followed(client: Client) -> tuple[str, int]:
    shown: list[str] = []
    ended = follow(client, "http://head:8265", "fit-1", shown.append)
    return "".join(shown), ended.status


def test_a_log_is_shown_once_over_connections_that_break() -> None:
    lines = ["one\n", "two\nthree\n", "four\n"]
    client = Client(
        [["one\n", "two\n", RuntimeError("closed")], ["one\ntw", "o\nthree\n", OSError("reset")], list(lines)],
        [details("RUNNING"), ConnectionError("refused"), details("FAILED", 75)],
    )
    assert followed(client) == ("".join(lines), 75)


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_following, "PATIENCE_S", -1.0)
    client = Client([["one\n", OSError("reset")]], [ConnectionError("refused")])
    with pytest.raises(ClusterUnavailableError, match="what became of the job fit-1 is not known") as lost:
        followed(client)
    assert lost.value.hint is not None
    assert "umbel attach fit-1 --address http://head:8265" in lost.value.hint


def test_a_job_that_is_not_there() -> None:
    client = Client([[RuntimeError("404")]], [RuntimeError("status code 404: Job fit-1 does not exist.")])
    with pytest.raises(NotFoundError, match="no such job"):
        followed(client)


def test_silence_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    class Silent(Client):
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            yield "one\n"
            await asyncio.sleep(3600)

    monkeypatch.setattr(job_following, "_SILENCE_S", 0.01)
    ended = details("SUCCEEDED", 0)
    assert followed(Silent([], [details("RUNNING"), ended, ended])) == ("one\n", 0)
