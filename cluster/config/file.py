"""Reads ``[tool.umbel.cluster]`` of a pyproject.toml and single settings into a `ClusterConfig`, and writes one back.

What a table may hold follows from the classes of `umbel.cluster.config.cluster_config` alone: unknown keys are
refused with those that are near, and values of the wrong type with the key's full path. It must not know what the
settings mean.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from umbel.cluster.config.checks import unknown
from umbel.cluster.config.cluster_config import ClusterConfig, Group
from umbel.runtime.provenance.project import nearest
from umbel.scheduler.errors import UsageError

__all__ = ["SECTION", "from_table", "read_config", "to_table", "to_toml"]

#: Where the settings stand.
SECTION = "tool.umbel.cluster"
#: What of [tool.umbel] is read, by whomever.
_TABLES = ("cluster", "share")


def read_config(file: Path | None, settings: Sequence[str] = ()) -> ClusterConfig:
    """The configuration of a project.

    Args:
        file: a pyproject.toml, or another TOML file with the same section; None: the one of this folder or, failing
            that, of the nearest folder above. There need not be one.
        settings: ``KEY=VALUE``, which replace what the file says; keys are dotted, values are TOML's or plain text.

    Raises:
        UsageError: something is wrong in it, or the file is not there or no TOML.
    """
    folder = nearest(Path.cwd(), "pyproject.toml")
    found = file or (folder and folder / "pyproject.toml")
    table: dict[str, Any] = {}
    if found is not None:
        try:
            table = _parsed(found.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("the configuration can't be read", got=f"{found}: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError("the configuration is no TOML", got=f"{found}: {error}") from None
    for part in SECTION.split("."):
        if part == SECTION.rpartition(".")[2]:
            _check_near(table)
        table = table.get(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"[{SECTION}] is not a table", got=repr(table), expected="a table")
    for setting in settings:
        _set(table, setting)
    return from_table(table)


def from_table(table: Mapping[str, Any]) -> ClusterConfig:
    """The configuration that a parsed ``[tool.umbel.cluster]`` holds.

    Raises:
        UsageError: a key is unknown, a value has the wrong type, or can't work.
    """
    read = _read(ClusterConfig, table, SECTION)
    assert isinstance(read, ClusterConfig)
    return read


def to_table(config: ClusterConfig) -> dict[str, Any]:
    """What ``[tool.umbel.cluster]`` has to hold for this configuration; defaults are left out."""
    return _table(config)


def to_toml(config: ClusterConfig) -> str:
    """The section as text, to be put into a pyproject.toml."""
    return "\n".join(_toml_lines(SECTION, to_table(config))) + "\n"


def _check_near(tables: Mapping[str, Any]) -> None:
    """Refuse a table of Umbel's whose name is nearly one that is read: nobody would read it."""
    for name in tables:
        near = get_close_matches(name, _TABLES, n=1, cutoff=0.7)
        if name not in _TABLES and near:
            raise UsageError(
                "unknown table in pyproject.toml",
                got=f"[tool.umbel.{name}]",
                hint=f"did you mean [tool.umbel.{near[0]}]?",
            )


def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text, parse_float=_Number.read)


class _Number(float):
    """A number with a point, which keeps how it was written: 3.10 is not 3.1 where a text is wanted."""

    text: str

    @classmethod
    def read(cls, text: str) -> _Number:
        number = cls(text)
        number.text = text
        return number


def _as_text(value: object) -> object:
    """A number or truth value as it would stand in the environment; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return value.text
    return str(value) if isinstance(value, int | float | datetime.time) else value


def _set(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError("a setting needs a name and a value", got=setting, expected="KEY=VALUE, as groups.cpu.max=8")
    try:
        value = _parsed(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a word without quotes
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"{part!r} holds no settings", got=setting, expected="a table's name before each dot")
    table[parts[-1]] = value


def _read(cls: type[Any], table: object, where: str) -> object:
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is not a table", got=repr(table), expected=f"[{where}] with settings")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in table:
        if key not in fields or (cls is Group and key == "name"):
            unknown(f"setting in [{where}]", key, [name for name in fields if not (cls is Group and name == "name")])
    given = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    if cls is Group:
        given["name"] = where.rpartition(".")[2]
    missing = [
        name
        for name, field in fields.items()
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        key = where.removeprefix(SECTION).lstrip(".")
        raise UsageError(
            f"[{where}] lacks {', '.join(map(repr, missing))}",
            expected=", ".join(f"{name} = …" for name in missing),
            hint=f"in pyproject.toml, or {' '.join(f'--set {key}.{name}=…' for name in missing)}" if key else None,
        )
    return cls(**given)


def _value(hint: Any, value: object, where: str) -> object:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = [kind for kind in get_args(hint) if kind is not NoneType]
    if hint == tuple[Group, ...]:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} holds no groups", got=repr(value), expected=f"[{where}.NAME] for each group")
        return tuple(_read(Group, inner, f"{where}.{name}") for name, inner in value.items())
    if dataclasses.is_dataclass(hint):
        return _read(hint, value, where)  # type: ignore[arg-type]
    if hint == tuple[str, ...]:
        if isinstance(value, list):
            value = [_as_text(item) for item in value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{where} has the wrong type", got=repr(value), expected='a list of texts, as ["a", "b"]')
        return tuple(value)
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} has the wrong type", got=repr(value), expected='names and texts, as { a = "b" }')
        texts = {name: _as_text(item) for name, item in value.items()}
        for name, item in texts.items():
            if not isinstance(item, str):
                raise UsageError(f"{where}.{name} has the wrong type", got=repr(item), expected='a text, as "b"')
        return texts
    if hint is str and isinstance(value, datetime.time):
        return str(value)  # 04:00:00 without quotes
    if type(value) is not hint:
        named = {int: "a whole number", str: "a text", bool: "true or false"}[hint]
        if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
            amount = where.endswith((".memory", ".size"))
            unit = "" if not amount else "G" if where.endswith("slurm.memory") else "Gi"
            named += f'{" with a unit" if amount else ""}, as "{_as_text(value)}{unit}"'
        raise UsageError(f"{where} has the wrong type", got=repr(value), expected=named)
    return value


def _table(config: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value == default or value is None or (isinstance(config, Group) and field.name == "name"):
            continue
        if field.name == "groups":
            table[field.name] = {group.name: _table(group) for group in value}
        elif dataclasses.is_dataclass(value):
            table[field.name] = _table(value)
        elif isinstance(value, tuple):
            table[field.name] = list(value)
        else:
            table[field.name] = dict(value) if isinstance(value, Mapping) else value
    return table


def _toml_lines(where: str, table: Mapping[str, Any]) -> list[str]:
    own = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"[{where}]", *(f"{_key(key)} = {_scalar(value)}" for key, value in own.items())]
    if table and not own:
        lines = []  # a table of tables needs no heading
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [*([""] if lines else []), *_toml_lines(f"{where}.{_key(key)}", value)]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _scalar(value: object) -> str:
    # TOML's basic strings, booleans, numbers and lists of strings read as JSON's do, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
