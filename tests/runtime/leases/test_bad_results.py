"""What a trial gets wrong stays with the trial; what is not finite is kept and never best; what needs it says why."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import umbel
from tests.runtime.small_graphs import a_sweep, run, score_with_data
from umbel.runtime.graph.nodes import Sweep, TaskNode
from umbel.scheduler.errors import ElementFailedError, UsageError


class Odd:
    """Fails wherever it is looked at."""

    def __float__(self) -> float:
        raise ValueError("no float")

    def __repr__(self) -> str:
        raise ValueError("no text")


def raises() -> float:
    raise ValueError("boom")


NOT_A_NUMBER = "UsageError: the result is not a number\n  got:      "

#: What a trial returns, its metric, and how its error begins; None: it is ok.
RESULTS: list[tuple[Callable[[], Any], float | None, str | None]] = [
    (lambda: "high", None, NOT_A_NUMBER + "str: 'high'\n  expected: a number, or a dict of numbers by metric name"),
    (lambda: None, None, NOT_A_NUMBER + "NoneType: None"),
    (lambda: [0.5], None, NOT_A_NUMBER + "list: [0.5]"),
    (lambda: np.array([0.5]), None, NOT_A_NUMBER + "ndarray: array([0.5])"),
    (lambda: 1j, None, NOT_A_NUMBER + "complex: 1j"),
    (lambda: 10**400, None, NOT_A_NUMBER + "int: 1000"),
    (Odd, None, "Traceback (most recent call last):\n"),
    (lambda: {"loss": "low"}, None, "UsageError: metric 'loss' is not a number\n  got:      str: 'low'"),
    (lambda: {"gain": 1.0}, None, "UsageError: the result lacks the sweep's metric 'loss'\n  got:      gain"),
    (dict, None, "UsageError: the result lacks the sweep's metric 'loss'\n  got:      no metrics"),
    (lambda: {1: 0.5}, None, "UsageError: a metric has no name\n  got:      "),
    (lambda: {"": 0.5}, None, "UsageError: a metric has no name\n  got:      "),
    (lambda: umbel.Result("low"), None, NOT_A_NUMBER + "str: 'low'"),  # type: ignore[arg-type]
    (lambda: umbel.Result({"gain": 1.0}), None, "UsageError: the result lacks the sweep's metric 'loss'"),
    (
        lambda: umbel.Result(0.5, model=threading.Lock()),
        None,
        "CodeError: a value of type _thread.lock can't be pickled",
    ),
    (raises, None, "Traceback (most recent call last):\n"),
    (lambda: 0.5, 0.5, None),
    (lambda: 3, 3.0, None),
    (lambda: True, 1.0, None),
    (lambda: np.float32(0.5), 0.5, None),
    (lambda: np.array(0.5), 0.5, None),
    (lambda: Fraction(1, 2), 0.5, None),
    (lambda: {"loss": 0.25, "gain": 2}, 0.25, None),
    (lambda: umbel.Result({"loss": 0.125}), 0.125, None),
    (lambda: math.nan, math.nan, None),
    (lambda: math.inf, math.inf, None),
    (lambda: {"loss": -math.inf}, -math.inf, None),
]


def test_a_result_that_is_none_fails_its_trial_alone(tmp_path: Path) -> None:
    def returns(config: dict[str, Any]) -> Any:
        return RESULTS[config["case"]][0]()

    sweep = umbel.sweep(returns, space={"case": list(range(len(RESULTS)))}, search="grid", metric="loss", keep="all")
    done = run(sweep.best(), tmp_path)
    assert done.status == "done"
    rows = done.trials().to_pylist()
    assert [row["config_case"] for row in rows] == list(range(len(RESULTS)))
    for row, (_, metric, error) in zip(rows, RESULTS, strict=True):
        if error is None:
            assert (row["status"], row["error"]) == ("ok", None)
            np.testing.assert_equal(row["metric_loss"], metric)
        else:
            assert (row["status"], row["metric_loss"], row["model"]) == ("failed", None, None)
            assert row["error"].startswith(error), row["error"]
    assert [row["metric_gain"] for row in rows if row["metric_gain"] is not None] == [2.0]
    failures = done.failures().to_pylist()
    assert [row["index"] for row in failures] == [i for i, (_, _, error) in enumerate(RESULTS) if error is not None]
    assert {row["status"] for row in failures} == {"failed"}


def test_a_traceback_begins_in_the_users_function(tmp_path: Path) -> None:
    def fails(config: dict[str, Any]) -> float:
        return raises()

    row = run(a_sweep(fails, trials=1), tmp_path).trials().to_pylist()[0]
    assert [line.rpartition(" in ")[2] for line in row["error"].splitlines() if line.startswith("  File")] == [
        "fails",
        "raises",
    ]
    assert row["error"].endswith("ValueError: boom")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(SystemExit, "SystemExit"), (KeyboardInterrupt, "KeyboardInterrupt"), (MemoryError, "MemoryError")],
)
def test_no_exception_of_a_trial_ends_the_run(kind: type[BaseException], name: str, tmp_path: Path) -> None:
    def ends(config: dict[str, Any]) -> float:
        if umbel.trial().index == 1:
            raise kind()
        return 1.0

    rows = run(a_sweep(ends, trials=3), tmp_path).trials().to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["error"].endswith(name)


def test_context_and_reports_end_with_their_trial(tmp_path: Path) -> None:
    def reports(config: dict[str, Any]) -> Any:
        if umbel.trial().index % 2:
            umbel.report({"loss": 0.5, "steps": 3})
            raise ValueError("after a report")
        return 1.0

    def outside(best: umbel.Best) -> str:
        umbel.report(0.0)  # no trial, no effect
        with pytest.raises(UsageError, match="outside a trial"):
            umbel.trial()
        return "no trial here"

    sweep = a_sweep(reports, trials=4)
    node = umbel.task(outside).map(sweep)
    done = run(node, tmp_path)
    rows = done.trials().to_pylist()
    assert [(row["metric_loss"], row["metric_steps"]) for row in rows] == [(1.0, None), (0.5, 3.0)] * 2
    assert [row["status"] for row in rows] == ["ok", "failed"] * 2
    assert done.value(node) == ["no trial here"]
    assert done.best().column("trial").to_pylist() == [0]  # a failed trial's report never wins


# ---- NaN, infinity, and groups without a best trial ------------------------------------------------------------


@pytest.mark.parametrize(("mode", "best"), [("min", 3), ("max", 2)])
def test_what_is_not_finite_is_kept_and_never_best(mode: str, best: int, tmp_path: Path) -> None:
    losses = [math.nan, math.inf, 2.0, 1.0, -math.inf, math.nan]

    def returns(config: dict[str, Any]) -> float:
        return losses[int(config["case"])]

    sweep = umbel.sweep(returns, space={"case": list(range(6))}, search="grid", metric="loss", mode=mode)
    done = run([sweep.best(), sweep.top(5)], tmp_path)
    np.testing.assert_equal(done.trials().column("metric_loss").to_numpy(), losses)
    assert set(done.trials().column("status").to_pylist()) == {"ok"}
    assert done.failures().num_rows == 0
    assert done.best().column("trial").to_pylist() == [best]
    value: Any = done.value(f"{sweep.name}-best")
    assert [(found.trial, found.value) for found in value] == [(best, losses[best])]
    value = done.value(f"{sweep.name}-top5")
    assert [[found.trial for found in top] for top in value] == [[3, 2] if mode == "min" else [2, 3]]


def test_the_model_of_the_best_is_kept_beside_those_of_infinite_losses(tmp_path: Path) -> None:
    losses = [-math.inf, math.nan, 3.0, math.inf, 2.0, -math.inf]

    def returns(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result(losses[config["case"]], model=config["case"])

    sweep = umbel.sweep(returns, space={"case": list(range(6))}, search="grid", metric="loss", keep="best")
    done = run(sweep, tmp_path)
    kept = {row["index"]: done.load_model(row["model"]) for row in done.models().to_pylist()}
    assert {2: 2, 4: 4}.items() >= kept.items()
    assert kept[4] == 4
    assert [done.load_model(row["model"]) for row in done.best().to_pylist()] == [4]


@umbel.task
def refit(best: umbel.Best) -> float:
    return best.value


@umbel.task(name="summary")
def summarize(models: list[float]) -> int:
    return len(models)


def in_groups(fn: Callable[[dict[str, Any]], Any]) -> tuple[Sweep, TaskNode, TaskNode]:
    sweep = a_sweep(fn, over={"country": ["DEU", "FRA", "ITA"]}, name="search")
    models = refit.map(sweep.best())
    return sweep, models, summarize.bind(models)


@pytest.mark.parametrize("result", ["raises", "nan", "text"])
def test_a_group_in_which_no_trial_succeeded(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    def bad_in_france(config: dict[str, Any]) -> Any:
        if config["country"] != "FRA":
            return 1.0
        return raises() if result == "raises" else math.nan if result == "nan" else "text"

    sweep, models, summary = in_groups(bad_in_france)
    done = run(summary, tmp_path, progress="plain")
    assert done.status == "done"
    told = "warning: 1 of 3 groups have no best trial in 'search-best', because none succeeded: country=FRA"
    assert told in capsys.readouterr().err.splitlines()
    reason = "no trial of group country=FRA in sweep 'search' succeeded with a finite 'loss'"
    with pytest.warns(UserWarning, match=r"1 of 3 groups of the sweep 'search' have no trial.*: country=FRA"):
        best = done.best()
    assert best.column("country").to_pylist() == ["DEU", "ITA"]
    elements = done.elements(models)
    assert elements.column("status").to_pylist() == ["ok", "failed", "ok"]
    assert elements.column("error").to_pylist() == [None, f"not run: {reason}", None]
    assert elements.column("attempt").to_pylist() == [1, 0, 1]
    assert done.elements(sweep.best()).column("error").to_pylist() == [None, reason, None]
    assert done.elements(summary).column("error").to_pylist() == [f"not run: {reason}"]
    with pytest.raises(ElementFailedError, match=re.escape(f"element 1: not run: {reason}")):
        done.value(models)
    failed = [(row["node"], row["index"]) for row in done.failures().to_pylist()]
    trials = [] if result == "nan" else [("search", 2), ("search", 3)]
    assert failed == [*trials, ("search-best", 1), ("refit", 1), ("summary", 0)]
    again = run(summary, tmp_path)  # nothing is tried again, and the reasons stay
    assert again.failures().equals(done.failures())


def test_a_run_in_which_nothing_succeeds(tmp_path: Path) -> None:
    _, models, summary = in_groups(lambda config: "text")
    done = run(summary, tmp_path)
    assert done.status == "done"
    with pytest.warns(UserWarning, match=r"3 of 3 groups.*country=DEU; country=FRA; country=ITA"):
        assert done.best().num_rows == 0
    assert set(done.trials().column("status").to_pylist()) == {"failed"}
    assert done.elements(models).column("status").to_pylist() == ["failed"] * 3
    assert pa.types.is_float64(done.trials().schema.field("metric_loss").type)
    with pytest.raises(ElementFailedError, match="3 of 3 elements of the node 'refit'"):
        done.value(models)


def test_a_group_whose_data_could_not_be_loaded(tmp_path: Path) -> None:
    @umbel.task
    def fetch(country: str) -> str:
        if country == "FRA":
            raise ConnectionError("no route to France")
        return country

    countries = ["DEU", "FRA", "ITA"]
    data = fetch.map(countries)
    sweep = a_sweep(score_with_data, over={"country": countries}, data=data)
    done = run(umbel.task(name="refit")(lambda best, data: data).map(sweep.best(), data), tmp_path)
    rows = done.trials().to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert {row["error"] for row in rows[2:4]} == {"not run: element 1 of 'fetch', which it needs, failed"}
    assert [row["data"] is None for row in rows] == [False, False, True, True, False, False]
    assert done.elements("refit").column("status").to_pylist() == ["ok", "failed", "ok"]
    assert "no route to France" in done.elements(data).column("error").to_pylist()[1]


def test_an_exact_number_of_another_kind_is_refused_rather_than_rounded(tmp_path: Path) -> None:
    rows = run(a_sweep(lambda config: Decimal("0.5"), trials=1), tmp_path).trials().to_pylist()
    assert rows[0]["error"].startswith(NOT_A_NUMBER + "Decimal: Decimal('0.5')")


def awkward(config: dict[str, Any]) -> dict[str, float]:
    return {"f1-score": config["x"], "time (s)": 1.0}


def test_metric_names_make_columns_that_need_no_quotes(tmp_path: Path) -> None:
    sweep = umbel.sweep(awkward, space={"x": [3, 1, 2]}, search="grid", metric="f1-score", name="awkward")
    ended = umbel.run(sweep, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert [name for name in ended.trials().column_names if name.startswith("metric")] == [
        "metric_f1_score",
        "metric_time__s_",
    ]
    assert ended.best()["metric_f1_score"].to_pylist() == [1.0]
    assert ended.value("awkward").num_rows == 3  # type: ignore[attr-defined]


def test_a_store_that_is_no_name_is_refused() -> None:
    with pytest.raises(umbel.UsageError, match="not named"):
        umbel.open_store(3)  # type: ignore[arg-type]
