"""Graphs: what is refused, and what comes first."""

from __future__ import annotations

import pytest

from tests.scheduler.small_engines import reference
from umbel.scheduler.errors import GraphError
from umbel.scheduler.graph import Graph, Input, NodeId, NodeSpec


def test_wrong_graphs_are_refused() -> None:
    with pytest.raises(GraphError, match="wrong id"):
        Graph([NodeSpec(NodeId(1), "a", 1)])
    with pytest.raises(GraphError, match="does not come before"):
        Graph([NodeSpec(NodeId(0), "a", 1, (Input(NodeId(0)),))])
    with pytest.raises(GraphError, match="does not line up"):
        Graph([NodeSpec(NodeId(0), "a", 3), NodeSpec(NodeId(1), "b", 5, (Input(NodeId(0)),))])


def test_ranks_count_the_longest_chain_below() -> None:
    assert reference(2, 2).ranks == (4, 3, 2, 1, 0)
