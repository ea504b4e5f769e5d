"""What a run asks of a cluster that several share: whose it is, how much that counts, and within which bounds.

Read from the argument of `umbel.run`, the environment or the project's pyproject.toml. It must not know how shares are
worked out (`umbel.scheduler.fair_share`), nor by whom.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from umbel.runtime.provenance.project import nearest
from umbel.runtime.provenance.sitting import user
from umbel.scheduler.errors import UsageError

__all__ = ["SECTION", "VARIABLE", "Share", "share_of"]

#: Where the settings of a project stand, in its pyproject.toml.
SECTION = "tool.umbel.share"
#: Where the environment's stand, as ``tenant=climate,weight=2``; or "off".
VARIABLE = "UMBEL_SHARE"
#: Longest name of a tenant.
NAME_LENGTH = 128

_OFF = ("off", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class Share:
    """A run's part in a cluster that several runs share.

    Args:
        tenant: whose share it counts to, such as a user or a project; None: the user, as `umbel submit` knows it for a
            job, or else as whom this process runs.
        weight: of tenants that all want more, one gets in proportion to its weight.
        priority: runs of a higher priority get what they want before those of a lower one get anything beyond their
            minimum.
        minimum: what the tenant is guaranteed, by resource: ``{"CPU": 8, "GPU": 1}``. While it does not want it, others
            may have it.
        cap: the most that the tenant gets, by resource, even if nobody else wants it.
        preemptible: True: when others are to have workers of this run, these are ended at once, and what they were
            running runs again later. False: they finish what they have begun.

    Raises:
        UsageError: a value makes no sense.
    """

    tenant: str | None = None
    weight: float = 1.0
    priority: int = 0
    minimum: Mapping[str, float] = field(default_factory=dict)
    cap: Mapping[str, float] = field(default_factory=dict)
    preemptible: bool = False

    def __post_init__(self) -> None:
        tenant = self.tenant
        if tenant is not None and (not isinstance(tenant, str) or not 0 < len(tenant) <= NAME_LENGTH):
            raise UsageError(
                "tenant is not a name", got=repr(tenant), expected=f"1 to {NAME_LENGTH} characters, or None"
            )
        if not _is_amount(self.weight) or self.weight == 0:
            raise UsageError("weight is not a number > 0", got=repr(self.weight), expected="1 is what others have")
        if not isinstance(self.priority, int) or isinstance(self.priority, bool):
            raise UsageError(
                "priority is not a whole number",
                got=repr(self.priority),
                expected="0 is what others have",
            )
        for name in ("minimum", "cap"):
            amounts = getattr(self, name)
            if not isinstance(amounts, Mapping) or not all(
                isinstance(key, str) and _is_amount(value) for key, value in amounts.items()
            ):
                raise UsageError(
                    f"{name} does not say how much of what",
                    got=repr(amounts),
                    expected='amounts ≥ 0 by resource, as {"CPU": 8, "GPU": 1}',
                )
        for resource, least in self.minimum.items():
            if least > self.cap.get(resource, math.inf):
                raise UsageError(
                    f"the minimum of {resource} is larger than the cap", got=f"{least:g} > {self.cap[resource]:g}"
                )
        if not isinstance(self.preemptible, bool):
            raise UsageError("preemptible is neither True nor False", got=repr(self.preemptible))

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self.tenant or user()

    @classmethod
    def parse(cls, text: str, where: str = "the share") -> Share | None:
        """From ``tenant=climate,weight=2,priority=1,minimum.CPU=8,cap.GPU=4,preemptible=true``; None for "off".

        Args:
            text: what was said.
            where: it was said, for errors.

        Raises:
            UsageError: a name is unknown, or a value makes no sense.
        """
        if text.strip().lower() in _OFF:
            return None
        table: dict[str, Any] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            outer, dot, inner = key.partition(".")
            if not equals or not key or (dot and not inner):
                raise UsageError(
                    f"{where}: a share is made of names and values", got=part, expected="weight=2,cap.GPU=4, or off"
                )
            held = table.setdefault(outer, {}) if dot else table
            if not isinstance(held, dict):
                raise UsageError(f"{where}: {outer!r} is said twice", got=text)
            held[inner if dot else outer] = _plain(value) if (inner or outer) != "tenant" else value
        return cls.from_table(table, where)

    @classmethod
    def from_table(cls, table: object, where: str) -> Share:
        """From a table of settings, as TOML gives it.

        Raises:
            UsageError: a name is unknown, or a value makes no sense.
        """
        known = [entry.name for entry in fields(cls)]
        if not isinstance(table, Mapping):
            raise UsageError(f"{where} is not a table", got=repr(table), expected=f"settings: {', '.join(known)}")
        for key in table:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                raise UsageError(
                    f"unknown setting in {where}",
                    got=repr(key),
                    expected=", ".join(known),
                    hint=f"did you mean {near[0]}?" if near else None,
                )
        return cls(**table)


def share_of(given: Share | bool | None) -> Share | None:
    """The share that a run goes by; None: it shares nothing.

    Args:
        given: the argument of `umbel.run`. False: none. Otherwise what is not said there is said by `VARIABLE`, or by
            `SECTION` of the pyproject.toml of this folder or, failing that, of the nearest folder above.

    Raises:
        UsageError: something is wrong in what was found.
    """
    if isinstance(given, Share):
        return given
    if given is False:
        return None
    if given is not None and given is not True:
        raise UsageError("share is not a share", got=repr(given), expected="umbel.Share(…), False, or None")
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        return Share.parse(text, f"${VARIABLE}")
    folder = nearest(Path.cwd(), "pyproject.toml")
    if folder is None:
        return Share()
    file = folder / "pyproject.toml"
    return Share.from_table(_section(file), f"[{SECTION}] of {file}")


def _section(file: Path) -> object:
    try:
        found: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # it may be anybody's; who needs it will say so
    for part in SECTION.split("."):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _plain(text: str) -> object:
    """A number or truth value, or the text itself, which is then refused by what it is for."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
