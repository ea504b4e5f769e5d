"""Sweeps of fused functions on Ray: the same tables as inline; workers that die, batches that take too long."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_processors")]

SPACE = {"lr": tune.uniform(0, 1), "width": [4, 8]}


def a_sweep(fn: Any, **changed: Any) -> umbel.Sweep:
    given: dict[str, Any] = {
        "space": SPACE,
        "over": {"g": ["a", "b", "c", "d"]},
        "trials": 100,
        "metric": "loss",
        "name": "search",
    }
    return umbel.sweep(fn, **{**given, **changed})


@pytest.mark.parametrize("fuse_groups", [False, True])
def test_the_tables_are_those_of_the_inline_executor(fuse_groups: bool, tmp_path: Path) -> None:
    @umbel.fused(by="width", fuse_groups=fuse_groups, retries=1)
    def train(configs: Any, data: Any) -> umbel.Result:
        if (configs["lr"] > 0.95).any():
            raise ValueError("too fast")
        scale = np.asarray(data)[configs.group] if fuse_groups else data
        return umbel.Result({"loss": configs["lr"] * scale}, model=[f"model {trial}" for trial in configs.trials])

    sweep = a_sweep(train, data=[1.0, 2.0, 3.0, 4.0], keep="all")
    tables = []
    for executor in ("inline", "ray"):
        found = run(sweep, tmp_path / executor, executor=executor)
        tables.append(found.trials().drop_columns(["started", "seconds", "host", "worker", "model_at"]))
    assert tables[0].schema == tables[1].schema
    assert tables[0].equals(tables[1])
    assert {row["attempt"] for row in tables[0].to_pylist() if row["status"] == "failed"} == {2}


@pytest.mark.parametrize("fuse_groups", [False, True])
def test_only_the_trial_that_kills_its_worker_is_lost(fuse_groups: bool, tmp_path: Path) -> None:
    @umbel.fused(by="width", fuse_groups=fuse_groups)
    def train(configs: Any) -> dict[str, Any]:
        if 137 in configs.trials.tolist():
            os._exit(1)
        return {"loss": configs["lr"]}

    rows = run(a_sweep(train), tmp_path, executor="ray").trials().to_pylist()
    assert [row["trial"] for row in rows] == list(range(400))
    assert [(row["trial"], row["status"]) for row in rows if row["status"] != "ok"] == [(137, "lost")]


def test_all_trials_of_a_batch_that_takes_too_long_are_timeouts(tmp_path: Path) -> None:
    @umbel.fused(by="width", max_batch=10, timeout_s=1)
    def train(configs: Any) -> dict[str, Any]:
        if 137 in configs.trials.tolist():
            print("it hangs")
            time.sleep(600)
        return {"loss": configs["lr"], "batch": np.full(len(configs), len(configs))}

    found = run(a_sweep(train), tmp_path, executor="ray")
    rows = found.trials().to_pylist()
    late = [row for row in rows if row["status"] != "ok"]
    assert [row["trial"] for row in rows] == list(range(400))
    assert {row["status"] for row in late} == {"timeout"}
    assert 137 in [row["trial"] for row in late]
    assert 1 < len(late) <= 10
    assert {row["config_width"] for row in late} == {rows[137]["config_width"]}
    assert f"its batch of {len(late)} trials was not finished after the time limit of 1 s" in late[0]["error"]
    assert found.output(late[0]["trial"]) == "it hangs\n"
    assert {row["attempt"] for row in rows} == {1}  # nobody else pays for it


def test_pruning(tmp_path: Path) -> None:
    @umbel.fused(fuse_groups=True)
    def learn(configs: Any) -> dict[str, Any]:
        for step in range(1, 10):
            umbel.report({"loss": configs["lr"] + 1 / step}, step=step)
        return {"loss": configs["lr"] + 1 / 9}

    found = run(a_sweep(learn, prune="asha"), tmp_path, executor="ray")
    rows = found.trials().to_pylist()
    assert len(rows) == 400
    assert {row["status"] for row in rows} == {"ok", "pruned"}
    best = {row["g"]: row["trial"] for row in found.best().to_pylist()}
    for group, trial in best.items():
        assert trial == min((row["config_lr"], row["trial"]) for row in rows if row["g"] == group)[1]
