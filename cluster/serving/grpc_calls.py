"""What does a replica answer to a call by gRPC?

Ray Serve's proxy hands each call on to the deployment's method of its name, as a message and a context. Here messages
become what `Calls` takes, which HTTP uses, too, and answers become messages. It must not know how Serve is started.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from enum import Enum
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

from umbel.cluster.serving.calls import Caller, Calls, ServedModel, failure_of
from umbel.cluster.serving.grpc_errors import error_message, refuse
from umbel.cluster.serving.http import HttpError, json_value
from umbel.cluster.serving.predict import Answer
from umbel.cluster.serving.v1 import predictor_pb2 as pb

__all__ = ["GrpcCallers", "GrpcCalls"]


class GrpcCallers(Enum):
    """Whom a server answers by gRPC."""

    #: Serve may answer gRPC for other applications.
    NOBODY = "nobody"
    #: Serve's proxy listens at all addresses, so who is elsewhere is refused here.
    THIS_MACHINE = "this machine"
    ALL = "all"


class GrpcCalls:
    """The methods of ``umbel.serving.v1.Predictor``.

    Args:
        served: the model.
        callers: whom it answers.

    Each method takes a message and Ray Serve's context of the call; what goes wrong is told by the context.
    """

    def __init__(self, served: ServedModel, callers: GrpcCallers) -> None:
        self._served = served
        self._calls = Calls(served)
        self._callers = callers

    async def predict(self, request: Any, context: Any) -> Any:
        """As ``POST …/groups/{group}:predict``."""

        async def answer(caller: Caller) -> Any:
            content = {"inputs": json_value(request.inputs_json, ("inputs",)), **_key_of(request)}
            return _answer(await self._calls.predict(request.group, content, caller), caller.request_id)

        return await self._call(request, context, request.request_id, answer, pb.PredictResponse)

    async def batch_predict(self, request: Any, context: Any) -> Any:
        """As ``POST …:batchPredict``."""

        async def answer(caller: Caller) -> Any:
            unread: dict[int, HttpError] = {}
            instances = []
            for n, each in enumerate(request.instances):
                instance = {"group": each.group, **_key_of(each)}
                try:
                    instance["inputs"] = json_value(each.inputs_json, ("instances", n, "inputs"))
                except HttpError as error:
                    unread[n] = error  # which says more than that there are none
                instances.append(instance)
            found = await self._calls.batch({"instances": instances, **_key_of(request)}, caller)
            predictions = [_one_of(each_id, unread.get(n, each)) for n, (each_id, each) in enumerate(found)]
            return pb.BatchPredictResponse(predictions=predictions, request_id=caller.request_id)

        return await self._call(request, context, request.request_id, answer, pb.BatchPredictResponse)

    async def describe(self, request: Any, context: Any) -> Any:
        """As ``GET /v1/models/M`` and ``…/groups``."""

        async def answer(caller: Caller) -> Any:
            status = await self._calls.status()
            ready, told = self._served.readiness
            return pb.DescribeResponse(
                model=self._served.settings.model,
                ready=ready,
                serving=[pb.Served(alias=alias, version=version) for alias, version in told["serving"].items()],
                groups=self._calls.groups(),
                status_json=_json(status),
            )

        return await self._call(request, context, "", answer, pb.DescribeResponse)

    async def record_outcome(self, request: Any, context: Any) -> Any:
        """As ``POST …:outcome``."""

        async def answer(caller: Caller) -> Any:
            outcome = json_value(request.outcome_json, ("outcome",))
            content = {"request_id": request.request_id, "outcome": outcome}
            group = request.group if request.HasField("group") else None
            return pb.RecordOutcomeResponse(request_id=self._calls.outcome(group, content))

        return await self._call(request, context, "", answer, pb.RecordOutcomeResponse)

    async def _call(
        self,
        request: Any,
        context: Any,
        given_id: str,
        answer: Callable[[Caller], Awaitable[Any]],
        empty: Callable[[], Any],
    ) -> Any:
        """Check what all calls have in common, and answer; the empty message, if it is refused."""
        caller = Caller.of(given_id or dict(context.trailing_metadata()).get("request_id"), None)
        try:
            self._check_caller(context)
            caller.check()
            self._check_request(request)
            return await answer(caller)
        except Exception as error:
            refuse(context, failure_of(error), caller.request_id)
            return empty()

    def _check_caller(self, context: Any) -> None:
        if self._callers is GrpcCallers.NOBODY:
            raise HttpError(501, "this server does not answer gRPC", hint="start it with --grpc-port")
        if self._callers is GrpcCallers.THIS_MACHINE and not _is_local(context.peer()):
            raise HttpError(
                403, "this server answers only callers on its own machine", hint="start it with --host 0.0.0.0"
            )
        authorization = dict(context.invocation_metadata()).get("authorization", "")
        self._calls.check_token(authorization.encode())

    def _check_request(self, request: Any) -> None:
        settings = self._served.settings
        size = request.ByteSize()
        if size > settings.max_body_bytes:
            raise HttpError(
                413,
                "the request is too large",
                got=f"{size} bytes",
                expected=f"at most {settings.max_body_bytes} bytes",
            )
        if request.model not in ("", settings.model):
            raise HttpError(
                404,
                "this server has another model",
                got=request.model[:200],
                expected=settings.model,
                hint="where a cluster serves several, the metadata `application` says which is asked",
            )


def _key_of(message: Any) -> dict[str, Any]:
    return {"key": message.key} if message.HasField("key") else {}


def _answer(answer: Answer, request_id: str) -> Any:
    return pb.PredictResponse(
        outputs_json=_json(answer.outputs),
        version=answer.version,
        alias=answer.alias,
        digest=answer.digest,
        group=answer.group,
        request_id=request_id,
    )


def _one_of(request_id: str, found: Answer | HttpError) -> Any:
    if isinstance(found, HttpError):
        return pb.Prediction(error=error_message(found, request_id))
    return pb.Prediction(answer=_answer(found, request_id))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _is_local(peer: str) -> bool:
    """Whether gRPC's name of a peer, as ``ipv4:127.0.0.1:4711`` or ``ipv6:%5B::1%5D:4711``, is on this machine."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    try:
        address = ip_address(unquote(rest).rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)
