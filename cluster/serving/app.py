"""The HTTP interface of a served model: which path asks for what, and how are answers told?

``POST /v1/models/M/groups/G:predict`` and its kin; docs/serving.md has the table. An ASGI application that Ray Serve
runs in each replica, and that tests call directly. It must not know Ray, or what makes a request a bad one.
"""

from __future__ import annotations

from typing import Any

from umbel.cluster.serving.calls import Caller, Calls, ServedModel, failure_of
from umbel.cluster.serving.http import (
    RETRY,
    HttpError,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    header_text,
    parse_json,
    read_body,
    send_reply,
)
from umbel.cluster.serving.openapi import openapi
from umbel.cluster.serving.predict import Answer

__all__ = ["ServingApp"]

#: What can be asked of a group, and of all groups together: what stands behind a colon.
_OF_GROUP = ("predict", "outcome")
_OF_ALL = ("batchPredict", "outcome")


class ServingApp:
    """An ASGI application.

    Args:
        served: the model.
        adds_request_id: answer with ``X-Request-ID``; False: who runs it does.
    """

    def __init__(self, served: ServedModel, *, adds_request_id: bool = True) -> None:
        self._served = served
        self._settings = served.settings
        self._calls = Calls(served)
        self._adds_request_id = adds_request_id
        self._root = f"/v1/models/{served.settings.model}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; or begin and end, as ASGI's lifespan says."""
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
        given, key = (_header(headers, name) for name in (b"x-request-id", b"x-umbel-key"))
        caller = Caller.of(given, key)
        try:
            reply = await self._answer(scope, receive, caller, headers.get(b"authorization", b""))
        except Exception as error:
            reply = error_reply(failure_of(error), caller.request_id)
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

    async def _answer(self, scope: Scope, receive: Receive, caller: Caller, authorization: bytes) -> Reply:
        path, method = _path(scope), scope["method"]
        if path in ("/healthz", "/readyz"):
            _check_method(method, "GET", "HEAD")
            return self._probe(path)
        self._calls.check_token(authorization)
        caller.check()
        if path == "/openapi.json":
            _check_method(method, "GET", "HEAD")
            return Reply(200, openapi(self._settings, self._served.predictor.snapshot))
        if path == "/v1/models":
            _check_method(method, "GET", "HEAD")
            return Reply(200, {"models": [self._settings.model]})
        if path == self._root:
            _check_method(method, "GET", "HEAD", hint=_verbs(self._root, _OF_ALL))
            return Reply(200, await self._calls.status())
        if path.startswith(f"{self._root}:"):
            return await self._on_all(path[len(self._root) + 1 :], scope, receive, caller)
        if path.startswith(f"{self._root}/groups"):
            return await self._on_group(path[len(self._root) + len("/groups") :], scope, receive, caller)
        raise self._no_such(path)

    def _probe(self, path: str) -> Reply:
        if path == "/healthz":
            return Reply(200, {"status": "ok"})
        ready, told = self._served.readiness
        return Reply(200 if ready else 503, told, () if ready else RETRY)

    async def _on_all(self, action: str, scope: Scope, receive: Receive, caller: Caller) -> Reply:
        if action not in _OF_ALL:
            raise self._no_such(_path(scope))
        _check_method(scope["method"], "POST")
        content = parse_json(await read_body(scope, receive, self._settings.max_body_bytes))
        if action == "outcome":
            return Reply(202, {"request_id": self._calls.outcome(None, content)})
        found = await self._calls.batch(content, caller)
        return Reply(200, {"predictions": [_one_of(*each) for each in found], "request_id": caller.request_id})

    async def _on_group(self, rest: str, scope: Scope, receive: Receive, caller: Caller) -> Reply:
        method = scope["method"]
        if not rest:
            _check_method(method, "GET", "HEAD", hint=_verbs(f"{self._root}/groups/GROUP", _OF_GROUP))
            return Reply(200, {"groups": self._calls.groups()})
        if not rest.startswith("/"):
            raise self._no_such(_path(scope))
        group, colon, action = rest[1:].rpartition(":")
        if not colon or action not in _OF_GROUP:
            if colon and method == "POST":
                raise self._no_such(_path(scope))
            _check_method(method, "GET", "HEAD", hint=_verbs(_path(scope), _OF_GROUP))
            return Reply(200, await self._calls.lineage(rest[1:]))
        _check_method(method, "POST")
        content = parse_json(await read_body(scope, receive, self._settings.max_body_bytes))
        if action == "outcome":
            return Reply(202, {"request_id": self._calls.outcome(group, content)})
        answer = await self._calls.predict(group, content, caller)
        return Reply(200, {**_told(answer), "request_id": caller.request_id}, _headers(answer))

    def _no_such(self, path: str) -> HttpError:
        return HttpError(
            404,
            "there is nothing at this path",
            got=path[:200],
            expected=_verbs(f"{self._root}/groups/GROUP", _OF_GROUP) + ", or " + _verbs(self._root, _OF_ALL),
            hint="GET /openapi.json has all paths",
        )


# ---- requests --------------------------------------------------------------------------------------------------

_HEADERS = frozenset((b"authorization", b"x-request-id", b"x-umbel-key"))


def _header(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else header_text(value)


def _path(scope: Scope) -> str:
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _check_method(method: str, *allowed: str, hint: str | None = None) -> None:
    if method not in allowed:
        raise HttpError(
            405,
            "this path has another method",
            got=method,
            expected=allowed[0],
            hint=hint,
            headers=[("Allow", ", ".join(allowed))],
        )


def _verbs(path: str, verbs: tuple[str, ...]) -> str:
    return " or ".join(f"POST {path[:200]}:{verb}" for verb in verbs)


# ---- answers ---------------------------------------------------------------------------------------------------


def _told(answer: Answer) -> dict[str, Any]:
    return {"outputs": answer.outputs, "version": answer.version, "alias": answer.alias}


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [
        ("X-Umbel-Version", str(answer.version)),
        ("X-Umbel-Alias", answer.alias),
        ("X-Umbel-Digest", answer.digest),
    ]


def _one_of(request_id: str, found: Answer | HttpError) -> dict[str, Any]:
    """One prediction of a batch: what a single one says in headers, it says in fields."""
    if isinstance(found, HttpError):
        return {**found.content, "status": found.status, "request_id": request_id}
    return {**_told(found), "digest": found.digest, "group": found.group, "request_id": request_id}
