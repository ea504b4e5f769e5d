"""`umbel.serve`: what is refused before anything starts."""

from __future__ import annotations

import copy
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import umbel
from tests.cluster.served import promote, register
from umbel.cluster.cli.app import main
from umbel.cluster.serving.serve import _check_name, _share, checked_settings
from umbel.cluster.serving.settings import make_settings
from umbel.scheduler.errors import ExecutorError, NotFoundError, UntrustedError, UsageError
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
        ("gdp", {"host": "0.0.0.0"}, UsageError),
        ("gdp", {"token": "correct-horse-battery-staple", "no_token": True}, UsageError),
        ("gdp", {"shadow": "champion", "log": 0.0}, UsageError),
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


def test_a_share_of_nothing_is_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(address: object) -> None:
        raise ExecutorError("no Ray here")

    monkeypatch.setattr("umbel.runtime.executors.ray_cluster.connect", no_ray)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    promote(store, 1, "idle")
    with pytest.warns(UserWarning, match="idle answers nobody"), pytest.raises(ExecutorError, match="no Ray here"):
        umbel.serve("gdp", store=store.url, trust=True, port=0, split={"champion": 100, "idle": 0})


def test_a_port_that_is_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="can't listen"):
        umbel.serve("gdp", store=store.url, trust=True, port=taken.getsockname()[1])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="--grpc-port 0"):
        umbel.serve("gdp", store=store.url, trust=True, port=0, grpc_port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="can't listen"):
        umbel.serve("gdp", store=store.url, trust=True, port=8123, grpc_port=8123)


def test_a_second_server_on_one_port_ends_with_one_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["umbel", "serve", "gdp", "--store", store.url, "--port", port, "--trust"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "can't listen there" in told
    assert "Traceback" not in told


def test_splits_of_groups_are_kept_by_canonical_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    register(store, 1.0, groups=["a/b", "c"])
    promote(store, 1)
    settings = make_settings("gdp", split=["champion=100", "a/b:champion=40,challenger=60"], trust=True)
    promote(store, 1, "challenger")
    assert checked_settings(store, settings).splits.of("a%2Fb").as_percent() == {"champion": 40.0, "challenger": 60.0}
    both = make_settings("gdp", split=["a/b:champion=100", "a%2Fb:champion=100"], trust=True)
    with pytest.raises(UsageError, match="two splits"):
        checked_settings(store, both)


def test_skops_models_that_need_trust_are_told_of_at_once(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    store = open_store(str(tmp_path / "store"))
    register(store, 1.0, model=lambda factor: LinearRegression().fit([[0.0]], [factor]), inputs=[[1.0]])
    # skops does not know functions
    unknown = make_pipeline(FunctionTransformer(copy.copy), LinearRegression()).fit([[0.0]], [1.0])
    version = register(store, 1.0, model=lambda factor: unknown, inputs=[[1.0]])
    assert set(version.table()["model_format"].to_pylist()) == {"skops"}
    promote(store, 1)
    checked_settings(store, make_settings("gdp"))
    promote(store, 2)
    with pytest.raises(UntrustedError, match="skops"):
        checked_settings(store, make_settings("gdp"))
    checked_settings(store, make_settings("gdp", trust=True))


def test_a_server_does_not_take_the_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(applications={"umbel-gdp": SimpleNamespace(status=SimpleNamespace(value="RUNNING"))})
    monkeypatch.setattr("ray.serve.status", lambda: there)
    with pytest.raises(UsageError, match="--name"):
        _check_name("umbel-gdp")
    _check_name("umbel-gdp-2")


def test_a_server_that_ends_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = SimpleNamespace(applications={"umbel-gdp": SimpleNamespace(status=SimpleNamespace(value="DELETING"))})
    looks = iter([ending, ending, SimpleNamespace(applications={})])
    monkeypatch.setattr("ray.serve.status", lambda: next(looks))
    with pytest.warns(UserWarning, match="umbel-gdp that was here is ending"):
        _check_name("umbel-gdp")
    assert next(looks, None) is None


@pytest.mark.parametrize(("there", "replicas", "share"), [(2.0, 3, 0.6666), (8.0, 2, 1.0), (1.0, 8, 0.125)])
def test_shares_of_its_own_ray_add_up(
    monkeypatch: pytest.MonkeyPatch, there: float, replicas: int, share: float
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": there})
    assert _share(replicas) == share
