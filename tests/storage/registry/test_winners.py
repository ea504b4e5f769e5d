"""Who wins in each group: one key, several, fewer than there are, none; and of Pareto sets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.storage.registry.winners import Winners, find_winners


def fit(tmp_path: Path, trial: Any, **options: Any) -> tuple[umbel.Run, umbel.Sweep]:
    sweep = umbel.sweep(trial, space={"x": [0, 1, 2, 3]}, search="grid", name="fit", **options)
    return umbel.run(sweep, store=str(tmp_path), name="fit", executor="inline", progress="quiet"), sweep


def won(found: Winners) -> list[tuple[str, int]]:
    return [(row["group"], row["trial"]) for row in found.rows.to_pylist()]


def two_keys(config: dict[str, Any]) -> umbel.Result:
    loss = abs(config["x"] - config["horizon"]) + config["horizon"] / 10 + (config["country"] == "b,c")
    return umbel.Result({"loss": loss}, model=np.array(str(config)))


def test_several_keys(tmp_path: Path) -> None:
    run, _ = fit(tmp_path, two_keys, over={"country": ["a", "b,c"], "horizon": [1, 2]}, metric="loss")
    found = find_winners(run, None, None, None)
    assert found.by == ("country", "horizon")
    assert won(found) == [("a,1", 1), ("a,2", 6), ("b%2Cc,1", 9), ("b%2Cc,2", 14)]
    assert won(find_winners(run, ["horizon", "country"], None, None))[1] == ("2,a", 6)
    # the best of all horizons
    assert won(find_winners(run, ["country"], None, None)) == [("a", 1), ("b,c", 9)]
    version = umbel.open_store(str(tmp_path)).registry.register(run, model="m", by=["country", "horizon"])
    assert version.load(("b,c", 2), trust=True) == version.load("b%2Cc,2", trust=True)
    with pytest.raises(umbel.UsageError, match="did you mean 'country'"):
        find_winners(run, ["countrys"], None, None)


def test_no_keys(tmp_path: Path) -> None:
    def trial(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"loss": -config["x"]}, model=np.array(config["x"]))

    sweep = umbel.sweep(trial, space={"x": [0, 1, 2]}, search="grid", metric="loss", name="fit")
    graph = umbel.task(lambda best: np.array([best[0].value]), name="refit").bind(sweep.best())
    run = umbel.run(graph, store=str(tmp_path), name="fit", executor="inline", progress="quiet")
    assert won(find_winners(run, None, None, None)) == [("all", 2)]
    registry = umbel.open_store(str(tmp_path)).registry
    assert registry.register(run, model="m").load("all", trust=True) == 2
    refitted = registry.register(run, model="m", models=graph)
    assert refitted.load("all", trust=True) == [-2.0]
    assert refitted.row("all")["trial"] == 2


def test_keys_called_like_columns(tmp_path: Path) -> None:
    def trial(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"loss": config["x"]}, model=np.array(config["group"]))

    run, _ = fit(tmp_path, trial, over={"group": ["a", "b"]}, metric="loss")
    version = umbel.open_store(str(tmp_path)).registry.register(run, model="m")
    assert version.by == ("group",)
    assert version.table()["key_group"].to_pylist() == version.groups == ["a", "b"]
    assert version.load({"group": "b"}, trust=True) == "b"


def two_metrics(config: dict[str, Any]) -> umbel.Result:
    return umbel.Result({"error": 3 - config["x"], "cost": config["x"]}, model=np.array(config["x"]))


def test_of_a_pareto_set_the_best_by_one_metric(tmp_path: Path) -> None:
    sweep = umbel.sweep(
        two_metrics,
        space={"x": [0, 1, 2, 3]},
        search="grid",
        over={"g": ["a", "b"]},
        metric=["error", "cost"],
        mode=["min", "min"],
        keep="all",
        name="fit",
    )
    graph = umbel.task(lambda best: np.array(len(str(best))), name="refit").map(sweep.best())
    run = umbel.run(graph, store=str(tmp_path), name="fit", executor="inline", progress="quiet")
    assert run.best().num_rows == 8
    assert won(find_winners(run, None, None, None, "error")) == [("a", 3), ("b", 7)]
    assert won(find_winners(run, None, None, None, "cost")) == [("a", 0), ("b", 4)]
    for metric, message in ((None, "several metrics"), ("size", "others than this metric")):
        with pytest.raises(umbel.UsageError, match=message) as caught:
            find_winners(run, None, None, None, metric)
        assert "metric='error'" in str(caught.value)
    registry = umbel.open_store(str(tmp_path)).registry
    assert registry.register(run, model="m", metric="cost").metric == "cost"
    by_the_node = registry.register(run, model="m", models="refit")
    assert by_the_node.groups == ["a", "b"]
    assert by_the_node.metric is None
    assert "trial" not in by_the_node.table().column_names
    assert by_the_node.lineage("b").of_kind("value")[0].name == "refit[1]"


def test_groups_that_fail_are_named(tmp_path: Path) -> None:
    def trial(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"loss": math.nan if config["g"] == "b" else config["x"]}, model=np.array(config["x"]))

    @umbel.task(on_failure="skip")
    def refit(best: umbel.Best) -> object:
        raise ValueError("no")

    _, sweep = fit(tmp_path, trial, over={"g": ["a", "b"]}, metric="loss")
    graph = refit.map(sweep.best())
    run = umbel.run(graph, store=str(tmp_path), name="refitted", executor="inline", progress="quiet")
    with pytest.raises(umbel.UsageError, match=r"1 group of .*finite loss(.|\n)*got: +b\n"):
        find_winners(run, None, None, None)
    with pytest.raises(umbel.UsageError, match=r"2 groups(.|\n)*got: +a, b\n"):
        find_winners(run, None, graph, None)


def test_nodes_whose_groups_are_not_known(tmp_path: Path) -> None:
    def fit_one(x: int) -> list[int]:
        return [x]

    node = umbel.task(fit_one).map([1, 2])
    run = umbel.run(node, store=str(tmp_path), name="fit", executor="inline", progress="quiet")
    with pytest.raises(umbel.UsageError, match="no sweep of as many groups"):
        find_winners(run, None, node, None)
