"""Checkpoints: values and files, the newest of several, damaged ones, and that only one is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from umbel.scheduler.errors import StoreCorruptError, UsageError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.checkpoints import (
    Saved,
    delete_older,
    list_checkpoints,
    load_checkpoint,
    pack,
    save_checkpoint,
    unpack,
)


@pytest.fixture(autouse=True)
def unpacked_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unpacked goes when the test's folder goes."""
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))


@pytest.fixture
def objects() -> ObjectStore:
    return ObjectStore.open(f"memory://{uuid4().hex}")


def saved(objects: ObjectStore, attempt: int, number: int, value: object) -> Saved:
    return save_checkpoint(objects, "run", "search", 7, attempt, number, pack(value))


def known(objects: ObjectStore) -> list[Saved]:
    return list_checkpoints(objects, "run", "search", 7)


def test_the_newest_is_that_of_the_latest_attempt(objects: ObjectStore) -> None:
    assert load_checkpoint(objects, known(objects)) is None
    saved(objects, 1, 12, "old")
    saved(objects, 2, 3, "newest")
    saved(objects, 2, 2, "older")
    assert load_checkpoint(objects, known(objects)) == "newest"
    assert list_checkpoints(objects, "run", "search", 8) == []


def test_older_ones_are_deleted(objects: ObjectStore) -> None:
    first = saved(objects, 1, 1, "a")
    other = saved(objects, 1, 2, "by another worker")
    delete_older(objects, [first, other], saved(objects, 1, 2, "b"))
    assert first not in known(objects)
    assert len(known(objects)) <= 2


def test_damaged_or_deleted_ones_are_passed_over(objects: ObjectStore) -> None:
    saved(objects, 1, 1, {"epoch": 1})
    save_checkpoint(objects, "run", "search", 7, 1, 2, b"damaged")
    gone = saved(objects, 1, 3, {"epoch": 3})
    listed = known(objects)
    objects.delete(gone.path)
    assert load_checkpoint(objects, listed) == {"epoch": 1}


def test_values_of_any_kind() -> None:
    weights = {"layer": np.arange(6.0).reshape(2, 3)}
    found = unpack(pack(weights))
    assert isinstance(found, dict)
    assert np.array_equal(found["layer"], weights["layer"])
    torch = pytest.importorskip("torch")
    state = torch.nn.Linear(2, 1).state_dict()
    back = unpack(pack(state))
    assert isinstance(back, dict)
    assert torch.equal(back["weight"], state["weight"])


def test_files_and_folders(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    (model / "inner" / "weights.bin").write_bytes(b"\0\1")
    back = unpack(pack(model), lambda: str(tmp_path / "there"))
    assert isinstance(back, Path)
    assert (back / "inner" / "weights.bin").read_bytes() == b"\0\1"
    single = unpack(pack(model / "inner" / "weights.bin"))
    assert isinstance(single, Path)
    assert single.read_bytes() == b"\0\1"


def test_what_can_not_be_packed_or_unpacked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        pack(tmp_path / "missing")
    with pytest.raises(StoreCorruptError):
        unpack(b"UMBELTAR" + b"x" * 2000)
