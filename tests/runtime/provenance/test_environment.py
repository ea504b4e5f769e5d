"""What a process runs on, and how workers that run on something else are noted."""

from __future__ import annotations

from pathlib import Path

import pytest

import umbel
from tests.runtime.small_graphs import a_sweep, run
from umbel.runtime.provenance import environment


def test_packages_are_read_from_their_folders(tmp_path: Path) -> None:
    inside = tmp_path / "site-packages" / "package" / "vendored"
    (inside / "vendored-1.0.dist-info").mkdir(parents=True)
    for name in ("Some_Package-1.2.dist-info", "other.thing-2.0.post1.dist-info", "old-0.1-py3.11.egg-info", "x.py"):
        (tmp_path / name).mkdir()
    found = environment.packages([str(tmp_path), str(inside), str(tmp_path / "missing")])
    assert found == {"old": "0.1", "other-thing": "2.0.post1", "some-package": "1.2"}


def test_the_environment_knows_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_IMAGE", "https://ada:hunter2@registry.example/model:3")
    found = environment.environment()
    assert {"numpy", "pyarrow", "ray"} <= set(found["packages"])
    assert found["image"] == "https://ada:<redacted>@registry.example/model:3"


@pytest.mark.ray
def test_workers_of_the_same_environment_say_nothing(tmp_path: Path) -> None:
    found = run(a_sweep(), tmp_path, executor="ray", workers=1)
    assert not (tmp_path / "runs" / "work" / "workers").exists()
    assert found.environment("another") == found.environment()


def test_workers_of_another_environment_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(a_sweep(), tmp_path)
    objects = umbel.open_store(str(tmp_path)).objects
    here = found.environment()
    assert here is not None
    monkeypatch.setenv("UMBEL_IMAGE", "registry.example/worker:1")
    for _ in range(2):
        environment.note_worker(objects, "work", found.record["environment"])
    assert len(list((tmp_path / "runs" / "work" / "workers").iterdir())) == 1
    there = found.environment(found.record["host"])
    assert there == {**here, "image": "registry.example/worker:1"}
    assert found.environment() == here
    (recorded,) = found.lineage(0).of_kind("environment")
    assert recorded.fact("image") == "registry.example/worker:1"
    assert found.replay(0).environment == ()  # this process has that image, too, and the trial's host is this one
