"""A run whose store is object storage that fails to answer one request in five."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

import umbel
from tests.faults.conftest import Cluster
from tests.faults.s3_driver import GROUPS, TRIALS
from tests.faulty_proxy import faulty_proxy
from tests.seaweedfs import S3Server
from umbel.storage.runs.segments import read_segments
from umbel.storage.values.columns import int_values

pytestmark = pytest.mark.ray

DRIVER = Path(__file__).with_name("s3_driver.py")


def test_nothing_is_lost_or_doubled(s3_server: S3Server, cluster: Cluster, ray_env: dict[str, str]) -> None:
    url = s3_server.url(uuid4().hex)
    with faulty_proxy(s3_server, rate=0.2, seed=7, timeout_s=1.5) as (proxy, through):
        options = {**through.storage_options, "config_kwargs": {"read_timeout": 1, "connect_timeout": 1}}
        done = subprocess.run(
            [sys.executable, str(DRIVER), url, json.dumps(options), cluster.address],
            env=ray_env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert proxy.injected.total() > 50
        assert set(proxy.injected) >= {"503", "reset", "lost reply", "cut", "timeout"}
    store = umbel.open_store(url, s3_server.storage_options)
    run = store.run("run")
    assert run.status == "done"
    segments = read_segments(store.objects, "runs/run/trials/sweep", ["trial"])
    rows = np.concatenate([int_values(table["trial"]) for table in segments.tables])
    assert sorted(rows.tolist()) == list(range(GROUPS * TRIALS))
    assert segments.corrupt == []
    trials = run.trials()
    assert set(trials["status"].to_pylist()) == {"ok"}
    for place in range(0, GROUPS * TRIALS, 997):
        row = trials.slice(place, 1).to_pylist()[0]
        assert run.load_model(row["model"]) == {"x": row["config_x"], "group": row["group"]}
    packs = store.objects.list("artifacts/packs")
    assert 1 <= len(packs) <= GROUPS * TRIALS / 50
    assert [path for path in store.objects.list(recursive=True) if ".corrupt" in path or "check" in path] == []
