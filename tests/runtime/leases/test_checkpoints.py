"""Trials that save their state and go on from it: after an error, a killed worker, an interrupted run."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.runtime.small_graphs import a_sweep, run
from umbel.scheduler.errors import StoreError, StoreFullError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.objects.local import LocalObjectStore


@pytest.fixture(autouse=True)
def unpacked_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unpacked goes when the test's folder goes."""
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))


def counts(fails_at: int, log: Path, how: str = "raise") -> Any:
    """A trial of five epochs that breaks off once, and notes in a file which epochs it went through."""

    def trial(config: dict[str, Any]) -> None:
        begin = umbel.trial().checkpoint or 0
        for epoch in range(begin + 1, 6):
            with log.open("a") as file:
                file.write(f"{epoch}\n")
            if epoch == fails_at and begin < fails_at - 1:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("not this time")
            umbel.report({"loss": 1 / epoch}, step=epoch, checkpoint=epoch)

    return umbel.task(retries=1)(trial)


def test_a_trial_that_failed_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = run(a_sweep(counts(4, log), trials=1), tmp_path / "store")
    assert log.read_text().split() == ["1", "2", "3", "4", "4", "5"]
    (row,) = found.trials().to_pylist()
    assert (row["status"], row["attempt"], row["metric_loss"]) == ("ok", 2, 0.2)
    assert found.checkpoint(0) == 5
    assert len(list((tmp_path / "store" / "runs" / "work" / "checkpoints" / "search" / "0").iterdir())) == 1


@pytest.mark.ray
def test_a_trial_whose_worker_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = run(a_sweep(counts(4, log, "kill"), trials=1), tmp_path / "store", executor="ray", workers=1)
    assert log.read_text().split() == ["1", "2", "3", "4", "4", "5"]
    assert found.trials()["status"].to_pylist() == ["ok"]
    assert found.checkpoint(0, "search") == 5


def test_trials_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    def trial(config: dict[str, Any]) -> float:
        assert umbel.trial().checkpoint is None
        umbel.report(step=1, checkpoint={"index": umbel.trial().index})
        return 1.0

    found = run(a_sweep(trial, trials=3), tmp_path)
    assert not found.failures().num_rows
    assert [found.checkpoint(index) for index in range(3)] == [{"index": index} for index in range(3)]


def test_a_folder_comes_back_as_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("3")
    log = tmp_path / "log"

    @umbel.task(retries=1)
    def trial(config: dict[str, Any]) -> float:
        last = umbel.trial().checkpoint
        if last is None:
            umbel.report(checkpoint=folder)
            raise RuntimeError("not this time")
        log.write_text(str(last))
        return float((last / "weights").read_text())

    found = run(a_sweep(trial, trials=1), tmp_path / "store")
    assert found.trials()["metric_loss"].to_pylist() == [3.0]
    assert not Path(log.read_text()).exists()
    again = found.checkpoint(0)
    assert isinstance(again, Path)
    assert (again / "weights").read_text() == "3"


def test_without_checkpoints_the_store_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def listing(self: ObjectStore, prefix: str = "", *, recursive: bool = False) -> list[str]:
        asked.append(prefix)
        return original(self, prefix, recursive=recursive)

    original = ObjectStore.list
    monkeypatch.setattr(ObjectStore, "list", listing)
    run(a_sweep(lambda config: umbel.report({"loss": 1.0}, step=1), trials=20), tmp_path)
    assert not [prefix for prefix in asked if "checkpoints" in prefix]


def test_outside_a_trial_nothing_happens() -> None:
    umbel.report({"loss": 1.0}, checkpoint={"epoch": 1})


def test_a_full_disk_is_no_trials_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(self: LocalObjectStore, path: str, data: bytes) -> None:
        if "checkpoints" in path:
            raise StoreFullError("no space is left")
        original(self, path, data)

    def trial(config: dict[str, Any]) -> float:
        umbel.report({"loss": 1.0}, checkpoint=1)
        return 1.0

    original = LocalObjectStore._create
    monkeypatch.setattr(LocalObjectStore, "_create", create)
    with pytest.raises(StoreError, match="no space"):
        run(a_sweep(trial, trials=2), tmp_path)
    assert umbel.open_store(str(tmp_path)).run("work").status == "failed"


def test_what_can_not_be_pickled_is_the_trials_fault(tmp_path: Path) -> None:
    def trial(config: dict[str, Any]) -> float:
        umbel.report({"loss": 1.0}, checkpoint=(number for number in range(3)))
        return 1.0

    found = run(a_sweep(trial, trials=1), tmp_path)
    assert "can't be pickled" in found.failures()["error"][0].as_py()
