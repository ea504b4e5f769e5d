"""What is a group of a registered model called, in one text that can stand in a URL, a file's name or a command?

The text of one key is its value as people write it; of several keys the values are joined by ",". Characters that
would end a part of a path, or that could be mistaken for the joint, are percent-escaped, so that different groups have
different texts. It must not know what a model is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.scheduler.words import counted
from umbel.storage.runs.graph_record import near_names

__all__ = ["ONLY_GROUP", "find_group", "group_text"]

#: What the group of a model without groups is called.
ONLY_GROUP = "all"
#: Characters.
_LONGEST = 500
_UNSAFE = re.compile(r"[%/\\\x00-\x1f\x7f-\x9f\u2028\u2029]|^\.")
_UNSAFE_AMONG_OTHERS = re.compile(r"[%/\\,\x00-\x1f\x7f-\x9f\u2028\u2029]|^\.")


def group_text(values: Sequence[object]) -> str:
    """The canonical text of a group.

    Args:
        values: of its keys, in their order: texts, truth values, numbers.

    Returns:
        Texts as they are, numbers as Python writes them, ``true`` and ``false``; several joined by ","; "all" if there
        are none. ``%``, ``/``, a backslash, control characters and a first ``.`` are written as ``%2F`` and so on, and
        so is a "," inside one of several values.

    Raises:
        UsageError: a value is an empty text, or the text would be longer than 500 characters.
    """
    if not values:
        return ONLY_GROUP
    unsafe = _UNSAFE if len(values) == 1 else _UNSAFE_AMONG_OTHERS
    text = ",".join(_escaped(_plain(value), unsafe) for value in values)
    if len(text) > _LONGEST or any(value == "" for value in values):
        raise UsageError(
            "a group has a name that can't stand in a URL",
            got=repr(text[:80]),
            expected=f"1 to {_LONGEST} characters",
            hint="name the groups by short texts",
        )
    return text


def find_group(
    group: object, by: Sequence[str], known: Mapping[str, int], what: str, lists_them: str = ".groups lists them"
) -> int:
    """The row of a group.

    Args:
        group: its canonical text, its values by key, or its only value.
        by: the keys.
        known: rows by canonical text.
        what: the thing that has groups, for the message.
        lists_them: where to look them up, for the message.

    Raises:
        NotFoundError: there is none; near names are given.
    """
    found = known.get(group) if isinstance(group, str) else None
    if found is None:
        text = _text_of(group, by)
        found = known.get(text)
        if found is None:
            raise NotFoundError(
                f"{what} has no group of this name",
                got=text,
                expected=None if len(known) > 10 else "one of " + ", ".join(known),
                hint=near_names(text, known) or f"it has {counted(len(known), 'group')}; {lists_them}",
            )
    return found


def _text_of(group: object, by: Sequence[str]) -> str:
    if isinstance(group, Mapping):
        if set(group) != set(by):
            raise NotFoundError("a group is named by its keys", got=", ".join(map(str, group)), expected=", ".join(by))
        return group_text([group[key] for key in by])
    if isinstance(group, (tuple, list)):
        return group_text(list(group))
    return group_text([group])


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _escaped(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(lambda found: quote(found[0], safe="").replace(".", "%2E"), text)
