"""How is a served model's interface described to programs: OpenAPI 3.1, with the schemas that were registered?

It must not know how requests are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel.cluster.serving.aliases import Snapshot
from umbel.cluster.serving.settings import ServeSettings

__all__ = ["openapi"]

_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Names the request; made if there is none, and told in the answer.",
    "schema": {"type": "string", "maxLength": 200},
}
_KEY = {
    "name": "X-Umbel-Key",
    "in": "header",
    "description": "The caller. Requests with one key meet the same version for as long as the split stays.",
    "schema": {"type": "string", "maxLength": 500},
}
#: The same as a field; null says nothing.
_KEY_FIELD = {"type": ["string", "integer", "null"], "maxLength": 500}
_GROUP = {
    "name": "group",
    "in": "path",
    "required": True,
    "description": "The group's name, percent-encoded.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 500},
}
_ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["what"],
            "properties": {name: {"type": "string"} for name in ("what", "got", "expected", "hint")},
        },
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"loc": {"type": "array"}, "msg": {"type": "string"}, "type": {"type": "string"}},
            },
        },
        "request_id": {"type": "string"},
    },
}
_ERRORS = {
    "400": "The request is no JSON object, or a name is too long.",
    "401": "A bearer token is asked for.",
    "404": "There is no such group (near names are given), model or path.",
    "405": "The path has another method.",
    "413": "The request is too large.",
    "422": "A field is missing or not what the model takes; ``detail`` says which.",
    "500": "The model failed.",
    "503": "Too many requests, or the model can't be loaded now: try again after ``Retry-After`` seconds.",
}
_ANSWER_HEADERS = {
    name: {"schema": {"type": "string"}}
    for name in ("X-Request-ID", "X-Umbel-Version", "X-Umbel-Alias", "X-Umbel-Digest")
}


def openapi(settings: ServeSettings, snapshot: Snapshot) -> dict[str, Any]:
    """The description of what is served now."""
    served = snapshot.aliases.get(settings.alias)
    schemas = {} if served is None else served.version.version.schema or {}
    inputs, outputs = dict(schemas.get("inputs") or {}), dict(schemas.get("outputs") or {})
    root = f"/v1/models/{settings.model}"
    asks = [] if settings.token is None else ["401"]

    def get(name: str, summary: str, parameters: list[Mapping[str, Any]] | None = None) -> dict[str, Any]:
        missing = ["404", "503"] if parameters else ["404"]
        return _get(name, summary, parameters, errors=[*asks, *missing])

    answer = {
        "type": "object",
        "required": ["outputs", "version", "alias"],
        "properties": {
            "outputs": {"$ref": "#/components/schemas/Outputs"},
            "version": {"type": "integer"},
            "alias": {"type": "string"},
            "request_id": {"type": "string"},
        },
    }
    paths = {
        f"{root}/groups/{{group}}:predict": {
            "post": _post(
                "predict",
                "What the model of a group answers.",
                _fields({"inputs": {"$ref": "#/components/schemas/Inputs"}, "key": _KEY_FIELD}, "inputs"),
                {"200": _json("The answer.", {"$ref": "#/components/schemas/Answer"}, _ANSWER_HEADERS)},
                [_GROUP, _KEY, _REQUEST_ID],
            )
        },
        f"{root}:batchPredict": {
            "post": _post(
                "batchPredict",
                "What the models of many groups answer. Each instance succeeds or fails for itself.",
                _fields({"instances": {"type": "array", "items": _INSTANCE}, "key": _KEY_FIELD}, "instances"),
                {"200": _json("Answers or errors, in order.", _BATCH_ANSWER)},
                [_KEY, _REQUEST_ID],
            )
        },
        f"{root}/groups/{{group}}:outcome": {
            "post": _post("outcome", "What turned out to be true.", _OUTCOME, _ACCEPTED, [_GROUP, _REQUEST_ID])
        },
        f"{root}:outcome": {
            "post": _post("outcomeOfRequest", "What turned out to be true.", _OUTCOME, _ACCEPTED, [_REQUEST_ID])
        },
        root: {"get": get("model", "Versions, aliases, and what is being served.")},
        f"{root}/groups": {"get": get("groups", "The names of the groups.")},
        f"{root}/groups/{{group}}": {"get": get("lineage", "What a group's model was made from.", [_GROUP])},
        "/healthz": {"get": _get("healthz", "Whether the server runs.")},
        "/readyz": {"get": _get("readyz", "Whether it can predict, and what is wrong.", otherwise=_NOT_READY)},
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{settings.model}, served by Umbel",
            "version": "none" if served is None else str(served.record.version),
        },
        "paths": paths,
        "components": {"schemas": {"Inputs": inputs, "Outputs": outputs, "Answer": answer, "Error": _ERROR}},
    }
    if settings.token is not None:
        described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"bearer": []}]
    return described


def _post(
    name: str, summary: str, body: Mapping[str, Any], answers: Mapping[str, Any], parameters: list[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {**answers, **_errors(_ERRORS)},
    }


def _get(
    name: str,
    summary: str,
    parameters: list[Mapping[str, Any]] | None = None,
    *,
    errors: Iterable[str] = (),
    otherwise: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": _json(summary, {"type": "object"}), **_errors(errors), **(otherwise or {})},
    }


def _errors(statuses: Iterable[str]) -> dict[str, Any]:
    return {status: _json(_ERRORS[status], {"$ref": "#/components/schemas/Error"}) for status in statuses}


def _json(text: str, schema: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"description": text, "content": {"application/json": {"schema": schema}}}
    return {**described, "headers": headers} if headers else described


def _fields(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_INSTANCE = _fields(
    {"group": {"type": "string"}, "inputs": {"$ref": "#/components/schemas/Inputs"}, "key": _KEY_FIELD},
    "group",
    "inputs",
)
_ONE = {
    "allOf": [{"$ref": "#/components/schemas/Answer"}],
    "required": ["digest", "group", "request_id"],
    "properties": {"digest": {"type": "string"}, "group": {"type": "string"}},
}
_FAILED = {
    "allOf": [{"$ref": "#/components/schemas/Error"}],
    "required": ["status"],
    "properties": {"status": {"type": "integer"}},
}
_PREDICTIONS = {"type": "array", "items": {"anyOf": [_ONE, _FAILED]}}
_BATCH_ANSWER = _fields({"predictions": _PREDICTIONS, "request_id": {"type": "string"}}, "predictions", "request_id")
_OUTCOME = _fields(
    {
        "request_id": {"type": "string", "minLength": 1, "maxLength": 210},
        "outcome": {
            "type": ["number", "boolean", "string", "array"],
            "description": "A number, a label, or a list of numbers for an answer of several.",
        },
    },
    "request_id",
    "outcome",
)
_ACCEPTED = {"202": _json("It is recorded.", {"type": "object"})}
_NOT_READY = {"503": _json("It can not predict now, and why.", {"type": "object"})}
