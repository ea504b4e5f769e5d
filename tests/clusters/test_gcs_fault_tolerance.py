"""The head of a cluster dies and comes back, with its tables in Redis, and a run on another node goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.clusters.chaos_graph import GROUPS
from tests.clusters.chaos_tables import assert_equal, assert_written_once, attempts
from tests.clusters.failover_driver import TRIALS
from tests.clusters.namespace import require_namespaces, run_in_namespace

#: It takes about a minute on two idle cores.
LIMIT_S = 400
pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failover")


@pytest.fixture(scope="module")
def told(folder: Path) -> Any:
    """What happened."""
    require_namespaces()
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian's package of that name), which keeps the head's tables")
    found = run_in_namespace(Path(__file__).with_name("failover_driver.py"), folder, timeout_s=LIMIT_S)
    print(f"failover: {found['trials begun']:,} trials begun", *found["events"], sep="\n  ")
    return found


def test_a_run_outlives_the_head(told: Any, folder: Path) -> None:
    assert told["heads lost"] == 2
    run = umbel.open_store(told["store"]).run("chaos")
    assert run.trials().num_rows == GROUPS * TRIALS
    assert_equal(run, umbel.open_store(str(folder / "undisturbed")).run("chaos"))
    assert_written_once(Path(told["store"]), TRIALS)
    assert attempts(run) == {1}


def test_nothing_is_left_behind(told: Any) -> None:
    assert told["left behind"] == {"processes": [], "actors": []}
