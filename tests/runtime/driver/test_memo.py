"""Trials that an earlier run has done are taken over; whatever has changed is run."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import umbel
from umbel.storage.layout import memo_mark, parse_memo_mark

#: One line a call: what was really run.
CALLS: list[tuple[str, float]] = []
Go = Callable[..., umbel.Run]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str, **options: Any) -> umbel.Run:
        CALLS.clear()
        return umbel.run(target, store=str(tmp_path), name=name, executor="inline", progress="quiet", **options)

    return run


def score(config: dict[str, Any], data: Any = 0) -> umbel.Result:
    CALLS.append((config.get("country", ""), config["x"]))
    if config["x"] > 0.95:
        raise ValueError("too much")
    return umbel.Result({"loss": config["x"] + data}, model={"x": config["x"]})


def a_sweep(countries: tuple[str, ...] = ("A", "B"), trials: int = 5, data: Any = None, **changed: Any) -> Any:
    given: dict[str, Any] = {"space": {"x": tune.uniform(0, 0.9)}, "metric": "loss", "name": "s", "keep": "all"}
    over = {"country": list(countries)}
    return umbel.sweep(changed.pop("fn", score), over=over, trials=trials, data=data, **(given | changed))


def rows(run: umbel.Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.trials().to_pylist()
    return found


def facts(run: umbel.Run) -> list[tuple[Any, ...]]:
    return [(row["country"], row["config_x"], row["metric_loss"], row["seed"], row["key"]) for row in rows(run)]


def test_a_wider_sweep_runs_only_what_is_new(go: Go) -> None:
    first = go(a_sweep(trials=5), "first")
    assert len(CALLS) == 10
    second = go(a_sweep(trials=8), "second")
    assert len(CALLS) == 6
    fresh = go(a_sweep(trials=8), "fresh", fresh=True)
    assert len(CALLS) == 16
    assert facts(second) == facts(fresh)
    origins = [row["reused_from"] for row in rows(second)]
    assert origins == [
        *(f"first/s/{t}" for t in range(5)),
        *[None] * 3,
        *(f"first/s/{t}" for t in range(5, 10)),
        *[None] * 3,
    ]
    assert [row["trial"] for row in rows(second)] == list(range(16))
    assert {row["run"] for row in rows(second)} == {"second"}
    assert all(row["reused_from"] is None for row in rows(first) + rows(fresh))
    digest = rows(second)[0]["model"]
    assert second.load_model(digest) == {"x": rows(second)[0]["config_x"]}
    assert second.best().column("metric_loss").to_pylist() == fresh.best().column("metric_loss").to_pylist()


def test_what_was_taken_over_names_where_it_was_run(go: Go) -> None:
    go(a_sweep(), "first")
    go(a_sweep(), "second")
    third = go(a_sweep(trials=6), "third")
    assert len(CALLS) == 2
    assert {row["reused_from"].split("/")[0] for row in rows(third) if row["reused_from"]} == {"first"}


def test_another_country_leaves_the_others_as_they_are(go: Go) -> None:
    go(a_sweep(("A", "B")), "first")
    go(a_sweep(("C", "B", "A")), "second")
    assert {country for country, _ in CALLS} == {"C"}
    assert len(CALLS) == 5


def test_changed_data_of_one_country_are_run_again(go: Go) -> None:
    go(a_sweep(data=[1, 2]), "first")
    second = go(a_sweep(data=[1, 3]), "second")
    assert {country for country, _ in CALLS} == {"B"}
    assert [row["reused_from"] is None for row in rows(second)] == [False] * 5 + [True] * 5


def test_data_that_another_task_loads(go: Go, tmp_path: Path) -> None:
    @umbel.task
    def load(country: str) -> int:
        return int((tmp_path / f"{country}.txt").read_text())

    for country in "AB":
        (tmp_path / f"{country}.txt").write_text("1")
    go(a_sweep(data=load.map(["A", "B"])), "first")
    (tmp_path / "B.txt").write_text("2")
    go(a_sweep(data=load.map(["A", "B"])), "second")
    assert {country for country, _ in CALLS} == {"B"}


def test_another_seed_or_space_shares_nothing(go: Go) -> None:
    go(a_sweep(), "first")
    go(a_sweep(seed=1), "seed")
    assert len(CALLS) == 10
    go(a_sweep(space={"x": tune.uniform(0, 0.8)}), "space")
    assert len(CALLS) == 10


def test_failed_trials_are_run_again(go: Go) -> None:
    space = {"x": tune.choice([0.5, 0.99])}
    first = go(a_sweep(space=space, trials=20), "first")
    failed = first.failures().num_rows
    assert 0 < failed < 40
    go(a_sweep(space=space, trials=20), "second")
    assert len(CALLS) == failed
    assert all(x > 0.95 for _, x in CALLS)


def test_it_can_be_turned_off(go: Go) -> None:
    go(a_sweep(), "first")
    go(a_sweep(fn=umbel.task(cache=False)(score)), "second")
    assert len(CALLS) == 10


def test_the_judged_metric_must_be_there(go: Go) -> None:
    go(a_sweep(), "first")
    with_another = go(a_sweep(metric="gain"), "second")  # the same code, which does not report it
    assert len(CALLS) == 10
    assert with_another.failures().num_rows == 10


def test_a_resumed_run_does_not_ask_again(go: Go) -> None:
    go(a_sweep(), "first")
    assert facts(go(a_sweep(), "second")) == facts(go(a_sweep(), "second"))
    assert not CALLS


def test_a_damaged_or_missing_segment_is_run_again(go: Go, tmp_path: Path) -> None:
    first = go(a_sweep(), "first")
    (segment,) = (tmp_path / "runs/first/trials/s").iterdir()
    segment.write_bytes(segment.read_bytes()[:-10])
    second = go(a_sweep(), "second")
    assert len(CALLS) == 10
    del first
    assert second.trials().num_rows == 10


def test_only_a_change_of_code_matters(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text("")

    def write(comment: str, factor: int) -> Any:
        (project / "memo_deep.py").write_text(f"def deep(x):\n    return x * {factor}\n")
        (project / "memo_helper.py").write_text("from memo_deep import deep\ndef helper(x):\n    return deep(x)\n")
        (project / "memo_model.py").write_text(
            textwrap.dedent(f"""
            # {comment}
            from memo_helper import helper
            CALLS = []
            def fit(config):
                CALLS.append(config)   # {comment}
                return helper(config["x"])
            """)
        )
        for name in ("memo_model", "memo_helper", "memo_deep"):
            sys.modules.pop(name, None)
        import importlib
        import linecache

        importlib.invalidate_caches()
        linecache.checkcache()
        return importlib.import_module("memo_model")

    def calls(module: Any, name: str) -> int:
        go(umbel.sweep(module.fit, space={"x": tune.uniform(0, 1)}, trials=4, metric="loss", name="s"), name)
        return len(module.CALLS)

    assert calls(write("one", 2), "first") == 4
    assert calls(write("another comment", 2), "second") == 0
    assert calls(write("another comment", 3), "third") == 4


def test_marks_are_read_as_they_are_written() -> None:
    path = memo_mark("c0de", "2026-01-02T03:04:05.678901+00:00", "run.1_a", "s-2")
    assert parse_memo_mark(path) == ("20260102T030405678901", "run.1_a", "s-2")
    assert parse_memo_mark("memo/c0de/other") is None
    assert parse_memo_mark("memo/c0de/1~../x~y") is None


def test_models_that_were_not_kept_are_made(go: Go) -> None:
    go(a_sweep(keep="none"), "none")
    best = go(a_sweep(keep="best"), "best")
    assert len(CALLS) == 10
    assert all(row["model"] for row in best.best().to_pylist())
    go(a_sweep(keep="none"), "again")
    assert not CALLS


def test_a_damaged_record_of_an_earlier_run_is_passed_over(go: Go, tmp_path: Path) -> None:
    go(a_sweep(), "first")
    go(a_sweep(trials=2), "second")
    (tmp_path / "runs/second/run.json").write_text("not json {")
    assert go(a_sweep(), "third").trials().num_rows == 10
    assert not CALLS
