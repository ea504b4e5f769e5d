"""Sweeps that are judged by several metrics: each group has a Pareto set instead of one best trial."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune
from typer.testing import CliRunner

import umbel
from umbel.runtime.cli.app import app
from umbel.runtime.exports.mlflow import export
from umbel.runtime.exports.openlineage import events
from umbel.scheduler.identity import group_key
from umbel.scheduler.search.adaptive import study_seed

GROUPS = ["A", "B"]
SPACE = {"x": tune.uniform(0, 1), "k": tune.randint(1, 4)}
Go = Callable[..., umbel.Run]


def judged(config: dict[str, Any]) -> dict[str, float]:
    x, k = config["x"], config["k"]
    return {"error": (1 - x) ** 2 / k, "cost": x * k + GROUPS.index(config.get("group", "A")), "other": 1.0}


def with_model(config: dict[str, Any]) -> umbel.Result:
    return umbel.Result(judged(config), model={"x": config["x"]})


def a_sweep(trials: int = 40, **changed: Any) -> Any:
    given: dict[str, Any] = {"space": SPACE, "metric": ["error", "cost"], "name": "s", "fn": judged}
    given |= {"over": {"group": GROUPS}} | changed
    return umbel.sweep(given.pop("fn"), trials=trials, **given)


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str = "r", **options: Any) -> umbel.Run:
        given = {"store": str(tmp_path / "store"), "executor": "inline", "progress": "quiet"} | options
        return umbel.run(target, name=name, **given)

    return run


def undominated(rows: list[dict[str, Any]], signs: tuple[float, float] = (1, 1)) -> list[int]:
    """The definition, by brute force."""
    points = {
        row["trial"]: (signs[0] * row["metric_error"], signs[1] * row["metric_cost"])
        for row in rows
        if row["status"] == "ok" and math.isfinite(row["metric_error"]) and math.isfinite(row["metric_cost"])
    }

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in points.values())

    return sorted(trial for trial, point in points.items() if not beaten(point))


def expected(run: umbel.Run, signs: tuple[float, float] = (1, 1)) -> list[int]:
    rows = run.trials().to_pylist()
    return [t for g in GROUPS for t in undominated([row for row in rows if row["group"] == g], signs)]


@umbel.task
def look(front: list[umbel.Best]) -> list[tuple[int, float, float]]:
    return [(best.trial, best.value, best.metrics["cost"]) for best in front]


@pytest.mark.parametrize(("mode", "signs"), [("min", (1, 1)), (["min", "max"], (1, -1)), (("max", "min"), (-1, 1))])
def test_the_best_of_a_group_are_those_that_none_dominates(go: Go, mode: Any, signs: tuple[float, float]) -> None:
    sweep = a_sweep(mode=mode)
    run = go(look.map(sweep.best()))
    assert len(run.best()) > 2
    assert run.best()["trial"].to_pylist() == expected(run, signs)
    fronts: Any = run.value("look")
    assert [sorted(trial for trial, _, _ in front) for front in fronts] == [
        [row["trial"] for row in run.best().to_pylist() if row["group"] == group] for group in GROUPS
    ]
    for front in fronts:
        assert [signs[0] * value for _, value, _ in front] == sorted(signs[0] * value for _, value, _ in front)
        costs = [signs[1] * cost for _, _, cost in front]
        assert costs == sorted(costs, reverse=True)


def sometimes(config: dict[str, Any]) -> dict[str, float]:
    found = judged(config)
    if config["k"] == 1:
        raise ValueError("no")
    if config["k"] == 2:
        return found | {"cost": math.nan}
    return found | ({"cost": -math.inf} if config["x"] > 0.5 else {})


def test_only_finite_metrics_of_trials_that_ended_well_count(go: Go) -> None:
    run = go(a_sweep(fn=sometimes))
    assert run.best()["trial"].to_pylist() == expected(run)
    assert all(row["config_k"] == 3 and row["config_x"] <= 0.5 for row in run.best().to_pylist())


def test_a_group_without_any_is_absent_and_what_needs_it_fails(go: Go) -> None:
    def fails(config: dict[str, Any]) -> dict[str, float]:
        return judged(config) | ({"cost": math.nan} if config["group"] == "B" else {})

    run = go(look.map(a_sweep(fn=fails).best()))
    with pytest.warns(UserWarning, match="1 of 2 groups .* finite error and cost: group=B"):
        assert set(run.best()["group"].to_pylist()) == {"A"}
    assert "a finite 'error' and 'cost'" in run.failures().to_pylist()[-1]["error"]


def test_models_of_those_that_none_before_dominates_are_kept(go: Go) -> None:
    run = go(a_sweep(fn=with_model))
    assert all(run.load_model(row["model"]) == {"x": row["config_x"]} for row in run.best().to_pylist())
    assert run.trials()["model"].null_count > 10


def test_a_resumed_run_has_the_same_sets(go: Go) -> None:
    sweep = a_sweep()
    first = go(look.map(sweep.best()), budget={"trials": 50})
    assert first.status == "stopped"
    again = go(look.map(sweep.best()))
    assert again.best()["trial"].to_pylist() == expected(again)
    whole = go(look.map(a_sweep().best()), "whole", fresh=True)
    assert again.value("look") == whole.value("look")


def test_trials_of_an_earlier_run_need_all_metrics(go: Go) -> None:
    go(a_sweep(metric="error", name="s"), "first")
    both = go(a_sweep(), "both")
    assert both.trials()["reused_from"].null_count == 0
    assert both.best()["trial"].to_pylist() == expected(both)


# ---- searches --------------------------------------------------------------------------------------------------


def serial(group: str, trials: int, make: Callable[[int], Any], directions: list[Any]) -> list[Any]:
    """Optuna by itself."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = study_seed(0, "s", group_key({"group": group}))
    study = optuna.create_study(sampler=make(seed), directions=directions)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        config = {"x": trial.suggest_float("x", 0, 1), "k": trial.suggest_int("k", 1, 3), "group": group}
        found = judged(config)
        return found["error"], found["cost"]

    study.optimize(objective, n_trials=trials)
    return [(trial.params, trial.values) for trial in study.trials]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("nsga2", lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
        ("tpe", lambda seed: optuna.samplers.TPESampler(seed=seed)),
    ],
)
def test_adaptive_searches_are_told_all_values(go: Go, name: str, make: Callable[[int], Any]) -> None:
    run = go(a_sweep(60, search=name, mode=["min", "max"]))
    for group in GROUPS:
        rows = [row for row in run.trials().to_pylist() if row["group"] == group]
        found = [({"x": r["config_x"], "k": r["config_k"]}, [r["metric_error"], r["metric_cost"]]) for r in rows]
        assert found == serial(group, 60, make, ["minimize", "maximize"])
    study = run.study("B")
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert sorted(trial.user_attrs["trial"] for trial in study.best_trials) == [
        row["trial"] for row in run.best().to_pylist() if row["group"] == "B"
    ]


def test_the_search_with_gaussian_processes_takes_several(go: Go) -> None:
    run = go(a_sweep(12, search="gp", over=None))
    assert run.trials()["status"].to_pylist() == ["ok"] * 12


def test_a_study_can_be_made_of_a_random_search(go: Go) -> None:
    study = go(a_sweep(10)).study("A")
    assert len(study.directions) == 2
    assert len(study.trials) == 10


def test_an_adaptive_search_goes_on_after_a_stop(go: Go) -> None:
    go(a_sweep(30, search="nsga2"), budget={"trials": 25})
    again = go(a_sweep(30, search="nsga2"))
    whole = go(a_sweep(30, search="nsga2"), "whole", fresh=True)
    columns = ["trial", "config_x", "metric_error", "metric_cost"]
    assert again.trials().select(columns) == whole.trials().select(columns)


# ---- what looks at runs ----------------------------------------------------------------------------------------


def test_commands_show_the_sets(go: Go, tmp_path: Path) -> None:
    run = go(a_sweep(20))
    store = ["--store", str(tmp_path / "store")]
    shown = CliRunner().invoke(app, ["best", "r", *store])
    assert shown.exit_code == 0
    assert "Pareto set by error and cost" in shown.output
    as_json = json.loads(CliRunner().invoke(app, ["best", "r", "--json", *store]).stdout)
    assert [row["trial"] for row in as_json] == expected(run)
    for command in (["show", "r"], ["lineage", "r", "3"], ["why-failed", "r"], ["failures", "r"], ["ls"]):
        assert CliRunner().invoke(app, [*command, *store]).exit_code == 0


def test_runs_are_compared_by_their_sets(go: Go) -> None:
    first, second = go(a_sweep(20), "first"), go(a_sweep(40), "second")
    (sweep,) = umbel.diff(first, second).results
    assert (sweep.several, sweep.metric) == (True, "error and cost")
    assert sweep.better + sweep.equal == 2  # more trials of the same kind can't make a set worse
    assert sweep.better
    assert "Pareto sets by error and cost of 2 groups" in umbel.diff(first, second).text()
    (back,) = umbel.diff(second, first).results
    assert back.worse == sweep.better
    other = go(a_sweep(40, seed=1), "other")
    (third,) = umbel.diff(second, other).results
    assert third.better + third.worse + third.equal + third.incomparable == 2
    apart = umbel.diff(go(a_sweep(20, metric="error"), "single"), first)
    assert not apart.results
    assert apart.summary.endswith("There are no results of the same sweep and metrics to compare")


def test_replay_and_exports(go: Go) -> None:
    run = go(a_sweep(5))
    assert run.replay(7).same
    assert [event.eventType.name for event in events(run) if event.eventType is not None][-1] == "COMPLETE"


def test_the_set_goes_to_mlflow(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = go(a_sweep(10))
    place = (tmp_path / "mlruns").as_uri()
    parent = export(run, place)
    client = MlflowClient(place)
    found = client.search_runs([client.get_run(parent).info.experiment_id])
    children = [each for each in found if each.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(int(each.data.tags["umbel.trial"]) for each in children) == expected(run)
    assert all({"error", "cost"} <= set(each.data.metrics) for each in children)


# ---- what does not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": []}, "metric of sweep 's' is missing"),
        ({"metric": ["error", ""]}, "metric of sweep 's' is missing"),
        ({"metric": ["error", "error"]}, "are the same"),
        ({"metric": ["a-b", "a_b"]}, "one column"),
        ({"mode": ["min"]}, "not as many modes"),
        ({"mode": ["min", "most"]}, "unknown mode"),
        ({"prune": "asha"}, "several objectives"),
        ({"search": "cmaes"}, "takes one metric"),
        ({"search": optuna.samplers.CmaEsSampler()}, "takes one metric"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(umbel.UmbelError, match=message):
        a_sweep(**changed)


def test_samplers_for_several_are_taken() -> None:
    a_sweep(search=optuna.samplers.NSGAIISampler(seed=1))
    a_sweep(search=lambda group: optuna.samplers.NSGAIISampler(seed=1))


def test_the_k_best_need_one_metric() -> None:
    with pytest.raises(umbel.UsageError, match="orders trials by one metric"):
        a_sweep().top(2)


def test_a_list_of_one_is_one(go: Go) -> None:
    run = go(a_sweep(metric=["error"], mode=["min"]))
    assert len(run.best()) == 2


@pytest.mark.parametrize("returned", [1.0, {"error": 1.0}, umbel.Result(2.0)])
def test_each_result_has_all_metrics(go: Go, returned: Any) -> None:
    run = go(a_sweep(1, fn=lambda config: returned, over=None))
    (error,) = run.trials()["error"].to_pylist()
    assert "judged by several metrics" in error or "lacks the sweep's metric 'cost'" in error


# ---- on Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_on_workers_the_sets_and_their_models_are_the_same(two_processors: None, go: Go) -> None:
    given: dict[str, Any] = {"fn": with_model, "search": "nsga2"}
    here = go(look.map(a_sweep(60, **given).best()), "here")
    there = go(look.map(a_sweep(60, **given).best()), "there", executor="ray", fresh=True)
    assert there.value("look") == here.value("look")
    assert there.best()["trial"].to_pylist() == here.best()["trial"].to_pylist() == expected(there)
    assert all(there.load_model(row["model"]) == {"x": row["config_x"]} for row in there.best().to_pylist())


@pytest.mark.parametrize(
    "changed",
    [
        {"metric": ["error"]},
        {"metric": ["error", 3]},
        {"metric": "error"},
        {"mode": "min"},
        {"mode": ["min"]},
        {"mode": ["min", "most"]},
    ],
)
def test_a_record_whose_metrics_and_modes_do_not_fit_is_damaged(
    go: Go, tmp_path: Path, changed: dict[str, Any]
) -> None:
    run = go(a_sweep(2))
    path = tmp_path / "store/runs/r/run.json"
    record = json.loads(path.read_text())
    (sweep,) = (node["sweep"] for node in record["graph"]["nodes"])
    assert (sweep["metric"], sweep["mode"]) == (["error", "cost"], ["min", "min"])
    sweep |= changed
    path.write_text(json.dumps(record))
    with pytest.raises(umbel.UmbelError, match="can't be read"):
        umbel.open_store(run.store_url).run("r")
