"""Stores on a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.seaweedfs import S3Server
from tests.storage.store_contract import StoreTests
from umbel.scheduler.errors import StoreConflictError
from umbel.storage import objects_fsspec
from umbel.storage.objects import ObjectStore

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
        from umbel.storage.segment_format import encode_segment

        store.create("t/0.parquet", encode_segment(trials_table([0, 1], [0.5, 0.25])))
        found = ds.dataset(store.full_path("t"), filesystem=store.file_system, format="parquet")
        assert found.to_table(columns=["metric_mase"])["metric_mase"].to_pylist() == [0.5, 0.25]
