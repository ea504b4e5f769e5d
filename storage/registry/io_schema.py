"""Which JSON schema do a model's inputs or outputs have, judged by an example; and is a given one a schema at all?

Schemas are of JSON Schema 2020-12, with what an example can tell: types, the keys of objects, and of tables of numbers
how many stand in a row. ``x-shape`` notes the shape of the example itself and asks for nothing. A schema that a user
gives is checked here, once, by the validator that servers use, so that none is registered that they would refuse. It
must not know what a model is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from umbel.scheduler.errors import UsageError

__all__ = ["check_schema", "infer_schema", "is_schema", "schema_mistake"]

#: Keywords whose values are data, and no schemas; and those whose keys are names of the user's, and no keywords.
_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def is_schema(value: object) -> bool:
    """Whether a dict is meant as a JSON schema rather than as an example: it has "$schema", or a "type" of JSON's."""
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    return "$schema" in value or (isinstance(kind, str) and kind in _TYPES)


def check_schema(schema: object, what: str) -> dict[str, Any]:
    """A JSON schema as JSON reads it back, if it is one that can be held against inputs without anything else.

    Args:
        schema: what a user gives.
        what: for messages: "inputs" or "outputs".

    Raises:
        UsageError: it is no schema, or refers to something outside of it, or to nothing.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        found = json.loads(json.dumps(schema, allow_nan=False))
        Draft202012Validator.check_schema(found, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except (TypeError, ValueError, RecursionError) as error:
        raise _no_schema(what, str(error)) from error
    except SchemaError as error:
        where = "".join(f"[{each!r}]" for each in error.absolute_path)
        raise _no_schema(what, f"{where}: {error.message}"[:300] if where else error.message[:300]) from error
    if not isinstance(found, dict):
        raise _no_schema(what, repr(found)[:300])
    inside = Registry().with_resource("", DRAFT202012.create_resource(found)).resolver()
    for reference in _references(found):
        try:
            if not reference.startswith("#"):  # a server would have to fetch it
                raise _no_schema(what, f"a reference to {reference!r}, which lies outside of the schema")
            inside.lookup(reference)
        except Unresolvable as error:
            raise _no_schema(what, f"a reference to {reference!r}, which is not there") from error
    probes: tuple[Any, ...] = (None, 0, "", [], {})
    try:
        for probe in probes:
            schema_mistake(found, probe)
    except RecursionError as error:
        raise _no_schema(what, "references that lead nowhere but to themselves") from error
    return found


def schema_mistake(schema: Mapping[str, Any], value: object) -> str | None:
    """Where and how a value first differs from a schema that `check_schema` has passed; None: nowhere."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        where = "".join(f"[{each!r}]" for each in error.absolute_path)
        return f"{where}: {error.message}"[:300] if where else str(error.message)[:300]
    return None


def _no_schema(what: str, got: str) -> UsageError:
    return UsageError(
        f"the schema of {what} is none that can be checked",
        got=got,
        expected="a JSON schema (2020-12) whose references, if any, lie in it: '#/$defs/…'",
        hint=f"mend it; or give an example of {what}, from which the schema is inferred",
    )


def _references(schema: Any) -> Iterator[str]:
    """All references in a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        for key, each in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(each, str):
                yield each
            elif key in _NAMES and isinstance(each, dict):
                yield from _references(list(each.values()))
            elif key not in _DATA:
                yield from _references(each)


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
