"""Trials of a batch are pruned by what all report; inline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.runtime.fused_sweeps import EPOCHS, a_sweep, learn, rows_of
from tests.runtime.small_graphs import run
from tests.scheduler.reference_pruning import asha_goes_on


def test_trials_of_a_batch_are_pruned_by_what_all_report(tmp_path: Path) -> None:
    prune = umbel.Asha(reduction_factor=3, min_resource=1, max_resource=EPOCHS)
    found = run(a_sweep(learn, prune=prune), tmp_path)
    rows = rows_of(found)
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    assert found.status == "done"
    for group in "abc":
        known: dict[int, list[float]] = {}
        trials = [row for row in rows if row["g"] == group]
        for start in range(0, 20, 8):  # batch by batch
            batch = [(row, json.loads(row["rungs"])) for row in trials[start : start + 8]]
            for rung in range(3):
                there = [(row, marks[rung]) for row, marks in batch if len(marks) > rung]
                values = [mark["value"] for _, mark in there]
                known.setdefault(rung, []).extend(values)
                for row, mark in there:
                    others = list(known[rung])
                    others.remove(mark["value"])
                    assert mark["of"] == len(others)
                    goes_on = asha_goes_on(mark["value"], others, 3)
                    assert (row["steps"] > mark["step"]) == goes_on
    for row in rows:
        last = row["steps"]
        rate = row["config_lr"]
        assert row["metric_loss"] == abs(rate - 0.3) + np.sin(1000 * rate) / last + 1 / last
        assert (row["status"] == "ok") == (last == EPOCHS)


@pytest.mark.parametrize("prune", ["median", "hyperband", "optuna"])
def test_other_rules(prune: str, tmp_path: Path) -> None:
    import optuna

    rule: Any = optuna.pruners.MedianPruner(n_startup_trials=2) if prune == "optuna" else prune
    rows = rows_of(run(a_sweep(learn, prune=rule), tmp_path))
    statuses = [row["status"] for row in rows]
    assert set(statuses) <= {"ok", "pruned"}
    assert "pruned" in statuses


def test_a_batch_ends_when_nothing_is_left(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @umbel.fused
    def hopeless(configs: Any) -> Any:
        for step in range(1, 100):
            umbel.report({"loss": np.full(len(configs), np.nan)}, step=step)
            with log.open("a") as file:
                file.write("went on")
        return configs["lr"]

    rows = rows_of(run(a_sweep(hopeless, prune="asha"), tmp_path / "store"))
    assert {(row["status"], row["steps"]) for row in rows} == {("pruned", 1)}
    assert not log.exists()


def test_wrong_reports(tmp_path: Path) -> None:
    def reporting(*args: Any, **options: Any) -> str:
        @umbel.fused
        def reports(configs: Any) -> Any:
            umbel.report(*args, **options)
            return configs["lr"]

        store = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        (error,) = {row["error"] for row in rows_of(run(a_sweep(reports, over=..., prune="asha"), store))}
        return str(error)

    assert "metric 'loss' of sweep 'search', trials 0 to 19 is not one number" in reporting({"loss": np.zeros(3)})
    assert "lacks what this sweep's trials are pruned by" in reporting({"loss": np.zeros(20)})
    assert "can't save checkpoints" in reporting({"loss": np.zeros(20)}, step=1, checkpoint=3)
    assert "no places in sweep" in reporting({"loss": np.zeros(2)}, step=1, trials=[3, 20])
