"""When are two trials the same trial? When their code, data, config and seed have the same canonical text.

``key = H(code fingerprint, data fingerprint, config, seed)`` decides what a resumed or widened run need not repeat,
so the text must be the same in every process, on every machine and in every version of Python, and two values that a
function could tell apart must not share it: ``1``, ``1.0``, ``True`` and ``"1"`` are four values.

For values made of str-keyed dicts, lists, str, int, float, bool and None the text is JSON (with NaN and Infinity as
Python's own ``json`` writes them), keys sorted, without spaces. What JSON lacks is written in forms that JSON lacks,
so nothing else can look like it: ``{1:"a"}`` for a key that is no string, ``<bytes 6869>``, ``<set [1,2]>``.

This module must not know where code and data fingerprints come from, nor what a space or a trial is beyond a dict.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from umbel.scheduler.errors import SpaceError

__all__ = ["KEY_LENGTH", "DigestOf", "TrialKeys", "canonical_json", "element_key", "group_key", "refuse", "trial_keys"]

#: A function that gives a stable text for a value that has no canonical form here (a function, a model, a table).
DigestOf = Callable[[object], str]

#: Characters of a trial's key: 128 bits in hexadecimal. Among 10^12 trials two collide with probability 1.5e-15.
KEY_LENGTH: Final = 32


def refuse(value: object) -> NoReturn:
    """The default ``DigestOf``: no guess at what makes two such values equal.

    Raises:
        SpaceError: always, naming the type.
    """
    cls = type(value)
    raise SpaceError(
        f"a {cls.__module__}.{cls.__qualname__} has no canonical form, so trials that use it can't be told apart",
        got=_short(value),
        expected="numbers, strings, booleans, None, bytes, dates, times, enum members; lists, sets and dicts of those",
        hint="search over a name (a string) and let the trial function make the object from it",
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _float_text(value: float) -> str:
    text = float.__repr__(value)
    # A finite float's text ends in a digit; "nan", "inf" and "-inf" end in a letter.
    return text if text[-1] <= "9" else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[text]


class _Texts(dict[type, Callable[[Any], str]]):
    """From a value's exact type to the function that writes it; types that are not listed go the slow way.

    A table, because the common case (a flat dict of scalars) then costs one look-up and one C call a value.
    """

    __slots__ = ("_digest_of",)

    def __init__(self, digest_of: DigestOf):
        super().__init__(
            {
                float: _float_text,
                int: int.__repr__,
                bool: {False: "false", True: "true"}.__getitem__,
                str: encode_basestring_ascii,
                type(None): lambda _: "null",
                dict: self._mapping,
                list: self._sequence,
                tuple: self._sequence,
            }
        )
        self._digest_of = digest_of

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        return self._other

    def _sequence(self, values: Sequence[object]) -> str:
        return "[" + ",".join([self[type(value)](value) for value in values]) + "]"

    def _mapping(self, mapping: Mapping[object, object]) -> str:
        items = sorted((self[type(key)](key), self[type(value)](value)) for key, value in mapping.items())
        return "{" + ",".join([f"{key}:{value}" for key, value in items]) + "}"

    def _other(self, value: object) -> str:  # noqa: PLR0911 - one line a type reads best
        """Types that are met seldom, and subclasses: by isinstance, the most special first."""
        match value:
            case enum.Enum():
                name = f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
                return f"<enum {encode_basestring_ascii(name)}>"
            case np.datetime64() | np.timedelta64():  # before np.integer, which a timedelta64 is too
                return f"<{value.dtype.str} {value!s}>"
            case np.bool_():
                return "true" if value else "false"
            case np.integer():
                return int.__repr__(int(value))
            case np.floating() | float():
                return _float_text(float(value))
            case bytes() | bytearray():
                return f"<bytes {value.hex()}>"
            case datetime.datetime() | datetime.date() | datetime.time():
                return f"<{_time_kind(value)} {value.isoformat()}>"
            case datetime.timedelta():
                return f"<timedelta {value.days} {value.seconds} {value.microseconds}>"
            case Decimal():
                return f"<decimal {value}>"
            case set() | frozenset():
                return "<set [" + ",".join(sorted(self[type(member)](member) for member in value)) + "]>"
            case str():
                return encode_basestring_ascii(value)
            case int():
                return int.__repr__(value)
            case Mapping():
                return self._mapping(value)
            case list() | tuple():
                return self._sequence(value)
            case _:
                return f"<digest {encode_basestring_ascii(self._digest_of(value))}>"


def _time_kind(value: datetime.date | datetime.time) -> str:
    """pandas.Timestamp and other subclasses count as the standard type that they extend."""
    if isinstance(value, datetime.datetime):
        return "datetime"
    return "date" if isinstance(value, datetime.date) else "time"


_STRICT: Final = _Texts(refuse)


def _texts(digest_of: DigestOf) -> _Texts:
    return _STRICT if digest_of is refuse else _Texts(digest_of)


def canonical_json(value: object, digest_of: DigestOf = refuse) -> str:
    """One text for a value: equal for equal values of equal types, in every process.

    Lists and tuples count as the same, but not 0.0 and -0.0; NumPy's scalars count as the Python scalars that they
    hold; the order of a dict's or a set's members does not count.

    Args:
        value: made of dicts, lists, tuples, sets, str, bytes, bool, None, int, float, Decimal, enum members, dates,
            times and NumPy scalars; ASCII text comes out.
        digest_of: gives a stable text for anything else.

    Raises:
        SpaceError: a value of another type and no ``digest_of``; a value that contains itself.

    >>> canonical_json({"b": [1, 1.0, True, "1"], "a": float("nan")})
    '{"a":NaN,"b":[1,1.0,true,"1"]}'
    """
    try:
        return _texts(digest_of)[type(value)](value)
    except RecursionError:
        raise _endless(value) from None


def _endless(value: object) -> SpaceError:
    return SpaceError(
        "a value is nested too deeply, or contains itself, so it has no canonical form",
        got=type(value).__name__,
        hint="give the trial function a name or a number from which it makes the value",
    )


def group_key(group: Mapping[str, object], digest_of: DigestOf = refuse) -> str:
    """The canonical text of a group's keys: names its random stream, and stands for it in messages and files.

    >>> group_key({"horizon": 5, "country": "AUT"})
    '{"country":"AUT","horizon":5}'
    """
    return canonical_json(dict(group), digest_of)


def element_key(code: str, inputs: Sequence[str]) -> str:
    """The content key of one element of a node that is no sweep: equal for equal code and equal inputs, in order.

    Args:
        code: the code's fingerprint, any text.
        inputs: the fingerprints of the values that it is called with.

    Returns:
        ``KEY_LENGTH`` hexadecimal characters: BLAKE2b of ``[code,[input,…]]`` in canonical JSON. It holds no line feed,
        and a trial's text does, so no element shares a key with a trial.
    """
    text = canonical_json([code, list(inputs)])
    return blake2b(text.encode("ascii"), digest_size=KEY_LENGTH // 2).hexdigest()


def trial_keys(
    code: str,
    data: str | None,
    configs: Sequence[Mapping[str, object]],
    seeds: Sequence[int] | npt.NDArray[np.int64],
    digest_of: DigestOf = refuse,
) -> list[str]:
    """The content keys of trials that share their code and data.

    Args:
        code: the code's fingerprint, any text.
        data: the data's fingerprint, any text, or None for a function without data (not the same as "").
        configs: one dict a trial, the group's keys included.
        seeds: one integer a trial.
        digest_of: as for :func:`canonical_json`.

    Returns:
        ``KEY_LENGTH`` hexadecimal characters a trial. What is hashed (BLAKE2b, 128 bits) is the ASCII text
        ``[code,data]`` in canonical JSON, a line feed, the seed, a colon and the canonical config. Canonical text
        holds no line feed, so no two inputs share a text.

    Raises:
        SpaceError: a config holds a value without canonical form.

    Cost: about 2.5 microseconds a trial with five scalar values.
    """
    key_of = TrialKeys(code, data, digest_of)
    seed_list: list[int] = seeds.tolist() if isinstance(seeds, np.ndarray) else [int(seed) for seed in seeds]
    if len(seed_list) != len(configs):
        raise ValueError(f"{len(configs)} configs but {len(seed_list)} seeds")
    return [key_of(config, seed) for config, seed in zip(configs, seed_list, strict=True)]


class TrialKeys:
    """Makes `trial_keys` one by one, for configs that become known so.

    Args:
        code, data, digest_of: as of `trial_keys`.
    """

    def __init__(self, code: str, data: str | None, digest_of: DigestOf = refuse) -> None:
        self._texts = texts = _texts(digest_of)
        self._stem = blake2b(f"{texts[list]([code, data])}\n".encode("ascii"), digest_size=KEY_LENGTH // 2)
        # Trials of a sweep have the same names: these are sorted and quoted once, then only the values are left.
        self._names: tuple[str, ...] | None = None
        self._template = ""
        self._values_of: Callable[[Mapping[str, object]], tuple[object, ...]] = _no_values

    def __call__(self, config: Mapping[str, object], seed: int) -> str:
        """The key of one trial.

        Raises:
            SpaceError: the config holds a value without canonical form.
        """
        if (found := tuple(config)) != self._names:
            self._names = found
            self._template, self._values_of = _plan(found)
        texts = self._texts
        try:
            text = self._template % (seed, *[texts[type(value)](value) for value in self._values_of(config)])
        except RecursionError:
            raise _endless(config) from None
        digest = self._stem.copy()
        digest.update(text.encode("ascii"))
        return digest.hexdigest()


def _no_values(_: Mapping[str, object]) -> tuple[object, ...]:
    return ()


def _plan(names: tuple[str, ...]) -> tuple[str, Callable[[Mapping[str, object]], tuple[object, ...]]]:
    """A template ``seed:{"name":value,…}`` for configs with these names, and what picks their values in its order."""
    quoted = sorted((encode_basestring_ascii(name), name) for name in names)
    template = "%d:{" + ",".join(text.replace("%", "%%") + ":%s" for text, _ in quoted) + "}"
    ordered = [name for _, name in quoted]
    if not ordered:
        return template, _no_values
    if len(ordered) == 1:
        only = ordered[0]
        return template, lambda config: (config[only],)
    return template, itemgetter(*ordered)
