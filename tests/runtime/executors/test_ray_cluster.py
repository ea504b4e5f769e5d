"""What is said of a cluster that can't hold a worker."""

from __future__ import annotations

import pytest
import ray

from umbel.runtime.executors.ray_cluster import nothing_fits
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
