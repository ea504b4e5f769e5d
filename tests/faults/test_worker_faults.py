"""Workers that die, and trials that kill them or never return: recorded as what they are, and all others finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.processes import Scene, until

pytestmark = pytest.mark.ray


def rows(scene: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scene.run.trials().to_pylist()
    return found


def all_but(scene: Scene, *faulty: int) -> bool:
    """Whether every trial has one row, and all but these are ok."""
    found = rows(scene)
    assert [row["trial"] for row in found] == list(range(int(scene.options[-1])))
    assert {row["trial"] for row in found if row["status"] != "ok"} == set(faulty)
    return all(row["error"] is None and row["metric_loss"] is not None for row in found if row["status"] == "ok")


def begun(scene: Scene, trial: int, times: int = 1) -> Callable[[], list[int]]:
    """Gives the processes in which a trial has begun, once it has begun so often."""

    def processes() -> list[int]:
        found = [pid for started, _, pid in scene.started() if started == trial]
        return found if len(found) >= times else []

    return processes


def test_a_worker_killed_in_mid_lease(scene: Scene) -> None:
    scene.options += ["--trials", "200"]
    scene.order("wait", 60)
    driver = scene.start()
    (worker,) = until(begun(scene, 60), "the trial begins")
    os.kill(worker, signal.SIGKILL)
    first, second = until(begun(scene, 60, times=2), "it begins elsewhere")
    assert first == worker != second
    scene.go()
    driver.finish()
    assert all_but(scene)
    assert scene.run.failures().num_rows == 0
    assert rows(scene)[60]["attempt"] == 1  # its worker's death was no fault of its own


def test_trials_that_kill_their_workers(scene: Scene) -> None:
    scene.options += ["--trials", "60"]
    scene.order("exit", 13)
    scene.order("segfault", 40)
    scene.start().finish()
    assert all_but(scene, 13, 40)
    for trial in (13, 40):
        row = rows(scene)[trial]
        assert row["status"] == "lost"
        assert row["error"] == "its worker process died while it ran (killed, crashed or out of memory); 3 times"
        assert row["metric_loss"] is None
        assert row["worker"] == "driver"
        assert 3 <= len(begun(scene, trial)()) <= 6  # three times alone, and before that among others under suspicion
    assert {row["index"] for row in scene.run.failures().to_pylist()} == {13, 40}
    assert scene.run.best().num_rows == 2


def test_a_trial_that_never_returns(scene: Scene) -> None:
    scene.options += ["--timeout", "1", "--retries", "1", "--retry-on", "TimeoutError", "--trials", "40"]
    scene.order("sleep", 5)
    scene.order("once sleep", 20)
    driver = scene.start()
    driver.finish()
    assert all_but(scene, 5)
    row = rows(scene)[5]
    assert (row["status"], row["attempt"]) == ("timeout", 2)
    assert row["error"] == "TimeoutError: not finished after its time limit of 1 s"
    assert 1.0 < row["seconds"] < 5.0
    assert {attempt for trial, attempt, _ in scene.started() if trial == 5} == {1, 2}
    assert rows(scene)[20]["attempt"] == 2
    assert {row["attempt"] for row in rows(scene) if row["trial"] not in (5, 20)} == {1}


def test_a_trial_that_never_returns_and_lets_nobody_else_run(scene: Scene) -> None:
    """It holds the interpreter's lock, so its worker can't even say that it is late."""
    scene.options += ["--timeout", "1", "--retries", "3", "--retry-on", "ValueError", "--trials", "20"]
    scene.order("hold", 0)
    scene.start().finish()
    assert all_but(scene, 0)
    row = rows(scene)[0]
    assert (row["status"], row["attempt"]) == ("timeout", 1)
    assert row["error"] == "its worker stopped answering, so it was ended; 3 times"
    assert len(begun(scene, 0)()) == 3
