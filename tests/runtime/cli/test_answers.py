"""The commands that ask what happened, as a user types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from umbel.runtime.cli import app as cli

SCRIPT = """
import umbel

@umbel.task
def load(group):
    return [len(group), LEVEL]

def trial(config, data):
    if config["group"] == "bad" and config["x"] > 2:
        raise ValueError("too much")
    return {"loss": config["x"] * data[1]}

LEVEL = 1
groups = ["good", "bad"]
graph = umbel.sweep(trial, space={"x": [3, 1, 2]}, over={"group": groups}, data=load.map(groups), search="grid",
                    metric="loss")
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def umbel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in a folder with a script and two runs of it, between which a constant was changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UMBEL_STORE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    for name, level in (("one", "1"), ("two", "2")):
        (tmp_path / "job.py").write_text(SCRIPT.replace("LEVEL = 1", f"LEVEL = {level}"))
        status, _, err = command("run", "job.py:graph", "--executor", "inline", "--name", name, "--progress", "quiet")
        assert status == 0, err
    return command


def test_lineage(umbel: Command, tmp_path: Path) -> None:
    status, out, _ = umbel("lineage", "one", "4")
    assert status == 0
    assert out.startswith("trial 4 of trial")
    assert "load[1]" in out
    assert "sweep trial × 6" in umbel("lineage", "one")[1]
    assert json.loads(umbel("lineage", "one", "load:0", "--json")[1])["things"][0]["name"] == "load[0]"
    assert umbel("lineage", "one", "4", "--html", "page.html")[0] == 0
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert umbel("lineage", "one", "4", "--html", "picture.svg")[0] == 0
    assert (tmp_path / "picture.svg").read_text().startswith("<svg")
    status, _, err = umbel("lineage", "one", "99")
    assert status == 2
    assert "no trial 99" in err


def test_downstream(umbel: Command) -> None:
    digest = json.loads(umbel("lineage", "one", "load:0", "--json")[1])["things"][0]["digest"]
    (use,) = json.loads(umbel("downstream", digest[:12], "--json")[1])
    assert (use["run"], use["trials"]) == ("one", 3)
    assert "3 trials" in umbel("downstream", digest)[1]
    assert umbel("downstream", "xyz")[0] == 2


def test_diff(umbel: Command) -> None:
    status, out, _ = umbel("diff", "one", "two")
    assert status == 0
    assert "differs: code (LEVEL)" in out
    assert "+LEVEL = 2" in out
    assert json.loads(umbel("diff", "one", "two", "--json")[1])["results"][0]["worse"] == 2
    assert umbel("diff", "one", "three")[0] == 2


def test_why_failed(umbel: Command) -> None:
    status, out, _ = umbel("why-failed", "one")
    assert status == 0
    assert "1 × ValueError: too much" in out
    assert json.loads(umbel("why-failed", "one", "--json")[1])["failed"] == 1


def test_replay(umbel: Command) -> None:
    status, out, _ = umbel("replay", "one", "0")
    assert status == 0
    assert "to the bit" in out
    status, out, _ = umbel("replay", "one", "3")
    assert status == 0
    assert "it fails as it did" in out
    assert umbel("replay", "one", "3", "--set", "x=1")[0] == 1
    assert umbel("replay", "one", "3", "--set", "x")[0] == 2
    assert umbel("replay", "one", "33")[0] == 2
