"""What a server is asked to do, and tokens."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from umbel.cluster.serving.settings import TokenCheck, make_settings, read_token
from umbel.scheduler.errors import UsageError

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "options",
    [
        {"model": "../etc"},
        {"model": "a/b"},
        {"alias": "a/b"},
        {"alias": "latest"},
        {"alias": "3"},
        {"split": "champion=90,challenger=9"},
        {"split": {"champion": 90, "challenger": 20}},
        {"shadow": "champion"},
        {"log": 1.5},
        {"log": -0.1},
        {"shadow": "challenger", "log": 0},
        {"cached_groups": 0},
        {"max_body_bytes": 0},
        {"poll_s": 0.0},
        {"token": "short"},
        {"token": "with spaces in it, and long"},
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_settings(**{"model": "gdp", **options})


def test_all_is_logged_where_versions_compete() -> None:
    assert make_settings("gdp").log == 0.0
    assert make_settings("gdp", shadow="challenger").log == 1.0
    assert make_settings("gdp", split={"champion": 90, "challenger": 10}).log == 1.0
    assert make_settings("gdp", shadow="challenger", log=0.1).log == 0.1


def test_all_aliases_are_followed() -> None:
    settings = make_settings("gdp", split=["champion=90,a=10", "DEU:b=100"], shadow="c")
    assert settings.aliases == ["champion", "a", "b", "c"]


def test_a_token_is_recognised_without_being_held() -> None:
    settings = make_settings("gdp", token=TOKEN)
    check = settings.token
    assert check is not None
    assert check.accepts(f"Bearer {TOKEN}".encode())
    assert check.accepts(f"bearer  {TOKEN} ".encode())
    for wrong in (b"", b"Bearer", b"Bearer ", f"Basic {TOKEN}".encode(), TOKEN.encode(), f"Bearer {TOKEN}x".encode()):
        assert not check.accepts(wrong)
    for told in (pickle.dumps(settings), repr(settings).encode(), repr(settings.as_dict()).encode()):
        assert TOKEN.encode() not in told
    assert TokenCheck.of(TOKEN) != check  # salted


def test_a_token_is_read_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SERVE_TOKEN", TOKEN)
    assert read_token(file) == read_token(env="SERVE_TOKEN") == TOKEN
    assert "SERVE_TOKEN" not in os.environ  # what this process starts does not inherit it
    assert read_token() is None
    for wrong in ({"file": file, "env": "SERVE_TOKEN"}, {"env": "NO_SUCH_NAME"}, {"file": tmp_path / "none"}):
        with pytest.raises(UsageError) as error:
            read_token(**wrong)
        assert TOKEN not in str(error.value)
    for missing in ({"env": "NO_SUCH_NAME"}, {"file": tmp_path / "none"}):
        with pytest.raises(UsageError, match=r"16 or more(.|\n)*token_urlsafe"):
            read_token(**missing)


def test_a_refused_token_is_not_repeated() -> None:
    with pytest.raises(UsageError) as error:
        make_settings("gdp", token="half of it")
    assert "half of it" not in str(error.value)
