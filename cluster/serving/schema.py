"""Do inputs look as they did when the model was registered? If not, where not?

Validation by JSON Schema (2020-12), as the registry recorded it. A schema is what somebody has put into the store: what
it refers to must be in itself, and is never fetched. It must not know models or HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from umbel.scheduler.errors import StoreCorruptError

__all__ = ["InputSchema", "Mistake"]

#: How many mistakes are told; of a long list of wrong numbers nobody reads all.
_TOLD = 10


class Mistake:
    """One place where inputs are not what the schema says, as FastAPI's clients know it.

    Args:
        path: keys and positions, from the inputs down.
        message: what is wrong there.
        kind: the keyword of the schema that it breaks.
    """

    def __init__(self, path: list[str | int], message: str, kind: str) -> None:
        self.path = path
        self.message = message
        self.kind = kind

    def as_dict(self) -> dict[str, Any]:
        """``{"loc": ["body", "inputs", …], "msg": …, "type": …}``."""
        return {"loc": ["body", "inputs", *self.path], "msg": self.message, "type": self.kind}


class InputSchema:
    """What inputs must be.

    Args:
        schema: JSON schema; None: anything.

    Raises:
        StoreCorruptError: it is no schema, refers to what it does not hold, or to itself without end.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = schema
        self._validator: Any = None
        if schema is not None:
            self._validator = _validator(schema)

    def mistakes(self, inputs: object) -> list[Mistake]:
        """What is wrong, the first ten places; [] if nothing is. Cost: about 6 µs a number."""
        if self._validator is None:
            return []
        try:
            return [_mistake(error) for error in islice(self._validator.iter_errors(inputs), _TOLD)]
        except RecursionError:
            return [Mistake([], "it is nested too deeply", "depth")]


def _mistake(error: Any) -> Mistake:
    path = list(error.absolute_path)
    if error.validator == "required":  # it stands where the field should be
        path.append(_missing(error))
    return Mistake(path, error.message[:300], str(error.validator))


def _missing(error: Any) -> str:
    """The field that a "required" error is about."""
    absent = [name for name in error.validator_value if name not in error.instance]
    return str(next((name for name in absent if error.message.startswith(repr(name))), absent[0]))


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable

    # Without a registry, what a schema refers to would be fetched, from files and from the network.
    validator = Draft202012Validator(schema, registry=REGISTRY)
    try:
        Draft202012Validator.check_schema(schema)
        _check_references(schema)
        probes: tuple[object, ...] = (None, 0, "", [], {})
        for probe in probes:
            next(validator.iter_errors(probe), None)
    except SchemaError as error:
        raise StoreCorruptError("the schema of a model's inputs is none", got=error.message) from error
    except re.error as error:
        raise StoreCorruptError(
            "the schema of a model's inputs has a pattern that is none", got=f"{error.pattern!r}: {error}"
        ) from error
    except Unresolvable as error:
        raise StoreCorruptError(
            "the schema of a model's inputs refers to what it does not hold",
            got=str(error.ref),
            expected="references into the schema itself, as #/$defs/row",
        ) from error
    except RecursionError as error:
        raise StoreCorruptError("the schema of a model's inputs refers to itself without end") from error
    return validator


def _check_references(schema: Mapping[str, Any]) -> None:
    """Follow all references, and compile all patterns: what is broken is found now, not by some request."""
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import DRAFT202012

    root = DRAFT202012.create_resource(schema)
    waiting: list[tuple[Any, Any]] = [(root.contents, REGISTRY.resolver_with_root(root))]
    seen: set[int] = set()
    while waiting:
        contents, resolver = waiting.pop()
        if not isinstance(contents, Mapping) or id(contents) in seen:
            continue
        seen.add(id(contents))
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(contents.get(keyword), str):
                found = resolver.lookup(contents[keyword])
                waiting.append((found.contents, found.resolver))
        for pattern in (contents.get("pattern"), *(contents.get("patternProperties") or {})):
            if isinstance(pattern, str):
                re.compile(pattern)
        for inner in DRAFT202012.create_resource(contents).subresources():
            waiting.append((inner.contents, resolver.in_subresource(inner)))
