"""Trials run again: in this process, and on a machine that has nothing but the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import run
from umbel.scheduler.errors import NotFoundError

COUNTRIES = ["AUT", "BRA"]
TOKEN = "pl4nted" + "-t0ken"  # not in one piece, since sources are stored as they are
HOLDER = {"api_token": TOKEN}


@umbel.task
def load(country: str) -> np.ndarray:
    return np.linspace(0.0, 1.0, 7) * len(country)


def fit(config: dict[str, Any], data: np.ndarray) -> umbel.Result:
    rng = np.random.default_rng(umbel.trial().seed)
    if config["lags"] == 1:
        raise ValueError(f"too few lags in {umbel.trial().group['country']}")
    value = float((data**2).sum() * config["alpha"] + rng.normal())
    return umbel.Result({"loss": value, "lags": config["lags"]}, model=("fitted", config["lags"]))


def a_sweep(fn: Any = fit, **options: Any) -> Any:
    given: dict[str, Any] = {
        "space": {"alpha": tune.uniform(0, 1), "lags": tune.randint(1, 5)},
        "over": {"country": COUNTRIES},
        "data": load.map(COUNTRIES),
        "trials": 12,
        "metric": "loss",
        "name": "fit",
    }
    return umbel.sweep(fn, **(given | options))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> umbel.Run:
    return run(a_sweep(), tmp_path_factory.mktemp("replay"))


def test_every_trial_is_reproduced(done: umbel.Run) -> None:
    rows = done.trials().to_pylist()
    assert {row["status"] for row in rows} == {"ok", "failed"}
    for row in rows:
        found = done.replay(row["trial"])
        assert found.same, found.text()
        assert found.same_inputs
        assert found.differences == found.environment == ()
        if row["status"] == "ok":
            assert found.metrics["loss"] == row["metric_loss"]
            assert found.model == ("fitted", row["config_lags"])
        else:
            assert "too few lags" in (found.error or "")


def test_text(done: umbel.Run) -> None:
    rows = done.trials().to_pylist()
    good = next(row["trial"] for row in rows if row["status"] == "ok")
    bad = next(row["trial"] for row in rows if row["status"] == "failed")
    assert "the same, to the bit" in str(done.replay(good))
    assert done.replay(good).text().endswith("reproduced: the metrics are the same to the bit")
    text = done.replay(bad).text()
    assert "Traceback" in text
    assert "raise ValueError" in text
    assert text.endswith("reproduced: it fails as it did")


def test_with_another_config(done: umbel.Run) -> None:
    bad = next(row["trial"] for row in done.trials().to_pylist() if row["status"] == "failed")
    found = done.replay(bad, config={"lags": 3})
    assert not found.same
    assert found.status == "ok"
    assert found.differences == ("config: 'lags' replaced",)
    assert "recorded was failed, and here it went well" in found.text()


def test_a_value_that_the_config_lacks_can_not_be_replaced(done: umbel.Run) -> None:
    with pytest.raises(umbel.UsageError, match="no such value to replace") as refused:
        done.replay(4, config={"lag": 1})
    assert "did you mean 'lags'?" in str(refused.value)


def test_with_other_data(done: umbel.Run) -> None:
    good = next(row["trial"] for row in done.trials().to_pylist() if row["status"] == "ok")
    found = done.replay(good, data=np.ones(3))
    assert not found.same
    assert not found.same_inputs
    assert found.text().endswith("not reproduced: the metrics differ")


def test_what_is_not_there(done: umbel.Run) -> None:
    with pytest.raises(NotFoundError, match="no trial 99"):
        done.replay(99)


@pytest.mark.parametrize(
    "data", [[np.arange(7.0), np.arange(3.0)], np.arange(5.0), [np.zeros(20_000), np.ones(20_000)]]
)
def test_plain_data_are_in_the_store(data: Any, tmp_path: Path) -> None:
    found = run(a_sweep(data=data), tmp_path)
    for trial in (0, 13):
        replayed = found.replay(trial)
        assert replayed.same, replayed.text()
        assert replayed.same_inputs


def test_an_item_of_a_revealed_list(tmp_path: Path) -> None:
    @umbel.task
    def everything() -> list[np.ndarray]:
        return [np.arange(4.0), np.arange(9.0)]

    found = run(a_sweep(data=everything.bind().elements()), tmp_path)
    replayed = found.replay(20)
    assert replayed.same, replayed.text()
    assert replayed.same_inputs


def test_the_environment_is_compared(done: umbel.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_IMAGE", "registry.example/other:2")
    assert done.replay(3).environment == ("image none → registry.example/other:2",)


def test_credentials_are_not_in_the_store_but_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = HOLDER

    def captures(config: dict[str, Any]) -> float:
        return float(config["x"]) if holder["api_token"] == config["api_key"] else -1.0

    sweep = umbel.sweep(
        captures, space={"x": [1, 2], "api_key": TOKEN}, search="grid", metric="loss", name="fit", data=None
    )
    found = run(sweep, tmp_path)
    assert found.trials()["metric_loss"].to_pylist() == [1.0, 2.0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    without = found.replay(0)
    assert not without.same_inputs
    assert "a credential is missing: api_token" in without.differences
    monkeypatch.setenv("api_token", TOKEN)
    filled = found.replay(0, config={"api_key": TOKEN})
    assert filled.same
    assert filled.same_inputs


def test_data_with_credentials_must_be_given(tmp_path: Path) -> None:
    def fit(config: dict[str, Any], data: dict[str, str]) -> float:
        return float(len(data["password"]))

    data = {"user": "ada", "password": TOKEN}
    sweep = umbel.sweep(fit, space={"x": [1]}, search="grid", metric="loss", name="fit", data=data)
    found = run(sweep, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    with pytest.raises(NotFoundError, match="credential"):
        found.replay(0)
    assert found.replay(0, data=data).same


# ---- elsewhere -------------------------------------------------------------------------------------------------

MODEL = """
from . import numbers

SCALE = 3.0

def value(config, data):
    if config["x"] == 2:
        raise ArithmeticError("x is two")
    return numbers.double(config["x"]) * SCALE + sum(data)
"""
NUMBERS = "def double(x):\n    return 2 * x\n"
JOB = """
import sys
from dataclasses import dataclass
from pathlib import Path

import umbel
from project.inner import model

OFFSET = 0.25

@dataclass
class Series:
    values: list

@umbel.task
def load(country):
    return Series([len(country), 1.5])

def fit(config, data):
    return model.value(config, data.values) + OFFSET

def graph():
    return umbel.sweep(fit, space={"x": [1, 2, 3]}, over={"country": ["A", "BB"]}, data=load.map(["A", "BB"]),
                       search="grid", metric="loss", name="fit")

imported = umbel.sweep(model.value, space={"x": [1, 2, 3]}, data=[[1.0, 2.0]], search="grid", metric="loss",
                       name="imported")

if __name__ == "__main__":
    umbel.run([graph(), imported], store=sys.argv[1], name="job", executor="inline", progress="quiet")
"""


def python(folder: Path, *arguments: str, deadline_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in another folder, which finds Umbel and nothing of the project."""
    source = str(Path(umbel.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )


@pytest.fixture(scope="module", params=["script", "command"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store, made by a project that is gone since."""
    folder = tmp_path_factory.mktemp("elsewhere")
    project = folder / "work"
    (project / "project" / "inner").mkdir(parents=True)
    (project / "job.py").write_text(JOB)
    (project / "project" / "__init__.py").write_text("NAME = 'project'\n")
    (project / "project" / "inner" / "__init__.py").write_text("from project import NAME\n")
    (project / "project" / "inner" / "model.py").write_text(MODEL)
    (project / "project" / "inner" / "numbers.py").write_text(NUMBERS)
    if request.param == "script":
        made = python(project, "job.py", str(folder / "store"))
    else:
        command = "from umbel.runtime.cli.app import main; main()"
        arguments = ("run", "job.py:both", "--name", "job", "--store", str(folder / "store"), "--executor", "inline")
        (project / "job.py").write_text(JOB + "\nboth = [graph(), imported]\n")
        made = python(project, "-c", command, *arguments)
    assert made.returncode == 0, made.stderr
    project.rename(folder / "moved-away")
    for path in (folder / "moved-away").rglob("*.py"):
        path.write_text("raise ImportError('not this one')\n")
    (folder / "here").mkdir()
    return folder


REPLAY = """
import sys
import umbel
run = umbel.open_store(sys.argv[1]).run("job")
for sweep in run.sweeps:
    for trial in run.trials(sweep)["trial"].to_pylist():
        found = run.replay(trial, sweep)
        assert found.same and found.same_inputs, found.text()
        if found.status == "failed":
            assert "raise ArithmeticError" in found.error, found.error
assert "project" not in sys.modules
print(run.replay(1, "fit").text())
"""


@pytest.mark.ray
def test_another_machine_needs_only_the_store(stored: Path) -> None:
    (stored / "here" / "again.py").write_text(REPLAY)
    made = python(stored / "here", "again.py", str(stored / "store"))
    assert made.returncode == 0, made.stderr + made.stdout
    assert "return model.value(config, data.values) + OFFSET" in made.stdout  # sources of scripts are shown, too


@pytest.mark.ray
def test_the_command(stored: Path) -> None:
    command = (
        "-c",
        "from umbel.runtime.cli.app import main; main()",
        "replay",
        "job",
        "0",
        "--store",
        str(stored / "store"),
    )
    made = python(stored / "here", *command, "--sweep", "fit")
    assert made.returncode == 0, made.stderr
    assert "reproduced: the metrics are the same to the bit" in made.stdout
    changed = python(stored / "here", *command, "--sweep", "fit", "--set", "x=3")
    assert changed.returncode == 1
    assert "not reproduced: the metrics differ" in changed.stdout


@pytest.mark.ray
def test_the_debugger_stops_where_it_failed(stored: Path) -> None:
    source = str(Path(umbel.__file__).parent.parent)
    made = subprocess.run(
        [
            *(sys.executable, "-c", "from umbel.runtime.cli.app import main; main()"),
            *("replay", "job", "1", "--sweep", "fit", "--pdb", "--store", str(stored / "store")),
        ],
        cwd=stored / "here",
        env={**os.environ, "PYTHONPATH": source},
        input="p config['x'] * 1000\nquit\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2000" in made.stdout
    assert "raise ArithmeticError" in made.stdout


def test_json_of_the_record_names_modules(done: umbel.Run) -> None:
    record = json.loads(json.dumps(done.record))
    known = [names for entry in record["modules"].values() for names in entry["modules"]]
    assert any(name.endswith("test_replay") for name in known)
