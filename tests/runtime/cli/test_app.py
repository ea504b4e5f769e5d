"""The commands, as a user types them; inline, so no Ray is started."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from umbel.runtime.cli import app as cli
from umbel.runtime.cli.views import error_line
from umbel.storage.runs.ownership import Ownership
from umbel.storage.store import open_store

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
    (tmp_path / "empty.py").write_text("")
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
        (["run", "job.py:nothing"], "one of: sweep, number, graph"),
        (["run", "empty.py:nothing"], "a node, but the file has none"),
        (["run", "job.py", "--budget", "trials"], "a name and a number"),
        (["run", "job.py", "--budget", "coffee=3"], "unknown budget"),
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


def test_a_run_that_a_limit_stops_ends_with_75_and_goes_on(umbel: Command) -> None:
    command = ("run", "job.py", "--executor", "inline", "--progress", "quiet")
    status, out, _ = umbel(*command, "--budget", "trials=2", "--json")
    assert status == 75
    assert json.loads(out)["status"] == "stopped"
    assert umbel(*command, "--deadline", "1e-9")[0] == 75
    assert umbel(*command)[0] == 0
    assert umbel(*command, "--max-failures", "0", "--retry-failed")[0] == 1


def test_the_default_name_tells_objects_apart(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import umbel\nonly = umbel.task(int).bind()\n")
    for target in ("job.py", "job.py:graph", "job.py:number", "one.py:only"):
        assert umbel("run", target, "--executor", "inline", "--progress", "quiet")[0] == 0
    assert {row["name"] for row in json.loads(umbel("ls", "--json")[1])} == {"job", "job-number", "one"}


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("def bad():\n    return 1 / 0\n\nbad()\n", "ZeroDivisionError: division by zero"),
        ("def graph():\n    return 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def graph(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_an_error_of_the_script_is_shown_as_the_scripts(umbel: Command, tmp_path: Path, script: str, line: str) -> None:
    (tmp_path / "bad.py").write_text(script)
    for command in (["run", "bad.py"], ["plan", "bad.py", "--nodes", "1"]):
        status, _, err = umbel(*command)
        assert status == 2
        assert err.splitlines()[-1] == line
        files = re.findall(r'File "(.*?)"', err)
        assert set(files) == {str(tmp_path / "bad.py")}


def test_json_is_json_whatever_else_is_printed(umbel: Command, tmp_path: Path) -> None:
    script = "import os, sys, umbel\nprint('loading')\nsys.stdout.flush()\nos.system('echo shell')\n"
    (tmp_path / "loud.py").write_text(script + "loud = umbel.task(lambda: print('hello')).bind()\n")
    status, out, err = umbel("run", "loud.py", "--executor", "inline", "--json")
    assert status == 0
    assert json.loads(out)["status"] == "done"
    assert "loading" in err


@pytest.mark.ray
def test_json_is_json_when_a_worker_dies(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(
        "import os, umbel\n\ndef trial(config):\n    os._exit(3) if config['x'] == 2 else None\n"
        "    os.system('echo shell')\n    return {'loss': config['x']}\n\n"
        "graph = umbel.sweep(trial, space={'x': [1, 2, 3]}, search='grid', metric='loss')\n"
    )
    command = "from umbel.runtime.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "run", "dies.py", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (node,) = json.loads(done.stdout)["nodes"]
    assert (node["done"], node["failed"]) == (3, 1)


FAILING = """
import umbel

@umbel.task
def load(name):
    if name == "a":
        raise ValueError("no such file:\\nlook elsewhere")
    return name

@umbel.task
def fit(data):
    print("fitted", data)
    return data

@umbel.task
def names():
    return ["b", "c"]

def trial(config):
    return {"loss": 1.0}

graph = fit.map(load.map(["a", "b", "a"]))
listed = umbel.sweep(trial, space={"x": [1]}, over={"g": names.bind()}, search="grid", metric="loss")
quiet = umbel.sweep(trial, space={"x": [1]}, over={"g": ["b", "c"]}, search="grid", metric="loss")
alone = fit.bind("d")
"""


def test_failures_show_causes_first_and_what_follows_as_one_line(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(FAILING)
    assert umbel("run", "f.py", "--executor", "inline")[0] == 0
    status, out, _ = umbel("failures", "f")
    assert status == 0
    assert "ValueError: no such file:" in out
    assert "look elsewhere" not in out
    assert "and 2 elements were not run because of these, of fit (--all shows them)" in out
    assert "not run: " not in out
    assert umbel("failures", "f", "--all")[1].count("not run: ") == 2
    assert len(json.loads(umbel("failures", "f", "--json")[1])) == 4


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("UsageError: what\n  got:      3\n  to do:    that", "UsageError: what"),
        ('Traceback (most recent call last):\n  File "a.py", line 3, in f\n    x\n    ^\nKeyError: 1', "KeyError: 1"),
        ('…cut\n  File "a.py", line 3, in f\nValueError: two\nlines', "ValueError: two"),
        ("took longer than 3 s", "took longer than 3 s"),
        ("", ""),
    ],
)
def test_the_line_of_an_error_that_says_it(error: str, line: str) -> None:
    assert error_line(error) == line


def test_logs_say_why_there_is_nothing_to_show(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(FAILING)
    for target in ("graph", "alone", "quiet"):
        assert umbel("run", f"f.py:{target}", "--executor", "inline", "--name", target)[0] == 0
    assert umbel("run", "f.py:quiet", "--executor", "inline", "--name", "again")[0] == 0
    assert umbel("logs", "alone", "0")[:2] == (0, "fitted d\n")
    assert umbel("logs", "graph", "1", "--node", "fit")[:2] == (0, "fitted b\n")
    status, out, err = umbel("logs", "graph", "1")
    assert (status, out) == (2, "")
    assert "say which: --node load" in err
    assert umbel("logs", "quiet", "1")[::2] == (0, "trial 1 of trial printed nothing (it is ok)\n")
    assert "taken over: umbel logs quiet 1 --node trial" in umbel("logs", "again", "1")[2]
    status, _, err = umbel("logs", "quiet", "7")
    assert status == 2
    assert "'trial' of the run 'quiet' has no trial 7" in err
    assert "taken over" in json.loads(umbel("logs", "again", "1", "--json")[1])["note"]


def test_ls_counts_trials_of_groups_that_the_run_revealed(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(FAILING)
    assert umbel("run", "f.py:listed", "--executor", "inline")[0] == 0
    assert [row["trials"] for row in json.loads(umbel("ls", "--json")[1])] == [2]


def test_warnings_are_one_line_and_columns_are_those_of_the_groups(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(SCRIPT.replace('["good", "bad"]', '["bad"]').replace("> 2", "> 0"))
    _, _, err = umbel("run", "bad.py:sweep", "--executor", "inline", "--progress", "quiet")
    assert err.startswith("warning: 1 of 1 group of the sweep 'trial' has no trial with a finite loss")
    assert err.count("\n") == 1
    umbel("run", "job.py", "--executor", "inline")
    assert umbel("best", "job")[1].splitlines()[1].split() == ["group", "trial", "loss", "config"]


def test_show_says_why_a_run_failed(umbel: Command, tmp_path: Path) -> None:
    umbel("run", "job.py", "--executor", "inline", "--budget", "trials=1")
    opened = open_store(str(tmp_path / "umbel-store"))
    Ownership.acquire(opened.objects, "job").release("failed", "StoreFullError: no space is left")
    assert "because   StoreFullError: no space is left" in umbel("show", "job")[1]
    assert umbel("run", "job.py", "--executor", "inline")[0] == 0
    assert json.loads(umbel("show", "job", "--json")[1])["reason"] is None


TARGETS = """
import umbel

@umbel.task
def load(name):
    if name != "good":
        raise FileNotFoundError(name)
    return name

@umbel.task
def report(values):
    raise ValueError("the report can't be written")

@umbel.task(on_failure="skip")
def some(name):
    return load(name)

values = load.map(["good", "bad"])
report_of_one = report.bind(load.bind("good"))
skipped = report.bind(some.map(["bad"]))
listed = load.map(load.bind("bad").elements())
ok = load.bind("good")
"""


@pytest.mark.parametrize(
    ("target", "status", "named"),
    [
        ("ok", 0, None),
        ("values", 0, None),  # one of two is there
        ("report_of_one", 1, "report"),
        ("skipped", 1, "report"),
        ("listed", 1, "load-2"),
    ],
)
def test_a_run_of_whose_target_nothing_came_has_failed(
    umbel: Command, tmp_path: Path, target: str, status: int, named: str | None
) -> None:
    (tmp_path / "targets.py").write_text(TARGETS)
    for _ in range(2):  # and so it stays when it is run again
        ended, _, err = umbel("run", f"targets.py:{target}", "--name", "t", "--executor", "inline")
        assert ended == status, err
        assert ("nothing came of" in err) == (named is not None)
        assert named is None or f"nothing came of '{named}', which was asked for" in err
    shown = umbel("show", "t")[1]
    assert named is None or f"because   nothing came of '{named}': all failed" in shown
    assert "1 elements" not in shown + err


def test_a_target_that_was_mended_has_not_failed(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "mended.py").write_text(
        "import pathlib, umbel\n@umbel.task\ndef read():\n    return pathlib.Path('there').read_text()\n"
        "node = read.bind()\n"
    )
    run = ("run", "mended.py:node", "--name", "m", "--executor", "inline")
    assert umbel(*run)[0] == 1
    (tmp_path / "there").write_text("now")
    status, _, err = umbel(*run, "--retry-failed")
    assert status == 0, err
    assert "done: 1 element in" in err
    assert "because" not in umbel("show", "m")[1]


def test_logs_of_a_trial_whose_run_was_deleted(umbel: Command, tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "import umbel\ndef trial(config):\n    print('x is', config['x'])\n    return config['x']\n"
        "node = umbel.sweep(trial, space={'x': [1.0, 2.0]}, search='grid', metric='m')\n"
    )
    for name in ("first", "second"):
        assert umbel("run", "twice.py:node", "--name", name, "--executor", "inline")[0] == 0
    assert "umbel logs first 1 --node trial" in umbel("logs", "second", "1")[2]
    shutil.rmtree(tmp_path / "umbel-store" / "runs" / "first")
    err = umbel("logs", "second", "1")[2]
    assert "taken over from the run 'first', which is not in this store any more" in err
    assert "umbel logs first" not in err
