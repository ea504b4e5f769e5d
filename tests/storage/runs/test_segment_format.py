from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umbel.storage.runs.segment_format import SegmentDamagedError, decode_segment, encode_segment, unify

TABLE = pa.table(
    {
        "trial": pa.array(range(300), pa.int64()),
        "country": pa.array([f"C{i % 7}" for i in range(300)]),
        "metric_mase": pa.array([i / 7 for i in range(300)]),
        "status": pa.array(["ok"] * 300).dictionary_encode(),
        "payload": pa.array([bytes([i % 256]) * (i % 9) for i in range(300)], pa.binary()),
        "started": pa.array(range(300), pa.timestamp("us", "UTC")),
        "error": pa.nulls(300, pa.string()),
    }
)
PLAIN = TABLE.set_column(3, "status", TABLE["status"].cast(pa.string()))
DATA = encode_segment(TABLE, {"umbel.run": "gdp"})


def read(data: bytes) -> pa.Table:
    table, _ = decode_segment(data, verify_pages=True)
    return table.replace_schema_metadata(None)


def test_round_trip() -> None:
    table, schema = decode_segment(DATA)
    assert table.equals(PLAIN)
    assert table.schema.metadata == {b"umbel.run": b"gdp"}
    assert schema.names == TABLE.column_names


def test_any_tool_can_read_it() -> None:
    file = pq.ParquetFile(pa.BufferReader(DATA), page_checksum_verification=True)
    assert file.read().replace_schema_metadata(None).equals(PLAIN)
    assert file.metadata.metadata[b"umbel.run"] == b"gdp"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_equal_rows_give_equal_bytes() -> None:
    assert encode_segment(TABLE, {"umbel.run": "gdp"}) == DATA


@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 255)), min_size=1, max_size=4))
@example([(len(DATA) - 1, 1)])
@example([(DATA.rfind(b"umbel.crc32"), 1)])
@example([(DATA.rfind(b"umbel.crc32") + 13, 1)])
@example([(DATA.rfind(b"metric_mase"), 1)])
def test_flipped_bits_are_found(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(DATA)
    for position, mask in flips:
        damaged[position] ^= mask
    try:
        table = read(bytes(damaged))
    except SegmentDamagedError:
        return
    assert bytes(damaged) == DATA
    assert table.equals(PLAIN)


@given(st.integers(0, len(DATA) - 1), st.binary(max_size=40))
@example(0, b"")
@example(len(DATA) - 1, b"")
@example(len(DATA) // 2, DATA[-8:])
def test_cut_short_or_overwritten(position: int, tail: bytes) -> None:
    damaged = DATA[:position] + tail
    try:
        table = read(damaged)
    except SegmentDamagedError:
        return
    assert table.equals(PLAIN)


@given(st.binary(max_size=200))
@example(b"")
@example(b"PAR1")
@example(b"PAR1PAR1")
@example(b"PAR1umbel.crc32\x18\x08PAR1")
def test_garbage(data: bytes) -> None:
    with pytest.raises(SegmentDamagedError):
        decode_segment(data)


def test_a_file_that_umbel_did_not_write() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    with pytest.raises(SegmentDamagedError, match="checksum is missing"):
        decode_segment(sink.getvalue().to_pybytes())


def test_columns() -> None:
    table, schema = decode_segment(DATA, ["metric_mase", "nosuch", "trial"])
    assert set(table.column_names) == {"metric_mase", "trial"}
    assert schema.names == TABLE.column_names
    chosen, _ = decode_segment(DATA, lambda names: [name for name in names if name.startswith("metric_")])
    assert chosen.column_names == ["metric_mase"]
    dotted = encode_segment(pa.table({"a.b": [1], "a": [2], "c": [3]}))
    assert decode_segment(dotted, ["a.b"])[0].to_pydict() == {"a.b": [1]}


def test_unify_missing_columns_and_widening() -> None:
    one = pa.table({"a": [1], "b": ["x"]}).replace_schema_metadata({"file": "1"})
    two = pa.table({"a": [1.5], "c": pa.nulls(1)})
    table = unify([one, two])
    assert table.to_pydict() == {"a": [1.0, 1.5], "b": ["x", None], "c": [None, None]}
    assert table.schema.metadata is None


def test_unify_what_can_not_be_reconciled() -> None:
    parts = [
        pa.table({"a": [1], "b": [True]}),
        pa.table({"a": ["x"], "b": [None]}),
        pa.table({"b": [False]}),
        pa.table({"a": [[1, 2]], "b": [True]}),
    ]
    table = unify(parts)
    assert table["a"].to_pylist() == ["1", "x", None, "[1, 2]"]
    assert table["b"].to_pylist() == [True, None, False, True]


def test_unify_numbers_too_large_for_floats() -> None:
    table = unify([pa.table({"a": [2**60 + 1]}), pa.table({"a": [0.5]})])
    assert table["a"].to_pylist() == [str(2**60 + 1), "0.5"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_small_files_start_no_threads() -> None:
    script = """
import os
import pyarrow as pa
from umbel.storage.values.codecs import decode, encode
from umbel.storage.runs.segment_format import decode_segment, encode_segment
table = pa.table({name: list(range(100)) for name in "abc"})
segment, value = encode_segment(table), encode(table).data
before = len(os.listdir("/proc/self/task"))
decode_segment(segment)
decode_segment(segment, ["a", "b"])
decode(value)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
