"""A run is resumed by the same graph, space and code only; anything else is told what differs, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import a_sweep, load, run, score, score_with_data
from umbel.runtime.graph.nodes import Node, Sweep
from umbel.scheduler.errors import ResumeMismatchError


def other_score(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": 1 - config["alpha"]}


@umbel.task
def load_again(name: str, scale: int = 1) -> str:
    return name + "!" * scale


def sweep_of(**changed: Any) -> Callable[[], Sweep]:
    return lambda: a_sweep(**changed)


def with_data(data: Any) -> Sweep:
    return a_sweep(score_with_data, over={"country": ["DEU", "FRA"]}, data=data)


@dataclass
class Changed:
    """A run, what is run under its name later, and the difference that is named."""

    id: str
    before: Callable[[], Node]
    after: Callable[[], Node]
    difference: str


def changed(id: str, difference: str, before: dict[str, Any], after: dict[str, Any]) -> Changed:
    return Changed(id, sweep_of(**before), sweep_of(**after), difference)


CHANGED = [
    changed(
        "bounds",
        r"space of sweep 'search' differs \(alpha was .*'high': 1.0.*, is .*'high': 2.0.*\)",
        {},
        {"space": {"alpha": tune.uniform(0, 2)}},
    ),
    changed(
        "dimensions",
        r"space of sweep 'search' differs \(beta is gone, net.gamma is new\)",
        {"space": {"alpha": tune.uniform(0, 1), "beta": 1}},
        {"space": {"alpha": tune.uniform(0, 1), "net": {"gamma": [1, 2]}}},
    ),
    changed(
        "groups",
        r"groups of sweep 'search' differ \(1 gone: \[\['FRA'\]\], 2 new: \[\['ITA'\], \['ESP'\]\]\)",
        {"over": {"country": ["DEU", "FRA"]}},
        {"over": {"country": ["DEU", "ITA", "ESP"]}},
    ),
    changed(
        "order of the groups",
        r"groups of sweep 'search' differ \(in their order\)",
        {"over": {"country": ["DEU", "FRA"]}},
        {"over": {"country": ["FRA", "DEU"]}},
    ),
    changed(
        "group key",
        r"group_names of sweep 'search' was \['a'\], is \['b'\]",
        {"over": {"a": [1]}},
        {"over": {"b": [1]}},
    ),
    changed("trials", r"trials of sweep 'search' was 2, is 3", {}, {"trials": 3}),
    changed("metric", r"metric of sweep 'search' was 'loss', is 'gain'", {}, {"metric": "gain"}),
    changed("mode", r"mode of sweep 'search' was 'min', is 'max'", {}, {"mode": "max"}),
    changed("seed", r"seed of sweep 'search' was 0, is 1", {}, {"seed": 1}),
    changed(
        "search",
        r"search of sweep 'search' was 'random', is 'grid'",
        {"space": {"alpha": [1, 2]}},
        {"space": {"alpha": [1, 2]}, "search": "grid"},
    ),
    Changed(
        "code",
        a_sweep,
        lambda: a_sweep(other_score),
        r"the code of 'search' \(changed: .*other_score, .*score\)",
    ),
    changed("name", r"node 'search' is gone; node 'hunt' is new", {}, {"name": "hunt"}),
    Changed("graph", a_sweep, lambda: a_sweep().best(), r"node 'search-best' is new"),
    Changed(
        "k", lambda: a_sweep().top(2), lambda: a_sweep().top(3), r"'search-top2' is gone; node 'search-top3' is new"
    ),
    Changed("element", lambda: load.map(["a"]), lambda: load.map(["b"]), r"argument 1 of 'load' has another value"),
    Changed("value", lambda: load.map(["a"], 1), lambda: load.map(["a"], 2), r"argument 2 of 'load' has another value"),
    Changed(
        "named value",
        lambda: load.bind("a", scale=1),
        lambda: load.bind("a", scale=2),
        r"argument 'scale' of 'load' has another value",
    ),
    Changed(
        "form of an argument",
        lambda: load.map(["a"], 1),
        lambda: load.map(["a"], scale=1),
        r"argument 2 of 'load' is argument 'scale' now",
    ),
    Changed(
        "number of arguments",
        lambda: load.map(["a"]),
        lambda: load.map(["a"], 1),
        r"the number of arguments of 'load' was 1, is 2",
    ),
    Changed("map to bind", lambda: load.map(["a"]), lambda: load.bind("a"), r"kind of 'load' was 'map', is 'task'"),
    Changed("length", lambda: load.map(["a"]), lambda: load.map(["a", "b"]), r"size of 'load' was 1, is 2"),
    Changed("data", lambda: with_data([1, 2]), lambda: with_data([1, 3]), r"the data of 'search' has another value"),
    Changed(
        "one datum for all",
        lambda: with_data([1, 2]),
        lambda: with_data(1),
        r"the data of 'search' was one value an element, is one value for all",
    ),
    Changed(
        "where the data come from",
        lambda: with_data(load.map(["a", "b"])),
        lambda: with_data(load_again.map(["a", "b"])),
        r"inputs of 'search' was \['load'\], is \['load_again'\]",
    ),
]


@pytest.mark.parametrize("case", CHANGED, ids=[case.id for case in CHANGED])
def test_a_name_is_not_resumed_by_something_else(case: Changed, tmp_path: Path) -> None:
    run(case.before(), tmp_path, name="work-7")
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    with pytest.raises(ResumeMismatchError) as caught:
        run(case.after(), tmp_path, name="work-7")
    error = caught.value
    assert error.what == "a run named 'work-7' exists and differs from this one"
    assert re.search(case.difference, error.got or ""), error.got
    assert "the same graph, space and code" in (error.expected or "")
    assert "give this one a new name, 'work-8'" in (error.hint or "")
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
    assert run(case.after(), tmp_path, name="work-8").status == "done"


def several_nodes() -> list[Node]:
    """Nodes of one name, and a space with values that JSON has no word for."""
    space = {"alpha": tune.uniform(0, 1), "shape": [(1, 2), (3, 4)], "off": None, "kind": [b"x", 2.5, True], "n": 2**40}
    search = a_sweep(space=space, over={"country": ["DEU", "FRA"], "year": [1, 2.5]})
    return [load.map(["a"]), load.map(["b"]), load.bind(load.bind("c")), search.best(), search.top(2)]


@pytest.mark.parametrize("reorder", [False, True])
def test_the_same_graph_is_no_difference(reorder: bool, tmp_path: Path) -> None:
    nodes = several_nodes()
    first = run(nodes, tmp_path).trials()
    for again in (nodes, several_nodes()):  # nodes may be used for several runs, or be made anew
        assert run([*again[:3], again[4], again[3]] if reorder else again, tmp_path).trials().equals(first)


def test_what_does_not_change_results_may_change(tmp_path: Path) -> None:
    first = run(a_sweep(), tmp_path).trials()
    again = a_sweep(umbel.task(name="search", retries=3, timeout_s=60, cpus=2)(score), keep="all")
    assert run(again, tmp_path).trials().equals(first)
