"""Studies of earlier runs are taken up where they ended: what comes of it is what a fresh run gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune

import umbel

#: What was really run: (group, number in the sweep).
CALLS: list[tuple[str, int]] = []
SPACE = {"x": tune.uniform(0, 1), "k": tune.randint(1, 9), "kind": tune.choice(["a", "b"])}
#: Columns that say where and when a trial was run.
PLACES = {"run", "started", "seconds", "host", "worker", "reused_from", "model_at"}
Go = Callable[..., umbel.Run]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str, **options: Any) -> umbel.Run:
        CALLS.clear()
        given = {"store": str(tmp_path), "executor": "inline", "progress": "quiet"} | options
        return umbel.run(target, name=name, **given)

    return run


def loss(config: dict[str, Any], data: float = 0.0) -> umbel.Result:
    CALLS.append((config.get("group", ""), umbel.trial().index))
    value = (config["x"] - 0.3) ** 2 + config["k"] + (0.0 if config["kind"] == "a" else 0.5) + data
    return umbel.Result({"loss": value, "cost": config["x"]}, model=config)


def a_sweep(trials: int = 12, groups: tuple[str, ...] = ("A", "B"), **changed: Any) -> Any:
    given: dict[str, Any] = {"space": SPACE, "metric": "loss", "search": "tpe", "name": "s", "fn": loss}
    given |= {"over": {"group": list(groups)}} | changed
    return umbel.sweep(given.pop("fn"), trials=trials, **given)


def told(run: umbel.Run) -> list[dict[str, Any]]:
    """The trials table without what says where and when."""
    return [{name: row[name] for name in row if name not in PLACES} for row in run.trials().to_pylist()]


def curve(config: dict[str, Any]) -> float:
    CALLS.append(("", umbel.trial().index))
    for step in range(1, 5):
        umbel.report({"loss": config["x"] + 1 / step}, step=step)
    return float(config["x"])


def reused(run: umbel.Run) -> int:
    column = run.trials()["reused_from"]
    return len(column) - int(column.null_count)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"search": "nsga2", "metric": ["loss", "cost"]},
        {"search": optuna.samplers.TPESampler(seed=5, n_startup_trials=3)},
        {"search": lambda group: optuna.samplers.TPESampler(seed=ord(group["group"]))},
        {"keep": "all", "mode": "max"},
    ],
    ids=["tpe", "nsga2", "own", "factory", "all models"],
)
def test_a_wider_sweep_goes_on_with_the_studies(go: Go, changed: dict[str, Any]) -> None:
    go(a_sweep(12, **changed), "first")
    wider = go(a_sweep(20, **changed), "wider")
    assert len(CALLS) == 16
    fresh = go(a_sweep(20, **changed), "fresh", fresh=True)
    assert len(CALLS) == 40
    assert told(wider) == told(fresh)
    origins = wider.trials()["reused_from"].to_pylist()
    assert origins == [
        *(f"first/s/{n}" for n in range(12)),
        *[None] * 8,
        *(f"first/s/{n}" for n in range(12, 24)),
        *[None] * 8,
    ]
    assert reused(fresh) == 0
    model: Any = wider.load_model(wider.best()["model"][0].as_py())
    assert model["group"] == "A"


def test_another_group_and_another_name_run_only_what_is_new(go: Go) -> None:
    go(a_sweep(12, ("A", "B")), "first")
    go(a_sweep(12, ("C", "B", "A")), "second")
    assert {group for group, _ in CALLS} == {"C"}
    go(a_sweep(6, ("B",)), "narrower")
    assert not CALLS


def test_the_longest_of_several_earlier_runs_counts(go: Go) -> None:
    go(a_sweep(15), "long")
    go(a_sweep(5), "short")
    again = go(a_sweep(18), "again")
    assert len(CALLS) == 6
    assert {origin.split("/")[0] for origin in again.trials()["reused_from"].to_pylist() if origin} == {"long"}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"search": "nsga2"},
        {"metric": "cost"},
        {"mode": "max"},
        {"space": {**SPACE, "x": tune.uniform(0, 2)}},
        {"name": "t"},
        {"search": optuna.samplers.TPESampler(seed=6)},
        {"fn": umbel.task(cache=False)(loss)},
    ],
)
def test_what_makes_a_study_another_one_shares_nothing(go: Go, changed: dict[str, Any]) -> None:
    go(a_sweep(), "first")
    go(a_sweep(**changed), "second")
    assert len(CALLS) == 24


def test_changed_data_of_one_group(go: Go) -> None:
    go(a_sweep(data=[1.0, 2.0]), "first")
    second = go(a_sweep(data=[1.0, 3.0]), "second")
    assert {group for group, _ in CALLS} == {"B"}
    assert reused(second) == 12


def test_a_trial_that_failed_is_run_again_and_so_is_what_followed(go: Go, tmp_path: Path) -> None:
    mark = tmp_path / "fails"
    mark.touch()

    def sometimes(config: dict[str, Any]) -> umbel.Result:
        if umbel.trial().index == 17 and mark.exists():
            raise ValueError("today it does not work")
        return loss(config)

    first = go(a_sweep(fn=sometimes), "first")
    assert first.failures()["index"].to_pylist() == [17]
    mark.unlink()
    second = go(a_sweep(fn=sometimes), "second")
    assert [number for _, number in CALLS] == list(range(17, 24))
    assert told(second) == told(go(a_sweep(fn=sometimes), "fresh", fresh=True))


def test_a_trial_that_was_tried_again_ends_what_can_be_taken_over(go: Go, tmp_path: Path) -> None:
    def flaky(config: dict[str, Any]) -> umbel.Result:
        mark = tmp_path / f"seen-{umbel.trial().index}"
        if umbel.trial().index == 5 and not mark.exists():
            mark.touch()
            raise OSError("not yet")
        return loss(config)

    task = umbel.task(retries=1)(flaky)
    first = go(a_sweep(fn=task, over=None), "first")
    table = first.trials()
    assert table["status"].to_pylist() == ["ok"] * 12
    # Those after it were suggested without knowing what came of it.
    assert [bool(each) for each in table["out_of_order"].to_pylist()] == [False] * 6 + [True] * 6
    second = go(a_sweep(fn=task, over=None), "second")
    assert reused(second) == 6
    fresh = go(a_sweep(fn=task, over=None), "fresh", fresh=True)
    assert [(row["key"], row["metric_loss"]) for row in told(second)] == [
        (row["key"], row["metric_loss"]) for row in told(fresh)
    ]


def test_a_run_that_was_interrupted_keeps_what_it_took_over(go: Go) -> None:
    go(a_sweep(12), "first")
    go(a_sweep(20), "second", budget={"trials": 30})
    second = go(a_sweep(20), "second")
    assert told(second) == told(go(a_sweep(20), "fresh", fresh=True))
    assert reused(second) == 24


def test_spaces_defined_by_run(go: Go) -> None:
    def define(trial: optuna.Trial) -> dict[str, Any]:
        trial.suggest_float("x", 0, 1)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return {"k": trial.suggest_int("depth", 1, 4) if kind == "a" else 7}

    go(a_sweep(8, space=define), "first")
    wider = go(a_sweep(12, space=define), "wider")
    assert len(CALLS) == 8
    assert told(wider) == told(go(a_sweep(12, space=define), "fresh", fresh=True))


def test_pruned_studies_are_not_taken_over(go: Go) -> None:
    go(a_sweep(fn=curve, prune="median"), "first")
    go(a_sweep(fn=curve, prune="median"), "second")
    assert len(CALLS) == 24


def test_a_damaged_segment_is_passed_over(go: Go, tmp_path: Path) -> None:
    go(a_sweep(), "first")
    for segment in (tmp_path / "runs/first/trials/s").iterdir():
        segment.write_bytes(segment.read_bytes()[:-10])
    go(a_sweep(), "second")
    assert len(CALLS) == 24


# ---- on Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_on_workers_studies_go_on_too(two_processors: None, go: Go) -> None:
    groups = ("A", "B", "C")
    go(a_sweep(12, groups), "first", executor="ray")
    wider = go(a_sweep(20, groups), "wider", executor="ray")
    assert reused(wider) == 36
    assert told(wider) == told(go(a_sweep(20, groups), "fresh", fresh=True))


@pytest.mark.ray
def test_a_study_that_workers_shared_is_not_taken_for_one_in_order(two_processors: None, go: Go) -> None:
    shared = go(a_sweep(40, over=None), "shared", executor="ray")
    assert any(shared.trials()["out_of_order"].to_pylist())
    wider = go(a_sweep(44, over=None), "wider")
    assert told(wider) == told(go(a_sweep(44, over=None), "fresh", fresh=True))
