"""Stores on a real S3 server."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.seaweedfs import S3Server
from tests.storage.conftest import Write
from tests.storage.store_contract import StoreTests
from umbel.scheduler.errors import StoreConflictError
from umbel.storage.garbage import find_garbage, remove_garbage
from umbel.storage.layout import artifact
from umbel.storage.objects import fsspec as objects_fsspec
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.compaction import compact_run
from umbel.storage.store import open_store
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.codecs import encode

pytestmark = pytest.mark.ray


class TestS3(StoreTests):
    #: A page of a listing has 1,000.
    many = 1100

    @pytest.fixture(autouse=True)
    def use_server(self, s3_server: S3Server) -> None:
        self.server = s3_server

    def url(self, tmp_path: Path) -> str:
        return self.server.url(uuid4().hex)

    def options(self) -> Mapping[str, Any]:
        return self.server.storage_options

    def test_objects_in_parts(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(objects_fsspec, "_ONE_PUT_BYTES", 2**20)
        monkeypatch.setattr(objects_fsspec, "_PART_BYTES", 5 * 2**20)  # the least that S3 takes
        large = os.urandom(2**20) * 12
        store.create("large", large)
        with pytest.raises(StoreConflictError):
            store.create("large", large[::-1])
        assert store.read("large") == large
        assert store.size("large") == len(large)

    def test_one_large_put(self, store: ObjectStore) -> None:
        large = os.urandom(2**20) * 110  # beyond what s3fs by itself would send as one
        store.create("large", large)
        assert store.read("large") == large

    def test_credentials_and_endpoint_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in self.server.environment.items():
            monkeypatch.setenv(name, value)
        store = ObjectStore.open(self.url(tmp_path))
        store.check_writable()
        assert store.list() == []

    def test_a_query_engine_reads_through_its_file_system(self, store: ObjectStore) -> None:
        import pyarrow.dataset as ds

        from tests.storage.conftest import trials_table
        from umbel.storage.runs.segment_format import encode_segment

        store.create("t/0.parquet", encode_segment(trials_table([0, 1], [0.5, 0.25])))
        found = ds.dataset(store.full_path("t"), filesystem=store.file_system, format="parquet")
        assert found.to_table(columns=["metric_mase"])["metric_mase"].to_pylist() == [0.5, 0.25]


def test_upkeep(s3_server: S3Server, record: dict[str, Any], write_trials: Write) -> None:
    store = open_store(s3_server.url(uuid4().hex), s3_server.storage_options)
    store.prepare()
    kept, _ = (put_artifact(store.objects, encode(name)) for name in ("kept", "lost"))
    store.create_run(record)
    for trial in range(12):
        write_trials(store, [trial], [trial / 2], model=[kept])
    before = store.run("gdp").trials()
    compacted = compact_run(store.objects, "gdp")
    assert (compacted.segments_before, compacted.segments_after) == (12, 1)
    assert store.run("gdp").trials() == before
    assert find_garbage(store.objects).young == 1
    found = find_garbage(store.objects, grace=timedelta(0), now=datetime.now(UTC) + timedelta(minutes=1))
    assert [item.path for item in found.items] == [artifact(encode("lost").digest)]
    until = time.monotonic() + 5  # seconds are the finest that S3 tells
    while find_garbage(store.objects, grace=timedelta(0)).young and time.monotonic() < until:
        time.sleep(0.05)
    assert remove_garbage(store.objects, found, grace=timedelta(0)).items == found.items
    assert store.run("gdp").load_model(kept) == "kept"
    assert len(store.objects.list("artifacts")) == 1
