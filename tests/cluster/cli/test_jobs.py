"""`umbel stop`, as a program sees it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from umbel.cluster.cli import app as cli
from umbel.cluster.jobs import client, following, submission
from umbel.cluster.jobs.following import Outcome


@pytest.mark.parametrize(
    ("ended", "status", "said"),
    [
        (None, 75, "gdp-1 was asked to stop and has not ended yet"),
        (Outcome(75, "stopped"), 0, "gdp-1: stopped"),
    ],
)
def test_stop_says_whether_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: Any, status: int, said: str
) -> None:
    monkeypatch.setattr(client, "connect", lambda url: None)
    monkeypatch.setattr(submission, "find_job", lambda *arguments: "gdp-1")
    monkeypatch.setattr(submission, "stop", lambda *arguments: True)
    monkeypatch.setattr(following, "wait_until_ended", lambda *arguments: ended)
    monkeypatch.setattr(sys, "argv", ["umbel", "stop", "gdp", "--address", "http://head:8265"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert (exited.value.code or 0) == status
    assert said in capsys.readouterr().err


def test_jobs_have_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    details = SimpleNamespace(
        status=SimpleNamespace(value="SUCCEEDED"),
        driver_exit_code=0,
        start_time=1_800_000_000_000,
        entrypoint=f"exec python -m umbel run gdp.py {'--workers 2 ' * 20}",
        runtime_env={"env_vars": {"UMBEL_USER": "ada"}},
        message=None,
        error_type=None,
    )
    monkeypatch.setattr(client, "connect", lambda url: None)
    monkeypatch.setattr(submission, "attempts", lambda *arguments: [submission.Attempt("gdp", 1, "gdp-1", details)])
    monkeypatch.setattr(sys, "argv", ["umbel", "jobs", "--address", "http://head:8265"])
    with pytest.raises(SystemExit):
        cli.main()
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:6] == ["gdp-1", "ada", "succeeded", "0", "01-15", "08:00"]
    assert line.rstrip().endswith("--workers 2")
