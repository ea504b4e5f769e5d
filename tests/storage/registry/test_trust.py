"""Which stores are trusted: those that the user lists, and what lies in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umbel.scheduler.errors import UntrustedError, UsageError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.trust import check_trust, config_path, is_trusted


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("UMBEL_TRUSTED_STORES", raising=False)


def configure(text: str) -> None:
    config_path().parent.mkdir(parents=True, exist_ok=True)
    config_path().write_text(text)


def test_nothing_is_trusted_that_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore.open(tmp_path / "team" / "store")
    s3 = ObjectStore.open("s3://bucket/team/store", {"anon": True})
    assert not is_trusted(store)
    assert not is_trusted(s3)
    assert is_trusted(ObjectStore.open("memory://mine"))
    configure(f'trusted_stores = ["{tmp_path}/team/store/", "s3://bucket/team"]')
    assert is_trusted(store)
    assert is_trusted(s3)
    assert not is_trusted(ObjectStore.open(tmp_path / "team" / "store2"))
    assert not is_trusted(ObjectStore.open("s3://bucket/team2/store", {"anon": True}))
    assert not is_trusted(ObjectStore.open("s3://bucket", {"anon": True}))
    configure("")
    assert not is_trusted(store)
    monkeypatch.setenv("UMBEL_TRUSTED_STORES", f"s3://other, {tmp_path}/team")
    assert is_trusted(store)
    with pytest.raises(UntrustedError, match="a pickle"):
        check_trust(s3, False, "the model", "a pickle")
    check_trust(s3, True, "the model", "a pickle")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    configure(f'trusted_stores = ["{tmp_path}/link"]')
    assert is_trusted(ObjectStore.open(tmp_path / "real" / "store"))


@pytest.mark.parametrize("text", ["trusted_stores =", 'trusted_stores = "s3://x"', "trusted_stores = [3]"])
def test_a_configuration_that_is_wrong(tmp_path: Path, text: str) -> None:
    configure(text)
    with pytest.raises(UsageError, match=r"config\.toml"):
        is_trusted(ObjectStore.open(tmp_path))


def test_relative_paths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure('trusted_stores = ["umbel-store"]')
    with pytest.raises(UsageError, match="relative"):
        is_trusted(ObjectStore.open(tmp_path))


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    configure('trusted_stores = ["~/store"]')
    assert config_path() == tmp_path / ".config" / "umbel" / "config.toml"
    assert is_trusted(ObjectStore.open(os.path.join(tmp_path, "store")))  # noqa: PTH118
