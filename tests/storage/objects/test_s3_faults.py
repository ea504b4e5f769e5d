"""What goes wrong on the way to a real S3 server, and what becomes of it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.faulty_proxy import FAULTS, faulty_proxy
from tests.seaweedfs import S3Server
from umbel.scheduler.errors import StoreError, StoreUnavailableError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.objects.retries import RetryingObjectStore, RetryPolicy

pytestmark = pytest.mark.ray

#: So that a request times out soon.
SHORT = {"config_kwargs": {"read_timeout": 0.5, "connect_timeout": 0.5}}


def open_store(server: S3Server, url: str | None = None, limit_s: float = 60.0, **options: Any) -> ObjectStore:
    store = ObjectStore.open(url or server.url(uuid4().hex), {**server.storage_options, **SHORT, **options})
    assert isinstance(store, RetryingObjectStore)
    return RetryingObjectStore(store._inner, RetryPolicy(first_pause_s=0.01, limit_s=limit_s))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_passes(s3_server: S3Server, fault: str) -> None:
    large = os.urandom(300_000)
    with faulty_proxy(s3_server, rate=0.5, seed=1, faults=[fault], timeout_s=1.0) as (proxy, through):
        store = open_store(through)
        for number in range(3):
            store.create(f"f/{number}", large + b"%d" % number, unique=True)
            assert store.read(f"f/{number}") == large + b"%d" % number
            assert store.read_range(f"f/{number}", 300_000, 5) == b"%d" % number
        assert store.list("f") == ["f/0", "f/1", "f/2"]
        assert [info.size_bytes for info in store.list_details("f")] == [300_001] * 3
        assert store.size("f/0") == 300_001
        assert not store.exists("f/9")
        store.delete("f/0")
        assert store.list("f") == ["f/1", "f/2"]
        assert proxy.injected[fault] >= 3


def test_each_request_is_made_once_by_the_client(s3_server: S3Server) -> None:
    with faulty_proxy(s3_server, rate=1.0, faults=["503"]) as (proxy, through):
        store = open_store(through)
        assert isinstance(store, RetryingObjectStore)
        with pytest.raises(StoreUnavailableError, match="SlowDown"):
            store._inner.read("a")
        assert proxy.requests == {"GET": 1}


def test_an_outage_ends_in_one_clear_error(s3_server: S3Server) -> None:
    with faulty_proxy(s3_server, rate=1.0, faults=["503"]) as (_, through):
        with pytest.raises(StoreUnavailableError) as caught:
            open_store(through, limit_s=1.0).read("runs/gdp/run.json")
        text = str(caught.value)
        assert "can't read runs/gdp/run.json" in text
        assert re.search("tr(y|ies) within", text)
        assert "run the same command again" in text


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"key": "nobody"}, ["InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"]),
        ({"secret": "wrong"}, ["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"]),
        ({"url": "s3://no-such-bucket/x"}, ["NoSuchBucket", "make its bucket"]),
        ({"endpoint_url": ""}, ["connect", "AWS_ENDPOINT_URL"]),
    ],
    ids=["key", "secret", "bucket", "endpoint"],
)
def test_what_will_not_pass_is_named_first(s3_server: S3Server, changed: Mapping[str, Any], words: list[str]) -> None:
    changes = dict(changed)
    if "endpoint_url" in changes:
        changes["endpoint_url"] = f"http://127.0.0.1:{closed_port()}"
    store = open_store(s3_server, limit_s=1.0, **changes)
    with pytest.raises(StoreError) as caught:
        store.check_writable()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [(403, "RequestTimeTooSkewed", "clock"), (400, "ExpiredToken", "AWS_PROFILE"), (403, "AccessDenied", "get access")],
)
def test_what_servers_refuse(s3_server: S3Server, status: int, code: str, hint: str) -> None:
    with faulty_proxy(s3_server, answer=(status, code)) as (proxy, through):
        with pytest.raises(StoreError, match=code) as caught:
            open_store(through).check_writable()
        assert hint in str(caught.value.hint)
        assert proxy.requests.total() == 1


def test_no_credentials_at_all(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in s3_server.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = ObjectStore.open(s3_server.url("x"), {"endpoint_url": s3_server.endpoint})
    with pytest.raises(StoreError, match="redentials") as caught:
        store.check_writable()
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
