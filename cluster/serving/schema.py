"""Do inputs look as they did when the model was registered? If not, where not?

Validation by JSON Schema (2020-12), as the registry recorded it. It must not know models or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        StoreCorruptError: it is no schema.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = schema
        self._validator: Any = None
        if schema is not None:
            from jsonschema import Draft202012Validator
            from jsonschema.exceptions import SchemaError

            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                raise StoreCorruptError("the schema of a model's inputs is none", got=error.message) from error
            self._validator = Draft202012Validator(schema)

    def mistakes(self, inputs: object) -> list[Mistake]:
        """What is wrong, the first ten places; [] if nothing is. Cost: about 6 µs a number."""
        if self._validator is None:
            return []
        found = []
        for error in self._validator.iter_errors(inputs):
            path = list(error.absolute_path)
            if error.validator == "required":  # it stands where the field should be
                path.append(_missing(error))
            found.append(Mistake(path, error.message[:300], str(error.validator)))
            if len(found) == _TOLD:
                break
        return found


def _missing(error: Any) -> str:
    """The field that a "required" error is about."""
    absent = [name for name in error.validator_value if name not in error.instance]
    return str(next((name for name in absent if error.message.startswith(repr(name))), absent[0]))
