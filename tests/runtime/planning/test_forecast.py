"""Forecasts: true to a real run, to what an earlier run measured, and to what is said of the machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

import umbel
from umbel.runtime.cli.app import main
from umbel.runtime.cli.tables import json_text
from umbel.runtime.driver.plan import Plan, make_plan
from umbel.runtime.executors.ray_executor import REPORT_EVERY_S, REPORT_SPACING_S
from umbel.runtime.graph.nodes import Node
from umbel.runtime.graph.sizes import Sizes
from umbel.runtime.planning.forecast import Forecast, parse_seconds, plan
from umbel.runtime.planning.forecast_text import chart, describe, print_forecast, save_chart
from umbel.runtime.planning.measured import MeasuredRun
from umbel.scheduler.errors import UsageError
from umbel.scheduler.simulation.setup import Polling

COUNTRIES = [f"c{number:02}" for number in range(12)]


@umbel.task
def load(country: str) -> list[float]:
    return [work(2_000) for _ in range(40)]


def work(steps: int) -> float:
    """Keep a processor busy."""
    total = 0.0
    for step in range(steps):
        total += (step % 7) ** 0.5
    return total


def backtest(config: dict[str, Any], data: list[float]) -> float:
    return work(int(config["steps"])) + len(data)


@umbel.task
def refit(best: umbel.Best, data: list[float]) -> float:
    return work(200_000)


@umbel.task
def report(models: list[float]) -> float:
    return sum(models)


def graph(trials: int = 10, steps: tuple[int, int] = (10, 100), countries: list[str] = COUNTRIES) -> Node:
    series = load.map(countries)
    sweep = umbel.sweep(
        backtest,
        space={"steps": tune.randint(*steps)},
        over={"country": countries},
        data=series,
        trials=trials,
        metric="backtest",
        name="backtest",
    )
    return report.bind(refit.map(sweep.best(), series))


def inline(node: Node, store: Path, name: str = "before") -> umbel.Run:
    return umbel.run(node, store=str(store), name=name, executor="inline", progress="quiet")


def known_sizes(planned: Plan) -> Sizes:
    return Sizes(planned, lambda node: None, lambda node: None)


def trial_times(forecast_of: Node, run: umbel.Run) -> Any:
    planned = make_plan(forecast_of)
    return MeasuredRun(run).seconds(planned.by_name["backtest"], known_sizes(planned))


# ---- a real run --------------------------------------------------------------------------------------------


def wall_s(run: umbel.Run) -> float:
    """From the start of the first element to the end of the last."""
    rows = [run.elements(name, ["started", "seconds"]) for name in ("load", "backtest", "refit", "report")]
    started = np.concatenate([part["started"].cast("int64").to_numpy() / 1e6 for part in rows])
    ended = started + np.concatenate([part["seconds"].to_numpy() for part in rows])
    return float(ended.max() - started.min())


@pytest.mark.ray
@pytest.mark.alone
def test_a_forecast_is_within_a_tenth_of_a_real_run(two_processors: None, tmp_path: Path) -> None:
    # About 15 s on two processors: 900 trials of 10 to 50 ms, and 12 elements each before and after them.
    node = graph(trials=75, steps=(100_000, 500_000))
    run = umbel.run(node, store=str(tmp_path), name="real", workers=2, progress="quiet")
    forecast = plan(node, nodes=1, slots=2, run=run)
    measured_s = wall_s(run)
    assert forecast.makespan_s == pytest.approx(measured_s, rel=0.1)
    assert forecast.elements == 12 + 900 + 12 + 1


# ---- times of an earlier run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> umbel.Run:
    return inline(graph(), tmp_path_factory.mktemp("store"))


def test_elements_that_were_measured_take_what_they_took(before: umbel.Run) -> None:
    expected = before.trials("backtest")["seconds"].to_numpy()
    assert np.array_equal(trial_times(graph(), before), expected)


def test_a_widened_sweep_keeps_its_trials_and_draws_the_others_from_their_group(before: umbel.Run) -> None:
    measured = before.trials("backtest")["seconds"].to_numpy().reshape(12, 10)
    wider = trial_times(graph(trials=30), before).reshape(12, 30)
    assert np.array_equal(wider[:, :10], measured)
    for group in range(12):
        assert set(wider[group, 10:]) <= set(measured[group])
    narrower = trial_times(graph(trials=4), before).reshape(12, 4)
    assert np.array_equal(narrower, measured[:, :4])


def test_a_new_group_is_like_some_group_that_was_measured(before: umbel.Run) -> None:
    measured = before.trials("backtest")["seconds"].to_numpy().reshape(12, 10)
    # The same countries in another order, and one more.
    times = trial_times(graph(countries=["new", *reversed(COUNTRIES)]), before).reshape(13, 10)
    assert np.array_equal(times[1:], measured[::-1])
    assert any(set(times[0]) <= set(group) for group in measured)


def test_what_is_drawn_follows_from_the_seed(before: umbel.Run) -> None:
    whole = make_plan(graph(trials=30))
    planned, sizes = whole.by_name["backtest"], known_sizes(whole)
    one, two, other = (MeasuredRun(before, seed).seconds(planned, sizes) for seed in (1, 1, 2))
    assert one is not None
    assert two is not None
    assert other is not None
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_nodes_that_were_not_measured_need_a_time(before: umbel.Run) -> None:
    @umbel.task
    def publish(total: float) -> None:
        return None

    node = publish.bind(graph())
    with pytest.raises(UsageError, match=r"how long publish takes is not known: run 'before' does not tell"):
        plan(node, nodes=1, run=before)
    forecast = plan(node, nodes=1, run=before, seconds={"publish": 100.0}, spread=0.0)
    assert forecast.makespan_s == pytest.approx(100.0, rel=0.05)
    assert forecast.source == "run 'before'"


def test_lost_trials_and_those_that_never_ran_count_for_nothing(tmp_path: Path) -> None:
    @umbel.task
    def picky(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number

    @umbel.task
    def after(number: int) -> int:
        return number

    node = after.map(picky.map(range(5)))
    run = inline(node, tmp_path)
    planned = make_plan(node)
    measured = MeasuredRun(run)
    rows = run.elements("after")
    assert rows["attempt"].to_pylist()[3] == 0
    times = measured.seconds(planned.by_name["after"], known_sizes(planned))
    assert times is not None
    assert times[3] in set(rows["seconds"].to_pylist()) - {rows["seconds"].to_pylist()[3]}
    # One that failed took its time, too.
    tried = measured.seconds(planned.by_name["picky"], known_sizes(planned))
    assert tried is not None
    assert tried[3] == run.elements("picky")["seconds"].to_pylist()[3]


# ---- machines, prices --------------------------------------------------------------------------------------


def given(**options: Any) -> Forecast:
    seconds = {"load": 5.0, "backtest": 10.0, "refit": 20.0, "report": 1.0}
    return plan(graph(trials=50), **{"nodes": 5, "seconds": seconds, "spread": 0.0, **options})


def test_more_machines_are_faster_and_hardly_dearer() -> None:
    few, many = given(nodes=2, price_per_node_hour=3.0), given(nodes=8, price_per_node_hour=3.0)
    work_s = 12 * 5 + 600 * 10 + 12 * 20 + 1
    assert few.core_hours == pytest.approx(work_s / 3600, rel=0.01)
    assert few.makespan_s >= few.lower_bound_s >= work_s / 16
    assert many.makespan_s < few.makespan_s / 2.5
    assert few.cost is not None
    assert few.cost == pytest.approx(3.0 * 2 * (few.makespan_s + few.startup_s) / 3600)
    assert 0.5 < many.mean_utilisation < few.mean_utilisation <= 1.0


def test_machines_that_have_to_come_first_cost_time() -> None:
    there, coming = given(), given(lag_s=60.0)
    assert there.startup_s < 2 < 60 <= coming.startup_s
    assert coming.makespan_s > there.makespan_s
    assert coming.cpus[0] == 0


def test_machines_that_are_lost_are_counted() -> None:
    forecast = given(losses_per_hour=20.0, seed=1)
    assert forecast.nodes_lost > 0
    assert forecast.run_again > 0
    assert ("losses", f"{forecast.nodes_lost} machines, {forecast.run_again} runs repeated") in describe(forecast)


def test_what_tasks_hold_decides_how_many_run_on_a_machine() -> None:
    @umbel.task(cpus=2, gpus=0.5, memory=2**30, resources={"licence": 1})
    def train(number: int) -> int:
        return number

    node = train.map(range(8))
    forecast = plan(node, nodes=1, slots=8, gpus=1, seconds=10.0, spread=0.0)
    assert forecast.makespan_s == pytest.approx(40.0, rel=0.01)  # two at a time
    with pytest.raises(UsageError, match="no machine can hold a worker of node 'train'"):
        plan(node, nodes=1, slots=8, seconds=10.0)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"nodes": 0}, "nodes is not a count"),
        ({"slots": -1}, "slots"),
        ({"price_per_node_hour": float("nan")}, "the price"),
        ({"lag_s": -1.0}, "the lag"),
        ({"seconds": None}, "how long load, backtest, refit, report takes is not known"),
        ({"seconds": {"laod": 1.0}}, "no node 'laod'"),
        ({"seconds": -1.0}, "not a duration"),
        ({"spread": 9.0}, "spread"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        given(**options)


def test_times_on_the_command_line_are_for_all_nodes_or_for_one() -> None:
    assert parse_seconds([]) == {}
    assert parse_seconds(["30", "load=2.5"]) == {None: 30.0, "load": 2.5}
    with pytest.raises(UsageError, match="not a number"):
        parse_seconds(["load=fast"])
    forecast = given(seconds={None: 10.0, "load": 0.0})
    assert forecast.core_hours == pytest.approx((600 + 12 + 1) * 10 / 3600, rel=0.01)


SCRIPT = """
import umbel

@umbel.task
def double(x):
    return 2 * x

doubled = double.map(range(50))
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def command(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capsys.readouterr())

    code, out, _ = command(
        "plan", "job.py", "--nodes", "2", "--slots", "5", "--seconds", "10", "--price", "4", "--json"
    )
    assert code == 0
    facts = json.loads(out)
    assert facts["elements"] == 50
    assert 50 <= facts["makespan_s"] <= 70
    assert facts["cost"] == pytest.approx(4 * facts["node_hours"])
    code, out, _ = command("plan", "job.py", "--nodes", "2", "--seconds", "double=10")
    assert code == 0
    assert "CPUs busy" in out
    code, _, err = command("plan", "job.py", "--nodes", "2")
    assert code == 2
    assert "--from RUN" in err
    command("run", "job.py", "--name", "before", "--executor", "inline", "--progress", "quiet")
    code, out, _ = command("plan", "job.py", "--nodes", "2", "--from", "before", "--json")
    assert json.loads(out)["source"] == "run 'before'"


# ---- how it is shown ---------------------------------------------------------------------------------------


def test_simulations_poll_as_often_as_the_executor_does() -> None:
    assert Polling() == Polling(REPORT_EVERY_S, REPORT_SPACING_S)


def test_a_forecast_is_plain_data() -> None:
    forecast = given(price_per_node_hour=1.0)
    assert json.loads(json_text(forecast.as_dict()))["makespan_s"] == forecast.makespan_s


def test_the_chart_shows_when_processors_are_busy(capsys: pytest.CaptureFixture[str]) -> None:
    forecast = given()
    lines = chart(forecast, width=40, height=4).splitlines()
    assert len(lines) == 7
    assert lines[1].startswith(" 40 ")
    assert "█" in lines[2]
    assert lines[-1].endswith(" s") or "min" in lines[-1]
    assert max(map(len, lines)) == 44
    print_forecast(forecast)
    assert "makespan" in capsys.readouterr().out


def test_a_chart_of_nothing_is_empty() -> None:
    forecast = plan(load.map([]), nodes=1, seconds=1.0)
    assert forecast.makespan_s == 0.0
    assert "█" not in chart(forecast)


def test_a_chart_is_drawn_into_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_chart(given(), str(tmp_path / "chart.png"))
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    save_chart(plan(load.map([]), nodes=1, seconds=1.0), str(tmp_path / "empty.svg"))
    with pytest.raises(UsageError, match="can't be written"):
        save_chart(given(), str(tmp_path / "missing" / "chart.png"))
