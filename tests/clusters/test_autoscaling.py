"""A cluster that grows with what there is to do, and shrinks again: Ray's real autoscaler, nodes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clusters.namespace import require_namespaces, run_in_namespace

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What happened; one cluster for all tests, since starting it takes longest."""
    require_namespaces()
    script = Path(__file__).parent / "autoscaling_driver.py"
    return run_in_namespace(script, tmp_path_factory.mktemp("autoscaling"), timeout_s=230)


def test_from_no_nodes_to_the_cap_and_back(told: Any) -> None:
    assert told["nodes_before"] == 0
    assert told["most_nodes"] >= 2  # at least the two CPU nodes; the GPU node has a CPU too
    assert told["scale_rows"] == 120
    assert told["scale_workers"] >= 2


def test_it_grows_for_two_runs_that_share_it(told: Any) -> None:
    assert told["shared_nodes"] >= 2
    assert told["shared_rows"] == [100, 100]


def test_cpu_and_gpu_nodes_in_one_graph(told: Any) -> None:
    assert [value for value, _ in told["gpu_values"]] == [20, 30, 40]
    assert all(devices != "" for _, devices in told["gpu_values"])


def test_a_lost_node_costs_no_trial_and_no_attempt(told: Any) -> None:
    assert told["loss_trials"]
    assert told["loss_statuses"] == ["ok"]
    assert told["loss_attempts"] == [1]


def test_what_no_node_can_hold_is_said_in_time(told: Any) -> None:
    assert "CPU 64" in told["huge"]
    assert told["huge_s"] < 30
