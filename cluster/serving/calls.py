"""What can be asked of a served model, and what is refused with which status, whatever protocol carries it?

HTTP and gRPC read a request into plain content and a `Caller`, and call the same `Calls`: the same checks, limits and
errors. A status is that of HTTP; gRPC has a table of its own for it. It must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from umbel.cluster.serving.errors import AskFailedError, InputsError, NotReadyError
from umbel.cluster.serving.http import RETRY, HttpError
from umbel.cluster.serving.predict import Answer, Predictor
from umbel.cluster.serving.settings import ServeSettings
from umbel.scheduler.errors import NotFoundError, UmbelError, UsageError
from umbel.storage.predictions.log import is_text

__all__ = ["Caller", "Calls", "ServedModel", "failure_of"]

#: Characters that the name of a group, a caller's key and the id of a request may have.
LONGEST_GROUP = 500
LONGEST_KEY = 500
LONGEST_REQUEST_ID = 200
#: How many unknown fields are told.
_TOLD = 10
_log = logging.getLogger(__name__)


class ServedModel(Protocol):
    """What the interface asks of a replica."""

    settings: ServeSettings
    predictor: Predictor

    @property
    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether predictions can be made, and what is to be told of it."""
        ...

    def status(self) -> dict[str, Any]:
        """What is being served. Reads the store."""
        ...

    def lineage(self, group: str) -> dict[str, Any]:
        """What the model of a group was made from. Reads the store."""
        ...

    def outcome(self, request_id: str, outcome: Any) -> None:
        """Record what turned out to be true."""
        ...

    async def start(self) -> None:
        """Begin to follow the aliases."""
        ...

    async def stop(self) -> None:
        """Write what waits, and end."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as headers or metadata say it.

    Args:
        request_id: names the request.
        key: names the caller; None: nobody in particular.
        given_id: the id that the caller gave, if it did.
    """

    request_id: str
    key: str | None = None
    given_id: str | None = None

    @staticmethod
    def of(given_id: str | None, key: str | None) -> Caller:
        """A caller; what it gave is checked by `check`, when it may be told of it."""
        usable = given_id if given_id and given_id.isprintable() and len(given_id) <= LONGEST_REQUEST_ID else None
        return Caller(usable or uuid4().hex, key, given_id or None)

    def check(self) -> None:
        """Raise HttpError 400 if the id that was given, or the key, can't be meant."""
        if self.given_id not in (None, self.request_id):
            raise HttpError(
                400,
                "this can't be the id of a request",
                got=f"{len(self.given_id or '')} characters",
                expected=f"1 to {LONGEST_REQUEST_ID} printable characters",
            )
        if self.key is not None:
            _check_key(self.key, ())


class Calls:
    """Answers what is asked of one served model.

    Args:
        served: the model.

    All methods raise HttpError, and what `Predictor.predict` raises; `failure_of` gives any of it a status.
    """

    def __init__(self, served: ServedModel) -> None:
        self._served = served
        self._settings = served.settings

    def check_token(self, authorization: bytes) -> None:
        """Raise HttpError 401 unless this is ``Bearer`` and the token, or none is asked for."""
        if self._settings.token is not None and not self._settings.token.accepts(authorization):
            raise HttpError(
                401,
                "this server asks for a bearer token",
                hint="send the header Authorization: Bearer …",
                headers=[("WWW-Authenticate", "Bearer")],
            )

    def groups(self) -> list[str]:
        """The names of the groups that the alias has now."""
        served = self._served.predictor.snapshot.aliases.get(self._settings.alias)
        return [] if served is None else list(served.version.digests)

    async def status(self) -> dict[str, Any]:
        """What is being served. Reads the store."""
        return await asyncio.to_thread(self._served.status)

    async def lineage(self, group: str) -> dict[str, Any]:
        """What the model of a group was made from. Reads the store."""
        _check_group(group)
        name, _ = self._served.predictor.find(group)
        return await asyncio.to_thread(self._served.lineage, name)

    async def predict(self, group: str, content: Mapping[str, Any], caller: Caller) -> Answer:
        """What the model of a group answers to ``{"inputs": …, "key": …}``."""
        _check_group(group)
        return await self._one(group, content, {"inputs", "key"}, caller, ())

    async def call(self, group: object, inputs: Any, request_id: object, key: object) -> dict[str, Any]:
        """What a call by Serve's handle is answered, with the checks of the other protocols.

        Args:
            group: its name, or its values by key.
            inputs: plain data.
            request_id: names the request.
            key: names the caller; None: nobody in particular.

        Raises:
            UsageError: an argument can't be meant.
            UmbelError: whatever else `Predictor.predict` raises.
        """
        try:
            if not isinstance(request_id, str):
                raise _wrong(["request_id"], "a text")
            if isinstance(group, Mapping):
                group, _ = self._served.predictor.find(group)
            if not isinstance(group, str):
                raise _wrong(["group"], "a text, or a dict of values by key")
            caller = Caller.of(request_id, None)
            caller.check()
            content = {"group": group, "inputs": inputs, "key": key}
            answer = await self._of_group(content, caller, ())
        except HttpError as error:  # has a status, which nobody asked for, and does not cross processes
            raise UsageError(**error.content["error"]) from None
        told = {"outputs": answer.outputs, "version": answer.version, "alias": answer.alias}
        return {**told, "request_id": caller.request_id}

    async def _one(
        self, group: str, content: Mapping[str, Any], known: set[str], caller: Caller, at: Sequence[str | int]
    ) -> Answer:
        _check_fields(content, known, at)
        if "inputs" not in content:
            raise _wrong([*at, "inputs"], '{"inputs": …}')
        key = _key(content, caller.key, at)
        return await self._served.predictor.predict(group, content["inputs"], caller.request_id, key)

    async def batch(self, content: Mapping[str, Any], caller: Caller) -> list[tuple[str, Answer | HttpError]]:
        """What the models of many groups answer to ``{"instances": [{"group": …, "inputs": …}, …], "key": …}``.

        Each succeeds or fails for itself; the request fails only if it is no batch. Each has a request's id of its
        own, by which outcomes are joined.
        """
        _check_fields(content, {"instances", "key"}, ())
        instances = content.get("instances")
        if not isinstance(instances, list) or not instances:
            raise _wrong(["instances"], '{"instances": [{"group": …, "inputs": …}, …]}')
        if len(instances) > self._settings.max_batch:
            raise HttpError(
                413,
                "the batch is too large",
                got=f"{len(instances)} instances",
                expected=f"at most {self._settings.max_batch}",
                hint="send several batches",
            )
        key = _key(content, caller.key, ())
        all_of_one = caller.request_id if key is None else key  # without a key all of one request are one caller's
        ids = [f"{caller.request_id}~{n}" for n in range(len(instances))]
        calls = [self._instance(n, each, Caller(ids[n], all_of_one)) for n, each in enumerate(instances)]
        return list(zip(ids, await asyncio.gather(*calls), strict=True))

    async def _instance(self, n: int, instance: Any, caller: Caller) -> Answer | HttpError:
        at = ("instances", n)
        try:
            if not isinstance(instance, dict):
                raise _wrong(at, '{"group": …, "inputs": …}')
            return await self._of_group(instance, caller, at)
        except Exception as error:
            return failure_of(error, at)

    async def _of_group(self, content: Mapping[str, Any], caller: Caller, at: Sequence[str | int]) -> Answer:
        group = content.get("group")
        if not isinstance(group, str):
            raise _wrong([*at, "group"], '{"group": …, "inputs": …}')
        _check_group(group, [*at, "group"])
        return await self._one(group, content, {"group", "inputs", "key"}, caller, at)

    def outcome(self, group: str | None, content: Mapping[str, Any]) -> str:
        """Record ``{"request_id": …, "outcome": …}``; the id.

        Args:
            group: whose answer it judges; None: that of the request, whatever group it was for.
            content: the fields.
        """
        _check_fields(content, {"request_id", "outcome"}, ())
        request_id = content.get("request_id")
        longest = LONGEST_REQUEST_ID + 10  # an instance's has its number behind
        if not isinstance(request_id, str) or not 0 < len(request_id) <= longest or not is_text(request_id):
            raise _wrong(["request_id"], "the X-Request-ID of a prediction")
        if content.get("outcome") is None:
            raise _wrong(["outcome"], "what turned out to be true; what is not known yet is sent when it is")
        if group is not None:
            _check_group(group)
            self._served.predictor.find(group)
        try:
            self._served.outcome(request_id, content["outcome"])
        except UsageError as error:
            detail = [_mistake(["outcome"], f"expected {error.expected}", "value")]
            raise HttpError.of(422, error, detail=detail) from error
        return request_id


def failure_of(error: Exception, at: Sequence[str | int] = ()) -> HttpError:
    """The status that says whose turn it is: 4xx the caller's, 500 the model's owner's, 503 nobody's: try again.

    Args:
        error: what was raised.
        at: where in the body the failed prediction stands.
    """
    match error:
        case HttpError():
            return error
        case NotFoundError():
            return HttpError.of(404, error)
        case InputsError():
            told = [{**each.as_dict(), "loc": ["body", *at, "inputs", *each.path]} for each in error.mistakes]
            return HttpError.of(422, error, detail=told)
        case NotReadyError():
            return HttpError.of(503, error, RETRY)
        case AskFailedError():
            return HttpError.of(500, error)
        case UsageError():
            return HttpError.of(422, error)
        case UmbelError():  # of the store: a model that can't be loaded
            return HttpError.of(503, error, RETRY)
        case _:
            _log.error("a request failed", exc_info=error)
            return HttpError(500, "a defect in the server", got=type(error).__name__, hint="the replica's log has more")


# ---- small checks ----------------------------------------------------------------------------------------------


def _check_group(group: str, place: Sequence[str | int] = ()) -> None:
    """Raise HttpError 400 or 422 if this can't be the name of a group; `place` is where it stands in the body."""
    if not 0 < len(group) <= LONGEST_GROUP:
        raise HttpError(
            400,
            "this can't be the name of a group",
            got=f"{len(group)} characters",
            expected=f"1 to {LONGEST_GROUP}",
            detail=[_mistake(place, f"expected 1 to {LONGEST_GROUP} characters", "length")] if place else (),
        )
    if not is_text(group):
        raise _wrong(place, "a text that UTF-8 can say")


def _key(content: Mapping[str, Any], otherwise: str | None, at: Sequence[str | int]) -> str | None:
    """Who calls, as a field says it; null is as if it said nothing."""
    key = content.get("key")
    if key is None:
        return otherwise
    place = [*at, "key"]
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise _wrong(place, "a text")
    _check_key(str(key), place)
    return str(key)


def _check_key(key: str, place: Sequence[str | int]) -> None:
    if len(key) > LONGEST_KEY:
        raise HttpError(
            400,
            "a caller's key is too long",
            got=f"{len(key)} characters",
            expected=f"at most {LONGEST_KEY}",
            detail=[_mistake(place, f"expected at most {LONGEST_KEY} characters", "length")] if place else (),
        )
    if not is_text(key):
        raise _wrong(place, "a text that UTF-8 can say")


def _check_fields(content: Mapping[str, Any], known: set[str], at: Sequence[str | int]) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        raise HttpError(
            422,
            "the request has fields that mean nothing",
            got=", ".join(unknown)[:200],
            expected=", ".join(sorted(known)),
            detail=[_mistake([*at, name[:100]], "unknown field", "extra_forbidden") for name in unknown[:_TOLD]],
        )


def _mistake(place: Sequence[str | int], message: str, kind: str) -> dict[str, Any]:
    return {"loc": ["body", *place], "msg": message, "type": kind}


def _wrong(place: Sequence[str | int], expected: str) -> HttpError:
    return HttpError(
        422,
        f"{'.'.join(map(str, place))} is missing, or not what it should be",
        expected=expected,
        detail=[_mistake(place, f"expected {expected}", "missing")],
    )
