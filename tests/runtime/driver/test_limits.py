"""Runs that stop by themselves: failures, deadlines, budgets, cancellations; and what reductions do with failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.runtime.driver.limits import Limits
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.ownership import Ownership


def failing(config: dict[str, Any]) -> float:
    if config["x"] % 2:
        raise ValueError("odd")
    return float(config["x"])


def sweep_of(trials: int) -> umbel.Sweep:
    return umbel.sweep(failing, space={"x": list(range(trials))}, search="grid", metric="m", name="s")


def run(target: Any, store: Path, **options: Any) -> umbel.Run:
    return umbel.run(target, store=str(store), name="r", executor="inline", progress=False, **options)


def test_limits_are_told_apart() -> None:
    limits = Limits(max_failures=2, deadline_s=10, trials=5, core_seconds=7)
    used: dict[str, Any] = {"failures": 2, "elapsed_s": 9.9, "trials": 4, "core_seconds": 6.9}
    assert limits.reached(**used) is None
    assert "max_failures=2" in (limits.reached(**{**used, "failures": 3}) or "")
    assert "deadline of 10 s" in (limits.reached(**{**used, "elapsed_s": 10.0}) or "")
    assert "budget of 5 trials" in (limits.reached(**{**used, "trials": 5}) or "")
    assert "7 core-seconds" in (limits.reached(**{**used, "core_seconds": 7.0}) or "")


@pytest.mark.parametrize(
    "options",
    [
        {"max_failures": -1},
        {"max_failures": 1.5},
        {"deadline_s": 0},
        {"budget": {"trials": -3}},
        {"budget": {"euros": 3}},
        {"budget": 100},
    ],
)
def test_senseless_limits_are_refused_before_anything_runs(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(umbel.UsageError):
        run(sweep_of(3), tmp_path, **options)
    assert not (tmp_path / "runs").exists()


def test_too_many_failures_stop_the_run_and_a_higher_limit_goes_on(tmp_path: Path) -> None:
    with pytest.raises(umbel.RunStoppedError, match="max_failures=3"):
        run(sweep_of(100), tmp_path, max_failures=3)
    stopped = umbel.open_store(str(tmp_path)).run("r")
    assert stopped.status == "stopped"
    assert stopped.trials().num_rows < 100
    done = run(sweep_of(100), tmp_path, max_failures=50)
    assert done.status == "done"
    assert done.trials()["trial"].to_pylist() == list(range(100))


def test_a_budget_of_trials_stops_the_run_without_an_error(tmp_path: Path) -> None:
    stopped = run(sweep_of(1000), tmp_path, budget={"trials": 10})
    assert stopped.status == "stopped"
    assert 10 <= stopped.trials().num_rows < 1000
    assert run(sweep_of(1000), tmp_path).status == "done"


def test_a_deadline_stops_the_run(tmp_path: Path) -> None:
    assert run(sweep_of(10), tmp_path, deadline_s=1e-9).status == "stopped"
    assert run(sweep_of(10), tmp_path, deadline_s=1000).status == "done"


def test_core_seconds_count_what_trials_took(tmp_path: Path) -> None:
    assert run(sweep_of(10_000), tmp_path, budget={"core_seconds": 1e-9}).status == "stopped"


class EagerOwnership(Ownership):
    """Renews, and looks for cancellations, at every tick."""

    @classmethod
    def acquire(cls, objects: ObjectStore, run_id: str, **options: Any) -> Ownership:
        return Ownership.acquire(objects, run_id, lease_s=1e-6)


def test_a_run_is_cancelled_through_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.runtime.driver.run.Ownership", EagerOwnership)
    store = str(tmp_path)

    @umbel.task
    def ask(x: int) -> int:
        if x == 0:
            umbel.open_store(store).run("r").cancel()
        return x

    cancelled = run(ask.map(range(50)), tmp_path)
    assert cancelled.status == "stopped"
    assert 0 < cancelled.elements("ask").num_rows < 50
    with pytest.raises(umbel.NotFoundError, match="no process is writing"):
        cancelled.cancel()
    again = run(ask.map(range(50)), tmp_path)
    assert again.value("ask") == list(range(50))


# ---- on_failure --------------------------------------------------------------------------------------------


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError("odd")
    return x


@umbel.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def test_by_default_a_reduction_fails_with_its_inputs_and_the_rest_goes_on(tmp_path: Path) -> None:
    numbers = umbel.task(odd_fails).map(range(5))
    node = total.bind(numbers)
    ended = run(node, tmp_path)
    assert ended.status == "done"
    assert ended.elements(numbers)["status"].to_pylist() == ["ok", "failed", "ok", "failed", "ok"]
    with pytest.raises(umbel.ElementFailedError, match="element 1 of 'odd_fails'"):
        ended.value(node)


def test_a_reduction_over_a_task_that_skips_gets_what_is_left(tmp_path: Path) -> None:
    node = total.bind(umbel.task(on_failure="skip")(odd_fails).map(range(5)))
    assert run(node, tmp_path).value(node) == 6


def test_what_needs_a_skipped_element_itself_fails_with_the_reason(tmp_path: Path) -> None:
    numbers = umbel.task(on_failure="skip")(odd_fails).map(range(3))
    same = umbel.task(name="same")(abs).map(numbers)
    assert run(same, tmp_path).elements(same)["status"].to_pylist() == ["ok", "failed", "ok"]


def test_a_task_that_stops_the_run_does(tmp_path: Path) -> None:
    numbers = umbel.task(on_failure="stop")(odd_fails).map(range(1000))
    with pytest.raises(umbel.RunStoppedError, match="on_failure='stop'"):
        run(numbers, tmp_path)
    assert umbel.open_store(str(tmp_path)).run("r").status == "stopped"


def test_unknown_reactions_are_refused() -> None:
    with pytest.raises(umbel.UsageError, match="unknown on_failure"):
        umbel.task(on_failure="shrug")(odd_fails)


# ---- failures that come last, and what becomes of them -----------------------------------------------------------


@umbel.task(on_failure="stop")
def fragile(number: int, broken: str) -> int:
    if number == 3 and Path(broken).exists():
        raise OSError("the network is down")
    return number


def collect(values: list[int]) -> int:
    return sum(values)


def test_a_failure_that_comes_last_stops_the_run_too(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    node = fragile.map([1, 2, 3], str(broken))
    for _ in range(2):  # the second time it is known from the first
        with pytest.raises(umbel.RunStoppedError, match="on_failure='stop'"):
            run(node, tmp_path / "store")
    with pytest.raises(umbel.RunStoppedError, match="max_failures=0"):
        run(umbel.task(fragile.fn).bind(3, str(broken)), tmp_path / "another", max_failures=0)


def test_what_failed_is_run_again_if_that_is_asked_for(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    total = umbel.task(collect).bind(fragile.map([1, 2, 3, 4], str(broken)))
    with pytest.raises(umbel.RunStoppedError, match="retry_failed"):
        run(total, tmp_path / "store")
    broken.unlink()
    done = run(total, tmp_path / "store", retry_failed=True)
    assert done.value(total) == 10
    assert done.failures().num_rows == 0
    assert run(total, tmp_path / "store").value(total) == 10


def test_failed_trials_are_run_again_too(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()

    def sometimes(config: dict[str, Any]) -> float:
        if broken.exists() and config["x"] % 2:
            raise ValueError("odd")
        return float(config["x"])

    sweep = umbel.sweep(sometimes, space={"x": list(range(10))}, search="grid", metric="m", name="s")
    assert run(sweep, tmp_path / "store").failures().num_rows == 5
    broken.unlink()
    assert run(sweep, tmp_path / "store").failures().num_rows == 5
    done = run(sweep, tmp_path / "store", retry_failed=True)
    assert done.failures().num_rows == 0
    assert done.trials()["metric_m"].to_pylist() == [float(x) for x in range(10)]


def test_what_fails_for_want_of_an_input_does_not_count(tmp_path: Path) -> None:
    @umbel.task
    def load(number: int) -> int:
        if number == 0:
            raise OSError("no such country")
        return number

    def fit(config: dict[str, Any], data: int) -> float:
        return float(data)

    sweep = umbel.sweep(
        fit, space={"x": [1]}, over={"n": [0, 1]}, data=load.map([0, 1]), trials=50, metric="m", name="s"
    )
    assert run(sweep, tmp_path, max_failures=1).failures().num_rows == 51


@pytest.mark.parametrize("trials", [1, 10, 37])
def test_a_budget_of_trials_is_kept_to(tmp_path: Path, trials: int) -> None:
    def fit(config: dict[str, Any]) -> float:
        return float(config["x"])

    sweep = umbel.sweep(fit, space={"x": list(range(100))}, search="grid", metric="m", name="s")
    for _ in range(2):  # nothing more the second time
        assert run(sweep, tmp_path, budget={"trials": trials}).trials().num_rows == trials
    assert run(sweep, tmp_path, budget={"trials": trials + 5}).trials().num_rows == trials + 5
    assert run(sweep, tmp_path).trials().num_rows == 100
