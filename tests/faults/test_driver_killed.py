"""``kill -9`` of the driver: what was durable is kept, all else is run again, and the table is none the worse."""

from __future__ import annotations

from functools import partial

import pytest

from tests.faults.conftest import Cluster, NewScene
from tests.faults.processes import Scene, processes_of_session, same_but_where_and_when, until

pytestmark = pytest.mark.ray

TRIALS = 400


def test_killed_and_resumed(scene: Scene, cluster: Cluster) -> None:
    scene.options += ["--trials", str(TRIALS), "--pace", "0.005"]
    scene.order("wait", *range(TRIALS - 50, TRIALS))  # so that it can't be done before it is killed
    driver = scene.start()
    until(scene.segments, "a segment is written")
    driver.kill()
    durable = scene.durable()
    assert 0 < len(durable) < TRIALS
    assert set(durable) <= set(scene.ended())
    assert scene.run.status == "died"
    workers = {pid for _, _, pid in scene.started()}
    until(lambda: not workers & {*processes_of_session(cluster.session)}, "its workers end with it")
    scene.forget()
    scene.go()
    scene.start().finish()
    assert sorted(trial for trial, _, _ in scene.started()) == sorted({*range(TRIALS)} - {*durable})
    run = scene.run
    assert run.status == "done"
    assert run.failures().num_rows == 0
    assert same_but_where_and_when(run.trials(), scene.undisturbed("--executor", "inline"))


def test_killed_again_and_again(inline_scene: Scene) -> None:
    scene = inline_scene
    kept: set[int] = set()
    for halt in (60, 120):
        scene.order("wait", halt)
        scene.forget()
        driver = scene.start()
        until(partial(more_durable, scene, len(kept)), "more trials are durable")
        driver.kill()
        assert not kept & {trial for trial, _, _ in scene.started()}
        assert kept < set(scene.durable())
        kept = set(scene.durable())
    scene.go()
    scene.start().finish()
    assert same_but_where_and_when(scene.run.trials(), scene.undisturbed("--executor", "inline"))


def more_durable(scene: Scene, before: int) -> bool:
    return len(scene.durable()) > before


def test_a_ray_of_its_own_ends_with_it(new_scene: NewScene) -> None:
    scene = new_scene("ray")
    scene.order("wait", *range(200))
    driver = scene.start()
    until(scene.started, "a trial begins")
    assert len(processes_of_session(driver.pid)) > 4
    workers = {pid for _, _, pid in scene.started()}
    assert workers <= set(processes_of_session(driver.pid))
    driver.kill()
    until(lambda: not busy(driver.pid), "its processes end", deadline_s=20)


def busy(session: int) -> list[str]:
    """What is left of a session, but for two of Ray's idle processes, which try for a minute to tell the dead head."""
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    return [command for command in processes_of_session(session).values() if not command.startswith(agents)]
