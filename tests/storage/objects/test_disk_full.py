"""A disk that is really full: a tiny file system where one can be mounted, and a limit on file sizes everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from umbel.scheduler.errors import StoreError, StoreFullError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segments import SegmentWriter, read_segments

pytestmark = pytest.mark.ray


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, check=False, timeout=30
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], check=True, timeout=30)


def rows(first: int) -> pa.RecordBatch:
    payload = [os.urandom(1000) for _ in range(40)]
    return pa.record_batch({"element": pa.array(range(first, first + 40)), "payload": pa.array(payload, pa.binary())})


def test_a_disk_that_fills_up(tiny_disk: Path) -> None:
    store = ObjectStore.open(tiny_disk / "store")
    writer = SegmentWriter(store, max_age_s=1000)

    def fill() -> None:
        for first in range(0, 4000, 40):
            writer.add("f", rows(first))
            writer.flush()

    with pytest.raises(StoreFullError, match="no space is left") as caught:
        fill()
    durable = writer.durable_rows
    assert "run the same command again" in (caught.value.hint or "")
    writer.close()
    assert durable > 0
    scan = read_segments(store, "f", ["element"], verify=True)
    assert scan.corrupt == []
    assert [element for table in scan.tables for element in table["element"].to_pylist()] == list(range(durable))
    # What had been written in part was taken away again, so there is room to release the run.
    assert all(not path.name.startswith(".") for path in (tiny_disk / "store").rglob("*"))
    store.create("note", b"x")
    # With room again, writing goes on where it ended.
    (tiny_disk / "store" / "f" / "00000000.parquet").unlink()
    with SegmentWriter(store, max_age_s=1000) as again:
        again.add("f", rows(durable))
    assert read_segments(store, "f").corrupt == []


def test_a_disk_that_is_full_from_the_start(tiny_disk: Path) -> None:
    store = ObjectStore.open(tiny_disk / "store")
    (tiny_disk / "filler").write_bytes(b"x" * (256 * 1024 - 4096 * 2))
    with pytest.raises(StoreError):
        store.create("f/a", b"x" * 100_000)
    with pytest.raises(StoreFullError):
        store.create("a", b"x" * 100_000)
    assert store.list(recursive=True) == []


LIMITED = """
import resource, sys
from umbel.scheduler.errors import StoreFullError
from umbel.storage.objects.interface import ObjectStore
store = ObjectStore.open(sys.argv[1])
store.create("small", b"x" * 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    store.create("large", b"x" * 20_000)
except StoreFullError as error:
    print("full")
assert store.list() == ["small"]
store.create("small too", b"x" * 1000)
"""


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "full\n"), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "small too"]
