"""Writes plain data as YAML with comments, and with every text quoted that any parser might take for something else.

A value wrapped in `Noted` gets its comment above its key. PyYAML reads the text back to the same data, without the
comments; it can't write any, which is why this is here.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Noted", "plain", "to_yaml"]

#: Characters of a line of comment.
_WIDTH = 110
#: Texts that need no quotes: no parser takes them for a number, a date, a boolean or a null.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")
#: Words that some version of YAML takes for a boolean, a null or a number.
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "_"])


@dataclass(frozen=True, slots=True)
class Noted:
    """A value, and why it is there."""

    value: Any
    why: str


def to_yaml(documents: Iterable[Mapping[str, Any]], *, note: str = "") -> str:
    """One text for several documents.

    Args:
        documents: of dicts, lists, texts, numbers, booleans, and these in `Noted`.
        note: a comment at the top.
    """
    texts = ["\n".join(_mapping(document, 0)) + "\n" for document in documents]
    return "\n".join([*_comment(note, 0), ""] if note else []) + "---\n".join(texts)


def plain(value: Any) -> Any:
    """The data without comments."""
    if isinstance(value, Noted):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _mapping(mapping: Mapping[str, Any], depth: int) -> list[str]:
    lines: list[str] = []
    for key, given in mapping.items():
        value, why = (given.value, given.why) if isinstance(given, Noted) else (given, "")
        lines += _comment(why, depth)
        lines += _entry(f"{' ' * depth}{_text(key)}:", value, depth)
    return lines


def _entry(start: str, value: Any, depth: int) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [start, *_mapping(value, depth + 2)]
    if isinstance(value, list | tuple) and value:
        return [start, *_sequence(value, depth + 2)]
    if isinstance(value, str) and "\n" in value and _blockable(value):
        return [f"{start} |", *(" " * (depth + 2) + line if line else "" for line in value[:-1].split("\n"))]
    return [f"{start} {_scalar(value)}"]


def _sequence(items: list[Any] | tuple[Any, ...], depth: int) -> list[str]:
    lines: list[str] = []
    for given in items:
        value, why = (given.value, given.why) if isinstance(given, Noted) else (given, "")
        lines += _comment(why, depth)
        if isinstance(value, Mapping) and value:
            inner = _mapping(value, depth + 2)
            first = next(place for place, line in enumerate(inner) if not line.lstrip().startswith("#"))
            inner[first] = f"{' ' * depth}- {inner[first].lstrip()}"
            lines += inner
        else:
            lines.append(f"{' ' * depth}- {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(key)}: {_scalar(plain(inner))}' for key, inner in value.items())}}}"
    return f"[{', '.join(_scalar(plain(inner)) for inner in value)}]"


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # JSON's strings are YAML's, but for characters that YAML wants escaped
    return re.sub(
        "[\x7f-\x9f\ufeff\ufffe\uffff\u2028\u2029]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )


def _blockable(text: str) -> bool:
    return bool(re.fullmatch(r"(?:[!-~][ -~]*\n|\n)*[!-~][ -~]*\n", text)) and not text.startswith("\n")


def _comment(why: str, depth: int) -> list[str]:
    room = max(40, _WIDTH - depth)
    return [
        f"{' ' * depth}# {line}"
        for part in why.split("\n")
        if part
        for line in textwrap.wrap(part, room, break_on_hyphens=False)
    ]
