from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.storage.conftest import Write, trials_table, write_segment
from umbel.scheduler.errors import NotFoundError, RunHeldError, StoreCorruptError, StoreError
from umbel.storage.objects.local import LocalObjectStore
from umbel.storage.runs import compaction
from umbel.storage.runs.compaction import compact_run
from umbel.storage.runs.ownership import Ownership
from umbel.storage.runs.run import Run
from umbel.storage.runs.segments import read_segments, scan_segments
from umbel.storage.store import Store
from umbel.storage.values.codecs import encode

FOLDER = "runs/gdp/trials/backtest"


@pytest.fixture
def filled(any_store: Store, record: dict[str, Any], write_trials: Write, write_values: Write) -> Store:
    any_store.create_run(record)
    for trial in range(12):
        write_trials(any_store, [trial], [trial / 2])
    write_trials(any_store, [3], [0.125])  # recorded twice: the later one counts
    for element in range(3):
        write_values(any_store, "load", [element], [encode(f"value {element}").data])
    any_store.end_run("gdp", {"status": "done"})
    return any_store


def facts(run: Run) -> list[Any]:
    return [run.status, run.trials(), run.best(), run.failures(), run.value("load"), run.elements("load"), run.models()]


def test_few_segments_and_the_same_run(filled: Store) -> None:
    before = facts(filled.run("gdp"))
    done = compact_run(filled.objects, "gdp")
    assert (done.segments_before, done.segments_after) == (16, 2)
    assert done.bytes_after < done.bytes_before
    assert facts(filled.run("gdp")) == before
    assert filled.objects.list(FOLDER) == [f"{FOLDER}/00000013.parquet"]
    (table,) = read_segments(filled.objects, FOLDER).tables
    assert table.num_rows == 12  # what does not count is gone
    assert filled.run("gdp").dataset().count_rows() == 12
    again = compact_run(filled.objects, "gdp")
    assert (again.segments_before, again.segments_after) == (2, 2)


def test_in_pieces(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", 5)
    before = facts(filled.run("gdp"))
    done = compact_run(filled.objects, "gdp")
    assert done.segments_after == 4
    assert facts(filled.run("gdp")) == before


def test_a_run_that_goes_on_is_refused(filled: Store) -> None:
    owner = Ownership.acquire(filled.objects, "gdp")
    with pytest.raises(RunHeldError):
        compact_run(filled.objects, "gdp")
    owner.release("done")
    with pytest.raises(NotFoundError):
        compact_run(filled.objects, "nothing")


@pytest.mark.parametrize("reason", ["interrupted", "failed", "stopped", None])
def test_the_status_stays(any_store: Store, record: dict[str, Any], write_trials: Write, reason: str | None) -> None:
    any_store.create_run(record)
    for trial in range(3):
        write_trials(any_store, [trial], [1.0])
    if reason is not None:
        Ownership.acquire(any_store.objects, "gdp").release(reason)
    before = any_store.run("gdp").status
    compact_run(any_store.objects, "gdp")
    assert any_store.run("gdp").status == before == (reason or "died")


def test_damage_is_left_to_the_run_itself(tmp_path: Path, record: dict[str, Any], write_trials: Write) -> None:
    store = Store(LocalObjectStore(str(tmp_path)))
    store.create_run(record)
    for trial in range(3):
        write_trials(store, [trial], [1.0])
    damaged = tmp_path / FOLDER / "00000001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    listed = store.objects.list(FOLDER)
    with pytest.raises(StoreCorruptError, match="00000001"):
        compact_run(store.objects, "gdp")
    assert store.objects.list(FOLDER) == listed


class Stopping(LocalObjectStore):
    """A store that fails from some change on."""

    left = 1000

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreError("injected")

    def _create(self, path: str, data: bytes | memoryview) -> None:
        if "/trials/" in path:
            self._count()
        super()._create(path, data)

    def _delete(self, path: str) -> None:
        if "/trials/" in path:
            self._count()
        super()._delete(path)


@pytest.mark.parametrize("steps", range(8))
def test_wherever_it_stops_nothing_is_lost(
    tmp_path: Path, record: dict[str, Any], write_trials: Write, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", 3)
    store = Store(LocalObjectStore(str(tmp_path)))
    store.create_run(record)
    for trial in range(6):
        write_trials(store, [trial], [trial / 2])
    write_trials(store, [1], [7.0])
    before = store.run("gdp").trials()
    stopping = Stopping(str(tmp_path))
    stopping.left = steps
    with pytest.raises(StoreError, match="injected"):
        compact_run(stopping, "gdp")
    assert store.run("gdp").trials() == before
    compact_run(store.objects, "gdp")
    assert store.run("gdp").trials() == before
    assert len(store.objects.list(FOLDER)) == 2


def test_a_reader_that_had_listed_before_finds_all(tmp_path: Path, record: dict[str, Any]) -> None:
    store = Store(LocalObjectStore(str(tmp_path)))
    store.create_run(record)
    for trial in range(5):
        write_segment(store, FOLDER, trials_table([trial], [1.0]))
    scan = scan_segments(store.objects, FOLDER, ["trial"])
    first = next(scan)
    compact_run(store.objects, "gdp")
    rows = [trial for segment in [first, *scan] for trial in segment.table["trial"].to_pylist()]  # type: ignore[index]
    assert set(rows) == set(range(5))
