"""Sweeps of fused functions: batches, failures of some of their trials, models, replay; inline."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

import umbel
from tests.runtime.fused_sweeps import a_sweep, one, rows_of, train
from tests.runtime.small_graphs import run
from umbel.scheduler.graph import Batched

# ---- batches ---------------------------------------------------------------------------------------------------


def test_trials_are_those_of_a_sweep_that_is_not_fused(tmp_path: Path) -> None:
    data = [1.0, 2.0, 3.0]
    fused = run(a_sweep(train, data=data), tmp_path / "fused")
    alone = run(a_sweep(one, data=data), tmp_path / "alone")
    varying = ["started", "seconds", "code", "key"]
    assert fused.trials().drop_columns([*varying, "metric_batch"]).equals(alone.trials().drop_columns(varying))
    assert fused.best()["trial"].to_pylist() == alone.best()["trial"].to_pylist()
    for row in rows_of(fused):
        kin = [r for r in rows_of(fused) if (r["g"], r["config_width"]) == (row["g"], row["config_width"])]
        assert row["metric_batch"] == len(kin)  # a batch a group and width


def test_groups_are_fused(tmp_path: Path) -> None:
    @umbel.fused(by=("width",), fuse_groups=True)
    def across(configs: Any, data: Any) -> dict[str, Any]:
        assert len(data) == 3
        assert [data[place] for place in configs.group] == [{"a": 1.0, "b": 2.0, "c": 3.0}[g] for g in configs["g"]]
        return {"loss": configs["lr"] * np.asarray(data)[configs.group], "batch": np.full(len(configs), len(configs))}

    rows = rows_of(run(a_sweep(across, data=[1.0, 2.0, 3.0]), tmp_path))
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["metric_batch"] for row in rows} == {
        sum(row["config_width"] == width for row in rows) for width in (4, 8)
    }
    expected = [row["config_lr"] * "_abc".index(row["g"]) for row in rows]
    assert [row["metric_loss"] for row in rows] == expected


@pytest.mark.parametrize("most", [1, 7])
def test_batches_are_no_larger_than_asked_for(most: int, tmp_path: Path) -> None:
    fn = umbel.fused(by="width", max_batch=most, fuse_groups=True)(train.fn)
    rows = rows_of(run(a_sweep(fn), tmp_path))
    assert max(row["metric_batch"] for row in rows) == most
    assert [row["status"] for row in rows] == ["ok"] * 60


def test_a_constant_by_and_a_group_key(tmp_path: Path) -> None:
    @umbel.fused(by=("g", "net"), fuse_groups=True)
    def nested(configs: Any) -> Any:
        assert configs.common["net"] in ({"depth": 1}, {"depth": 2})
        assert isinstance(configs.common["g"], str)
        return configs["lr"]

    space = {"lr": tune.uniform(0, 1), "net": {"depth": [1, 2]}}
    rows = rows_of(run(a_sweep(nested, space=space), tmp_path))
    assert [row["metric_loss"] for row in rows] == [row["config_lr"] for row in rows]


def test_time_is_shared_out(tmp_path: Path) -> None:
    rows = rows_of(run(a_sweep(train, over=..., space={"lr": tune.uniform(0, 1), "width": 4}), tmp_path))
    assert len({(row["started"], row["seconds"]) for row in rows}) == 1


def test_it_is_called_by_hand_too() -> None:
    configs = umbel.Configs([{"lr": 0.5, "width": 4}, {"lr": 0.25, "width": 4}], by=("width",))
    assert train(configs)["loss"].tolist() == [0.5, 0.25]
    assert umbel.report({"loss": np.zeros(3)}, step=1).tolist() == [True] * 3


def test_a_run_is_resumed_and_reused(tmp_path: Path) -> None:
    stopped = run(a_sweep(train), tmp_path, budget={"trials": 25})
    assert stopped.status == "stopped"
    assert stopped.trials().num_rows == 25
    assert run(a_sweep(train), tmp_path).trials().num_rows == 60
    wider = rows_of(run(a_sweep(train, trials=30), tmp_path, name="wider"))
    assert [row["reused_from"] is not None for row in wider] == ([True] * 20 + [False] * 10) * 3
    assert [row["status"] for row in wider] == ["ok"] * 90


# ---- what goes wrong -------------------------------------------------------------------------------------------


def test_nan_stays_where_it_is(tmp_path: Path) -> None:
    @umbel.fused
    def diverges(configs: Any) -> dict[str, Any]:
        return {"loss": np.where(configs["lr"] > 0.9, np.nan, configs["lr"])}

    rows = rows_of(run(a_sweep(diverges), tmp_path))
    assert all((row["config_lr"] > 0.9) == np.isnan(row["metric_loss"]) for row in rows)


def test_only_the_guilty_fail(tmp_path: Path) -> None:
    @umbel.fused(by="width")
    def fails(configs: Any) -> dict[str, Any]:
        if (configs["lr"] > 0.8).any():
            raise ValueError(f"too fast, of {len(configs)}")
        return {"loss": configs["lr"]}

    rows = rows_of(run(a_sweep(fails), tmp_path))
    for row in rows:
        assert row["status"] == ("failed" if row["config_lr"] > 0.8 else "ok")
        if row["status"] == "failed":
            assert row["error"].endswith("ValueError: too fast, of 1")
            assert row["error"].startswith("Traceback")
            assert "in fails" in row["error"]
    assert 0 < sum(row["status"] == "failed" for row in rows) < 30


def test_the_guilty_are_tried_again(tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    @umbel.fused(retries=2, retry_on=(OSError,))
    def unlucky(configs: Any) -> dict[str, Any]:
        if 7 in configs.trials.tolist():
            with tries.open("a") as file:
                file.write(f"{len(configs)} ")
            raise OSError("unlucky")
        return {"loss": configs["lr"]}

    rows = rows_of(run(a_sweep(unlucky, over=...), tmp_path / "store"))
    assert [(row["trial"], row["attempt"]) for row in rows if row["status"] != "ok"] == [(7, 3)]
    assert tries.read_text().split()[-3:] == ["1", "1", "1"]
    assert {row["attempt"] for row in rows if row["trial"] != 7} == {1}


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_memory_that_does_not_suffice_halves_batches(kind: type[Exception], tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    @umbel.fused(by="width", max_batch=1000, fuse_groups=True)
    def large(configs: Any) -> dict[str, Any]:
        with calls.open("a") as file:
            file.write(f"{len(configs)} ")
        if len(configs) > 5 and configs.common["width"] == 8:
            raise kind("CUDA out of memory")
        return {"loss": configs["lr"], "batch": np.full(len(configs), len(configs))}

    rows = rows_of(run(a_sweep(large, trials=500), tmp_path / "store"))
    assert {row["status"] for row in rows} == {"ok"}
    assert max(row["metric_batch"] for row in rows if row["config_width"] == 8) <= 5
    assert max(row["metric_batch"] for row in rows if row["config_width"] == 4) > 100
    sizes = [int(text) for text in calls.read_text().split()]
    assert sum(sizes) < 1500 + 2 * 800  # the first is tried at ever smaller sizes; those after it begin small


def test_a_trial_that_is_too_large_alone_fails(tmp_path: Path) -> None:
    @umbel.fused
    def large(configs: Any) -> Any:
        if (configs["lr"] > 0.9).any():
            raise MemoryError
        return configs["lr"]

    rows = rows_of(run(a_sweep(large), tmp_path))
    assert [row["status"] == "failed" for row in rows] == [row["config_lr"] > 0.9 for row in rows]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda n: {"loss": np.zeros(n - 1)}, r"metric 'loss' of sweep 'search', .*\(g=a\) is not one number a trial"),
        (lambda n: {"loss": np.zeros((n, 1))}, "is not one number a trial"),
        (lambda n: {"loss": 1.0}, "is not one number a trial"),
        (lambda n: {"loss": ["x"] * n}, "is not one number a trial"),
        (lambda n: {"other": np.zeros(n)}, "lacks the sweep's metric 'loss'"),
        (lambda n: None, "is not one number a trial"),
        (lambda n: umbel.Result({"loss": np.zeros(n)}, model=["m"] * (n + 1)), "not one model for each trial"),
        (lambda n: umbel.Result({"loss": np.zeros(n)}, model="m"), "neither a list nor a function"),
    ],
)
def test_results_that_don_t_fit_fail_the_batch_at_once(
    returned: Callable[[int], Any], message: str, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"

    @umbel.fused
    def wrong(configs: Any) -> Any:
        with calls.open("a") as file:
            file.write("x")
        return returned(len(configs))

    found = run(a_sweep(wrong), tmp_path / "store")
    assert calls.read_text() == "xxx"  # once a group
    failures = found.failures().to_pylist()
    assert len(failures) == 60
    assert len({row["error"] for row in failures}) == 3
    import re

    assert re.search(message, failures[0]["error"])
    assert "Traceback" not in failures[0]["error"]
    assert "trials 0 to 19" in failures[0]["error"]


def test_data_that_can_not_be_loaded_fail_their_group_only(tmp_path: Path) -> None:
    @umbel.fused(fuse_groups=True)
    def across(configs: Any, data: Any) -> Any:
        return configs["lr"] + np.asarray(data)[configs.group]

    rows = rows_of(run(a_sweep(across, data=[1.0, Unloadable(), 3.0]), tmp_path))
    assert {(row["g"], row["status"]) for row in rows} == {("a", "ok"), ("b", "failed"), ("c", "ok")}
    assert "the group's data can't be loaded" in rows[20]["error"]


class Unloadable:
    """Pickles, and can't be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise OSError('not there')",)


def test_umbel_trial_is_refused(tmp_path: Path) -> None:
    @umbel.fused
    def asks(configs: Any) -> Any:
        umbel.trial()

    rows = rows_of(run(a_sweep(asks), tmp_path))
    assert "tells of one trial, and a fused function runs many at once" in rows[0]["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ("width", "depth")}, "by what is not in the configs"),
        ({"by": "g"}, None),
        ({"by": 3}, "by holds something else"),
        ({"by": ("lr", "lr")}, "by holds a name twice"),
        ({"max_batch": 0}, "max_batch is no number of trials"),
        ({"max_batch": "many"}, "max_batch is no number of trials"),
        ({"fuse_groups": 1}, "fuse_groups is neither"),
        ({"retries": -1}, "retries is not a count"),
    ],
)
def test_mistakes_are_found_when_the_graph_is_built(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        a_sweep(umbel.fused(**options)(one))
    else:
        with pytest.raises(umbel.UsageError, match=message):
            a_sweep(umbel.fused(**options)(one))


def test_what_fused_functions_can_not_do() -> None:
    for search in ("tpe", lambda group: None):
        with pytest.raises(umbel.UsageError, match=r"'search' is fused.*builds each upon those before"):
            a_sweep(train, search=search)
    with pytest.raises(umbel.GraphError, match=r"(?s)'train' is fused.*expected: umbel\.sweep\(train, …\)"):
        train.map([1, 2])
    with pytest.raises(umbel.GraphError, match="is fused"):
        train.bind(1)
    with pytest.raises(umbel.UsageError, match="fused already"):
        umbel.task(train)
    for decorator in (umbel.task, umbel.fused):
        with pytest.raises(umbel.UsageError, match="a task already"):
            decorator(umbel.task(retries=2)(len))
    with pytest.raises(umbel.GraphError, match=r"fn\(configs, data\)"):
        a_sweep(umbel.fused(lambda configs: configs["lr"]), data=[1, 2, 3])


# ---- what trials leave behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("models", ["list", "function"])
@pytest.mark.parametrize("keep", ["best", "all", "none"])
def test_models(models: str, keep: str, tmp_path: Path) -> None:
    @umbel.fused(by="width", fuse_groups=True)
    def train(configs: Any) -> umbel.Result:
        made = [f"model {trial}" for trial in configs.trials]
        return umbel.Result({"loss": configs["lr"]}, model=made if models == "list" else made.__getitem__)

    found = run(a_sweep(train, keep=keep), tmp_path)
    rows = rows_of(found)
    kept = [row for row in rows if row["model"] is not None]
    assert all(found.load_model(row["model"]) == f"model {row['trial']}" for row in kept)
    best = found.best().to_pylist()
    if keep == "best":
        assert {row["trial"] for row in best} <= {row["trial"] for row in kept}
        assert len(kept) <= 6  # the best of a group in each of two batches
    else:
        assert len(kept) == (60 if keep == "all" else 0)


def test_a_model_that_can_not_be_made_fails_its_trial(tmp_path: Path) -> None:
    @umbel.fused
    def train(configs: Any) -> umbel.Result:
        return umbel.Result({"loss": configs["lr"]}, model=lambda place: 1 / (int(configs.trials[place]) - 3))

    rows = rows_of(run(a_sweep(train, keep="all"), tmp_path))
    assert [(row["trial"], row["metric_loss"]) for row in rows if row["status"] == "failed"] == [(3, None)]


def test_output_belongs_to_the_first_trial_of_the_batch(tmp_path: Path) -> None:
    @umbel.fused
    def prints(configs: Any) -> Any:
        print(f"{len(configs)} trials")
        return configs["lr"]

    found = run(a_sweep(prints), tmp_path)
    assert [found.output(trial) for trial in (0, 1, 20)] == ["20 trials\n", "", "20 trials\n"]


def test_reports_count_as_results(tmp_path: Path) -> None:
    @umbel.fused
    def reports(configs: Any) -> None:
        for step in (1, 2):
            assert umbel.report({"loss": configs["lr"] / step, "extra": configs["lr"]}, step=step).all()
        umbel.report({"late": np.ones(1)}, trials=[3])

    rows = rows_of(run(a_sweep(reports), tmp_path))
    assert all(row["metric_loss"] == row["config_lr"] / 2 and row["steps"] == 2 for row in rows)
    assert [row["metric_late"] == 1 for row in rows[:5]] == [False, False, False, True, False]


# ---- replay ----------------------------------------------------------------------------------------------------


def test_replay_of_one_trial(tmp_path: Path) -> None:
    found = run(a_sweep(train, data=[1.0, 2.0, 3.0]), tmp_path)
    again = umbel.replay(found, 33)
    assert again.metrics["loss"] == again.recorded_metrics["loss"]
    assert again.fused
    assert not again.same  # one metric is the size of the batch
    assert "differ by up to 9.0e-01" in again.text() or "differ by up to 8." in again.text()
    assert "batches of other sizes round otherwise" in again.text()


def test_replay_across_groups_of_failed_and_of_pruned_trials(tmp_path: Path) -> None:
    @umbel.fused(by="width", fuse_groups=True)
    def across(configs: Any, data: Any) -> Any:
        losses = configs["lr"] * np.asarray(data)[configs.group]
        if (losses > 2.7).any():
            raise ValueError("too large")
        for step in range(1, 5):
            umbel.report({"loss": losses}, step=step)
        return losses

    found = run(a_sweep(across, data=[1.0, 2.0, 3.0], prune="asha"), tmp_path)
    rows = rows_of(found)
    assert {row["status"] for row in rows} == {"ok", "pruned", "failed"}
    for status in ("ok", "pruned", "failed"):
        trial = next(row["trial"] for row in rows if row["status"] == status)
        again = umbel.replay(found, trial)
        assert again.status == again.recorded_status == status
        assert again.same, again.text()


# ---- interruptions ---------------------------------------------------------------------------------------------


def test_ctrl_c_ends_after_the_batch_in_hand_and_what_it_had_is_kept(tmp_path: Path) -> None:
    marker = tmp_path / "interrupted"

    @umbel.fused(by="width", fuse_groups=True)
    def train(configs: Any) -> dict[str, Any]:
        if not marker.exists():
            marker.touch()
            signal.raise_signal(signal.SIGINT)
        return {"loss": configs["lr"], "batch": np.full(len(configs), len(configs))}

    with pytest.raises(umbel.RunInterrupted):
        run(a_sweep(train), tmp_path / "store")
    before = rows_of(umbel.open_store(str(tmp_path / "store")).run("work"))
    assert {row["config_width"] for row in before} == {before[0]["config_width"]}  # one batch of two
    assert 0 < len(before) < 60
    rows = rows_of(run(a_sweep(train), tmp_path / "store"))
    assert [row["trial"] for row in rows] == list(range(60))
    assert {(row["status"], row["attempt"]) for row in rows} == {("ok", 1)}


def test_the_engine_is_asked_for_long_leases() -> None:
    from umbel.runtime.driver.plan import make_plan

    (spec,) = make_plan(a_sweep(train)).graph
    assert spec.batched == Batched(20, 20)
    (spec,) = make_plan(a_sweep(umbel.fused(fuse_groups=True, max_batch=50)(train.fn))).graph
    assert spec.batched is not None
    assert spec.batched.least == 50
    assert spec.batched.share > 10**9
    (spec,) = make_plan(a_sweep(one)).graph
    assert spec.batched is None
