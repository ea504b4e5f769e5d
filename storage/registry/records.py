"""What do the records of registered models say: of a version, and of where an alias points?

They are read by other versions and other machines, and may have been written by anyone; so types are checked here,
once, and all that comes after may rely on them. It must not know what a model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from umbel.scheduler.errors import StoreCorruptError, UsageError
from umbel.storage import layout
from umbel.storage.documents import read_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.process import current_user, this_process
from umbel.storage.runs.records import check_version

__all__ = ["AliasRecord", "VersionRecord", "check_alias", "check_model", "now_text", "read_alias", "read_version"]

_FORMAT = 1
_DIGEST_LENGTH = 64
_HEX = frozenset("0123456789abcdef")


def now_text() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What a version of a registered model is."""

    model: str
    number: int
    #: Digest of the artifact, a Parquet file, with a row a group.
    rows: str
    #: How many groups.
    groups: int
    #: The group keys, and the columns that hold them.
    by: tuple[str, ...] = ()
    by_columns: tuple[str, ...] = ()
    #: The metric that the winners were chosen by, and "min" or "max"; None: there was no sweep.
    metric: str | None = None
    mode: str | None = None
    #: JSON schemas of what goes in and what comes out; None: not known.
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    #: What the model is given: "json" (plain lists, numbers and objects), "ndarray", "table" or "frame".
    takes: str = "json"
    #: Digest of the artifact, JSON, with example inputs; None: there are none.
    smoke: str | None = None
    #: The run, and the node whose elements are the models, or the sweep.
    run: str | None = None
    node: str | None = None
    #: Of a version that was put together of others: their numbers.
    composed_of: tuple[int, ...] = ()
    why: str = ""
    created: str = field(default_factory=now_text)
    user: str = field(default_factory=current_user)
    host: str = field(default_factory=lambda: this_process().host)
    #: Random: no other writer makes this very record.
    token: str = field(default_factory=lambda: uuid4().hex)

    def as_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {"format": _FORMAT, **_plain(asdict(self))}


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """Where an alias points, since when, and why."""

    model: str
    alias: str
    #: Of this record; the highest number is the truth.
    number: int
    #: The version that it points to.
    version: int
    #: The one that it pointed to before; None: it is the first.
    previous: int | None = None
    #: "promote", "rollback" or "set".
    action: str = "set"
    why: str = ""
    #: The gates that were passed, and the digest of the artifact, a Parquet file, with a row a gate and group.
    gates: tuple[str, ...] = ()
    evidence: str | None = None
    #: When (ISO 8601, UTC), who, where.
    created: str = field(default_factory=now_text)
    user: str = field(default_factory=current_user)
    host: str = field(default_factory=lambda: this_process().host)
    token: str = field(default_factory=lambda: uuid4().hex)

    def as_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {"format": _FORMAT, **_plain(asdict(self))}


def check_model(name: str) -> None:
    """Refuse a name that a registered model can't have.

    Raises:
        UsageError: it could not stand in a path everywhere.
    """
    layout.check_name("model", name)


def check_alias(alias: str) -> None:
    """Refuse a name that an alias can't have.

    Raises:
        UsageError: it could not stand in a path everywhere, or means something else.
    """
    layout.check_name("model alias", alias)
    if alias == "latest" or alias.isdecimal():
        raise UsageError(
            "this can't be the name of an alias",
            got=repr(alias),
            expected='another word than "latest", and no number: these name versions',
            hint="call it 'champion' or 'challenger', say",
        )


def read_version(objects: ObjectStore, model: str, number: int) -> VersionRecord | None:
    """A version's record; None: there is no such version.

    Raises:
        StoreCorruptError: it is not what such a record is.
        StoreError: a newer Umbel wrote it.
    """
    path = layout.version_record(model, number)
    found = read_document(objects, path)
    if found is None:
        return None
    fields = _Fields(objects, path, found)
    check_version(fields.count("format"), f"version {number} of {model!r} in the store {objects.url}")
    fields.same("model", model)
    fields.same("number", number)
    mode = fields.text_or_none("mode")
    takes = fields.text("takes", "json")
    if mode not in (None, "min", "max") or takes not in ("json", "ndarray", "table", "frame"):
        raise fields.corrupt("mode or takes", (mode, takes))
    by, columns = fields.texts("by"), fields.texts("by_columns")
    if len(by) != len(columns):
        raise fields.corrupt("by_columns", columns)
    return VersionRecord(
        model=model,
        number=number,
        rows=fields.digest("rows"),
        groups=fields.count("groups"),
        by=by,
        by_columns=columns,
        metric=fields.text_or_none("metric"),
        mode=mode,
        inputs=fields.object_or_none("inputs"),
        outputs=fields.object_or_none("outputs"),
        takes=takes,
        smoke=fields.digest_or_none("smoke"),
        run=fields.text_or_none("run"),
        node=fields.text_or_none("node"),
        composed_of=fields.counts("composed_of"),
        why=fields.text("why", ""),
        created=fields.text("created", ""),
        user=fields.text("user", ""),
        host=fields.text("host", ""),
        token=fields.text("token", ""),
    )


def read_alias(objects: ObjectStore, model: str, alias: str, number: int) -> AliasRecord | None:
    """A record of where an alias points; None: there is no such record.

    Raises:
        StoreCorruptError: it is not what such a record is.
        StoreError: a newer Umbel wrote it.
    """
    path = layout.alias_record(model, alias, number)
    found = read_document(objects, path)
    if found is None:
        return None
    fields = _Fields(objects, path, found)
    check_version(fields.count("format"), f"the alias {alias!r} of {model!r} in the store {objects.url}")
    fields.same("model", model)
    fields.same("alias", alias)
    fields.same("number", number)
    return AliasRecord(
        model=model,
        alias=alias,
        number=number,
        version=fields.count("version"),
        previous=None if found.get("previous") is None else fields.count("previous"),
        action=fields.text("action", "set"),
        why=fields.text("why", ""),
        gates=fields.texts("gates"),
        evidence=fields.digest_or_none("evidence"),
        created=fields.text("created", ""),
        user=fields.text("user", ""),
        host=fields.text("host", ""),
        token=fields.text("token", ""),
    )


class _Fields:
    """The fields of a JSON object, each as what it must be."""

    def __init__(self, objects: ObjectStore, path: str, found: Mapping[str, Any]) -> None:
        self._objects = objects
        self._path = path
        self._found = found

    def corrupt(self, name: str, got: object) -> StoreCorruptError:
        return StoreCorruptError(
            f"{self._path} in the store {self._objects.url} can't be read",
            got=f"{name}: {got!r}"[:300],
            expected="what Umbel writes there",
            hint=f"restore this one file from a copy: {self._path}",
        )

    def same(self, name: str, expected: object) -> None:
        if self._found.get(name) != expected:
            raise self.corrupt(name, self._found.get(name))

    def text(self, name: str, default: str) -> str:
        value = self._found.get(name, default)
        if not isinstance(value, str):
            raise self.corrupt(name, value)
        return value

    def text_or_none(self, name: str) -> str | None:
        return None if self._found.get(name) is None else self.text(name, "")

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._found.get(name) or []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.corrupt(name, value)
        return tuple(value)

    def count(self, name: str) -> int:
        value = self._found.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.corrupt(name, value)
        return value

    def counts(self, name: str) -> tuple[int, ...]:
        value = self._found.get(name) or []
        if not isinstance(value, list) or not all(type(each) is int and each >= 1 for each in value):
            raise self.corrupt(name, value)
        return tuple(value)

    def digest(self, name: str) -> str:
        value = self._found.get(name)
        if not isinstance(value, str) or len(value) != _DIGEST_LENGTH or not set(value) <= _HEX:
            raise self.corrupt(name, value)
        return value

    def digest_or_none(self, name: str) -> str | None:
        return None if self._found.get(name) is None else self.digest(name)

    def object_or_none(self, name: str) -> dict[str, Any] | None:
        value = self._found.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.corrupt(name, value)
        return value


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
