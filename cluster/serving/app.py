"""The HTTP interface of a served model: which path asks for what, and which status says what?

``POST /v1/models/M/groups/G:predict`` and its kin; docs/serving.md has the table. An ASGI application that Ray Serve
runs in each replica, and that tests call directly. It must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import uuid4

from umbel.cluster.serving.errors import AskFailedError, InputsError, NotReadyError
from umbel.cluster.serving.http import (
    HttpError,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    parse_json,
    read_body,
    send_reply,
)
from umbel.cluster.serving.openapi import openapi
from umbel.cluster.serving.predict import Answer, Predictor
from umbel.cluster.serving.settings import ServeSettings
from umbel.scheduler.errors import NotFoundError, UmbelError, UsageError

__all__ = ["ServedModel", "ServingApp"]

#: Characters that the name of a group, a caller's key and the id of a request may have.
LONGEST_GROUP = 500
LONGEST_KEY = 500
LONGEST_REQUEST_ID = 200
#: Seconds after which to try again.
_RETRY = (("Retry-After", "1"),)
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


class ServingApp:
    """An ASGI application.

    Args:
        served: the model.
        adds_request_id: answer with ``X-Request-ID``; False: who runs it does.
    """

    def __init__(self, served: ServedModel, *, adds_request_id: bool = True) -> None:
        self._served = served
        self._settings = served.settings
        self._adds_request_id = adds_request_id
        self._root = f"/v1/models/{served.settings.model}"
        self._actions: dict[str, Callable[[str, dict[str, Any], _Caller], Awaitable[Reply]]] = {
            "predict": self._predict,
            "outcome": self._outcome,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; or begin and end, as ASGI's lifespan says."""
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        caller = _Caller(scope)
        try:
            reply = await self._answer(scope, receive, caller)
        except HttpError as error:
            reply = error_reply(error, caller.request_id)
        except Exception as error:
            reply = error_reply(_http_error(error), caller.request_id)
        if self._adds_request_id:
            reply = Reply(reply.status, reply.content, [*reply.headers, ("X-Request-ID", caller.request_id)])
        return await send_reply(send, reply)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._served.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._served.stop()
                return await send({"type": "lifespan.shutdown.complete"})

    # ---- what is asked for ---------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, caller: _Caller) -> Reply:
        path, method = _path(scope), scope["method"]
        if path in ("/healthz", "/readyz"):
            _check_method(method, "GET", "HEAD")
            return self._probe(path)
        if self._settings.token is not None and not self._settings.token.accepts(caller.authorization):
            raise HttpError(
                401,
                "this server asks for a bearer token",
                hint="send the header Authorization: Bearer …",
                headers=[("WWW-Authenticate", "Bearer")],
            )
        caller.check()
        if path == "/openapi.json":
            _check_method(method, "GET", "HEAD")
            return Reply(200, openapi(self._settings, self._served.predictor.snapshot))
        if path == "/v1/models":
            _check_method(method, "GET", "HEAD")
            return Reply(200, {"models": [self._settings.model]})
        if path == self._root:
            _check_method(method, "GET", "HEAD")
            return Reply(200, await asyncio.to_thread(self._served.status))
        if path.startswith(f"{self._root}:"):
            _check_method(method, "POST")
            return await self._on_all(path[len(self._root) + 1 :], scope, receive, caller)
        if path.startswith(f"{self._root}/groups"):
            return await self._on_group(path[len(self._root) + len("/groups") :], scope, receive, caller)
        raise _no_such(path, self._settings.model)

    def _probe(self, path: str) -> Reply:
        if path == "/healthz":
            return Reply(200, {"status": "ok"})
        ready, told = self._served.readiness
        return Reply(200 if ready else 503, told, () if ready else _RETRY)

    async def _on_all(self, action: str, scope: Scope, receive: Receive, caller: _Caller) -> Reply:
        if action not in ("batchPredict", "outcome"):
            raise _no_such(_path(scope), self._settings.model)
        content = parse_json(await read_body(scope, receive, self._settings.max_body_bytes))
        if action == "outcome":
            return await self._outcome("", content, caller)
        return await self._batch(content, caller)

    async def _on_group(self, rest: str, scope: Scope, receive: Receive, caller: _Caller) -> Reply:
        method = scope["method"]
        if not rest:
            _check_method(method, "GET", "HEAD")
            served = self._served.predictor.snapshot.aliases.get(self._settings.alias)
            return Reply(200, {"groups": [] if served is None else list(served.version.digests)})
        if not rest.startswith("/"):
            raise _no_such(_path(scope), self._settings.model)
        group, colon, action = rest[1:].rpartition(":")
        if colon and action in self._actions:
            _check_method(method, "POST")
            _check_group(group)
            content = parse_json(await read_body(scope, receive, self._settings.max_body_bytes))
            return await self._actions[action](group, content, caller)
        if method in ("GET", "HEAD"):
            _check_group(rest[1:])
            name, _ = self._served.predictor.find(rest[1:])
            return Reply(200, await asyncio.to_thread(self._served.lineage, name))
        raise _no_such(_path(scope), self._settings.model)

    async def _predict(self, group: str, content: dict[str, Any], caller: _Caller) -> Reply:
        _check_fields(content, {"inputs", "key"})
        if "inputs" not in content:
            raise _missing("inputs", 'expected {"inputs": …}')
        answer = await self._served.predictor.predict(
            group, content["inputs"], caller.request_id, _key(content, caller)
        )
        return Reply(200, {**_told(answer), "request_id": caller.request_id}, _headers(answer))

    async def _batch(self, content: dict[str, Any], caller: _Caller) -> Reply:
        """Each prediction succeeds or fails for itself; the request fails only if it is no batch."""
        _check_fields(content, {"instances", "key"})
        instances = content.get("instances")
        if not isinstance(instances, list) or not instances:
            raise _missing("instances", 'expected {"instances": [{"group": …, "inputs": …}, …]}')
        if len(instances) > self._settings.max_batch:
            raise HttpError(
                413,
                "the batch is too large",
                got=f"{len(instances)} instances",
                expected=f"at most {self._settings.max_batch}",
                hint="send several batches",
            )
        key = _key(content, caller)
        predictions = await asyncio.gather(
            *(self._one_of(n, instance, key, caller) for n, instance in enumerate(instances))
        )
        return Reply(200, {"predictions": predictions, "request_id": caller.request_id})

    async def _one_of(self, n: int, instance: Any, key: str | None, caller: _Caller) -> dict[str, Any]:
        request_id = f"{caller.request_id}~{n}"  # outcomes are joined by it
        try:
            if not isinstance(instance, dict) or "inputs" not in instance or not isinstance(instance.get("group"), str):
                raise _missing(f"instances.{n}", 'expected {"group": …, "inputs": …}')
            _check_group(instance["group"])
            own = instance.get("key", key)
            # without a key all of one request are one caller's
            answer = await self._served.predictor.predict(
                instance["group"], instance["inputs"], request_id, caller.request_id if own is None else str(own)
            )
        except Exception as error:
            failed = error if isinstance(error, HttpError) else _http_error(error)
            return {**failed.content, "status": failed.status, "request_id": request_id}
        return {**_told(answer), "group": answer.group, "request_id": request_id}

    async def _outcome(self, group: str, content: dict[str, Any], caller: _Caller) -> Reply:
        _check_fields(content, {"request_id", "outcome"})
        request_id = content.get("request_id")
        if not isinstance(request_id, str) or not 0 < len(request_id) <= LONGEST_REQUEST_ID + 10:
            raise _missing("request_id", "expected the X-Request-ID of a prediction")
        if "outcome" not in content:
            raise _missing("outcome", "expected what turned out to be true")
        if group:
            self._served.predictor.find(group)
        self._served.outcome(request_id, content["outcome"])
        return Reply(202, {"request_id": request_id})


class _Caller:
    """What the headers say of who asks."""

    def __init__(self, scope: Scope) -> None:
        self.authorization = b""
        self.key: str | None = None
        found = ""
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"x-umbel-key":
                self.key = value.decode("latin-1")
            elif name == b"x-request-id":
                found = value.decode("latin-1")
        self._given = found
        usable = 0 < len(found) <= LONGEST_REQUEST_ID and found.isprintable()
        self.request_id = found if usable else uuid4().hex

    def check(self) -> None:
        """Raise HttpError 400 if the headers can't be meant."""
        if self._given and self._given != self.request_id:
            raise HttpError(
                400,
                "this can't be the id of a request",
                got=f"{len(self._given)} characters",
                expected=f"1 to {LONGEST_REQUEST_ID} printable characters",
            )
        if self.key is not None:
            _check_key(self.key)


# ---- small checks ----------------------------------------------------------------------------------------------


def _path(scope: Scope) -> str:
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise HttpError(
            405,
            "this path has another method",
            got=method,
            expected=allowed[0],
            headers=[("Allow", ", ".join(allowed))],
        )


def _check_group(group: str) -> None:
    if not 0 < len(group) <= LONGEST_GROUP:
        raise HttpError(
            400,
            "this can't be the name of a group",
            got=f"{len(group)} characters",
            expected=f"1 to {LONGEST_GROUP}",
        )


def _check_key(key: str) -> None:
    if len(key) > LONGEST_KEY:
        raise HttpError(
            400, "a caller's key is too long", got=f"{len(key)} characters", expected=f"at most {LONGEST_KEY}"
        )


def _check_fields(content: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        detail = [{"loc": ["body", name[:100]], "msg": "unknown field", "type": "extra_forbidden"} for name in unknown]
        raise HttpError(
            422,
            "the request has fields that mean nothing",
            got=", ".join(unknown)[:200],
            expected=", ".join(sorted(known)),
            detail=detail[:10],
        )


def _key(content: dict[str, Any], caller: _Caller) -> str | None:
    key = content.get("key", caller.key)
    if key is None:
        return None
    if not isinstance(key, (str, int)):
        raise _missing("key", "expected a text")
    _check_key(str(key))
    return str(key)


def _missing(name: str, expected: str) -> HttpError:
    loc: list[str | int] = ["body", *(int(part) if part.isdigit() else part for part in name.split("."))]
    return HttpError(
        422,
        f"{name} is missing, or not what it should be",
        expected=expected.removeprefix("expected "),
        detail=[{"loc": loc, "msg": expected, "type": "missing"}],
    )


def _no_such(path: str, model: str) -> HttpError:
    return HttpError(
        404,
        "there is nothing at this path",
        got=path[:200],
        expected=f"/v1/models/{model}/groups/GROUP:predict",
        hint="GET /openapi.json has all paths",
    )


def _told(answer: Answer) -> dict[str, Any]:
    return {"outputs": answer.outputs, "version": answer.version, "alias": answer.alias}


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [
        ("X-Umbel-Version", str(answer.version)),
        ("X-Umbel-Alias", answer.alias),
        ("X-Umbel-Digest", answer.digest),
    ]


def _http_error(error: Exception) -> HttpError:
    """The status that says whose turn it is: 4xx the caller's, 500 the model's owner's, 503 nobody's: try again."""
    match error:
        case NotFoundError():
            return HttpError.of(404, error)
        case InputsError():
            return HttpError.of(422, error, detail=[mistake.as_dict() for mistake in error.mistakes])
        case NotReadyError():
            return HttpError.of(503, error, _RETRY)
        case AskFailedError():
            return HttpError.of(500, error)
        case UsageError():
            return HttpError.of(422, error)
        case UmbelError():  # of the store: a model that can't be loaded
            return HttpError.of(503, error, _RETRY)
        case _:
            _log.error("a request failed", exc_info=error)
            return HttpError(500, "a defect in the server", got=type(error).__name__, hint="the replica's log has more")
