"""What differs between two runs, found by changing one thing at a time."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import umbel
from tests.runtime.small_graphs import run
from umbel.runtime.answers.comparison import Difference
from umbel.storage.documents import put_document

SCRIPT = """
import json
from pathlib import Path

import umbel

COUNTRIES = ["AUT", "BRA", "CHL", "DEU"]

def scale(x):
    return 1.0 * x

@umbel.task
def load(country, file):
    return json.loads(Path(file).read_text())[country]

def fit(config, data):
    if config["level"] > 3:
        raise ValueError("too high")
    return scale(sum((value - config["level"]) ** 2 for value in data))

@umbel.task
def refit(best, data):
    return best.value

def graph(file, levels=(1, 2, 3)):
    data = load.map(COUNTRIES, file)
    sweep = umbel.sweep(fit, space={"level": list(levels)}, over={"country": COUNTRIES}, data=data, search="grid",
                        metric="loss", name="fit")
    return refit.map(sweep.best(), data)
"""
DATA = {"AUT": [1.0], "BRA": [2.0, 2.5], "CHL": [3.0], "DEU": [1.0, 3.0]}


class Project:
    """A script and its data, of which either can be changed between runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(SCRIPT, DATA)

    def write(self, script: str = SCRIPT, data: dict[str, Any] = DATA) -> None:
        (self.folder / "job.py").write_text(script)
        (self.folder / "data.json").write_text(json.dumps(data))

    def run(self, name: str, **options: Any) -> umbel.Run:
        node = self._module().graph(str(self.folder / "data.json"), **options)
        return run(node, self.folder / "store", name=name)

    def _module(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("comparison_job", self.folder / "job.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["comparison_job"] = module
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delitem(sys.modules, "comparison_job", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Project(tmp_path)


@pytest.fixture
def first(project: Project) -> umbel.Run:
    return project.run("first")


def test_nothing(project: Project, first: umbel.Run) -> None:
    found = umbel.diff(first, project.run("second"))
    assert found.summary == ("differs: nothing in code, data, space, arguments or environment. Results are equal")
    (sweep,) = found.results
    assert (sweep.equal, sweep.p_value) == (4, 1.0)


def test_data_of_one_country(project: Project, first: umbel.Run) -> None:
    project.write(data={**DATA, "CHL": [3.0, 9.0]})
    found = umbel.diff(first, project.run("second"))
    assert found.summary == ("differs: data of load (country=CHL). Results: fit: 0 better, 1 worse, 3 equal")
    (change,) = found.data
    assert (change.elements, change.size, change.groups) == ((2,), 4, ("country=CHL",))
    assert change.details == ("country=CHL: 1 items became 2",)
    assert any(text.startswith("refit (1 of 4") for text in found.follows)
    assert not found.code
    assert "country=CHL: 0 → 36 (worse)" in found.text()


def test_code_two_calls_away(project: Project, first: umbel.Run) -> None:
    project.write(SCRIPT.replace("return 1.0 * x", "return 0.5 * x"))
    found = umbel.diff(first, project.run("second"))
    assert found.summary.startswith("differs: code (scale). Results: fit: 2 better, 0 worse, 2 equal")
    (change,) = found.code
    assert "-    return 1.0 * x" in change.diff
    assert not found.data
    assert found.results[0].p_value == 0.5
    assert "+    return 0.5 * x" in found.text()


def test_space_and_arguments(project: Project, first: umbel.Run) -> None:
    (project.folder / "other.json").write_text(json.dumps(DATA))
    found = umbel.diff(first, project.run("second", levels=(1, 2, 4)))
    assert any("level was" in text for text in found.space)
    assert found.results[0].failed == (0, 4)
    assert not found.code
    (project.folder / "data.json").rename(project.folder / "moved.json")
    node = project._module().graph(str(project.folder / "moved.json"))
    third = run(node, project.folder / "store", name="third")
    found = umbel.diff(first, third)
    assert found.arguments == ("argument 2 of 'load' has another value",)
    assert found.summary.startswith("differs: arguments")


def test_environment(project: Project, first: umbel.Run) -> None:
    second = project.run("second")
    environment = dict(second.environment() or {})
    environment["packages"] = {**environment["packages"], "numpy": "0.1", "extra": "2.0"}
    store = umbel.open_store(first.store_url)
    second.record["environment"] = put_document(
        store.objects, lambda digest: f"environments/{digest}.json", environment
    )
    found = umbel.diff(first, second)
    assert len(found.environment) == 2
    assert "extra none → 2.0" in found.environment
    assert found.summary.startswith("differs: environment (extra none → 2.0, numpy ")


def test_other_groups(project: Project, first: umbel.Run) -> None:
    project.write(SCRIPT.replace(', "DEU"]', "]"))
    found = umbel.diff(first, project.run("second"))
    assert found.results[0].only_before == ("country=DEU",)
    assert any("1 gone" in text for text in found.space)


def test_a_group_that_lost_its_results(project: Project, first: umbel.Run) -> None:
    project.write(data={**DATA, "CHL": ["not a number"]})
    found = umbel.diff(first, project.run("second"))
    assert found.summary.endswith(
        "Results: fit: 0 better, 0 worse, 3 equal, 1 without a result now (country=CHL), failed trials 0 → 3"
    )


def test_as_data(project: Project, first: umbel.Run) -> None:
    found: Difference = umbel.diff(first, project.run("second"))
    assert json.loads(json.dumps(found.as_dict()))["summary"] == found.summary


GROWING = """
import umbel

@umbel.task
def find():
    return COUNTRIES

@umbel.task
def load(country):
    return [len(country)]

@umbel.task
def report(values):
    return sum(value for one in values for value in one)

def graph(file, revealed=False):
    return report.bind(load.map(find.bind().elements() if revealed else COUNTRIES))

"""


def test_what_is_made_of_a_list_that_grew_is_no_cause(project: Project) -> None:
    project.write(GROWING + "COUNTRIES = ['AUT', 'BRA']\n")
    first, revealed = project.run("first"), project.run("revealed", revealed=True)
    project.write(GROWING + "COUNTRIES = ['AUT', 'BRA', 'CHL']\n")
    found = umbel.diff(first, project.run("second"))
    assert not found.data
    assert found.follows == ("report",)
    assert "size of 'load' was 2, is 3" in found.space
    assert "data of" not in found.summary
    found = umbel.diff(revealed, project.run("revealed-2", revealed=True))
    assert found.follows[-1] == "report"
    assert not found.data
    assert [change.name.rpartition(".")[2] for change in found.code] == ["COUNTRIES"]
