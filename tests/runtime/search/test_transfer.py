"""Groups that learn from one another, and share a budget: what is recorded, and what an interruption changes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from ray import tune

import umbel
from umbel.runtime.search.lending import Lending
from umbel.runtime.search.searches import placeholder_space
from umbel.scheduler.search.adaptive import AdaptiveSearch, KnownTrial, NamedSampler
from umbel.scheduler.search.distributions import distributions_text
from umbel.scheduler.search.sampling import TrialSource
from umbel.scheduler.search.transfer import Borrower

SPACE = {
    "x": tune.uniform(0, 1),
    "y": tune.loguniform(1e-3, 1),
    "k": tune.randint(1, 9),
    "kind": tune.choice(["a", "b", "c"]),
}
GROUPS = [f"g{number}" for number in range(6)]
Go = Callable[..., umbel.Run]


def loss(config: dict[str, Any]) -> float:
    """A valley that lies a little elsewhere in each group."""
    place = 0.6 + 0.02 * GROUPS.index(config.get("group", "g0"))
    kind = {"a": 0.5, "b": 0.0, "c": 0.3}[config["kind"]]
    return float((config["x"] - place) ** 2 + abs(config["k"] - 4) / 10 + kind + config["y"] / 5)


def a_sweep(trials: int | None = 30, groups: list[str] = GROUPS, **changed: Any) -> Any:
    given: dict[str, Any] = {
        "space": SPACE,
        "metric": "loss",
        "search": "tpe",
        "name": "s",
        "transfer": True,
        "fn": loss,
    }
    given |= changed
    return umbel.sweep(given.pop("fn"), over={"group": groups}, trials=trials, **given)


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str = "r", **options: Any) -> umbel.Run:
        given = {"store": str(tmp_path), "executor": "inline", "progress": "quiet"} | options
        return umbel.run(target, name=name, **given)

    return run


def of(run: umbel.Run) -> list[Any]:
    """What was tried, where it came from, and what came of it."""
    return [
        (row["trial"], row["params"], row.get("borrowed_from"), row["metric_loss"]) for row in run.trials().to_pylist()
    ]


def stops_at(call: int, log: Path, fn: Callable[[dict[str, Any]], float] = loss) -> Callable[[dict[str, Any]], float]:
    """The function, which interrupts the run at one of its calls."""

    def interrupted(config: dict[str, Any]) -> float:
        with log.open("a") as file:
            file.write(".")
        if log.stat().st_size == call:
            os.kill(os.getpid(), signal.SIGINT)
        return fn(config)

    return interrupted


def test_what_is_borrowed_was_tried_by_another_group(go: Go) -> None:
    run = go(a_sweep())
    rows = {row["trial"]: row for row in run.trials().to_pylist()}
    origins = Counter(row["group"] for row in rows.values() if row["borrowed_from"] not in (None, "model"))
    assert "g0" not in origins  # it was the first
    assert set(origins) == set(GROUPS[1:])
    for row in rows.values():
        if row["borrowed_from"] not in (None, "model"):
            group, _, trial = row["borrowed_from"].rpartition("/")
            lender = rows[int(trial)]
            assert group == f"group={lender['group']}"
            assert lender["group"] != row["group"]
            assert lender["params"] == row["params"]
            assert lender["borrowed_from"] in (None, "model")  # it is who tried the config first
    own = Counter(row["group"] for row in rows.values() if row["borrowed_from"] is None)
    assert own["g0"] == 30
    assert own["g5"] == 13
    assert run.replay(45).same
    assert len(run.study("g3").trials) == 30


def test_transfer_helps_where_groups_are_alike(go: Go) -> None:
    alone = go(a_sweep(12, transfer=False), "alone").best()["metric_loss"].to_pylist()
    together = go(a_sweep(12), "together").best()["metric_loss"].to_pylist()
    assert together[0] == alone[0]
    assert sum(together[1:]) < 0.7 * sum(alone[1:])


@pytest.mark.parametrize("search", ["random", "nsga2"])
def test_any_search_goes_on_after_what_is_borrowed(go: Go, search: str) -> None:
    run = go(a_sweep(28, GROUPS[:3], search=search))
    rows = run.trials().to_pylist()
    opening, cycle = [True] + [False] * 5, [True, True, False]
    assert [row["borrowed_from"] is not None for row in rows[28:56]] == opening + cycle * 7 + [True]


def test_only_such_sweeps_have_the_column(go: Go) -> None:
    assert "borrowed_from" not in go(a_sweep(5, transfer=False)).trials().column_names


def test_a_space_that_a_function_defines(go: Go) -> None:
    def define(trial: Any) -> None:
        if trial.suggest_categorical("kind", ["linear", "tree"]) == "linear":
            trial.suggest_float("l2", 1e-3, 1, log=True)
        else:
            trial.suggest_int("depth", 1, 8)

    run = go(a_sweep(12, space=define, fn=lambda config: config.get("l2", config.get("depth", 0)) / 1.0))
    rows = run.trials().to_pylist()
    assert any(row["borrowed_from"] for row in rows)
    assert "model" not in {row["borrowed_from"] for row in rows}
    assert all((row["config_l2"] is None) == (row["config_kind"] == "tree") for row in rows)


@pytest.mark.parametrize("call", [1, 35, 58, 100])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(go: Go, tmp_path: Path, call: int) -> None:
    whole = go(a_sweep(), "whole")
    sweep = a_sweep(fn=stops_at(call, tmp_path / "calls"))
    with pytest.raises(umbel.RunInterrupted):
        go(sweep)
    assert of(go(sweep)) == of(whole)


def test_an_earlier_run_lends(go: Go) -> None:
    before = go(a_sweep(20, GROUPS[:3], search="random", transfer=False), "before")
    run = go(a_sweep(10, ["g4"], transfer_from=before), "after")
    origins = [row["borrowed_from"] for row in run.trials().to_pylist()]
    assert all(origin == "model" or origin.startswith("before/s/") for origin in (origins[n] for n in (0, 6, 7, 9)))
    assert not any(origins[n] for n in (1, 2, 3, 4, 5, 8))
    rows = before.trials().to_pylist()
    place = int(origins[0].rpartition("/")[2])
    assert run.trials().to_pylist()[0]["config_x"] == rows[place]["config_x"]
    assert run.record["graph"]["nodes"][0]["sweep"]["transfer_from"] == ["before/s"]
    assert run.lineage(0).fact("borrowed_from") == origins[0]
    assert f"borrowed_from {origins[0]}" in run.lineage(0).text()
    assert of(go(a_sweep(10, ["g4"], transfer_from=[before]), "again")) == of(run)
    adaptive = go(a_sweep(10, ["g5"], transfer_from=run), "third")
    assert adaptive.trials()["borrowed_from"][0].as_py().startswith("after/s/")


def test_a_dimension_that_appears_late_is_learned_of() -> None:
    """Of groups with too few trials to teach nothing is learned, and that must not be kept for other dimensions."""

    def define(trial: Any) -> None:
        trial.suggest_float("x", 0, 1)

    source = TrialSource(placeholder_space(), "random", 0, "s", 9)
    lending = Lending(AdaptiveSearch("tpe", NamedSampler("tpe"), source, ("minimize",), define, True), 9)
    x = {"x": FloatDistribution(0, 1)}
    for number in range(6):
        lending.add(0, KnownTrial(number, {"x": number / 6}, (1.0 * number,)), distributions_text(x))
    assert lending.portfolio(1, str) is not None
    late = distributions_text(x | {"late": FloatDistribution(0, 1)})
    for number in range(6):
        lending.add(2, KnownTrial(number, {"x": number / 6, "late": 0.5}, (1.0 * number,)), late)
    portfolio = lending.portfolio(1, str)
    assert portfolio is not None
    borrower = Borrower(portfolio, 0, draws=False)
    for number in range(6):
        borrower.saw({"x": number / 7, "late": 0.1}, 1.0 * number, guided=False)
    assert borrower.next() is not None


# ---- one budget ------------------------------------------------------------------------------------------------


def counts(run: umbel.Run) -> list[int]:
    found = Counter(row["group"] for row in run.trials().to_pylist())
    return [found[group] for group in GROUPS]


@pytest.mark.parametrize("changed", [{}, {"transfer": False}, {"transfer": False, "search": "random"}])
def test_a_budget_is_spent_to_the_last_trial(go: Go, changed: dict[str, Any]) -> None:
    run = go(a_sweep(40, budget=100, floor=8, **changed))
    assert run.status == "done"
    assert sum(counts(run)) == 100
    assert min(counts(run)) >= 8
    assert max(counts(run)) <= 40
    assert run.best().num_rows == len(GROUPS)
    assert go(a_sweep(40, budget=100, floor=8, **changed)).trials().num_rows == 100
    (summary,) = umbel.open_store(run.store_url).runs()
    assert summary.trials == 100


def test_what_follows_a_budget_runs(go: Go) -> None:
    @umbel.task
    def again(best: umbel.Best) -> float:
        return loss(best.config) - best.value

    run = go(again.map(a_sweep(None, budget=80).best()))
    assert run.value("again") == [0.0] * len(GROUPS)


@pytest.mark.parametrize("call", [3, 30, 61, 66, 90])
def test_an_interrupted_budget_is_spent_as_if_nothing_had_been(go: Go, tmp_path: Path, call: int) -> None:
    whole = go(a_sweep(None, budget=100), "whole")
    log = tmp_path / "calls"
    sweep = a_sweep(None, budget=100, fn=stops_at(call, log))
    with pytest.raises(umbel.RunInterrupted):
        go(sweep)
    run = go(sweep)
    assert of(run) == of(whole)
    assert log.stat().st_size == 100


def test_a_budget_can_be_raised(go: Go) -> None:
    first = of(go(a_sweep(None, budget=70)))
    run = go(a_sweep(None, budget=90))
    assert run.trials().num_rows == 90
    assert set(first) <= set(of(run))
    with pytest.raises(umbel.ResumeMismatchError, match="floor"):
        go(a_sweep(None, budget=90, floor=11))


def test_more_goes_where_more_improves(go: Go) -> None:
    def flat(config: dict[str, Any]) -> float:
        return loss(config) if config["group"] == "g2" else 1.0

    found = counts(go(a_sweep(None, budget=120, fn=flat, transfer=False)))
    assert found[2] == max(found)


def test_failed_trials_are_spent_too(go: Go) -> None:
    def fails(config: dict[str, Any]) -> float:
        if config["kind"] == "b":
            raise ValueError("no b")
        return loss(config)

    run = go(a_sweep(None, budget=90, fn=fails))
    assert sum(counts(run)) == 90


def test_a_group_without_data_costs_nothing(go: Go) -> None:
    @umbel.task
    def load(group: str) -> int:
        if group == "g3":
            raise ValueError("no data")
        return 1

    def with_data(config: dict[str, Any], data: int) -> float:
        return loss(config) + data

    run = go(a_sweep(20, budget=80, fn=with_data, data=load.map(GROUPS)))
    ran = [row for row in run.trials().to_pylist() if row["attempt"]]
    assert len(ran) == 80
    assert "g3" not in {row["group"] for row in ran}


def test_groups_that_the_run_reveals_share_a_budget(go: Go) -> None:
    @umbel.task
    def find() -> list[str]:
        return GROUPS

    sweep = umbel.sweep(
        loss, over={"group": find.bind()}, space=SPACE, metric="loss", budget=75, transfer=True, name="s"
    )
    assert sum(counts(go(sweep))) == 75


def test_a_runs_own_limit_holds_beside_the_budget(go: Go) -> None:
    run = go(a_sweep(None, budget=100), budget={"trials": 50})
    assert run.status == "stopped"
    assert run.trials().num_rows == 50
    assert go(a_sweep(None, budget=100)).trials().num_rows == 100


# ---- on Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_on_workers(two_processors: None, go: Go) -> None:
    run = go(a_sweep(None, budget=120), executor="ray")
    assert sum(counts(run)) == 120
    assert min(counts(run)) >= 10
    rows = {row["trial"]: row for row in run.trials().to_pylist()}
    borrowed = [row for row in rows.values() if row["borrowed_from"] not in (None, "model")]
    assert borrowed
    for row in borrowed:
        assert rows[int(row["borrowed_from"].rpartition("/")[2])]["params"] == row["params"]
    raised = go(a_sweep(None, budget=140), executor="ray")
    assert sum(counts(raised)) == 140
    assert raised.replay(borrowed[0]["trial"]).same


# ---- what does not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": "grid", "space": {"x": tune.grid_search([1, 2])}, "trials": None}, "grid"),
        ({"groups": ["g0"]}, "one group only"),
        ({"budget": 59, "trials": None}, "does not suffice"),
        ({"budget": 100, "trials": 12}, "more than the groups may get"),
        ({"budget": 100, "trials": 20, "floor": 21}, "floor is more"),
        ({"budget": 0}, "budget is not a number"),
        ({"floor": 3}, "a floor is a group's first share[^$]*floor=3 without budget"),
        ({"transfer": "no"}, "neither True nor False[^$]*'no'"),
        ({"transfer": 1}, "neither True nor False"),
        ({"budget": 100, "floor": "all"}, "floor is not a number"),
        ({"budget": {"trials": 3}}, "given to umbel.run"),
        ({"budget": 100, "search": "grid", "transfer": False, "space": {"x": [1, 2]}}, "grid is tried whole"),
        ({"transfer_from": "before"}, "is no run"),
        ({"metric": ["loss", "other"], "mode": ["min", "min"]}, "by one metric"),
        ({"metric": ["loss", "other"], "mode": ["min", "min"], "transfer": False, "budget": 100}, "by one metric"),
        ({"groups": ["g0", "g1"], "over": None}, "borrowed_from"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run(changed: dict[str, Any], message: str) -> None:
    if "over" in changed:
        with pytest.raises(umbel.UmbelError, match=message):
            umbel.sweep(loss, over={"borrowed_from": ["a"]}, space=SPACE, metric="loss", trials=3)
        return
    with pytest.raises(umbel.UmbelError, match=message):
        a_sweep(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": {**SPACE, "x": tune.uniform(0, 2)}}, "'x' differs"),
        ({"space": {**SPACE, "z": tune.uniform(0, 2)}}, "'z' differs"),
        ({"space": {name: SPACE[name] for name in ("x", "y", "k")}}, "'kind' differs"),
        ({"metric": "other"}, "compared by something else"),
        ({"mode": "max"}, "compared by something else"),
        ({"space": lambda trial: None}, "a function defines the space"),
    ],
)
def test_a_run_over_another_space_can_not_lend(go: Go, changed: dict[str, Any], message: str) -> None:
    before = go(a_sweep(6, GROUPS[:2], transfer=False), "before")
    with pytest.raises(umbel.UmbelError, match=message):
        a_sweep(6, transfer_from=before, **changed)
