"""Where inputs are not what was registered."""

from __future__ import annotations

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


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(StoreCorruptError):
        InputSchema({"type": "nonsense"})
