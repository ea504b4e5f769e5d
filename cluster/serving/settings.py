"""What is served, and how: everything that the replicas of one server must agree in.

It is made and checked once, where the server is started, and pickled to the replicas; so it holds no secrets: of a
token only what is needed to recognise it. It must not know Ray.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from umbel.cluster.serving.split import Splits, parse_splits
from umbel.scheduler.errors import UsageError
from umbel.storage.registry.records import check_alias, check_model

__all__ = ["ServeSettings", "TokenCheck", "make_settings", "read_token"]

#: Shorter tokens could be guessed.
_SHORTEST_TOKEN = 16
_TOKEN_FORM = f"{_SHORTEST_TOKEN} or more printable ASCII characters without spaces"
_MAKES_ONE = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """Recognises a bearer token without holding it: its salted digest."""

    salt: bytes
    digest: bytes

    @staticmethod
    def of(token: str) -> TokenCheck:
        """What recognises this token."""
        salt = os.urandom(16)
        return TokenCheck(salt, sha256(salt + token.encode()).digest())

    def accepts(self, authorization: bytes) -> bool:
        """Whether this is the value of an ``Authorization`` header with the token; takes the same time for any."""
        scheme, _, given = authorization.partition(b" ")
        same = hmac.compare_digest(sha256(self.salt + given.strip()).digest(), self.digest)
        return same and scheme.lower() == b"bearer"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """See `make_settings`."""

    model: str
    alias: str
    splits: Splits
    shadow: str | None
    #: The share of the requests that is logged, 0 to 1; whether with inputs.
    log: float
    log_inputs: bool
    #: How many models a replica keeps.
    cached_groups: int
    trust: bool
    token: TokenCheck | None
    salt: str
    sticky_per_group: bool
    max_body_bytes: int
    #: How many predictions one batch may ask for.
    max_batch: int
    #: Seconds between two looks at the aliases; how long a request waits for a model that must be loaded.
    poll_s: float
    load_timeout_s: float

    @property
    def aliases(self) -> list[str]:
        """All aliases that are followed, each once; `alias` first."""
        shadow = [] if self.shadow is None else [self.shadow]
        return list(dict.fromkeys([self.alias, *self.splits.aliases, *shadow]))

    def as_dict(self) -> dict[str, Any]:
        """What may be told to anybody who asks the server."""
        return {
            "alias": self.alias,
            "split": self.splits.default.as_percent(),
            "group_splits": {group: split.as_percent() for group, split in self.splits.groups.items()},
            "shadow": self.shadow,
            "log": self.log,
            "log_inputs": self.log_inputs,
            "cached_groups": self.cached_groups,
        }


def make_settings(
    model: str,
    *,
    alias: str = "champion",
    split: str | Sequence[str] | Mapping[str, float] | None = None,
    shadow: str | None = None,
    log: float | None = None,
    log_inputs: bool = False,
    cached_groups: int = 64,
    trust: bool = False,
    token: str | None = None,
    salt: str | None = None,
    sticky_per_group: bool = False,
    max_body_bytes: int = 8 * 2**20,
    max_batch: int = 1000,
    poll_s: float = 1.0,
    load_timeout_s: float = 30.0,
) -> ServeSettings:
    """Check what a server is asked to do; see `umbel.serve` for the arguments.

    Raises:
        UsageError: something can't be meant.
    """
    check_model(model)
    check_alias(alias)
    if isinstance(split, Mapping):
        split = ",".join(f"{name}={percent}" for name, percent in split.items())
    splits = parse_splits([split] if isinstance(split, str) else list(split or []), alias)
    if shadow is not None:
        check_alias(shadow)
        if shadow in splits.aliases:
            raise UsageError(
                "an alias can't both answer and be a shadow", got=shadow, expected="a shadow that answers nobody"
            )
    compares = shadow is not None or len(splits.aliases) > 1
    log = (1.0 if compares else 0.0) if log is None else log
    if not 0 <= log <= 1:
        raise UsageError("this is no share of the requests", got=log, expected="0 (none is logged) to 1 (all are)")
    if shadow is not None and log == 0:
        raise UsageError(
            "a shadow is asked only for what is logged, and nothing is",
            got=f"shadow {shadow}, log 0",
            expected="a share of the requests above 0",
            hint="leave --log out, and all are",
        )
    for name, value, least in (
        ("cached_groups", cached_groups, 1),
        ("max_body_bytes", max_body_bytes, 1),
        ("max_batch", max_batch, 1),
        ("poll_s", poll_s, 0.01),
        ("load_timeout_s", load_timeout_s, 0.01),
    ):
        if value < least:
            raise UsageError(f"{name} is too small", got=value, expected=f"{least} or more")
    return ServeSettings(
        model=model,
        alias=alias,
        splits=splits,
        shadow=shadow,
        log=log,
        log_inputs=log_inputs,
        cached_groups=cached_groups,
        trust=trust,
        token=None if token is None else TokenCheck.of(_checked(token)),
        salt=f"umbel/{model}" if salt is None else salt,
        sticky_per_group=sticky_per_group,
        max_body_bytes=max_body_bytes,
        max_batch=max_batch,
        poll_s=poll_s,
        load_timeout_s=load_timeout_s,
    )


def read_token(file: str | os.PathLike[str] | None = None, env: str | None = None) -> str | None:
    """The bearer token that a file or an environment variable holds; None: neither is named.

    The variable is taken out of the environment, which all that this process starts would inherit: Ray, and with it
    the users' code in its workers.

    Raises:
        UsageError: it can't be read, or both are named.
    """
    if file is not None and env is not None:
        raise UsageError("a token is read from one place", got="a file and an environment variable", expected="one")
    if env is not None:
        found = os.environ.pop(env, None)
        if found is None:
            raise UsageError(
                "the environment variable of the token is not set",
                got=env,
                expected=f"a variable that holds {_TOKEN_FORM}",
                hint=f"export {env}=$({_MAKES_ONE})",
            )
        return found.strip()
    if file is None:
        return None
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise UsageError(
            "the file of the token can't be read",
            got=f"{file}: {why}",
            expected=f"a file that holds {_TOKEN_FORM}",
            hint=f"{_MAKES_ONE} > {file}",
        ) from error


def _checked(token: str) -> str:
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            "this can't be a bearer token",  # which is not repeated here: it may be half of a real one
            got=f"{len(token)} characters",
            expected=_TOKEN_FORM,
            hint=f"{_MAKES_ONE} makes one",
        )
    return token
