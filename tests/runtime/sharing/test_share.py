"""A run's part in a shared cluster, from the argument, the environment and pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.runtime.provenance.sitting import user
from umbel.runtime.sharing.share import Share, share_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UMBEL_SHARE", raising=False)
    return tmp_path


def test_by_default_it_is_the_users() -> None:
    share = share_of(None)
    assert share == Share()
    assert share is not None
    assert share.name == user()


def test_in_a_job_it_is_theirs_who_submitted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_USER", "ada")
    assert Share().name == "ada"
    assert Share("climate").name == "climate"
    monkeypatch.setenv("UMBEL_USER", "a" * 1000)
    assert len(Share().name) == 128


def test_from_a_text() -> None:
    text = "tenant=climate, weight=2.5,priority=-1,minimum.CPU=8,cap.CPU=16,cap.GPU=4,preemptible=true"
    assert Share.parse(text) == Share("climate", 2.5, -1, {"CPU": 8}, {"CPU": 16, "GPU": 4}, True)
    assert Share.parse("tenant=1") == Share("1")
    assert Share.parse("off") is None


def test_the_argument_goes_before_the_environment_and_that_before_the_project(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = elsewhere / "a" / "b"
    inner.mkdir(parents=True)
    (elsewhere / "pyproject.toml").write_text('[tool.umbel.share]\ntenant = "project"\ncap = { GPU = 2 }\n')
    monkeypatch.chdir(inner)
    assert share_of(None) == Share("project", cap={"GPU": 2})
    monkeypatch.setenv("UMBEL_SHARE", "weight=3")
    assert share_of(True) == Share(weight=3)
    assert share_of(Share("me")) == Share("me")
    assert share_of(False) is None
    monkeypatch.setenv("UMBEL_SHARE", "off")
    assert share_of(None) is None


def test_a_project_without_settings(elsewhere: Path) -> None:
    (elsewhere / "pyproject.toml").write_text("this is no TOML")
    assert share_of(None) == Share()
    (elsewhere / "pyproject.toml").write_text("[tool]\numbel = 3\n")
    assert share_of(None) == Share()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight": 0}, "weight is not a number > 0"),
        ({"weight": float("nan")}, "weight is not a number > 0"),
        ({"weight": "2"}, "weight is not a number > 0"),
        ({"tenant": ""}, "tenant is not a name"),
        ({"priority": 1.5}, "priority is not a whole number"),
        ({"minimum": {"CPU": -1}}, "minimum does not say how much of what"),
        ({"cap": 3}, "cap does not say how much of what"),
        ({"minimum": {"CPU": 4}, "cap": {"CPU": 2}}, "the minimum of CPU is larger than the cap"),
        ({"preemptible": "yes"}, "preemptible is neither True nor False"),
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(umbel.UsageError, match=says):
        Share(**options)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight", "a share is made of names and values"),
        ("wait=2", "unknown setting"),
        ("weight=heavy", "weight is not a number"),
        ("cap.=2", "a share is made of names and values"),
        ("cap=2,cap.CPU=2", "said twice"),
    ],
)
def test_texts_that_make_no_sense(text: str, says: str) -> None:
    with pytest.raises(umbel.UsageError, match=says):
        Share.parse(text)


def test_what_was_meant_and_where_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(umbel.UsageError, match=r"(?s)unknown setting in --share.*did you mean weight\?"):
        Share.parse("wieght=2", "--share")
    monkeypatch.setenv("UMBEL_SHARE", "wieght=2")
    with pytest.raises(umbel.UsageError, match=r"unknown setting in \$UMBEL_SHARE"):
        share_of(None)


def test_a_mistake_is_told_before_anything_is_started(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @umbel.task
    def one() -> int:
        return 1

    with pytest.raises(umbel.UsageError, match="share is not a share"):
        umbel.run(one(), store=str(elsewhere / "store"), executor="inline", share=3)  # type: ignore[arg-type]
    assert not (elsewhere / "store").exists()
