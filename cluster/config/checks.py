"""Checks of single settings of a cluster's configuration, each with one clear error.

What Kubernetes, KubeRay or the shell would refuse later, and less clearly, is refused here. The rules of names are
Kubernetes' own (RFC 1035 labels, RFC 1123 subdomains, label syntax).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NoReturn

from umbel.scheduler.errors import UsageError
from umbel.storage.redaction import is_secret_name, redact, redact_argv

__all__ = [
    "MOST_PROCESSORS",
    "check_amount",
    "check_at_least",
    "check_environment",
    "check_image",
    "check_label_value",
    "check_labels",
    "check_name",
    "check_no_secret",
    "check_one_of",
    "check_plain_words",
    "check_set",
    "unknown",
]

#: No machine has more processors, or GPUs.
MOST_PROCESSORS = 4096
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
#: What no shell and no YAML reads as anything but itself. A RayJob's entrypoint passes through two shells.
_PLAIN = re.compile(r"[A-Za-z0-9_./:=@%+,-]+")
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*(?::[A-Za-z0-9_][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def unknown(what: str, got: str, known: Iterable[str]) -> NoReturn:
    """Raise the error for a name that is none of the known ones, with those that are near."""
    names = list(known)
    near = get_close_matches(got, names, n=3, cutoff=0.6)
    raise UsageError(
        f"unknown {what}",
        got=got,
        expected=f"one of: {', '.join(names)}",
        hint=f"did you mean {' or '.join(near)}?" if near else None,
    )


def check_one_of(what: str, given: str, known: Sequence[str]) -> None:
    """Refuse what is not one of a few words."""
    if given not in known:
        unknown(what, given, known)


def check_at_least(what: str, given: int, least: int, most: int = 2**31 - 1) -> None:
    """Refuse a number that is too small, or too large: beyond Kubernetes' 32 bits, unless `most` is less."""
    if given < least:
        raise UsageError(f"{what} is too small", got=given, expected=f"{least} or more")
    if given > most:
        raise UsageError(f"{what} is too large", got=given, expected=f"{most} or less")


def check_set(what: str, given: str) -> None:
    """Refuse an empty text."""
    if not given:
        raise UsageError(f"{what} is empty", got="''", expected="a value, or leave it out")


def check_name(what: str, given: str, *, longest: int, dots: bool = False) -> None:
    """Refuse what can't be the name of something in Kubernetes.

    Args:
        what: of what it is the name.
        given: the name.
        longest: characters that it may have.
        dots: whether it may consist of parts, with dots between; otherwise it must begin with a letter.
    """
    part = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
    pattern = rf"{part}(?:\.{part})*" if dots else r"[a-z](?:[a-z0-9-]*[a-z0-9])?"
    if not re.fullmatch(pattern, given) or len(given) > longest:
        raise UsageError(
            f"this can't be the name of {what}",
            got=repr(given),
            expected=f"lower-case letters, digits and dashes{', dots' if dots else ', a letter first'}, "
            f"at most {longest} characters",
        )


def check_amount(what: str, given: str, least_bytes: int = 1) -> None:
    """Refuse what is no size in Kubernetes' notation, or too small a one."""
    found = re.fullmatch(r"([1-9][0-9]*)(Ki|Mi|Gi|Ti|k|M|G|T)", given)
    if found is None:
        raise UsageError(f"{what} is no size", got=repr(given), expected='a whole number and a unit, as "32Gi"')
    unit = (1024 if found[2].endswith("i") else 1000) ** (" kMGT".index(found[2][0].replace("K", "k")))
    if int(found[1]) * unit < least_bytes:
        raise UsageError(
            f"{what} is too small for Ray's own processes",
            got=given,
            expected=f"{-(-least_bytes // 2**20)}Mi or more",
        )


def check_image(given: str) -> None:
    """Refuse an image without a tag or digest, or with one that moves."""
    if not _IMAGE.fullmatch(given):
        raise UsageError(
            "image: this is no image", got=repr(given), expected="NAME:TAG, as rayproject/ray:2.60.0-py311"
        )
    tag = given.partition("@")[0].rpartition("/")[2].partition(":")[2]
    if "@" not in given and tag in ("", "latest", "nightly"):
        raise UsageError(
            "image: it needs a tag that stays what it is",
            got=given,
            expected="NAME:TAG, as rayproject/ray:2.60.0-py311, or NAME:TAG@sha256:…",
            hint="pods that start later would otherwise run other code than those before",
        )


def check_label_value(what: str, given: str) -> None:
    """Refuse what can't be the value of a label."""
    if not _LABEL.fullmatch(given):
        raise UsageError(
            f"{what}: this can't be the value of a label",
            got=repr(given),
            expected="at most 63 letters, digits, dots, dashes and underscores, a letter or digit at both ends",
        )


def check_labels(what: str, given: Mapping[str, str], *, values: bool = True) -> None:
    """Refuse labels (or annotations, if their values are not checked) that Kubernetes would refuse."""
    for key, value in given.items():
        if not _KEY.fullmatch(key):
            raise UsageError(f"{what}: this can't be the name of a label", got=repr(key), expected="[PREFIX/]NAME")
        if values:
            check_label_value(f"{what}: {key}", value)


def check_environment(what: str, given: Mapping[str, str], reserved: Iterable[str]) -> None:
    """Refuse variables that hold credentials in clear, or that something else sets."""
    for name, value in given.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"{what}: this can't be the name of a variable", got=repr(name), expected="as AWS_REGION")
        if name in tuple(reserved):
            raise UsageError(f"{what}: {name} is set twice", expected="only by store or credentials")
        if is_secret_name(name) or redact(value) != value:
            raise UsageError(
                f"{what}: {name} would stand in the manifest in clear",
                got="a credential",
                expected="a key of a Secret",
                hint=f"kubectl create secret generic NAME --from-literal={name}=…, and then credentials.secret = NAME",
            )
        if name.startswith("RAY_AUTH"):
            raise UsageError(f"{what}: {name} is set by KubeRay", expected="token_auth = true or false")


def check_plain_words(what: str, given: Sequence[str]) -> None:
    """Refuse words that a shell would read as anything but themselves, and credentials, in URLs or options."""
    shown = redact_argv(given)
    if shown != list(given):
        raise _in_clear(what, " ".join(shown))
    for word in given:
        if not _PLAIN.fullmatch(word):
            raise UsageError(
                f"{what} has characters that a shell would read in its own way",
                got=repr(word),
                expected="letters, digits and _ . / : = @ % + , -",
            )


def check_no_secret(what: str, line: str) -> None:
    """Refuse a line of shell with a credential in it; what is read from elsewhere, as by ``$(cat FILE)``, is none."""
    by_reference = re.sub(r"\$\([^()]*\)|`[^`]*`|\$\{[^}]*\}|\$\w+", "", line)
    by_reference = by_reference.replace('""', "").replace("''", "")
    shown = redact(by_reference)
    if shown != by_reference:
        raise _in_clear(what, shown)


def _in_clear(what: str, shown: str) -> UsageError:
    return UsageError(
        f"{what} holds a credential, which would stand there in clear",
        got=shown,
        expected="none",
        hint="credentials are read from a Secret (credentials), from a file or from the environment",
    )
