"""When does a cron job fire, and by whose clock? Checked as KubeRay reads it, only sooner."""

from __future__ import annotations

import re
from difflib import get_close_matches
from zoneinfo import available_timezones

from umbel.scheduler.errors import UsageError

__all__ = ["check_schedule", "check_time_zone"]

_WORDS = re.compile(r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: What each field is, its bounds, and the names that stand for numbers.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: place + 1 for place, name in enumerate(_MONTHS)}),
    ("day of the week", 0, 6, {name: place for place, name in enumerate(_DAYS)}),
)


def check_schedule(given: str) -> None:
    """Refuse what is no schedule of cron's: five fields with numbers within their bounds, or a word as "@daily"."""
    if _WORDS.fullmatch(given):
        return
    fields = given.split()
    if len(fields) != len(_FIELDS):
        raise _no_schedule(given, f"{len(fields)} fields")
    for text, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            found = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
            if found is None:
                raise _no_schedule(given, f"{part!r} as the {name}")
            first, last, step = found.groups()
            numbers = [names.get(word.lower(), word) for word in (first, last) if word is not None]
            if any(not str(number).isdecimal() or not least <= int(number) <= most for number in numbers):
                raise _no_schedule(given, f"{part!r} as the {name}, which is {least} to {most}")
            if len(numbers) == 2 and int(numbers[0]) > int(numbers[1]):
                raise _no_schedule(given, f"{part!r} as the {name}: it ends before it begins")
            if step is not None and int(step) == 0:
                raise _no_schedule(given, f"{part!r} as the {name}: steps of 0")


def check_time_zone(given: str) -> None:
    """Refuse what is no name of a time zone; where this machine has no list of them, only what can't be one."""
    known = available_timezones()
    if re.fullmatch(r"[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*", given) and (not known or given in known):
        return
    near = get_close_matches(given, sorted(known), n=2)
    raise UsageError(
        "cron: time_zone: this is no time zone",
        got=given,
        expected="as Europe/Rome or Etc/UTC",
        hint=f"did you mean {' or '.join(near)}?" if near else None,
    )


def _no_schedule(given: str, what: str) -> UsageError:
    return UsageError(
        "cron: schedule: this is no schedule",
        got=f"{given}: {what}",
        expected='minute, hour, day, month, day of the week (Sunday is 0), as "0 3 * * *"',
    )
