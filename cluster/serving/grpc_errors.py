"""How does gRPC say what HTTP says by a status and a body of JSON?

By one of its own codes, a text that says all in one line, and `google.rpc` details in trailing metadata, which is where
clients of all languages look for them. It must not know what was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from umbel.cluster.serving.http import HttpError
from umbel.cluster.serving.v1 import predictor_pb2 as pb

__all__ = ["code_of", "error_message", "field_path", "refuse"]

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # what gRPC itself says of messages that are too large
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
#: Fields that are JSON text here and anything in the body of HTTP.
_NAMES = {"inputs": "inputs_json", "outcome": "outcome_json"}
#: Clients take 8 KiB of trailing metadata, where text that is not ASCII takes three times its bytes.
_LONGEST_BYTES = 200
_TOLD = 3


def code_of(failure: HttpError) -> grpc.StatusCode:
    """The code of gRPC for a status of HTTP."""
    return _CODES.get(failure.status, grpc.StatusCode.UNKNOWN)


def refuse(context: Any, failure: HttpError, request_id: str) -> None:
    """End a call with an error.

    Args:
        context: the call's, of Ray Serve. An exception would end it too, but without metadata.
        failure: what went wrong.
        request_id: of the call.
    """
    code = code_of(failure)
    said = {name: _cut(str(text)) for name, text in failure.content["error"].items()}
    fields = [(_cut(field), _cut(text)) for field, text in _fields(failure.detail[:_TOLD])]
    labels = {"got": "got ", "expected": "expected "}
    text = "; ".join(f"{labels.get(name, '')}{each}" for name, each in said.items())
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=code.name, domain="umbel", metadata={**said, "request_id": request_id})
    ]
    if fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=each) for field, each in fields
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    metadata: list[tuple[str, str | bytes]] = []
    retry_s = next((int(value) for name, value in failure.headers if name == "Retry-After"), None)
    if retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(retry_s)
        details.append(retry)
        metadata.append(("grpc-retry-pushback-ms", str(1000 * retry_s)))  # which gRPC's own retries heed
    status = status_pb2.Status(code=code.value[0], message=text)
    for each in details:
        status.details.add().Pack(each)
    context.set_code(code)
    context.set_details(text)
    context.set_trailing_metadata([*metadata, ("grpc-status-details-bin", status.SerializeToString())])


def error_message(failure: HttpError, request_id: str) -> Any:
    """What went wrong with one prediction of a batch."""
    fields = [pb.FieldViolation(field=field, description=text) for field, text in _fields(failure.detail)]
    said = {name: _utf8(str(text)) for name, text in failure.content["error"].items()}
    return pb.Error(code=code_of(failure).value[0], fields=fields, request_id=request_id, **said)


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:_LONGEST_BYTES].decode(errors="ignore")


def _utf8(text: str) -> str:
    """A text that a message can hold: JSON can say half of a surrogate pair alone, UTF-8 can't."""
    return text.encode(errors="replace").decode()


def _fields(detail: Sequence[Any]) -> Iterator[tuple[str, str]]:
    return ((_utf8(field_path(each["loc"])), _utf8(str(each["msg"]))) for each in detail)


def field_path(loc: Sequence[str | int]) -> str:
    """``instances[3].inputs_json[0]`` for ``["body", "instances", 3, "inputs", 0]``."""
    places = list(loc[1:])
    at = 2 if places[:1] == ["instances"] else 0
    if len(places) > at:
        places[at] = _NAMES.get(str(places[at]), places[at])
    return "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places).removeprefix(".")
