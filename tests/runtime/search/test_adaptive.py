"""Searches that build upon earlier trials: the same as Optuna by itself, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune

import umbel
from umbel.scheduler.identity import group_key
from umbel.scheduler.search.adaptive import (
    study_seed,
)

SPACE = {"x": tune.uniform(0, 1), "k": tune.randint(1, 9), "kind": tune.choice(["a", "b"])}
GROUPS = ["A", "B", "C"]
Go = Callable[..., umbel.Run]


def loss(config: dict[str, Any]) -> float:
    x, k = config["x"], config["k"]
    base: float = (x - 0.3) ** 2 + k + (0.0 if config["kind"] == "a" else 0.5)
    return base + GROUPS.index(config.get("country", "A"))


def serial(group: str, trials: int, name: str = "s", make: Callable[[int], Any] | None = None) -> list[Any]:
    """Optuna by itself: the params and values of a study."""
    seed = study_seed(0, name, group_key({"country": group}))
    sampler = make(seed) if make else optuna.samplers.TPESampler(seed=seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        config = {
            "x": trial.suggest_float("x", 0, 1),
            "k": trial.suggest_int("k", 1, 8),
            "kind": trial.suggest_categorical("kind", ["a", "b"]),
        }
        return loss({**config, "country": group})

    study.optimize(objective, n_trials=trials)
    return [(trial.params, trial.value) for trial in study.trials]


def of(run: umbel.Run, group: str) -> list[Any]:
    """The same of a run."""
    rows = [row for row in run.trials().to_pylist() if row["country"] == group]
    return [({n: row[f"config_{n}"] for n in ("x", "k", "kind")}, row["metric_loss"]) for row in rows]


def a_sweep(trials: int = 30, groups: list[str] = GROUPS, **changed: Any) -> Any:
    given: dict[str, Any] = {"space": SPACE, "metric": "loss", "search": "tpe", "name": "s", "fn": loss}
    given |= changed
    return umbel.sweep(given.pop("fn"), over={"country": groups}, trials=trials, **given)


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str = "r", **options: Any) -> umbel.Run:
        given = {"store": str(tmp_path), "executor": "inline", "progress": "quiet"} | options
        return umbel.run(target, name=name, **given)

    return run


def test_each_study_is_that_of_optuna_by_itself(go: Go) -> None:
    run = go(a_sweep())
    for group in GROUPS:
        assert of(run, group) == serial(group, 30)


@pytest.mark.parametrize("name", ["nsga2"])
def test_other_samplers_by_name(go: Go, name: str) -> None:
    run = go(a_sweep(12, ["A"], search=name))
    assert of(run, "A") == serial("A", 12, make=lambda seed: optuna.samplers.NSGAIISampler(seed=seed))


def test_a_sampler_of_the_users_own_and_a_factory(go: Go) -> None:
    own = optuna.samplers.TPESampler(seed=5, n_startup_trials=3)
    run = go(a_sweep(12, search=own), "own")
    assert of(run, "B") == serial("B", 12, make=lambda _: optuna.samplers.TPESampler(seed=5, n_startup_trials=3))
    run = go(a_sweep(12, search=lambda group: optuna.samplers.TPESampler(seed=ord(group["country"]))), "factory")
    assert of(run, "C") == serial("C", 12, make=lambda _: optuna.samplers.TPESampler(seed=ord("C")))


def test_the_best_have_their_configs(go: Go) -> None:
    @umbel.task
    def again(best: umbel.Best) -> float:
        return loss(best.config) - best.value

    run = go(again.map(a_sweep().best()))
    assert run.value("again") == [0.0] * 3
    assert run.replay(17).same


def conditional(trial: optuna.Trial) -> dict[str, Any]:
    if trial.suggest_categorical("kind", ["linear", "tree"]) == "linear":
        trial.suggest_float("l2", 1e-3, 1, log=True)
    else:
        trial.suggest_int("depth", 1, 8)
    return {"fixed": {"a": 1}}


def conditional_loss(config: dict[str, Any]) -> float:
    return float(config.get("l2", config.get("depth", 0)) + config["fixed"]["a"])


@pytest.mark.parametrize("given", [{"search": conditional, "space": None}, {"space": conditional}])
def test_a_space_that_a_function_defines(go: Go, given: dict[str, Any]) -> None:
    run = go(a_sweep(20, **given, fn=conditional_loss))
    rows = run.trials().to_pylist()
    assert all((row["config_l2"] is None) == (row["config_kind"] == "tree") for row in rows)
    assert all((row["config_depth"] is None) == (row["config_kind"] == "linear") for row in rows)
    assert run.replay(3).same
    study = run.study("A")
    assert len(study.trials) == 20
    assert set(study.trials[0].params) <= {"kind", "l2", "depth"}


def test_a_study_of_optunas_can_be_made_of_any_sweep(go: Go) -> None:
    adaptive, random = go(a_sweep()), go(a_sweep(search="random"), "random")
    for run in (adaptive, random):
        study = run.study({"country": "B"})
        assert [(trial.params, trial.value) for trial in study.trials] == of(run, "B")
        assert study.best_value == run.best()["metric_loss"][1].as_py()
        assert set(optuna.importance.get_param_importances(study)) == {"x", "k", "kind"}
    with pytest.raises(umbel.NotFoundError, match="no such group"):
        random.study("X")


def test_choices_that_are_not_plain_and_constants(go: Go) -> None:
    def total(config: dict[str, Any]) -> float:
        return float(sum(config["net"]["layers"]) + config["net"]["add"])

    space = {"net": {"layers": tune.choice([[1, 2], [3]]), "add": 10}, "twice": tune.choice([1, 1])}
    run = go(a_sweep(8, ["A"], space=space, fn=total))
    assert {row["metric_loss"] for row in run.trials().to_pylist()} == {13.0}
    assert {row["config_net_layers"] for row in run.trials().to_pylist()} == {"[1,2]", "[3]"}
    assert run.replay(2).same


@pytest.mark.parametrize(
    "choices",
    [[None, 5, 10], [0, 0.1], [1, "a"], [True, 2], [None, "a"], ["a", "b"], [1.5, None], [date(2020, 1, 1), 2]],
)
def test_choices_of_several_types_are_what_was_tried_in_studies_and_where_they_are_lent(
    go: Go, choices: list[Any]
) -> None:
    def place(config: dict[str, Any]) -> dict[str, float]:
        return {"loss": config["x"], "place": float([repr(each) for each in choices].index(repr(config["k"])))}

    space = {"k": tune.choice(choices), "x": tune.uniform(0, 1)}
    run = go(a_sweep(12, ["A"], space=space, fn=place, search="random"))
    places = [int(place) for place in run.trials()["metric_place"].to_pylist()]
    assert set(places) == set(range(len(choices)))
    shown = ["<date 2020-01-01>" if isinstance(each, date) else each for each in choices]
    assert [repr(trial.params["k"]) for trial in run.study("A").trials] == [repr(shown[place]) for place in places]
    lent = go(a_sweep(12, ["B"], space=space, fn=place, transfer=True, transfer_from=run), "borrows").trials()
    origins = dict(zip(lent["borrowed_from"].to_pylist(), lent["metric_place"].to_pylist(), strict=True))
    first = {f"{run.id}/s/{trial}": place for trial, place in enumerate(places)}
    assert any(origin in first for origin in origins)
    assert all(origins[origin] == first[origin] for origin in origins if origin in first)


def fails_sometimes(config: dict[str, Any]) -> float:
    if config["kind"] == "b":
        raise ValueError("no b")
    return loss(config)


def test_failed_trials_are_told_as_failed(go: Go) -> None:
    run = go(a_sweep(fn=fails_sometimes))
    failed = [row for row in run.trials().to_pylist() if row["status"] == "failed"]
    assert failed
    assert all(row["config_kind"] == "b" for row in failed)
    assert [trial.state.name for trial in run.study("A").trials].count("FAIL") == sum(
        r["country"] == "A" for r in failed
    )


def test_what_the_search_raises_fails_the_trial(go: Go) -> None:
    def define(trial: optuna.Trial) -> None:
        if trial.number == 3:
            raise RuntimeError("no third")
        trial.suggest_float("x", 0, 1)

    run = go(a_sweep(6, ["A"], search=define, space=None, fn=lambda config: config["x"]))
    assert [row["status"] for row in run.trials().to_pylist()] == ["ok"] * 3 + ["failed"] + ["ok"] * 2
    assert "no third" in run.trials()["error"][3].as_py()


@pytest.mark.parametrize("raises", ["when asked", "when the config is made"])
def test_a_study_with_a_trial_that_the_search_had_no_config_for_is_taken_up_again(
    go: Go, tmp_path: Path, raises: str
) -> None:
    log = tmp_path / "calls"

    def define(trial: Any) -> None:
        trial.suggest_float("x", 0, 1)
        trial.suggest_int("k", 1, 8)
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        if kind == "c" and isinstance(trial, optuna.Trial) == (raises == "when asked"):
            raise RuntimeError("no c")

    def interrupted(config: dict[str, Any]) -> float:
        if log.exists():
            with log.open("a") as file:
                file.write(".")
            if log.stat().st_size == 10:
                os.kill(os.getpid(), signal.SIGINT)
        return loss(config)

    sweep = a_sweep(25, ["A"], fn=interrupted, search=define, space=None)
    whole = go(sweep, "whole")
    statuses = [row["status"] for row in whole.trials().to_pylist()]
    assert "failed" in statuses[:8]
    assert set(statuses) == {"ok", "failed"}
    log.touch()
    with pytest.raises(umbel.RunInterrupted):
        go(sweep, fresh=True)
    run = go(sweep, fresh=True)
    assert of(run, "A") == of(whole, "A")
    assert log.stat().st_size == statuses.count("ok")


def test_an_interrupted_study_goes_on_as_if_nothing_had_been(go: Go, tmp_path: Path) -> None:
    log = tmp_path / "calls"

    def interrupted(config: dict[str, Any]) -> float:
        with log.open("a") as file:
            file.write(".")
        if log.stat().st_size == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(config)

    sweep = a_sweep(fn=interrupted)
    with pytest.raises(umbel.RunInterrupted):
        go(sweep)
    run = go(sweep)
    for group in GROUPS:
        assert of(run, group) == serial(group, 30)
    assert log.stat().st_size == 90


@pytest.mark.parametrize("reports", ["nothing", "a value", "a value and a step"])
def test_optunas_way_to_prune_a_trial_counts_as_pruned_and_is_not_tried_again(
    go: Go, tmp_path: Path, reports: str
) -> None:
    log = tmp_path / "calls"

    @umbel.task(retries=2)
    def prunes(config: dict[str, Any]) -> float:
        with log.open("a") as file:
            file.write(".")
        if config["kind"] == "b":
            if reports != "nothing":
                umbel.report({"loss": loss(config)}, step=3 if "step" in reports else None)
            raise optuna.TrialPruned("no b")
        return loss(config)

    run = go(a_sweep(12, ["A"], fn=prunes))
    rows = run.trials().to_pylist()
    assert {(row["config_kind"], row["status"], row["error"]) for row in rows} == {
        ("a", "ok", None),
        ("b", "pruned", None),
    }
    assert log.stat().st_size == 12
    assert run.failures().num_rows == 0
    assert run.best()["config_kind"].to_pylist() == ["a"]
    study = run.study("A")
    assert [each.state.name for each in study.trials] == [
        "PRUNED" if r["status"] == "pruned" else "COMPLETE" for r in rows
    ]
    pruned = next(row["trial"] for row in rows if row["status"] == "pruned")
    replayed = run.replay(pruned)
    assert replayed.status == "pruned"
    assert replayed.same
    stopped = go(a_sweep(12, ["A"], fn=prunes), "parts", fresh=True, budget={"trials": 8})
    assert stopped.trials().num_rows == 8
    assert of(go(a_sweep(12, ["A"], fn=prunes), "parts", fresh=True), "A") == of(run, "A")


def test_inline_a_study_is_saved_and_stopped_in_its_midst(go: Go) -> None:
    def slow(config: dict[str, Any]) -> float:
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            pass
        return loss(config)

    stopped = go(a_sweep(400, ["A"], fn=slow), deadline_s=2.0)
    assert stopped.status == "stopped"
    assert 0 < stopped.trials().num_rows < 400


def test_groups_that_share_data(go: Go) -> None:
    def with_data(config: dict[str, Any], data: int) -> float:
        return loss(config) + data

    run = go(a_sweep(10, fn=with_data, data=[1, 2, 3]))
    assert [value for _, value in of(run, "B")] == pytest.approx([value + 2 for _, value in serial("B", 10)])


# ---- on Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_on_workers_the_studies_are_the_same(two_processors: None, go: Go) -> None:
    run = go(a_sweep(), executor="ray")
    for group in GROUPS:
        assert of(run, group) == serial(group, 30)


@pytest.mark.ray
def test_a_worker_that_dies_in_a_study(two_processors: None, go: Go, tmp_path: Path) -> None:
    mark = tmp_path / "killed"

    def deadly(config: dict[str, Any]) -> float:
        if umbel.trial().index == 45 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(config)

    run = go(a_sweep(fn=deadly), executor="ray")
    assert mark.exists()
    assert run.failures().num_rows == 0
    assert of(run, "A") == serial("A", 30)
    assert of(run, "C") == serial("C", 30)


@pytest.mark.ray
def test_workers_that_share_a_study(two_processors: None, go: Go) -> None:
    run = go(a_sweep(40, ["A"]), executor="ray")
    assert run.trials().num_rows == 40
    rows = run.trials().to_pylist()
    assert len({row["params"] for row in rows}) > 30  # no two workers are given the same
    assert min(value for _, value in of(run, "A")) < 1.2


class Heedful(optuna.samplers.RandomSampler):
    """Leaves a mark when it sees what another worker is about."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def before_trial(self, study: optuna.Study, trial: Any) -> None:
        for other in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if other.number != trial.number and other.params:
                self.mark.touch()


@pytest.mark.ray
def test_a_sampler_is_told_of_trials_that_other_workers_run(two_processors: None, go: Go, tmp_path: Path) -> None:
    mark = tmp_path / "seen"

    def waiting(config: dict[str, Any]) -> float:
        deadline = time.monotonic() + (60 if umbel.trial().index == 0 else 0.1)
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        return loss(config)

    run = go(a_sweep(60, ["A"], fn=waiting, search=Heedful(mark)), executor="ray")
    assert mark.exists()
    assert run.failures().num_rows == 0
    assert run.trials().num_rows == 60


@pytest.mark.ray
@pytest.mark.parametrize("make", [optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler])
def test_workers_leave_a_study_to_one_if_its_sampler_goes_through_all_there_is(
    two_processors: None, go: Go, make: Any
) -> None:
    sampler = make({"k": list(range(20))}) if make is optuna.samplers.GridSampler else make()
    sweep = a_sweep(20, ["A"], search=sampler, space={"k": tune.randint(0, 20)}, fn=lambda config: float(config["k"]))
    assert sorted(go(sweep, executor="ray").trials()["config_k"].to_pylist()) == list(range(20))


# ---- what does not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": "cmaes"}, "numbers only"),
        ({"search": "best"}, "no such search"),
        ({"search": 3}, "no such search"),
        ({"trials": None}, "number of trials"),
        ({"space": {"x": tune.randn(0, 1)}}, "normal distribution"),
        ({"space": {"x": tune.grid_search([1, 2])}}, "grid_search"),
        ({"space": {"x": tune.qloguniform(1, 8, 1)}}, "logarithmic scale in steps"),
        ({"space": {"x": 1}}, "nothing to search"),
        ({"space": None}, "space is missing"),
        ({"search": conditional}, "two spaces"),
        ({"search": "grid", "space": conditional}, "needs to know the whole space"),
        ({"search": "best", "space": conditional}, "no such search"),
        ({"search": optuna.samplers.TPESampler}, "not its class"),
        ({"search": lambda group: 3}, "did not return a sampler"),
        ({"search": lambda: optuna.samplers.TPESampler(seed=1)}, "makes no sampler[^$]*country"),
        ({"search": optuna.samplers.CmaEsSampler()}, "numbers only[^$]*kind"),
        ({"search": optuna.samplers.CmaEsSampler(), "space": conditional}, "numbers only[^$]*kind"),
        ({"search": lambda group: optuna.samplers.CmaEsSampler(), "space": conditional}, "numbers only[^$]*kind"),
        ({"search": lambda group: optuna.samplers.CmaEsSampler()}, "numbers only[^$]*kind"),
        ({"search": optuna.samplers.GridSampler({"z": [1, 2]}), "trials": 2}, "can't search this space[^$]*grid"),
        ({"search": optuna.samplers.GridSampler({"x": [1, 2]}), "space": {"x": [1, 2]}}, "trials=2"),
        ({"search": optuna.samplers.BruteForceSampler(), "space": {"x": [1, 2], "k": tune.randint(0, 5)}}, "trials=10"),
        ({"search": lambda trial: trial.suggest_int("x", 1, 0), "space": None}, "defines the space, raises[^$]*low"),
        ({"search": lambda trial: [trial.suggest_int("x", 0, 1)], "space": None}, "did not return a dict"),
        ({"search": lambda trial: {"country": trial.suggest_int("x", 0, 1)}, "space": None}, "both a group key"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(umbel.UmbelError, match=message):
        a_sweep(**changed)


@pytest.mark.parametrize("make", [optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler])
def test_a_sampler_that_goes_through_all_there_is(go: Go, make: Any) -> None:
    sampler = make({"k": [1, 2, 3], "kind": ["a", "b"]}) if make is optuna.samplers.GridSampler else make()
    space = {"k": tune.randint(1, 4), "kind": tune.choice(["a", "b"])}
    run = go(a_sweep(6, ["A", "B"], search=sampler, space=space, fn=lambda config: float(config["k"])))
    rows = run.trials().to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 12
    for group in "AB":
        tried = sorted((row["config_k"], row["config_kind"]) for row in rows if row["country"] == group)
        assert tried == [(k, kind) for k in (1, 2, 3) for kind in "ab"]


def test_a_factory_of_groups_that_only_the_run_reveals_is_told_then(go: Go) -> None:
    @umbel.task
    def find() -> list[str]:
        return ["A"]

    sweep = umbel.sweep(
        loss, space=SPACE, metric="loss", trials=2, over={"country": find.bind()}, search=lambda group: 3
    )
    assert "did not return a sampler" in go(sweep).trials()["error"][0].as_py()


def curve(config: dict[str, Any]) -> float:
    value = 0.0
    for step in range(1, 10):
        value = loss(config) + 1 / step
        umbel.report({"loss": value}, step=step)
    return value


def test_what_is_pruned_is_told_as_pruned_also_after_an_interruption(go: Go, tmp_path: Path) -> None:
    log = tmp_path / "calls"

    def interrupted(config: dict[str, Any]) -> float:
        with log.open("a") as file:
            file.write(".")
        if log.stat().st_size == 25:
            os.kill(os.getpid(), signal.SIGINT)
        return curve(config)

    prune = umbel.Asha(reduction_factor=2, min_resource=1, max_resource=9)
    whole = go(a_sweep(40, ["A"], fn=curve, prune=prune), "whole")
    states = [trial.state.name for trial in whole.study("A").trials]
    assert states.count("PRUNED") > 5
    sweep = a_sweep(40, ["A"], fn=interrupted, prune=prune)
    with pytest.raises(umbel.RunInterrupted):
        go(sweep)
    assert of(go(sweep), "A") == of(whole, "A")
