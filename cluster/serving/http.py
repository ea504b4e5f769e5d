"""How are HTTP requests read and answered: bodies with a limit, JSON, errors with a status?

It speaks ASGI directly, for the sake of latency. Errors and JSON are those of gRPC, too. It must not know what is
served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umbel.scheduler.errors import UmbelError

__all__ = [
    "RETRY",
    "HttpError",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "error_reply",
    "header_text",
    "json_value",
    "parse_json",
    "read_body",
    "send_reply",
]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

#: Seconds after which to try again.
RETRY = (("Retry-After", "1"),)
_EXPECTED = 'a JSON object, {"inputs": …}'
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    content: Any
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)


class HttpError(Exception):
    """Ends a request with a status.

    Args:
        status: of HTTP.
        what: what went wrong.
        got: what was given.
        expected: what was expected instead.
        hint: what to do next.
        headers: of the reply.
        detail: places in the body that are wrong, as FastAPI tells them.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        detail: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(what)
        self.status = status
        self.headers = headers
        self.detail = list(detail)
        said = {"what": what, "got": got, "expected": expected, "hint": hint}
        self.content: dict[str, Any] = {"error": {name: text for name, text in said.items() if text is not None}}
        if detail:
            self.content["detail"] = self.detail

    @staticmethod
    def of(
        status: int,
        error: UmbelError,
        headers: Sequence[tuple[str, str]] = (),
        detail: Sequence[Mapping[str, Any]] = (),
    ) -> HttpError:
        """One of Umbel's errors, with a status."""
        return HttpError(
            status,
            error.what,
            got=error.got,
            expected=error.expected,
            hint=error.hint,
            headers=headers,
            detail=detail,
        )


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The body of a request.

    Raises:
        HttpError: 413, it is longer than the limit, as it says or as it turns out; 400, the caller is gone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value[:19]) > limit_bytes):
            raise _too_large(value.decode("latin-1")[:20], limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "the caller went away before its request ended")
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise _too_large(f"{size} or more", limit_bytes)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def header_text(value: bytes) -> str:
    """The text of a header. UTF-8, as JSON is, so that a key is the same in both; old clients send latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _too_large(got: str, limit_bytes: int) -> HttpError:
    return HttpError(
        413, "the request is too large", got=f"{got} bytes", expected=f"at most {limit_bytes} bytes", hint="send less"
    )


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        HttpError: 400, it is none. NaN and Infinity are no JSON.
    """
    found = json_value(body)
    if not isinstance(found, dict):
        raise HttpError(400, "the request is no JSON object", got=type(found).__name__, expected=_EXPECTED)
    return found


def json_value(text: bytes | str, place: Sequence[str | int] = ()) -> Any:
    """What a JSON text says.

    Args:
        text: the text.
        place: where it stands in the request; (): it is all of it.

    Raises:
        HttpError: 400, it is no JSON. NaN and Infinity are none.
    """
    what = ".".join(map(str, place)) or "the request"
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        wrong, got = f"{what} is nested too deeply", None
    except ValueError as error:  # what is not UTF-8, too
        wrong, got = f"{what} is no JSON", str(error)[:200]
    detail = [{"loc": ["body", *place], "msg": got or wrong, "type": "json"}] if place else ()
    raise HttpError(400, wrong, got=got, expected="JSON" if place else _EXPECTED, detail=detail)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond what a number can be")
    return value


async def send_reply(send: Send, reply: Reply) -> None:
    """Answer a request."""
    body = json.dumps(reply.content, separators=(",", ":"), allow_nan=False).encode()
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode("utf-8", "replace")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_reply(error: HttpError, request_id: str) -> Reply:
    """The reply that ends a request with an error."""
    return Reply(error.status, {**error.content, "request_id": request_id}, error.headers)
