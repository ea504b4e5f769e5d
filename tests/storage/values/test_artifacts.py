from __future__ import annotations

import numpy as np
import pytest

from umbel.scheduler.errors import NotFoundError, StoreCorruptError, UsageError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.store import Store
from umbel.storage.values.artifacts import get_artifact, put_artifact, read_artifact
from umbel.storage.values.codecs import encode


def test_round_trip(any_store: Store) -> None:
    encoded = encode(np.arange(5))
    digest = put_artifact(any_store.objects, encoded)
    assert digest == encoded.digest
    assert any_store.objects.list("artifacts") == [f"artifacts/{digest}"]
    assert read_artifact(any_store.objects, digest) == encoded.data
    value = get_artifact(any_store.objects, digest)
    assert isinstance(value, np.ndarray)
    assert value.tolist() == [0, 1, 2, 3, 4]


def test_equal_content_is_stored_once(objects: ObjectStore) -> None:
    assert put_artifact(objects, encode("x")) == put_artifact(objects, encode("x"))
    assert len(objects.list("artifacts")) == 1


def test_damage_is_found(objects: ObjectStore) -> None:
    encoded = encode("a value")
    path = f"artifacts/{encoded.digest}"
    objects.create(path, encoded.data[:-1] + b"!")
    with pytest.raises(StoreCorruptError, match="damaged"):
        get_artifact(objects, encoded.digest)


def test_one_cut_short_is_written_again(objects: ObjectStore) -> None:
    encoded = encode("a value")
    path = f"artifacts/{encoded.digest}"
    objects.create(path, encoded.data[:3])
    put_artifact(objects, encoded)
    assert get_artifact(objects, encoded.digest) == "a value"
    assert objects.exists(path + ".corrupt")


def test_missing_and_malformed(objects: ObjectStore) -> None:
    with pytest.raises(NotFoundError):
        get_artifact(objects, "0" * 64)
    for digest in ("", "../run.json", "0" * 63):
        with pytest.raises(UsageError):
            read_artifact(objects, digest)
