"""A full disk: one clear error, nothing durable harmed, and the run goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import NewScene
from tests.faults.processes import Driver, Scene, until

pytestmark = pytest.mark.ray


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; gives the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def assert_one_clear_error(driver: Driver) -> None:
    assert driver.wait() == 1
    said = driver.said
    assert said.count("StoreFullError: ") == 1, said
    assert "StoreFullError: no space is left in the store" in said
    assert "free some space and run the same command again: all that was stored before is unharmed" in said
    assert "During handling of the above exception" not in said


def assert_goes_on(scene: Scene, *options: str) -> None:
    kept = set(scene.durable())
    scene.forget()
    scene.start(*options).finish()
    assert {trial for trial, _, _ in scene.started()} == {*range(200)} - kept
    assert scene.durable() == list(range(200))
    assert scene.run.failures().num_rows == 0
    assert scene.run.status == "done"


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("models", [False, True], ids=["rows", "models"])
def test_a_disk_that_fills_up(
    new_scene: NewScene, request: pytest.FixtureRequest, small_disk: Path, executor: str, models: bool
) -> None:
    """Rows are written by the driver; models by the workers, in the midst of their trials."""
    address = request.getfixturevalue("cluster").address if executor == "ray" else "inline"
    scene = new_scene(address, *(["--models"] if models else []))
    scene.store = small_disk / "store"
    scene.order("wait", *range(100, 200))
    driver = scene.start()
    until(lambda: scene.segments() and max(scene.started())[0] >= 100, "a segment is there, and a trial waits")
    filler = fill(small_disk)
    before = scene.segments()
    scene.go()
    assert_one_clear_error(driver)
    assert scene.segments() == before
    assert scene.run.status == "died"  # there was no room to say more
    filler.unlink()
    assert_goes_on(scene)


def test_a_limit_on_the_size_of_files(inline_scene: Scene) -> None:
    scene = inline_scene
    scene.go()
    assert_one_clear_error(scene.start("--file-limit", "6000"))
    assert scene.durable() == []
    assert scene.run.status == "failed"
    assert_goes_on(scene)
