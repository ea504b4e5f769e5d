"""What did the data look like that a version of a model was trained on? In figures, one object a version.

It must not know what is compared with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from umbel.scheduler.errors import StoreConflictError, StoreCorruptError
from umbel.scheduler.statistics.distributions import Categories, Numbers
from umbel.storage import layout
from umbel.storage.documents import create_document, document_digest, read_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.records import check_version

__all__ = ["Description", "Descriptions", "create_profile", "read_profile"]

_FORMAT = 1

Description: TypeAlias = Numbers | Categories


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The fields of a model's inputs, and its outputs, described one by one."""

    rows: int
    inputs: Mapping[str, Description]
    #: None: they are not described.
    outputs: Description | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "format": _FORMAT,
            "rows": self.rows,
            "inputs": {name: _as_dict(each) for name, each in self.inputs.items()},
            "outputs": None if self.outputs is None else _as_dict(self.outputs),
        }


def create_profile(
    objects: ObjectStore, model: str, version: int, profile: Descriptions, *, sampled: bool = False
) -> None:
    """Keep the profile of a version. One that is there already, and says the same, is no error.

    Args:
        objects: the store.
        model: its name.
        version: its number.
        profile: the profile.
        sampled: it is what registering found, and gives way to one that somebody keeps later.

    Raises:
        StoreConflictError: there is another one.
    """
    path = layout.profile(model, version, sampled=sampled)
    try:
        create_document(objects, path, profile.as_dict())
    except StoreConflictError:
        there = read_document(objects, path)
        if there is None or document_digest(there) != document_digest(profile.as_dict()):  # NaN does not equal itself
            raise StoreConflictError(
                f"version {version} of {model!r} has a profile already, and another one",
                got=path,
                expected="one profile a version, which never changes",
                hint="register a new version, or compare with a table: umbel drift MODEL --against FILE",
            ) from None


def read_profile(objects: ObjectStore, model: str, version: int) -> Descriptions | None:
    """The profile of a version, as somebody has given it, else as registering found it; None: it has none.

    Raises:
        StoreCorruptError: it is damaged.
    """
    for sampled in (False, True):
        path = layout.profile(model, version, sampled=sampled)
        found = read_document(objects, path)
        if found is not None:
            break
    else:
        return None
    check_version(found.get("format"), f"the profile of version {version} of {model!r} in the store {objects.url}")
    try:
        outputs = found["outputs"]
        return Descriptions(
            int(found["rows"]),
            {str(name): _from_dict(each) for name, each in found["inputs"].items()},
            None if outputs is None else _from_dict(outputs),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorruptError(
            f"{path} in the store {objects.url} is no profile",
            got=f"{type(error).__name__}: {error}",
            expected="what umbel.profile makes",
            hint="restore it from a copy, or delete it",
        ) from error


def _as_dict(each: Description) -> dict[str, Any]:
    return {"kind": "numbers" if isinstance(each, Numbers) else "categories", **_lists(asdict(each))}


def _lists(fields: dict[str, Any]) -> dict[str, Any]:
    """As JSON reads it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _from_dict(fields: Mapping[str, Any]) -> Description:
    values = {name: value for name, value in fields.items() if name != "kind"}
    if fields["kind"] == "categories":
        return Categories(int(values["count"]), int(values["absent"]), {k: int(v) for k, v in values["counts"].items()})
    series = {name: tuple(map(float, values[name])) for name in ("deciles", "values", "at_most", "below")}
    if len({len(series[name]) for name in ("values", "at_most", "below")}) != 1 or not set(series["deciles"]) <= set(
        series["values"]
    ):
        raise ValueError("its figures do not belong together")
    return Numbers(
        int(values["count"]),
        int(values["absent"]),
        float(values["mean"]),
        float(values["minimum"]),
        float(values["maximum"]),
        series["deciles"],
        series["values"],
        series["at_most"],
        series["below"],
    )
