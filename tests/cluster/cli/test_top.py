"""`umbel top`, with a broker's view that is given."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from typer.testing import CliRunner

from umbel.cluster.cli import top as cli_top
from umbel.cluster.cli.app import app

VIEW: dict[str, Any] = {
    "capacity": {"CPU": 6.0, "GPU": 1.0, "memory": 1e9},
    "total": {"CPU": 8.0, "GPU": 1.0, "memory": 1e9},
    "runs": [
        {
            "run": "gdp-1234",
            "name": "gdp [bold]",
            "tenant": "ada",
            "weight": 2.0,
            "priority": 0,
            "minimum": {},
            "cap": {},
            "preemptible": False,
            "host": "node",
            "pid": 7,
            "wants": 20,
            "holds": 3,
            "may_have": 4,
            "resources": {"CPU": 3.0, "memory": 5e8},
            "share": 0.375,
            "seconds": 12.0,
        }
    ],
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    view = dict(VIEW)
    monkeypatch.setattr(cli_top, "_look", lambda: view)
    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", lambda address: False)
    return view


def test_once(shown: dict[str, Any]) -> None:
    answer = CliRunner().invoke(app, ["top", "--once"])
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert lines[0].split()[-3:] == ["share", "resources", "driver"]
    assert lines[1].split() == ["ada", "gdp", "[bold]", "2", "0", "20", "4", "3", "38%", "CPU", "3", "node:7"]
    assert lines[-1] == "CPU 8 (2 in use by others), GPU 1"


def test_json(shown: dict[str, Any]) -> None:
    answer = CliRunner().invoke(app, ["top", "--json"])
    assert json.loads(answer.output) == VIEW


@pytest.mark.parametrize("error", [RayActorError(), GetTimeoutError(), RayTaskError("tell", "", ValueError())])
def test_a_broker_that_can_not_say_is_as_none(monkeypatch: pytest.MonkeyPatch, error: RayError) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("umbel.runtime.sharing.broker.find_broker", MagicMock)
    monkeypatch.setattr("ray.get", fail)
    assert cli_top._look()["runs"] == []


def test_nobody_is_there(shown: dict[str, Any]) -> None:
    shown["runs"] = []
    answer = CliRunner().invoke(app, ["top", "--once"])
    assert answer.output.splitlines()[0] == "no run shares this cluster now"
