"""Checks manifests against the schemas of KubeRay's resources as strictly as an API server would with strict fields.

The schemas are KubeRay's CRDs, files ``ray.io_ray*.yaml`` of its repository, in the folder that UMBEL_KUBERAY_SCHEMAS
names, or else in ``../shared/kuberay`` beside the repository. They are not part of this project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

__all__ = ["problems", "require_schemas"]

_FOLDER = Path(os.environ.get("UMBEL_KUBERAY_SCHEMAS") or Path(__file__).resolve().parents[3] / "shared" / "kuberay")
#: What an API server knows of every resource, and CRDs leave out.
_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 63, "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def require_schemas() -> None:
    """Skip the test if the schemas are not there."""
    if not (_FOLDER / "ray.io_rayclusters.yaml").is_file():
        pytest.skip("KubeRay's schemas are not there (UMBEL_KUBERAY_SCHEMAS: a folder with its ray.io_ray*.yaml)")


def problems(document: Mapping[str, Any]) -> list[str]:
    """What the schema of its kind has against a resource, which is not changed; unknown fields are problems."""
    import jsonschema

    schema = _schema(document["kind"], document["apiVersion"].partition("/")[2])
    found = jsonschema.Draft202012Validator(schema).iter_errors(_defaulted(schema, document))
    duplicates = _duplicates(schema, document, document["kind"])
    return [f"{error.json_path}: {error.message}" for error in found] + list(duplicates)


@cache
def _schema(kind: str, version: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load((_FOLDER / f"ray.io_{kind.lower()}s.yaml").read_text(), loader)
    (found,) = [each for each in definition["spec"]["versions"] if each["name"] == version]
    schema: dict[str, Any] = _strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = _METADATA
    return schema


def _strict(schema: Any) -> Any:
    """The schema in JSON Schema's terms, with unknown fields forbidden."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":  # names, not keywords
            found[key] = {name: _strict(inner) for name, inner in value.items()}
        else:
            found[key] = _strict(value) if key not in ("default", "enum") else value
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if found.pop("nullable", False) and "type" in found:
        found["type"] = [found["type"], "null"]
    return found


def _defaulted(schema: Any, value: Any) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        given = {
            key: _defaulted(properties.get(key, schema.get("additionalProperties")), inner)
            for key, inner in value.items()
        }
        missing = {
            key: inner["default"] for key, inner in properties.items() if "default" in inner and key not in value
        }
        return {**given, **missing}
    if isinstance(value, list):
        return [_defaulted(schema.get("items"), each) for each in value]
    return value


def _duplicates(schema: Any, value: Any, where: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _duplicates(schema.get("properties", {}).get(key), inner, f"{where}.{key}")
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        named = [tuple(each.get(key) for key in keys) for each in value] if keys else []
        yield from (f"{where}: {name} is there twice" for name in {each for each in named if named.count(each) > 1})
        for place, each in enumerate(value):
            yield from _duplicates(schema.get("items"), each, f"{where}[{place}]")
