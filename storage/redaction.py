"""What in arguments, settings and URLs is a credential, and must not be written down?

Names are split into words (``HF_TOKEN``, ``apiKey``, ``--db-password``), so that ``author``, ``tokens_per_s`` and
``keyboard`` are not hit. Texts are searched for what carries credentials inside: URLs, ``name=value`` pairs, headers,
and keys of well-known forms. It works on plain data, changes nothing in place, and must not know where the result is
kept. It is a net, not a proof: a secret under an innocent name passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["REDACTED", "is_secret_name", "redact", "redact_argv", "redact_url"]

#: What stands in the place of a credential.
REDACTED = "<redacted>"

#: Words that mean a credential wherever they stand in a name; also as the end of a word (``dbpassword``).
_SECRET_WORDS = (
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "privatekey",
)
#: Words that mean one wherever they stand.
_SECRET_WHOLE_WORDS = frozenset(["pwd", "credential", "credentials", "authorization", "authtoken", "accesstoken"])
#: Words that mean one at the end of a name: ``auth_token``, but not ``token_count``.
_LAST_WORDS = frozenset(["token", "auth", "bearer", "cookie"])
#: Words that may follow those: ``token_value``.
_AFTER_LAST = frozenset(["value", "string", "text", "header", "data", "base64", "b64", "env", "raw"])
#: ``<one of these> key``; other keys are keys of tables and dictionaries.
_KEY_KINDS = frozenset(
    [
        "api",
        "access",
        "private",
        "session",
        "secret",
        "encryption",
        "signing",
        "account",
        "ssh",
        "auth",
        "shared",
        "master",
        "hmac",
    ]
)
#: ``<one of these> token`` is a symbol of a language model.
_TEXT_TOKENS = frozenset(["eos", "bos", "pad", "unk", "sep", "cls", "mask", "next", "stop", "special", "per", "last"])
#: ``<one of these> pass`` is a password; other passes are made over data.
_PASS_KINDS = frozenset(
    [
        *("admin", "api", "app", "auth", "database", "db", "email", "ftp", "imap", "login", "mail", "mongo", "mysql"),
        *("pg", "postgres", "proxy", "redis", "registry", "root", "service", "smtp", "sql", "ssh", "store", "user"),
    ]
)
#: Parameters that hold a credential in a query, but nothing elsewhere.
_QUERY_NAMES = frozenset(["key", "code", "sas", "sig", "signature", "x-amz-signature", "x-goog-signature"])
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s/?#:@]*):(?P<password>[^\s/]*)@")
_QUERY = re.compile(r"(?P<before>[?&;])(?P<name>[^\s=&?#;'\"]{1,80})=(?P<value>[^\s&#;'\"]*)")
_PAIR = re.compile(
    r"""(?P<name>[A-Za-z][\w.\-]{0,80}["']?)(?P<between>\s*[=:]\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?:(?i:bearer|basic|token)\s+)?[^\s,;&"'}\])]+)"""
)
_HEADER = re.compile(r"(?i)\b(?P<name>(?:proxy-)?authorization|(?:set-)?cookie)(?P<between>\s*:\s*)[^\r\n\"']+")
_OPTION = re.compile(r"(?P<name>--[A-Za-z][\w\-]{0,80})(?P<between>\s+)[^\s\-]\S*")
_KNOWN = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[\w\-]{20,}"  # GitHub, GitLab
    r"|\bhf_[A-Za-z0-9]{30,}|\bxox[abeoprs]-[\w\-]{10,}|\bsk-[\w\-]{20,}|\bAIza[\w\-]{35}"
    r"|\beyJ[\w\-]{10,}\.[\w\-]{10,}\.[\w\-]+"  # a JSON web token
    r"|(?i:\bbearer)\s+[\w.\-~+/]{8,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)


def redact(value: Any) -> Any:
    """A copy of nested dicts, lists, tuples and strings without credentials; anything else is returned as it is.

    A value under a name that means a credential becomes `REDACTED`, whole, whatever its type; None, empty strings
    and booleans stay, since they say that nothing was given. So does the ``value`` of an entry like
    ``{"name": "HF_TOKEN", "value": …}``.

    >>> redact({"lags": 3, "db": {"user": "ada", "password": "x"}, "url": "s3://key:secret@bucket"})
    {'lags': 3, 'db': {'user': 'ada', 'password': '<redacted>'}, 'url': 's3://key:<redacted>@bucket'}
    """
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        named = is_secret_name(value.get("name")) and "value" in value
        return {
            redact_url(key) if isinstance(key, str) else key: (
                _hidden(inner) if is_secret_name(key) or (named and key == "value") else redact(inner)
            )
            for key, inner in value.items()
        }
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(**redact(dict(zip(value._fields, value, strict=True))))
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind(redact(inner) for inner in value)
    return value


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without credentials: ``--token x``, ``--token=x``, ``TOKEN=x``, URLs, headers.

    >>> redact_argv(["run.py", "--api-key", "x", "--lags=3", "DB_PASSWORD=y"])
    ['run.py', '--api-key', '<redacted>', '--lags=3', 'DB_PASSWORD=<redacted>']
    """
    found: list[str] = []
    hide_next = False
    for argument in argv:
        if hide_next and not argument.startswith("--"):  # one dash may begin a token
            found.append(REDACTED)
            hide_next = False
            continue
        name, equals, _ = argument.partition("=")
        secret = is_secret_name(name) and not re.search(r"[\s/:]", name)
        found.append(f"{name}={REDACTED}" if secret and equals else _redact_text(argument))
        hide_next = secret and not equals and argument.startswith("-")
    return found


def redact_url(url: str) -> str:
    """A URL without its password and without the values of query parameters that are credentials.

    >>> redact_url("https://ada:pw@host/data?version=2&sig=abc")
    'https://ada:<redacted>@host/data?version=2&sig=<redacted>'
    """

    def parameter(match: re.Match[str]) -> str:
        name = match["name"]
        secret = is_secret_name(name) or name.lower() in _QUERY_NAMES
        return f"{match['before']}{name}={REDACTED}" if secret and match["value"] else match[0]

    if "://" in url:  # looked for first: on a long text without one the search takes quadratic time
        url = _USERINFO.sub(lambda match: f"{match['scheme']}{match['user']}:{REDACTED}@", url)
    return _KNOWN.sub(REDACTED, _QUERY.sub(parameter, url))


def _hidden(value: Any) -> Any:
    nothing = value is None or isinstance(value, bool) or (isinstance(value, str) and not value)
    return value if nothing else REDACTED


def _redact_text(text: str) -> str:
    def pair(match: re.Match[str]) -> str:
        if not is_secret_name(match["name"]) or match["value"].startswith("//"):
            return match["name"] + match["between"] + _PAIR.sub(pair, match["value"])  # --set=password=x
        quote = match["value"][0] if match["value"][0] in "\"'" else ""
        return f"{match['name']}{match['between']}{quote}{REDACTED}{quote}"

    def option(match: re.Match[str]) -> str:
        return f"{match['name']}{match['between']}{REDACTED}" if is_secret_name(match["name"]) else match[0]

    text = _HEADER.sub(lambda match: f"{match['name']}{match['between']}{REDACTED}", text)
    return _OPTION.sub(option, _PAIR.sub(pair, redact_url(text)))


def is_secret_name(name: object) -> bool:
    """Whether a name means a credential, by its words."""
    if not isinstance(name, str) or len(name) > 200 or name == "PWD":  # the shell's folder
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()  # password2
    if not words:
        return False
    if any(word in _SECRET_WHOLE_WORDS or word.endswith(_SECRET_WORDS) for word in words):
        return True
    if any(kind in _KEY_KINDS and word in ("key", "keys") for kind, word in pairwise(words)):
        return True
    if words[-1] == "pass" and len(words) > 1 and words[-2] in _PASS_KINDS:
        return True
    if words[-1] in _AFTER_LAST:
        words.pop()
    return bool(words) and words[-1] in _LAST_WORDS and (len(words) < 2 or words[-2] not in _TEXT_TOKENS)
