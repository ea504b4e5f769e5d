"""Requests for one group go to one replica."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any

from ray.serve._private.common import StreamingHTTPRequest, gRPCRequest

from umbel.cluster.serving.replica import GroupRouter, _group_of
from umbel.cluster.serving.v1 import predictor_pb2 as pb


def replicas(count: int) -> list[Any]:
    return [SimpleNamespace(replica_id=SimpleNamespace(unique_id=f"replica{n}")) for n in range(count)]


def request(*args: Any) -> Any:
    return SimpleNamespace(args=args)


def by_http(path: str) -> Any:
    return request(pickle.dumps(StreamingHTTPRequest({"path": path}, proxy_actor_name="proxy")))


def by_grpc(message: Any) -> Any:
    return request(pickle.dumps(gRPCRequest(message)))


def choose(among: list[Any], request: Any) -> Any:
    """What the router chooses; it needs nothing of what Serve sets up for it."""
    return GroupRouter.choose_replicas(object.__new__(GroupRouter), among, request)


def ranked(group: str, among: list[Any]) -> list[str]:
    ranks = asyncio.run(choose(among, request(group)))
    return [replica.replica_id.unique_id for [replica] in ranks]


def test_groups_are_read_from_paths_and_calls() -> None:
    assert _group_of(by_http("/v1/models/gdp/groups/FRA:predict")) == "FRA"
    assert _group_of(by_http("/v1/models/gdp/groups/a:b/c:predict")) == "a:b/c"
    assert _group_of(by_http("/v1/models/gdp:batchPredict")) is None
    assert _group_of(request("FRA", [1])) == "FRA"
    assert _group_of(by_grpc(pb.PredictRequest(group="FRA"))) == "FRA"
    assert _group_of(by_grpc(pb.RecordOutcomeRequest(request_id="r"))) is None
    assert _group_of(by_grpc(pb.BatchPredictRequest())) is None
    assert _group_of(request()) is None


def test_a_group_stays_and_groups_spread() -> None:
    firsts = [ranked(f"g{n}", replicas(4))[0] for n in range(400)]
    assert firsts == [ranked(f"g{n}", list(reversed(replicas(4))))[0] for n in range(400)]
    assert all(70 < firsts.count(f"replica{n}") < 130 for n in range(4))


def test_one_replica_more_moves_only_what_goes_there() -> None:
    for n in range(200):
        before, after = ranked(f"g{n}", replicas(4))[0], ranked(f"g{n}", replicas(5))[0]
        assert after in (before, "replica4")


def test_what_has_no_group_goes_anywhere() -> None:
    among = replicas(3)
    assert asyncio.run(choose(among, request())) == [among]
