"""What the tables of a run of `chaos_graph.py` must hold, whatever happened while it ran."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

import umbel
from tests.clusters.chaos_graph import GROUPS

__all__ = ["assert_equal", "assert_written_once", "attempts"]

#: Columns in which a disturbed run may differ. The name of the run is the same here.
VARYING = {"started", "seconds", "host", "worker", "attempt", "model_at"}
NODES = ("load", "search", "refit", "summary")


def fixed(table: pa.Table) -> pa.Table:
    """The columns in which nothing may differ."""
    return table.select([name for name in table.column_names if name not in VARYING])


def assert_equal(run: umbel.Run, undisturbed: umbel.Run) -> None:
    """Nothing is lost, nothing doubled, and all is as it would be if nothing had happened."""
    assert run.status == undisturbed.status == "done"
    assert run.failures().num_rows == 0, run.failures().to_pylist()[:3]
    for node in NODES:
        left, right = fixed(run.elements(node)), fixed(undisturbed.elements(node))
        assert left.schema.equals(right.schema)
        differing = [name for name in left.column_names if not left[name].equals(right[name])]
        assert not differing, f"{node}: {differing}"
    assert fixed(run.best()).equals(fixed(undisturbed.best()))
    assert run.value("refit") == undisturbed.value("refit")
    assert run.value("summary") == undisturbed.value("summary")


def assert_written_once(store: Path, trials: int) -> None:
    """Readers would leave a second row out, so this looks at the files."""
    for folder, column, count in (
        ("trials/search", "trial", GROUPS * trials),
        ("values/load", "element", GROUPS),
        ("values/refit", "element", GROUPS),
        ("values/summary", "element", 1),
    ):
        numbers: list[int] = []
        for segment in Path(store, "runs", "chaos", folder).glob("*.parquet"):
            numbers += pyarrow.parquet.read_table(segment, columns=[column])[column].to_pylist()
        assert sorted(numbers) == list(range(count)), folder


def attempts(run: umbel.Run) -> set[int]:
    """The attempts that counted, of all nodes."""
    return {attempt for node in NODES for attempt in run.elements(node, ["attempt"])["attempt"].to_pylist()}
