"""Where inputs are not what was registered."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from umbel.cluster.serving.schema import InputSchema
from umbel.scheduler.errors import StoreCorruptError

ROWS = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 2}}},
    "required": ["rows", "year"],
}


@pytest.mark.parametrize(
    ("inputs", "places"),
    [
        ({"rows": [[1, 2]], "year": 3}, []),
        ({"rows": [[1, 2], [1]], "year": 3}, [["body", "inputs", "rows", 1]]),
        ({"rows": [[1, "x"]], "year": 3}, [["body", "inputs", "rows", 0, 1]]),
        ({"rows": []}, [["body", "inputs", "year"]]),
        ({}, [["body", "inputs", "rows"], ["body", "inputs", "year"]]),
        ([], [["body", "inputs"]]),
    ],
)
def test_mistakes_say_where(inputs: Any, places: list[Any]) -> None:
    assert [mistake.as_dict()["loc"] for mistake in InputSchema(ROWS).mistakes(inputs)] == places


def test_of_many_mistakes_ten_are_told() -> None:
    assert len(InputSchema({"items": {"type": "number"}}).mistakes(["x"] * 1000)) == 10


def test_without_a_schema_anything_goes() -> None:
    assert InputSchema(None).mistakes(object()) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/$defs/none"},
        {"properties": {"a": {"items": {"$ref": "#none"}}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$dynamicRef": "#none"}]}}},
        {"properties": {"a": {"$ref": "#/somewhere"}}, "somewhere": {"items": {"$ref": "other.json"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"patternProperties": {"(": True}},
        {"$ref": "#"},
        {"type": "array", "allOf": [{"$ref": "#"}]},
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(StoreCorruptError):
        InputSchema(schema)


def test_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as listens:
        listens.settimeout(0.05)
        for url in (f"http://127.0.0.1:{listens.getsockname()[1]}/other.json", (tmp_path / "other.json").as_uri()):
            with pytest.raises(StoreCorruptError, match="does not hold"):
                InputSchema({"properties": {"a": {"$ref": url}}})
        with pytest.raises(TimeoutError):
            listens.accept()


def test_references_into_the_schema_are_followed() -> None:
    tree = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    schema = InputSchema({"$ref": "#/$defs/tree", "$defs": {"tree": tree}})
    assert schema.mistakes([[], [[]]]) == []
    assert schema.mistakes([[], [1]])[0].path == [1, 0]
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert schema.mistakes(deep)[0].kind == "depth"
