"""`umbel.serve`: what is refused before anything starts, and the handle."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.cluster.served import promote, register
from umbel.scheduler.errors import NotFoundError, UntrustedError, UsageError
from umbel.storage.store import Store, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("served") / "store"))
    register(store, 1.0)
    promote(store, 1)
    return store


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("gdpp", {}, NotFoundError),
        ("../gdp", {}, UsageError),
        ("gdp", {"alias": "champ"}, NotFoundError),
        ("gdp", {"shadow": "challenger"}, NotFoundError),
        ("gdp", {"split": "champion=90,challenger=10"}, NotFoundError),
        ("gdp", {"split": ["champion=100", "XXX:champion=100"]}, NotFoundError),
        ("gdp", {"trust": False}, UntrustedError),
        ("gdp", {"replicas": 0}, UsageError),
        ("gdp", {"prefix": "models"}, UsageError),
        ("gdp", {"host": "no such host"}, UsageError),
        ("gdp", {"port": 70000}, UsageError),
        ("gdp", {"store": "memory://served"}, UsageError),
    ],
)
def test_what_cannot_be_served_is_found_before_ray_starts(
    store: Store, monkeypatch: pytest.MonkeyPatch, model: str, options: dict[str, Any], error: type[Exception]
) -> None:
    def no_ray(address: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", no_ray)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(error):
        umbel.serve(model, **{"store": store.url, "trust": True, "port": 0, **options})


def test_a_port_that_is_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="can't listen"):
        umbel.serve("gdp", store=store.url, trust=True, port=taken.getsockname()[1])


@pytest.mark.ray
def test_the_handle_predicts_and_stops(store: Store, tmp_path: Path) -> None:
    with umbel.serve("gdp", store=store, trust=True, port=0, replicas=2, prefix="/models") as server:
        assert server.predict("FRA", [1.0, 2.0], request_id="r")["outputs"] == [2.0, 4.0]
        assert server.predict("FRA", [1.0], request_id="r")["request_id"] == "r"
        with pytest.raises(NotFoundError, match="FRA"):
            server.predict("FRAN", [1.0])
        with pytest.raises(UsageError, match=r"inputs\.0"):
            server.predict("FRA", ["x"])
        assert server.readiness()[0]
        with urllib.request.urlopen(f"{server.url}/v1/models/gdp") as reply:
            assert reply.status == 200
        url = server.url
    server.stop()  # once more does nothing
    with pytest.raises(OSError, match=r"refused|404"):
        urllib.request.urlopen(f"{url}/healthz")
