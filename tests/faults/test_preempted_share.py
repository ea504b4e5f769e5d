"""A run that may be preempted makes room in the midst of its trials, and has them all in the end."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Cluster, NewScene
from tests.faults.processes import until

pytestmark = pytest.mark.ray


def test_trials_are_put_back_without_blame(new_scene: NewScene, cluster: Cluster) -> None:
    host, guest = new_scene(cluster.address), new_scene(cluster.address)
    host.order("wait", *range(200))
    first = host.start(env={"UMBEL_SHARE": "tenant=host,preemptible=true"})
    until(lambda: len(host.started()) == 2, "the first run has both processors")
    second = guest.start(env={"UMBEL_SHARE": "tenant=guest"})
    second.finish()  # though no trial of the first has ended
    assert host.ended() == []
    until(lambda: len(host.started()) >= 3, "the first run has the processor back")
    host.go()
    first.finish()
    assert len({trial for trial, _, _ in host.started()}) == 200
    assert host.durable() == list(range(200))
    table = host.run.trials()
    assert set(table.column("status").to_pylist()) == {"ok"}
    assert set(table.column("attempt").to_pylist()) == {1}
