"""Whose code may be run? Which stores has the user said to trust?

Loading a pickle runs whatever its writer put into it. So models that carry code are loaded only from stores that are
listed, by the user and outside of any store: ``trusted_stores`` in ``umbel/config.toml`` of the user's configuration
folder (``$XDG_CONFIG_HOME``, else ``~/.config``), or ``$UMBEL_TRUSTED_STORES``, separated by commas. A listed store
covers what lies in it. It must not know what is loaded.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from umbel.scheduler.errors import UntrustedError, UsageError
from umbel.storage.objects.interface import ObjectStore

__all__ = ["TRUSTED_STORES", "check_trust", "config_path", "is_trusted"]

#: The environment variable that lists trusted stores.
TRUSTED_STORES = "UMBEL_TRUSTED_STORES"


def config_path() -> Path:
    """Where the user's configuration stands."""
    home = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(home) if home else Path.home() / ".config"
    return folder / "umbel" / "config.toml"


def is_trusted(objects: ObjectStore) -> bool:
    """Whether the user trusts all who can write a store. One that only this process can see (``memory://``) is trusted.

    Raises:
        UsageError: the configuration can't be read.
    """
    if objects.is_process_local:
        return True
    url = _normal(objects.url)
    return any(url == listed or url.startswith(f"{listed}/") for listed in map(_normal, _listed()) if listed)


def check_trust(objects: ObjectStore, trust: bool, what: str, holds: str) -> None:
    """Refuse to run code of a store that is not trusted.

    Args:
        objects: the store.
        trust: the caller trusts it, whatever is listed.
        what: what is to be loaded, for the message: ``"the model of 'AUT'"``.
        holds: what in it is code.

    Raises:
        UntrustedError: it is not trusted.
    """
    if trust or is_trusted(objects):
        return
    raise UntrustedError(
        f"loading {what} runs code that lies in the store {objects.url}",
        got=holds,
        expected="a store whose writers you trust",
        hint=f"if you do: trust=True (--trust), or add {objects.url!r} to trusted_stores in {config_path()}",
    )


def _listed() -> list[str]:
    found = [each.strip() for each in os.environ.get(TRUSTED_STORES, "").split(",")]
    path = config_path()
    try:
        content = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return found
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration {path} can't be read", got=str(error), expected="TOML") from error
    stores = content.get("trusted_stores", [])
    if not isinstance(stores, list) or not all(isinstance(each, str) for each in stores):
        raise UsageError(
            f"trusted_stores in {path} is no list of texts",
            got=repr(stores),
            expected='trusted_stores = ["s3://bucket/folder", "/data/umbel-store"]',
        )
    for listed in (*found, *stores):
        if listed and "://" not in listed and not Path(listed).expanduser().is_absolute():
            raise UsageError(
                "a trusted store is named relative to a folder, which may be another tomorrow",
                got=listed,
                expected=f"URLs and absolute paths in {path} and ${TRUSTED_STORES}",
            )
    return [*found, *stores]


def _normal(url: str) -> str:
    """One way of writing a store: paths absolute, links followed."""
    if "://" in url and not url.startswith(("file://", "local://")):
        return url.rstrip("/")
    path = url.partition("://")[2] if "://" in url else url
    return os.path.realpath(Path(path).expanduser()) if path else ""
