# Written by hand: protoc's plugin for gRPC writes no types.
from typing import Protocol, TypeVar

import grpc

from umbel.cluster.serving.v1 import predictor_pb2 as pb

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

class _Call(Protocol[_Request, _Response]):
    def __call__(
        self,
        request: _Request,
        timeout: float | None = None,
        metadata: list[tuple[str, str]] | None = None,
        wait_for_ready: bool | None = None,
    ) -> _Response: ...
    def with_call(
        self,
        request: _Request,
        timeout: float | None = None,
        metadata: list[tuple[str, str]] | None = None,
        wait_for_ready: bool | None = None,
    ) -> tuple[_Response, grpc.Call]: ...

class PredictorStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Predict: _Call[pb.PredictRequest, pb.PredictResponse]
    BatchPredict: _Call[pb.BatchPredictRequest, pb.BatchPredictResponse]
    Describe: _Call[pb.DescribeRequest, pb.DescribeResponse]
    RecordOutcome: _Call[pb.RecordOutcomeRequest, pb.RecordOutcomeResponse]

def add_PredictorServicer_to_server(servicer: object, server: grpc.Server) -> None: ...
