"""A cluster that is there is joined, by its address or the environment's, and left as it was."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Cluster, NewScene
from tests.faults.processes import Scene, processes_of_session, until

pytestmark = pytest.mark.ray


def run_there(scene: Scene, cluster: Cluster, **env: str) -> None:
    before = {command for command in processes_of_session(cluster.session).values() if "ray::" not in command}
    scene.order("wait", 199)
    driver = scene.start(env=env)
    until(lambda: 199 in [trial for trial, _, _ in scene.started()], "the last trial begins")
    assert {pid for _, _, pid in scene.started()} <= set(processes_of_session(cluster.session))
    assert list(processes_of_session(driver.pid)) == [driver.pid]  # it has started nothing
    scene.go()
    driver.finish()
    assert scene.durable() == list(range(200))
    assert before <= set(processes_of_session(cluster.session).values())


def test_by_address(scene: Scene, cluster: Cluster) -> None:
    run_there(scene, cluster)


def test_by_the_environment(new_scene: NewScene, cluster: Cluster) -> None:
    run_there(new_scene("ray"), cluster, RAY_ADDRESS=cluster.address)


def test_the_address_given_goes_before_that_of_the_environment(scene: Scene, cluster: Cluster) -> None:
    run_there(scene, cluster, RAY_ADDRESS="192.0.2.1:6379")


def test_a_cluster_that_is_not_there(inline_scene: Scene) -> None:
    driver = inline_scene.start("--executor", "ray", "--address", "127.0.0.1:9")
    assert driver.wait(20) == 1  # an exception in a script of the user's; the commands end with 75
    assert "ClusterUnavailableError: the Ray cluster does not answer" in driver.said
    assert "127.0.0.1:9: " in driver.said
    assert inline_scene.durable() == []
