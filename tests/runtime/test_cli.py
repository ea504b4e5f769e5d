"""The commands, as a user types them; inline, so no Ray is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from umbel.runtime import cli

SCRIPT = """
import umbel

@umbel.task
def double(x):
    return 2 * x

def trial(config):
    if config["group"] == "bad" and config["x"] > 2:
        raise ValueError("too much")
    return {"loss": config["x"]}

sweep = umbel.sweep(trial, space={"x": [3, 1, 2]}, over={"group": ["good", "bad"]}, search="grid", metric="loss")
number = double.bind(4)

def graph():
    return sweep

def needs(argument):
    return sweep

not_a_node = 3
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def umbel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in an empty folder with a script; gives status, standard output and standard error."""
    (tmp_path / "job.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UMBEL_STORE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return command


def test_a_run_from_beginning_to_end(umbel: Command) -> None:
    status, out, err = umbel("run", "job.py:graph", "--executor", "inline")
    assert status == 0
    assert "good" in out
    assert "x=1" in out
    assert "1 failed" in err

    status, out, _ = umbel("ls")
    assert status == 0
    assert "job" in out
    assert "done" in out

    status, out, _ = umbel("show", "job", "--json")
    facts = json.loads(out)
    assert facts["status"] == "done"
    assert [(node["name"], node["done"], node["failed"]) for node in facts["nodes"]] == [("trial", 6, 1)]

    status, out, _ = umbel("best", "job", "--json")
    assert [(row["group"], row["config_x"], row["metric_loss"]) for row in json.loads(out)] == [
        ("good", 1, 1.0),
        ("bad", 1, 1.0),
    ]

    status, out, _ = umbel("failures", "job")
    assert "ValueError: too much" in out
    status, out, _ = umbel("failures", "job", "--json")
    (failure,) = json.loads(out)
    assert failure["status"] == "failed"
    assert json.loads(failure["config"]) == {"x": 3}

    status, _, err = umbel("run", "job.py:graph", "--executor", "inline", "--json")
    assert status == 0
    assert "everything is done already" in err


def test_tables_are_for_people_and_json_is_for_programs(umbel: Command) -> None:
    umbel("run", "job.py:sweep", "--executor", "inline", "--name", "one", "--progress", "quiet")
    for command in (["ls"], ["show", "one"], ["best", "one"], ["failures", "one"]):
        status, out, _ = umbel(*command)
        assert status == 0
        with pytest.raises(ValueError):
            json.loads(out)
        status, out, _ = umbel(*command, "--json")
        assert status == 0
        json.loads(out)


def test_a_single_node_is_a_target_too(umbel: Command) -> None:
    status, _, err = umbel("run", "job.py:number", "--executor", "inline")
    assert status == 0, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.py"], "there is no such file"),
        (["run", "job.py"], None),  # `graph` is taken
        (["run", "job.py:nothing"], "has no 'nothing'"),
        (["run", "job.py:not_a_node"], "is not a node"),
        (["run", "job.py:needs"], "needs arguments"),
        (["run", "job.py", "--name", "../evil"], "can't be the name of a run"),
        (["run", "job.py", "--executor", "dask"], "unknown executor"),
        (["show", "nobody"], "no run of this name"),
        (["best", "nobody"], "no run of this name"),
    ],
)
def test_mistakes_get_a_message_and_status_2(umbel: Command, arguments: list[str], message: str | None) -> None:
    if arguments[0] == "run" and "--executor" not in arguments:
        arguments = [*arguments, "--executor", "inline"]
    status, _, err = umbel(*arguments)
    if message is None:
        assert status == 0
    else:
        assert status == 2
        assert message in err
        assert "Traceback" not in err


def test_several_nodes_without_a_name_are_a_question(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(SCRIPT.replace("def graph", "def other"))
    status, _, err = umbel("run", "two.py", "--executor", "inline")
    assert status == 2
    assert "sweep" in err
    assert "number" in err


def test_an_empty_store_is_said_to_be_empty(umbel: Command) -> None:
    status, out, _ = umbel("ls", "--store", "nowhere")
    assert status == 0
    assert "no runs" in out
