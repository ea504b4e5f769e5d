"""How do many small models become few objects?

Rows on their way to a segment carry small models as bytes, in the column ``model_payload``. Before the segment is
written, `pack_models` writes the bytes of all its rows as one object, a pack, and puts in their place where each lies:
``model_at`` is ``<digest of the pack>:<offset>:<length>``, or null for a model that is an artifact of its own. So a row
never names a model that is not durable. A pack is nothing but its models' bytes one after another, named by its own
digest as all content is. It must not know what models are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from umbel.scheduler.errors import StoreCorruptError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.values.artifacts import put_content
from umbel.storage.values.codecs import digest_of
from umbel.storage.values.columns import strings

__all__ = ["MODEL", "MODEL_AT", "MODEL_PAYLOAD", "PackedPlace", "pack_models", "payload_bytes", "read_packed"]

#: Columns: a model's digest; where it lies; its bytes, as long as it lies nowhere.
MODEL = "model"
MODEL_AT = "model_at"
MODEL_PAYLOAD = "model_payload"

_AT = re.compile(r"([0-9a-f]{64}):(\d{1,15}):(\d{1,15})")


@dataclass(frozen=True, slots=True)
class PackedPlace:
    """Where a model lies: a part of a pack."""

    #: The pack's digest.
    pack: str
    offset: int
    #: In bytes, at least 1.
    length: int

    def __str__(self) -> str:
        return f"{self.pack}:{self.offset}:{self.length}"

    @staticmethod
    def parse(text: str) -> PackedPlace:
        """Read what a row says.

        Raises:
            StoreCorruptError: it is no such place.
        """
        match = _AT.fullmatch(text)
        if match is None or not int(match[3]):
            raise StoreCorruptError(
                "this is no place of a model", got=repr(text), expected="<digest>:<offset>:<length>"
            )
        return PackedPlace(match[1], int(match[2]), int(match[3]))


def payload_bytes(rows: pa.RecordBatch | pa.Table) -> int:
    """How many bytes of models some rows carry."""
    return rows.column(MODEL_PAYLOAD).nbytes if MODEL_PAYLOAD in rows.schema.names else 0


def pack_models(objects: ObjectStore, rows: pa.Table) -> pa.Table:
    """Store the models that rows carry; returns the rows without them, saying where they lie.

    Cost: one object, whatever the number of models; none if there are none. Equal models are stored once.

    Raises:
        StoreError: the store can't be written.
    """
    if MODEL_PAYLOAD not in rows.column_names:
        return rows
    payloads = rows.column(MODEL_PAYLOAD).to_pylist()
    rows = rows.drop_columns([MODEL_PAYLOAD])
    digests = rows.column(MODEL).to_pylist()
    places: dict[str, tuple[int, int]] = {}
    parts: list[bytes] = []
    end = 0
    for digest, payload in zip(digests, payloads, strict=True):
        if payload is not None and digest not in places:
            places[digest] = (end, len(payload))
            parts.append(payload)
            end += len(payload)
    if not parts:
        return rows
    content = b"".join(parts)
    pack = digest_of(content)
    put_content(objects, layout.pack(pack), content)
    held = rows.column(MODEL_AT).to_pylist() if MODEL_AT in rows.column_names else [None] * len(rows)
    at = [
        str(PackedPlace(pack, *places[digest])) if payload is not None else before
        for digest, payload, before in zip(digests, payloads, held, strict=True)
    ]
    column = strings(at)
    if MODEL_AT in rows.column_names:
        return rows.set_column(rows.column_names.index(MODEL_AT), MODEL_AT, column)
    return rows.append_column(MODEL_AT, column)


def read_packed(objects: ObjectStore, at: str, digest: str) -> bytes:
    """The bytes of a packed model, checked against its digest. Cost: one request.

    Raises:
        NotFoundError: its pack is gone.
        StoreCorruptError: the bytes are others, or fewer.
    """
    place = PackedPlace.parse(at)
    data = objects.read_range(layout.pack(place.pack), place.offset, place.length)
    if digest_of(data) != digest:
        raise StoreCorruptError(
            f"the model {digest} in the store {objects.url} is damaged",
            got=f"{len(data)} bytes of another sha256 at {place.offset} in {layout.pack(place.pack)}",
            expected=f"its {place.length} bytes",
            hint="restore the pack from a copy, or run the trial again under another name",
        )
    return data
