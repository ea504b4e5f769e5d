"""Which JSON schema do a model's inputs or outputs have, judged by an example?

Schemas are of JSON Schema 2020-12, with what an example can tell: types, the keys of objects, and of tables of numbers
how many stand in a row. ``x-shape`` notes the shape of the example itself and asks for nothing. It must not know what a
model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["infer_schema", "is_schema"]

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def is_schema(value: object) -> bool:
    """Whether a dict is meant as a JSON schema rather than as an example: it has "$schema", or a "type" of JSON's."""
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    return "$schema" in value or (isinstance(kind, str) and kind in _TYPES)


def infer_schema(example: Any) -> dict[str, Any]:
    """The schema of values like this one.

    Args:
        example: plain data (see `umbel.storage.registry.predicting.plain`).

    Returns:
        Whole numbers count as numbers. A list may have any length, but lists in a list that all have one length must
        have that one: they are rows of features. None allows anything.
    """
    schema = _schema(example, inner=False)
    shape = _shape(example)
    if len(shape) > 1:
        schema["x-shape"] = shape
    return schema


def _schema(example: Any, inner: bool) -> dict[str, Any]:
    if isinstance(example, bool):
        return {"type": "boolean"}
    if isinstance(example, (int, float)):
        return {"type": "number"}
    if isinstance(example, str):
        return {"type": "string"}
    if isinstance(example, Mapping):
        properties = {str(key): _schema(each, inner=False) for key, each in example.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    if isinstance(example, list):
        schema: dict[str, Any] = {"type": "array"}
        items = _common([_schema(each, inner=True) for each in example])
        if items:
            schema["items"] = items
        if inner and items.get("type") in ("number", "array"):
            schema |= {"minItems": len(example), "maxItems": len(example)}
        return schema
    return {}


def _common(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """What all items of a list have in common."""
    if not schemas:
        return {}
    first = schemas[0]
    if all(each == first for each in schemas):
        return first
    if len({each.get("type") for each in schemas}) > 1 or "type" not in first:
        return {}
    if first["type"] == "array":
        common = {"type": "array"}
        items = _common([each["items"] for each in schemas if each.get("items")])
        return {**common, "items": items} if items else common
    if first["type"] == "object":
        names = [name for name in first["properties"] if all(name in each["properties"] for each in schemas)]
        properties = {name: _common([each["properties"][name] for each in schemas]) for name in names}
        return {"type": "object", "properties": properties, "required": names}
    return {"type": first["type"]}


def _shape(example: Any) -> list[int]:
    if not isinstance(example, list):
        return []
    inner = [_shape(each) for each in example]
    same = bool(inner) and all(each == inner[0] for each in inner)
    return [len(example), *(inner[0] if same else [])]
