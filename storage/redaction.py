"""What of a command line or a URL may be shown or stored? Everything but credentials.

Answered by names (``--token``, ``API_KEY=``) and by shape (``//user:password@``), on text alone. It must not know where
the text goes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["REDACTED", "redacted_command", "redacted_url"]

#: What stands in a credential's place.
REDACTED = "***"

_SECRET_NAME = re.compile(
    r"(?:^|[-_.])(?:pass|passwd|password|passphrase|pw|secret|token|credentials?|auth|authorization|bearer|cookie|pat|"
    r"(?:api|access|account|private|secret|encryption|signing|ssh)[-_]?keys?|apikey|sas|signature)(?:$|[-_.])",
    re.IGNORECASE,
)
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/@:?#\s]*)(?::[^/@?#\s]*)?@")
_QUERY = re.compile(r"(?P<url>[A-Za-z][A-Za-z0-9+.-]*://[^?\s]*)\?\S+")


def redacted_url(url: str) -> str:
    """The URL without its password, and without the values of its query, where signed URLs carry theirs.

    >>> redacted_url("sftp://ada:pw@host/runs")
    'sftp://ada@host/runs'
    >>> redacted_url("https://host/x?sig=abc")
    'https://host/x?***'
    """

    def without_password(match: re.Match[str]) -> str:
        user = match["user"]
        return match["scheme"] + (f"{user}@" if user else "")

    return _QUERY.sub(rf"\g<url>?{REDACTED}", _USER_INFO.sub(without_password, url))


def redacted_command(arguments: Sequence[str]) -> list[str]:
    """A command line in which the values of credential-looking options are replaced.

    >>> redacted_command(["train.py", "--api-token", "abc", "--depth=3", "DB_PASSWORD=x"])
    ['train.py', '--api-token', '***', '--depth=3', 'DB_PASSWORD=***']
    """
    shown: list[str] = []
    value_is_secret = False
    for argument in arguments:
        if value_is_secret and not argument.startswith("-"):
            shown.append(REDACTED)
            value_is_secret = False
            continue
        name, equals, _ = argument.partition("=")
        secret = _looks_secret(name)
        value_is_secret = secret and not equals and argument.startswith("-")
        shown.append(f"{name}={REDACTED}" if secret and equals else redacted_url(argument))
    return shown


def _looks_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(_CAMEL_HUMP.sub("-", name.lstrip("-"))))
