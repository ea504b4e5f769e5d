"""Where a server listens, and whom that lets in; without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from umbel.cluster.serving.listening import Listening, connect, is_loopback
from umbel.scheduler.errors import UsageError


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", start)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def running(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A cluster whose Serve listens already."""
    client = SimpleNamespace(http_config=SimpleNamespace(host=host, port=8123))
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", lambda address: False)
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda **options: client)


@pytest.mark.parametrize(
    ("host", "is_only_here"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("127.3.2.1", True),
        ("0.0.0.0", False),
        ("", False),
        ("10.1.2.3", False),
    ],
)
def test_who_reaches_a_host(host: str, is_only_here: bool) -> None:
    assert is_loopback(host) is is_only_here


def test_other_machines_are_let_in_only_with_a_token(no_ray: None) -> None:
    with pytest.raises(UsageError, match="no-token"):
        connect(None, "0.0.0.0", 0, is_guarded=False)
    with pytest.raises(AssertionError, match="Ray was started"):
        connect(None, "0.0.0.0", 0, is_guarded=True)
    with pytest.raises(AssertionError, match="Ray was started"):
        connect(None, None, 0, is_guarded=False)


def test_a_serve_that_other_machines_reach_asks_for_a_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, "0.0.0.0")
    with pytest.raises(UsageError, match=r"it would listen on 0\.0\.0\.0"):
        connect("auto", None, None, is_guarded=False)
    found = connect("auto", None, None, is_guarded=True)
    assert (found.host, found.url, found.owns_ray) == ("0.0.0.0", "http://127.0.0.1:8123", False)
    with pytest.raises(UsageError, match="listens elsewhere"):  # not what was asked for
        connect("auto", "127.0.0.1", None, is_guarded=True)


@pytest.mark.parametrize(
    ("host", "port"), [(None, None), (None, 0), (None, 8123), ("127.0.0.1", 8123), ("localhost", 0)]
)
def test_a_serve_that_runs_is_used(monkeypatch: pytest.MonkeyPatch, host: Any, port: Any) -> None:
    running(monkeypatch, "127.0.0.1")
    assert connect("auto", host, port, is_guarded=False) == Listening("127.0.0.1", 8123, False)


@pytest.mark.parametrize(("host", "port"), [(None, 8000), ("0.0.0.0", None)])
def test_a_serve_that_runs_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch, host: Any, port: Any) -> None:
    running(monkeypatch, "127.0.0.1")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:8123"):
        connect("auto", host, port, is_guarded=True)


def test_addresses_as_urls_have_them() -> None:
    assert Listening("::1", 80, True).url == "http://[::1]:80"
    assert Listening("::", 80, True).url == "http://127.0.0.1:80"
    assert Listening("10.1.2.3", 80, True).url == "http://10.1.2.3:80"
