"""Sweeps that stop trials early: inline, on Ray, resumed, and said wrongly."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import run
from tests.scheduler.reference_pruning import replay_asha, unsound_stops

EPOCHS = 12
GROUPS = ["a", "b", "c"]


def curve(config: dict[str, Any]) -> list[float]:
    """A learning curve: noisy at first, and the sooner down the better."""
    wobble = math.sin(1000 * config["rate"])
    return [abs(config["rate"] - 0.3) + wobble / epoch + 1 / epoch for epoch in range(1, EPOCHS + 1)]


def learn(config: dict[str, Any]) -> float:
    values = curve(config)
    for epoch, value in enumerate(values, 1):
        umbel.report({"loss": value, "twice": 2 * value}, step=epoch)
    return values[-1]


def a_sweep(fn: Any = learn, **changed: Any) -> umbel.Sweep:
    given: dict[str, Any] = {
        "space": {"rate": tune.uniform(0, 1)},
        "metric": "loss",
        "over": {"group": GROUPS},
        "trials": 20,
        "name": "search",
        "prune": umbel.Asha(reduction_factor=3, min_resource=1, max_resource=EPOCHS),
    }
    return umbel.sweep(fn, **{name: value for name, value in (given | changed).items() if value is not ...})


def rows_of(found: umbel.Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.trials().to_pylist()
    for row in rows:
        row["rungs"] = json.loads(row.get("rungs") or "[]")
    return rows


def by_group(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    ordered = sorted(rows, key=lambda row: row["started"])
    return [[row for row in ordered if row["group"] == group] for group in GROUPS]


def best_values(found: umbel.Run, sweep: umbel.Sweep) -> list[umbel.Best]:
    values: Any = found.value(sweep.best())
    return list(values)


def what_counts(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["trial"], row["status"], row["steps"], row["metric_loss"], row["rungs"]) for row in rows]


def test_trials_end_where_the_reference_says(tmp_path: Path) -> None:
    found = run(a_sweep(), tmp_path)
    rows = rows_of(found)
    for rows_of_group in by_group(rows):
        curves = [curve({"rate": row["config_rate"]}) for row in rows_of_group]
        ends = replay_asha(curves, 3, 1, EPOCHS)
        assert [row["steps"] for row in rows_of_group] == ends
        assert [row["metric_loss"] for row in rows_of_group] == [
            c[end - 1] for c, end in zip(curves, ends, strict=True)
        ]
        assert unsound_stops(rows_of_group, 3) == []
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    assert all((row["status"] == "ok") == (row["steps"] == EPOCHS) for row in rows)
    assert all(row["metric_twice"] == 2 * row["metric_loss"] and row["error"] is None for row in rows)
    assert found.status == "done"
    assert found.failures().num_rows == 0


def test_inline_is_deterministic(tmp_path: Path) -> None:
    first, second = (run(a_sweep(), tmp_path / name) for name in ("one", "two"))
    assert what_counts(rows_of(first)) == what_counts(rows_of(second))


@pytest.mark.parametrize(
    "prune",
    [
        "asha",
        "median",
        umbel.Hyperband(3, 1, EPOCHS),
        optuna.pruners.SuccessiveHalvingPruner(1, 3),
        optuna.pruners.MedianPruner(n_startup_trials=2),
        optuna.pruners.HyperbandPruner(1, EPOCHS, 3),
    ],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_resumed_run_decides_as_one_that_was_not_stopped(prune: Any, mode: str, tmp_path: Path) -> None:
    whole = rows_of(run(a_sweep(prune=prune, mode=mode), tmp_path / "whole"))
    stopped = run(a_sweep(prune=prune, mode=mode), tmp_path / "parts", budget={"trials": 27})
    assert stopped.status == "stopped"
    assert 0 < stopped.trials().num_rows < 60
    rows = rows_of(run(a_sweep(prune=prune, mode=mode), tmp_path / "parts"))
    assert [row["trial"] for row in rows] == list(range(60))
    pruned = sum(row["status"] == "pruned" for row in rows)
    assert 0 < pruned < 60
    if not isinstance(
        prune, optuna.pruners.HyperbandPruner
    ):  # its brackets go by the order in which it hears of trials
        assert what_counts(rows) == what_counts(whole)


def test_ranks_across_groups(tmp_path: Path) -> None:
    """Groups whose losses differ in size compete all the same."""

    def scaled(config: dict[str, Any]) -> None:
        for epoch, value in enumerate(curve(config), 1):
            umbel.report(value * (1000 if config["group"] == "a" else 1), step=epoch)

    whole = rows_of(run(a_sweep(scaled, prune_across=True), tmp_path / "whole"))
    run(a_sweep(scaled, prune_across=True), tmp_path / "parts", budget={"trials": 27})
    assert what_counts(rows_of(run(a_sweep(scaled, prune_across=True), tmp_path / "parts"))) == what_counts(whole)
    first = [mark for row in whole for mark in row["rungs"] if mark["rung"] == 0]
    assert len(first) == 60
    assert [mark["of"] for mark in first] == list(range(60))
    for rows in by_group(whole):
        assert any(row["status"] == "ok" for row in rows)


def test_only_a_trial_that_ran_to_its_end_is_the_best(tmp_path: Path) -> None:
    def gets_worse(config: dict[str, Any]) -> None:
        for epoch in range(1, EPOCHS + 1):
            umbel.report(config["rate"] + (10 if epoch == EPOCHS else 0), step=epoch)

    sweep = a_sweep(gets_worse)
    found = run(sweep.best(), tmp_path)
    rows = rows_of(found)
    assert min(row["metric_loss"] for row in rows if row["status"] == "pruned") < 1
    assert {row["status"] for row in found.best().to_pylist()} == {"ok"}
    assert all(best.value > 10 for best in best_values(found, sweep))


def test_if_none_did_the_best_of_those_that_were_stopped_is(tmp_path: Path) -> None:
    class Stern(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return True

    sweep = a_sweep(prune=Stern())
    found = run(sweep.best(), tmp_path)
    rows = rows_of(found)
    assert {(row["status"], row["steps"]) for row in rows} == {("pruned", 1)}
    values = [best.value for best in best_values(found, sweep)]
    assert values == [min(row["metric_loss"] for row in rows_of_group) for rows_of_group in by_group(rows)]
    assert [row["metric_loss"] for row in found.best().to_pylist()] == values


def test_user_code_that_catches_exceptions_lets_it_by(tmp_path: Path) -> None:
    left = tmp_path / "left"

    def careful(config: dict[str, Any]) -> float:
        try:
            return learn(config)
        except Exception:
            return -1.0
        finally:
            with left.open("a") as file:
                file.write("x")

    def greedy(config: dict[str, Any]) -> float:
        try:
            return learn(config)
        except BaseException:
            return -1.0

    def wrapping(config: dict[str, Any]) -> float:
        try:
            return learn(config)
        except BaseException as error:
            raise RuntimeError("something went wrong") from error

    expected = what_counts(rows_of(run(a_sweep(), tmp_path / "plain")))
    assert what_counts(rows_of(run(a_sweep(careful), tmp_path / "careful"))) == expected
    assert left.read_text() == "x" * 60
    assert what_counts(rows_of(run(a_sweep(wrapping), tmp_path / "wrapping"))) == expected
    stopped = [row for row in rows_of(run(a_sweep(greedy), tmp_path / "greedy")) if row["metric_loss"] == -1.0]
    assert stopped
    assert {row["status"] for row in stopped} == {"pruned"}


def test_a_trial_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    def fails_at_first(config: dict[str, Any]) -> float:
        values = curve(config)
        for epoch, value in enumerate(values, 1):
            if epoch == 2 and umbel.trial().attempt == 1:
                raise OSError("not yet")
            umbel.report(value, step=epoch)
        return values[-1]

    rows = rows_of(run(a_sweep(umbel.task(retries=2)(fails_at_first), over=...), tmp_path))
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    assert max(mark["of"] for row in rows for mark in row["rungs"]) <= 19
    assert {row["attempt"] for row in rows} == {1, 2}


def test_replay_stops_where_it_was_stopped(tmp_path: Path) -> None:
    found = run(a_sweep(), tmp_path)
    row = next(row for row in rows_of(found) if row["status"] == "pruned" and row["steps"] == 3)
    again = umbel.replay(found, row["trial"])
    assert (again.status, again.recorded_status) == ("pruned", "pruned")
    assert again.metrics["loss"] == row["metric_loss"]


def test_trials_that_were_stopped_are_not_taken_over(tmp_path: Path) -> None:
    first = rows_of(run(a_sweep(), tmp_path, name="first"))
    again = rows_of(run(a_sweep(prune=...), tmp_path, name="again"))
    taken = [row["trial"] for row in again if row["reused_from"]]
    assert taken == [row["trial"] for row in first if row["status"] == "ok"]
    assert {row["status"] for row in again} == {"ok"}


def test_without_reports_there_are_no_steps(tmp_path: Path) -> None:
    table = run(a_sweep(lambda config: config["rate"], prune=...), tmp_path).trials()
    assert table["steps"].null_count == table.num_rows
    assert "rungs" not in table.column_names


def test_searches_that_build_upon_earlier_trials(tmp_path: Path) -> None:
    whole = rows_of(run(a_sweep(search="tpe"), tmp_path / "whole"))
    assert {row["status"] for row in whole} == {"ok", "pruned"}
    run(a_sweep(search="tpe"), tmp_path / "parts", budget={"trials": 27})
    found = run(a_sweep(search="tpe"), tmp_path / "parts")
    assert what_counts(rows_of(found)) == what_counts(whole)
    trials = found.study("a").trials
    states = [trial.state.name for trial in trials]
    assert (states.count("COMPLETE"), states.count("PRUNED")) == tuple(
        sum(row["status"] == status and row["group"] == "a" for row in whole) for status in ("ok", "pruned")
    )
    assert all(list(trial.intermediate_values)[:1] == [1] for trial in trials)


# ---- said wrongly ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prune": "ascha"}, "unknown prune"),
        ({"prune": umbel.Asha}, "an object is needed, not its class"),
        ({"prune": 3}, "unknown prune"),
        ({"metric": ["loss", "seconds"], "mode": ["min", "min"]}, "several objectives"),
        ({"prune": None, "prune_across": True}, "nothing is pruned"),
        ({"prune_across": 1}, "neither True nor False"),
        ({"prune": optuna.pruners.MedianPruner(), "prune_across": True}, "a rule of Umbel's"),
    ],
)
def test_before_anything_runs(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(umbel.UsageError, match=said):
        a_sweep(**changed)


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([(1.0, 2), (1.0, 1)], "go backwards"),
        ([({"other": 1.0}, 1)], "lacks what this sweep's trials are pruned by"),
        ([(1.0, None)], "lacks what this sweep's trials are pruned by"),
        ([("good", 1)], "is not a number"),
        ([(1.0, 1.5)], "not a whole number"),
        ([(1.0, -1)], "not a whole number"),
    ],
)
def test_a_report_that_says_too_little_fails_its_trial(reports: list[Any], said: str, tmp_path: Path) -> None:
    def speaks(config: dict[str, Any]) -> float:
        for metrics, step in reports:
            umbel.report(metrics, step=step)
        return 1.0

    rows = rows_of(run(a_sweep(speaks, trials=1), tmp_path))
    assert {row["status"] for row in rows} == {"failed"}
    assert all(said in row["error"] for row in rows)


def test_a_function_that_never_reports_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = a_sweep(lambda config: config["rate"])
    run(sweep, tmp_path, progress="plain")
    said = "no trial of sweep 'search' was stopped early, although it says prune="
    assert said in "".join(capfd.readouterr())
    run(a_sweep(), tmp_path, name="other", progress="plain")
    assert said not in "".join(capfd.readouterr())


# ---- on several workers ----------------------------------------------------------------------------------------


def slowly(config: dict[str, Any]) -> float:
    """Long enough for workers to hear of one another, by work and not by waiting."""
    values = curve(config)
    for epoch, value in enumerate(values, 1):
        for _ in range(40_000):
            pass
        umbel.report(value, step=epoch)
    return values[-1]


class Together:
    """`slowly`, from the moment on when two workers have come: else the first may do it all before there is another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, config: dict[str, Any]) -> float:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < 2:
            assert time.monotonic() < deadline, "there is one worker only"
            time.sleep(0.01)
        return slowly(config)


@pytest.mark.ray
def test_on_ray_every_stop_is_one_that_the_rule_explains(tmp_path: Path) -> None:
    found = run(a_sweep(slowly, trials=120), tmp_path, executor="ray", workers=2)
    rows = rows_of(found)
    assert len(rows) == 360
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    for rows_of_group in by_group(rows):
        assert unsound_stops(rows_of_group, 3) == []
    assert sum(row["steps"] for row in rows) < 360 * EPOCHS / 2


@pytest.mark.ray
def test_on_ray_workers_hear_of_one_another(tmp_path: Path) -> None:
    """In one group that two workers share, trials are compared with more than their own worker ran before."""
    met = tmp_path / "met"
    met.mkdir()
    rows = rows_of(run(a_sweep(Together(met), trials=300, over=...), tmp_path, executor="ray", workers=2))
    rows.sort(key=lambda row: row["started"])
    workers = {row["worker"] for row in rows}
    assert len(workers) == 2
    assert unsound_stops(rows, 3) == []
    more = 0
    before = dict.fromkeys(workers, 0)
    for row in rows:
        more += row["rungs"][0]["of"] > before[row["worker"]]
        before[row["worker"]] += 1
    assert more > 30
