"""Graphs with thousands of nodes, deep chains, and runs inside runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.runtime.driver.plan import make_plan
from umbel.runtime.graph.nodes import Node


@umbel.task
def add(left: int, right: int = 1) -> int:
    return left + right


@umbel.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def run(target: Any, store: Path) -> umbel.Run:
    return umbel.run(target, store=str(store), name="r", executor="inline", progress=False)


def test_a_chain_a_thousand_deep(tmp_path: Path) -> None:
    node: Node = add.bind(0)
    for _ in range(999):
        node = add.bind(node)
    assert run(node, tmp_path).value(node) == 1000


def test_ten_thousand_nodes_are_planned() -> None:
    leaves = [add.bind(i) for i in range(5000)]
    plan = make_plan([add.bind(leaf) for leaf in leaves])
    assert len(plan.nodes) == 10_000
    assert len({planned.name for planned in plan.nodes}) == 10_000


def test_a_graph_without_elements_finishes_at_once(tmp_path: Path) -> None:
    node = total.bind(add.map([]))
    assert run(node, tmp_path).value(node) == 0


@umbel.task
def outer(store: str) -> list[Any]:
    inner = add.map([1, 2, 3])
    first = umbel.run(inner, store=store, name="inner", executor="inline", progress=False)
    print("after the inner run")
    found = first.value(inner)
    assert isinstance(found, list)
    return found


def test_a_run_inside_a_task_works_inline(tmp_path: Path) -> None:
    node = outer.bind(str(tmp_path / "inner"))
    ended = run(node, tmp_path / "outer")
    assert ended.value(node) == [2, 3, 4]
    assert ended.output(0, node) == "after the inner run\n"


def nested_trial(config: dict[str, Any]) -> float:
    def inner(_: dict[str, Any]) -> float:
        return float(umbel.trial().index)

    sweep = umbel.sweep(inner, space={"y": [1, 2]}, search="grid", metric="m", name="inner")
    umbel.run(sweep, store="memory://nested", name=f"n{config['x']}", executor="inline", progress=False)
    return float(umbel.trial().index)  # the outer trial again


def test_a_trial_is_itself_again_after_a_run_inside_it(tmp_path: Path) -> None:
    sweep = umbel.sweep(nested_trial, space={"x": [1, 2, 3]}, search="grid", metric="m")
    assert run(sweep, tmp_path).trials()["metric_m"].to_pylist() == [0.0, 1.0, 2.0]


@umbel.task
def recursive(store: str) -> str:
    try:
        umbel.run(add.bind(1), store=store, name="inner", progress=False)
    except umbel.UsageError as error:
        return str(error)
    return "it ran"


@pytest.mark.ray
def test_a_run_on_the_same_workers_is_refused_and_never_waits_for_itself(tmp_path: Path) -> None:
    node = recursive.bind(str(tmp_path / "inner"))
    ended = umbel.run(node, store=str(tmp_path / "outer"), name="r", workers=1, progress=False)
    assert "would wait for itself" in str(ended.value(node))


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def note(x: int) -> int:
        with order.open("a") as file:
            file.write(f"{x} ")
        return x

    low = umbel.task(name="low")(note).map([1, 2])
    high = umbel.task(name="high", priority=1)(note).map([3, 4])
    run([low, high], tmp_path / "store")
    assert order.read_text().split() == ["3", "4", "1", "2"]
