"""Which version answers which caller?

A split gives shares of the callers to aliases ("arms"). A caller's key is hashed, with a salt, to a place between 0
and 1, and the place falls into one arm's share: the same key meets the same arm on every replica and after every
restart, and without a table of who met what. Pure; it must not know models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from umbel.scheduler.errors import UsageError
from umbel.storage.registry.records import check_alias

__all__ = ["Split", "Splits", "key_hash", "parse_splits", "place_of"]

_FORM = "champion=90,challenger=10, with shares that add up to 100"


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the callers, by alias, in the order in which they lie between 0 and 1."""

    #: Alias and share, 0 to 1.
    shares: tuple[tuple[str, float], ...]

    def arm(self, place: float) -> tuple[str, float]:
        """The alias whose share a place in [0, 1) falls into, and that share."""
        end = 0.0
        for alias, share in self.shares:
            end += share
            if place < end:
                return alias, share
        return self.shares[-1]  # shares that add up to 1 but for rounding

    @property
    def idle(self) -> list[str]:
        """Aliases whose share is nothing."""
        return [alias for alias, share in self.shares if not share]

    def as_percent(self) -> dict[str, float]:
        """Percent by alias."""
        return {alias: round(100 * share, 6) for alias, share in self.shares}


@dataclass(frozen=True, slots=True)
class Splits:
    """The split of all groups, and those of single groups."""

    default: Split
    #: By the canonical text of the group.
    groups: Mapping[str, Split] = field(default_factory=dict)

    def of(self, group: str) -> Split:
        """The split that holds for a group."""
        return self.groups.get(group, self.default)

    @property
    def aliases(self) -> list[str]:
        """All aliases that take part, each once."""
        named = [self.default, *self.groups.values()]
        return list(dict.fromkeys(alias for split in named for alias, _ in split.shares))


def parse_splits(texts: Sequence[str], alias: str) -> Splits:
    """Splits as they are written: ``champion=90,challenger=10``, or ``DEU:champion=50,challenger=50`` for one group.

    Args:
        texts: at most one for all groups, and one a group.
        alias: what gets all callers where nothing is said.

    Raises:
        UsageError: shares don't add up to 100, an alias comes twice or can't be one, or it has another form.
    """
    default: Split | None = None
    groups: dict[str, Split] = {}
    for text in texts:
        group, colon, shares = text.rpartition(":")
        if (group in groups) if colon else (default is not None):
            raise UsageError(
                "two splits are given for the same groups", got=text, expected="one for all, and one for each group"
            )
        if colon:
            if "=" not in shares:
                raise UsageError("this is no split", got=text, expected=_FORM, hint=f"write {group}={shares}")
            groups[group] = _split(shares)
        else:
            default = _split(shares)
    check_alias(alias)
    return Splits(default or Split(((alias, 1.0),)), groups)


def _split(text: str) -> Split:
    percents: dict[str, float] = {}
    for part in text.split(","):
        alias, equals, number = part.strip().partition("=")
        try:
            percent = float(number)
        except ValueError:
            percent = -1.0
        if not equals or not 0 <= percent <= 100:
            raise UsageError("this is no split", got=text, expected=_FORM)
        check_alias(alias)
        if alias in percents:
            raise UsageError("an alias comes twice in a split", got=text, expected=_FORM)
        percents[alias] = percent
    total = sum(percents.values())
    if abs(total - 100) > 1e-6:
        raise UsageError("the shares of a split don't add up to 100", got=f"{text}: {total:g}", expected=_FORM)
    return Split(tuple((alias, percent / 100) for alias, percent in percents.items()))


def place_of(key: str, salt: str) -> float:
    """Where a key lies between 0 (included) and 1: the first 53 bits of a keyed hash (BLAKE2b), evenly spread.

    Args:
        key: the caller's key.
        salt: another one gives independent places.
    """
    digest = blake2b(key.encode(), key=_salt(salt), person=b"umbel-split", digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def key_hash(key: str, salt: str) -> str:
    """A name for a key that does not tell the key to who does not know the salt: 16 hexadecimal digits."""
    return blake2b(key.encode(), key=_salt(salt), person=b"umbel-key", digest_size=8).hexdigest()


def _salt(salt: str) -> bytes:
    return blake2b(salt.encode(), digest_size=32).digest()
