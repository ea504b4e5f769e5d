"""`umbel stop`, as a program sees it."""

from __future__ import annotations

import sys
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
