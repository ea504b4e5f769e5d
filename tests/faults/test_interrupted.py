"""Ctrl-C once ends the run in good order, twice at once; both leave a run that can be resumed."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.faults.conftest import NewScene
from tests.faults.processes import Driver, Scene, processes_of_session, until

pytestmark = pytest.mark.ray

TRIALS = 200
WAITING = range(100, TRIALS)


def begin(scene: Scene, workers: int) -> Driver:
    """Start a driver, and wait until each worker has come to a trial that waits."""
    scene.order("wait", *WAITING)
    driver = scene.start()
    until(lambda: len({pid for trial, _, pid in scene.started() if trial in WAITING}) == workers, "trials wait")
    return driver


def assert_said_how_to_go_on(driver: Driver, scene: Scene) -> None:
    done = len(scene.durable()) + scene.run.elements("search-best").num_rows
    text = rf"interrupted: {done} of 202 are done and durable; run the same command again to go on"
    assert re.search(text, driver.said), driver.said
    assert "Traceback" not in driver.said


def assert_goes_on(scene: Scene, *options: str) -> None:
    kept = set(scene.durable())
    scene.forget()
    scene.go()
    scene.start(*options).finish()
    assert {trial for trial, _, _ in scene.started()} == {*range(TRIALS)} - kept
    assert scene.durable() == list(range(TRIALS))
    assert scene.run.status == "done"
    assert scene.run.failures().num_rows == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once(scene: Scene, number: signal.Signals) -> None:
    driver = begin(scene, workers=2)
    driver.process.send_signal(number)
    assert driver.wait(20) == 130
    assert sorted(scene.durable()) == sorted(scene.ended())  # all that had finished, nothing else
    assert_said_how_to_go_on(driver, scene)
    assert scene.run.status == "interrupted"
    assert_goes_on(scene)


def test_once_from_a_terminal(new_scene: NewScene) -> None:
    """A terminal sends it to the whole process group, the driver's own Ray included."""
    scene = new_scene("ray", "--workers", "1")
    driver = begin(scene, workers=1)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(20) == 130
    assert sorted(scene.durable()) == sorted(scene.ended())
    assert_said_how_to_go_on(driver, scene)
    until(lambda: not processes_of_session(driver.pid), "its Ray ends")
    assert_goes_on(scene, "--executor", "inline")


def press_until_it_leaves(driver: Driver) -> float:
    """Ctrl-C again and again; gives the seconds it took."""
    begun = time.monotonic()
    while driver.process.poll() is None:
        assert time.monotonic() - begun < 10, driver.said
        driver.interrupt()
        time.sleep(0.05)
    return time.monotonic() - begun


@pytest.mark.parametrize("executor", ["ray", "inline"])
def test_twice(new_scene: NewScene, request: pytest.FixtureRequest, executor: str) -> None:
    scene = new_scene(request.getfixturevalue("cluster").address if executor == "ray" else "inline")
    driver = begin(scene, workers=2 if executor == "ray" else 1)
    assert press_until_it_leaves(driver) < 2
    assert driver.wait() == 130
    assert "leaving at once; what was durable stays, and the run can be resumed" in driver.said
    assert "Traceback" not in driver.said
    assert_goes_on(scene)


def test_once_inline(inline_scene: Scene) -> None:
    """What runs in the driver's own thread can't be stopped: it ends after the trial in hand."""
    scene = inline_scene
    driver = begin(scene, workers=1)
    driver.interrupt()
    until(lambda: "Ctrl-C" in driver.said, "it says that it has heard")
    assert driver.process.poll() is None
    scene.go()
    assert driver.wait() == 130
    assert scene.durable() == sorted(scene.ended())
    assert max(scene.ended()) == min(WAITING)
    assert_said_how_to_go_on(driver, scene)
    assert scene.run.status == "interrupted"
    assert_goes_on(scene)
