"""Errors of HTTP as gRPC's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from umbel.cluster.serving.grpc_errors import code_of, error_message, field_path, refuse
from umbel.cluster.serving.http import RETRY, HttpError


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (413, "RESOURCE_EXHAUSTED"),
        (422, "INVALID_ARGUMENT"),
        (500, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (503, "UNAVAILABLE"),
        (418, "UNKNOWN"),
    ],
)
def test_each_status_has_a_code(status: int, code: str) -> None:
    assert code_of(HttpError(status, "wrong")) is grpc.StatusCode[code]


def test_places_are_fields_of_messages() -> None:
    places: list[tuple[list[str | int], str]] = [
        (["body", "inputs", 2, "a"], "inputs_json[2].a"),
        (["body", "key"], "key"),
        (["body", "outcome"], "outcome_json"),
        (["body", "instances", 3, "inputs", "outcome"], "instances[3].inputs_json.outcome"),
        (["body", "instances", 3], "instances[3]"),
        (["body", "instances"], "instances"),
    ]
    for loc, field in places:
        assert field_path(loc) == field


def test_metadata_stay_within_what_clients_take() -> None:
    """8 KiB is what clients take by default, of all trailing metadata and the text."""
    sent: dict[str, Any] = {}
    context = SimpleNamespace(
        set_code=lambda code: sent.update(code=code),
        set_details=lambda text: sent.update(text=text),
        set_trailing_metadata=lambda metadata: sent.update(dict(metadata)),
    )
    long = "東" * 10_000
    detail = [{"loc": ["body", "inputs", n], "msg": "x" * 300, "type": "type"} for n in range(10)]
    failure = HttpError(503, "x" * 1000, got=long, expected="y" * 1000, hint="z" * 1000, headers=RETRY, detail=detail)
    refuse(context, failure, "r" * 200)
    percent_encoded = len(sent["text"].encode()) * 3
    base64 = len(sent["grpc-status-details-bin"]) * 4 / 3
    assert percent_encoded + base64 < 8192 - 500
    assert error_message(failure, "r").got == long


def test_what_utf8_cannot_say_is_told_all_the_same() -> None:
    detail = [{"loc": ["body", "inputs", "\ud800"], "msg": "no \ud800", "type": "type"}]
    failure = HttpError(422, "wrong", got="\ud800", detail=detail)
    assert error_message(failure, "r").fields[0].field == "inputs_json.?"
    refuse(Mock(), failure, "r")
