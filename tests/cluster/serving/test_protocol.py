"""The code that is committed for gRPC is what the .proto file says."""

from __future__ import annotations

import re
from pathlib import Path

from umbel.cluster.serving import v1
from umbel.cluster.serving.listening import SERVICER
from umbel.cluster.serving.replica import ServedReplica
from umbel.cluster.serving.v1 import predictor_pb2 as pb
from umbel.cluster.serving.v1 import predictor_pb2_grpc

PROTO = (Path(v1.__path__[0]) / "predictor.proto").read_text()


def test_messages_and_fields_are_those_of_the_proto_file() -> None:
    said, message = set(), ""
    for line in PROTO.splitlines():
        if opened := re.match(r"message (\w+)", line):
            message = opened[1]
        elif field := re.match(r"\s+(repeated |optional )?(\w+) (\w+) = (\d+);", line):
            said.add((message, field[3], int(field[4])))
    made = {
        (name, field.name, field.number)
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    assert made == said


def test_every_call_is_a_method_of_the_replica() -> None:
    calls = re.findall(r"rpc (\w+)\(", PROTO)
    [service] = pb.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "umbel.serving.v1.Predictor"
    assert [method.name for method in service.methods] == calls
    assert all(callable(getattr(ServedReplica, call)) for call in calls)
    module, _, name = SERVICER.rpartition(".")
    assert (predictor_pb2_grpc.__name__, hasattr(predictor_pb2_grpc, name)) == (module, True)
