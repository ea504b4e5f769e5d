"""Does what a run tells the broker make sense? One run that talks nonsense must not keep others from their shares.

Messages are plain dicts, from runs with versions of Umbel that may differ. It must not know what is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umbel.scheduler.fair_share import Claim, Demand

__all__ = ["Told", "read"]

#: Most workers that one demand counts for, and most demands and resources of a message: more than there are anywhere,
#: few enough to be shared out in no time.
MOST_WORKERS = 100_000
MOST_ENTRIES = 1_000
#: Longest text.
LENGTH = 512


@dataclass(frozen=True, slots=True)
class Told:
    """A run's word."""

    claim: Claim
    #: Of each demand, workers that may not have their place yet.
    starting: tuple[int, ...]
    #: What is shown of the run to who asks, as plain data.
    shown: dict[str, Any]


def read(message: Mapping[str, Any]) -> Told:
    """A message, checked.

    Args:
        message: ``run`` (a name of its own), ``tenant``, ``weight``, ``priority``, ``minimum``, ``cap``, and
            ``demands``, a list of ``needs``, ``wanted``, ``held``, and ``starting``. ``name``, ``host``, ``pid`` and
            ``preemptible`` are shown to users, and may be missing.

    Raises:
        ValueError: something is missing, or of another kind, or no number that can be reckoned with.
    """
    if not isinstance(message, Mapping):
        raise ValueError(f"no message: {type(message).__name__}")
    demands = message.get("demands")
    if not isinstance(demands, list) or not all(isinstance(each, Mapping) for each in demands):
        raise ValueError(f"demands are no list of demands: {demands!r:.100}")
    if len(demands) > MOST_ENTRIES:
        raise ValueError(f"there are more than {MOST_ENTRIES} demands: {len(demands)}")
    weight = _amount(message, "weight")
    if weight == 0:
        raise ValueError("weight is 0")
    claim = Claim(
        _text(message, "run"),
        _text(message, "tenant"),
        [Demand(_amounts(each, "needs"), _count(each, "wanted"), _count(each, "held")) for each in demands],
        weight,
        _whole(message, "priority"),
        _amounts(message, "minimum"),
        _amounts(message, "cap"),
    )
    shown = {
        "run": claim.run,
        "name": _text({"name": claim.run, **message}, "name"),
        "tenant": claim.tenant,
        "weight": claim.weight,
        "priority": claim.priority,
        "minimum": dict(claim.minimum),
        "cap": dict(claim.cap),
        "preemptible": message.get("preemptible") is True,
        "host": _text({"host": "", **message}, "host"),
        "pid": _whole({"pid": 0, **message}, "pid"),
    }
    return Told(claim, tuple(_count(each, "starting") for each in demands), shown)


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > LENGTH:
        raise ValueError(f"{name} is no text of at most {LENGTH} characters: {value!r:.100}")
    return value


def _whole(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is no whole number: {value!r:.100}")
    return value


def _count(demand: Mapping[str, Any], name: str) -> int:
    value = _whole(demand, name)
    if value < 0:
        raise ValueError(f"{name} is negative: {value}")
    return min(value, MOST_WORKERS)


def _amount(amounts: Mapping[str, Any], name: str) -> float:
    value = amounts.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is no number ≥ 0: {value!r:.100}")
    return float(value)


def _amounts(message: Mapping[str, Any], name: str) -> dict[str, float]:
    value = message.get(name)
    if not isinstance(value, Mapping) or len(value) > MOST_ENTRIES or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} does not say how much of what: {value!r:.100}")
    return {key: _amount(value, key) for key in value}
