"""What runs, resumes and commands leave unimported: pandas takes longer to import than a short run takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import shutil
import sys
from pathlib import Path

import numpy as np

import umbel


def load(country):
    return np.arange(3.0)


def backtest(config, data):
    if config["country"] == "BRA" and config["lags"] == 2:
        raise ValueError("too short")
    return {"mase": config["lags"] * 1.5, "rmse": data.sum(), "note": float("nan")}


def refit(best, data):
    return umbel.Result({"mase": best.value}, model=data)


def graph():
    series = umbel.task(load).map(["AUT", "BRA"])
    sweep = umbel.sweep(
        backtest,
        space={"lags": [1, 2, 3], "kind": ["a", "b"], "trend": [True, False]},
        over={"country": ["AUT", "BRA"], "horizon": [5]},
        data=series,
        search="grid",
        metric="mase",
        name="backtest",
    )
    return umbel.task(refit).map(sweep.best(), series)


def run():
    return umbel.run(graph(), store="store", name="gdp", executor="inline", progress="quiet")


def check(what):
    assert "pandas" not in sys.modules, what


ended = run()
assert len(ended.value("refit")) == 2
check("a run")
folder = Path("store/runs/gdp")
shutil.rmtree(folder / "values" / "refit")
(folder / "end.json").unlink()
resumed = run()
assert len(resumed.value("refit")) == 2 and resumed.status == "done"
check("a resumed run")
assert ended.trials().num_rows == 24
assert ended.models().num_rows == 2
assert ended.failures().num_rows == 4
check("reading a run")
"""

COMMANDS = [
    *(["ls"], ["show", "gdp"], ["best", "gdp"], ["best", "gdp", "--json"], ["failures", "gdp"]),
    ["register", "gdp", "--model", "m", "--models", "refit"],
    *(["promote", "m", "1", "--gate", "no-group-worse"], ["models"], ["models", "m"], ["history", "m"]),
]

COMMAND = """
import sys

from umbel.runtime.cli import app as cli

try:
    cli.main()
finally:
    assert "pandas" not in sys.modules, sys.argv
"""


@pytest.mark.ray
def test_neither_runs_nor_commands_import_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "pandas" not in done.stderr
        return done.stdout

    python(str(script))
    for command in COMMANDS:
        assert python("-c", COMMAND, *command, "--store", "store")
