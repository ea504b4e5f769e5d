"""What is said of a cluster that can't hold a worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from umbel.runtime.executors.ray_cluster import is_asked_for, is_scaling, nothing_fits
from umbel.runtime.graph.task import Resources


def test_the_label_that_no_node_carries_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {"zone": "b"}},
        {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert "missing: label zone=a (nodes carry: b)" in str(nothing_fits(Resources(labels={"zone": "a"})))
    assert "missing: label disk=ssd (nodes carry: none)" in str(nothing_fits(Resources(labels={"disk": "ssd"})))
    assert "missing: CPU 8 (largest node: 4)" in str(nothing_fits(Resources(cpus=8)))
    assert "a node that has it all at once" in str(nothing_fits(Resources(cpus=4, labels={"zone": "b"})))
    assert "can hold a replica, and none" in str(nothing_fits(Resources(cpus=8), "a replica", "lower it"))


def test_what_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = [SimpleNamespace(bundle=bundle, count=1) for bundle in ({"CPU": 1.0, "GPU": 0.0}, {"CPU": 0.3333})]
    demand = SimpleNamespace(ray_task_actor_demand=[SimpleNamespace(bundles_by_count=bundles)])
    told = SimpleNamespace(resource_demands=demand, pending_launches=[], pending_nodes=["node"])
    monkeypatch.setattr("umbel.runtime.executors.ray_cluster._status", lambda: told)
    assert is_asked_for(Resources(cpus=1))
    assert is_asked_for(Resources(cpus=1 / 3))
    assert not is_asked_for(Resources(cpus=2))
    assert is_scaling()
    monkeypatch.setattr("umbel.runtime.executors.ray_cluster._status", lambda: None)
    assert [is_scaling(), is_asked_for(Resources(cpus=1))] == [False, False]
