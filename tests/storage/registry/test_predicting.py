"""How models are asked, and what is said as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.storage.registered import Scale
from umbel.scheduler.errors import UsageError
from umbel.storage.registry.io_schema import check_schema, infer_schema, is_schema, schema_mistake
from umbel.storage.registry.predicting import as_taken, is_model, plain, predict, predict_many, taken_as, takes_batches


class Batched:
    def __init__(self, lose: int = 0) -> None:
        self.lose = lose
        self.calls = 0

    def predict(self, inputs: Any) -> Any:
        return [inputs]

    def predict_batch(self, many: list[Any]) -> list[Any]:
        self.calls += 1
        return [[inputs] for inputs in many][self.lose :]


def test_predict_or_call() -> None:
    assert predict(Scale(2.0), [1.0]) == [2.0]
    assert predict(sum, [1.0, 2.0]) == 3.0
    assert is_model(sum)
    assert is_model(Scale(1.0))
    assert not is_model(3)
    with pytest.raises(UsageError, match="no model"):
        predict({"weights": 1}, [1.0])


def test_many_at_once_where_the_model_can() -> None:
    assert predict_many(Scale(2.0), [[1.0], [2.0]]) == [[2.0], [4.0]]
    model = Batched()
    assert takes_batches(model)
    assert predict_many(model, [1, 2, 3]) == [[1], [2], [3]]
    assert model.calls == 1
    with pytest.raises(UsageError, match="2 outputs for 3 inputs"):
        predict_many(Batched(lose=1), [1, 2, 3])


def test_torch_modules_get_tensors() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1)
    answer: Any = predict(model, [[1.0, 2.0]])
    assert not answer.requires_grad
    assert plain(answer) == model(torch.tensor([[1.0, 2.0]])).tolist()
    assert plain(predict(model.double(), [[1, 2.5]]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([[1.5, np.nan]]), [[1.5, None]]),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        ({"a": np.arange(2), 3: (1, "x", None)}, {"a": [0, 1], "3": [1, "x", None]}),
        (pa.table({"x": [1, None]}), {"x": [1, None]}),
        (pa.array([1, 2]), [1, 2]),
        (float("inf"), None),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_plain(value: object, said: object) -> None:
    assert plain(value) == said


def test_pandas_too() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    assert plain(frame) == {"x": [1.0, 2.0]}
    assert plain(frame["x"]) == [1.0, 2.0]
    assert taken_as(frame) == "frame"
    assert as_taken({"x": [1.0, 2.0]}, "frame").equals(frame)


def test_what_can_not_be_said() -> None:
    with pytest.raises(UsageError, match="JSON"):
        plain(object())


def test_what_models_take() -> None:
    assert taken_as([1.0]) == "json"
    assert taken_as(np.zeros(2)) == "ndarray"
    assert taken_as(pa.table({"x": [1]})) == "table"
    assert as_taken([[1.0]], "ndarray").shape == (1, 1)
    assert as_taken({"x": [1]}, "table") == pa.table({"x": [1]})
    assert as_taken(pa.table({"x": [1]}), "table") == pa.table({"x": [1]})
    assert as_taken([1.0], "json") == [1.0]


# ---- schemas ---------------------------------------------------------------------------------------------------

NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    ("example", "schema"),
    [
        (3, NUMBER),
        (True, {"type": "boolean"}),
        ("x", {"type": "string"}),
        (None, {}),
        ([], {"type": "array"}),
        ([1, 2.5], {"type": "array", "items": NUMBER}),
        ([1, None], {"type": "array"}),
        (
            [[1.0, 2.0]],
            {
                "type": "array",
                "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
                "x-shape": [1, 2],
            },
        ),
        ([[1.0], [1.0, 2.0]], {"type": "array", "items": {"type": "array", "items": NUMBER}}),
        ([["a", "b"]], {"type": "array", "items": {"type": "array", "items": {"type": "string"}}, "x-shape": [1, 2]}),
        (
            {"history": [1.0], "horizon": 3},
            {
                "type": "object",
                "properties": {"history": {"type": "array", "items": NUMBER}, "horizon": NUMBER},
                "required": ["history", "horizon"],
            },
        ),
        (
            [{"a": 1}, {"a": 2, "b": 3}],
            {"type": "array", "items": {"type": "object", "properties": {"a": NUMBER}, "required": ["a"]}},
        ),
    ],
)
def test_schemas_of_examples(example: object, schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert infer_schema(example) == schema
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example, schema)


def test_what_is_a_schema() -> None:
    assert is_schema({"type": "array"})
    assert is_schema({"$schema": "https://json-schema.org/draft/2020-12/schema"})
    assert not is_schema({"type": "house", "rooms": 3})
    assert not is_schema([1.0])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": 5}, r"\['items'\]: 5 is not of type"),
        ({"type": "objekt"}, "objekt"),
        ({"type": "string", "pattern": "["}, "is not a 'regex'"),
        ({"type": "object", "properties": {"x": {"$ref": "https://example.org/x.json"}}}, "outside of the schema"),
        ({"type": "object", "properties": {"default": {"$ref": "file:///x.json"}}}, "outside of the schema"),
        ({"type": "array", "items": {"$ref": "other.json#/x"}}, "outside of the schema"),
        ({"type": "array", "items": {"$ref": "#/$defs/row"}}, "is not there"),
        ({"$ref": "#"}, "to themselves"),
        (
            {"type": "object", "allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}},
            "to themselves",
        ),
        (True, "True"),
        ([1], r"\[1\]"),
        ({"type": "array", "x": {1, 2}}, "not JSON serializable"),
        ({"type": "number", "maximum": float("nan")}, "not JSON compliant"),
    ],
)
def test_what_is_no_schema(schema: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_schema(schema, "inputs")


def test_schemas_that_refer_to_themselves() -> None:
    schema = {
        "type": "array",
        "items": {"$ref": "#/$defs/row"},
        "$defs": {"row": {"type": "object", "properties": {"x": {"type": "number"}, "inner": {"$ref": "#/$defs/row"}}}},
        "examples": [{"$ref": "https://example.org/of-data.json"}],
    }
    assert check_schema(schema, "inputs") == schema
    assert schema_mistake(schema, [{"x": 1.0, "inner": {"x": 2.0}}]) is None
    assert schema_mistake(schema, [{"x": 1.0, "inner": {"x": "2"}}]) == "[0]['inner']['x']: '2' is not of type 'number'"
