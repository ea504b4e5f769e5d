from __future__ import annotations

import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.errors import NotFoundError, StoreCorruptError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segments import SegmentWriter, read_segments
from umbel.storage.values.codecs import digest_of
from umbel.storage.values.packs import MODEL_PAYLOAD, PackedPlace, pack_models, payload_bytes, read_packed


def rows(payloads: list[bytes | None]) -> pa.Table:
    return pa.table(
        {
            "trial": pa.array(range(len(payloads)), pa.int64()),
            "model": pa.array([None if payload is None else digest_of(payload) for payload in payloads], pa.string()),
            "model_at": pa.nulls(len(payloads), pa.string()),
            "model_payload": pa.array(payloads, pa.binary()),
        }
    )


@given(st.lists(st.none() | st.binary(min_size=1, max_size=8), max_size=20))
def test_round_trip(payloads: list[bytes | None]) -> None:
    objects = ObjectStore.open(f"memory://{os.urandom(8).hex()}")
    packed = pack_models(objects, rows(payloads))
    assert packed.column_names == ["trial", "model", "model_at"]
    for payload, row in zip(payloads, packed.to_pylist(), strict=True):
        if payload is None:
            assert row["model_at"] is None
        else:
            assert read_packed(objects, row["model_at"], row["model"]) == payload
    assert len(objects.list(recursive=True)) == (1 if any(payloads) else 0)


def test_equal_models_are_stored_once(objects: ObjectStore) -> None:
    packed = pack_models(objects, rows([b"same", b"other", b"same"]))
    (info,) = objects.list_details("artifacts")
    assert info.size_bytes == len(b"sameother")
    places = packed["model_at"].to_pylist()
    assert places[0] == places[2] != places[1]
    assert pack_models(objects, rows([b"same", b"other", b"same"])).equals(packed)  # as after a lost reply
    assert len(objects.list_details("artifacts")) == 1


def test_models_that_lie_somewhere_stay_there(objects: ObjectStore) -> None:
    table = rows([b"new", None, None])
    elsewhere = str(PackedPlace("0" * 64, 7, 9))
    table = table.set_column(2, "model_at", pa.array([None, elsewhere, None], pa.string()))
    packed = pack_models(objects, table)
    assert packed["model_at"].to_pylist()[1:] == [elsewhere, None]
    without = table.drop_columns([MODEL_PAYLOAD])
    assert pack_models(objects, without) is without


def test_payload_bytes() -> None:
    assert payload_bytes(rows([b"x" * 1000, None])) >= 1000
    assert payload_bytes(rows([b"x"]).drop_columns([MODEL_PAYLOAD])) == 0


def test_damage_is_found(objects: ObjectStore) -> None:
    (at,) = pack_models(objects, rows([b"content"]))["model_at"].to_pylist()
    digest = digest_of(b"content")
    with pytest.raises(StoreCorruptError, match="damaged"):
        read_packed(objects, at, digest_of(b"else"))
    place = PackedPlace.parse(at)
    for other in (PackedPlace(place.pack, 1, 7), PackedPlace(place.pack, 100, 7), PackedPlace(place.pack, 0, 6)):
        with pytest.raises(StoreCorruptError, match="damaged"):
            read_packed(objects, str(other), digest)
    with pytest.raises(NotFoundError):
        read_packed(objects, str(PackedPlace("0" * 64, 0, 7)), digest)
    for text in ("", "x:0:1", f"{place.pack}:-1:2", f"{place.pack}:0:0", f"../{place.pack}:0:1", f"{at}:1", at + "\n"):
        with pytest.raises(StoreCorruptError, match="no place"):
            read_packed(objects, text, digest)


def test_a_segment_is_written_after_the_pack_that_it_names(objects: ObjectStore) -> None:
    created: list[str] = []
    create = type(objects)._create

    class Watched(type(objects)):  # type: ignore[misc]
        def _create(self, path: str, data: bytes | memoryview) -> None:
            create(self, path, data)
            created.append(path)

    watched = Watched(objects.url)
    with SegmentWriter(watched, finish=lambda table: pack_models(watched, table), max_age_s=1000) as writer:
        for batch in (rows([b"a", b"b"]), rows([b"c", None]), rows([None]).drop_columns([MODEL_PAYLOAD])):
            writer.add("runs/r/trials/s", batch.to_batches()[0])
    assert [path.rpartition("/")[0] for path in created] == ["artifacts/packs", "runs/r/trials/s"]
    (table,) = read_segments(objects, "runs/r/trials/s").tables
    assert table.column_names == ["trial", "model", "model_at"]
    assert table["model_at"].null_count == 2
