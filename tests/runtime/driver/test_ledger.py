"""What the ledger reads back when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import umbel
from umbel.storage.runs.segment_format import decode_segment


def load(group: str) -> str:
    return group


def score(config: dict[str, Any], data: str) -> dict[str, float]:
    return {"loss": float(config["x"]), "other": 1.0}


def refit(best: umbel.Best, data: str) -> float:
    return best.value


def run(store: Path) -> umbel.Run:
    series = umbel.task(load).map(["a", "b"])
    sweep = umbel.sweep(
        score,
        space={"x": [3, 1, 2], "fixed": "x"},
        over={"group": ["a", "b"]},
        data=series,
        search="grid",
        metric="loss",
        name="search",
    )
    node = umbel.task(refit).map(sweep.best(), series)
    return umbel.run(node, store=str(store), name="work", executor="inline", progress="quiet")


def test_resuming_reads_only_the_columns_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path).value("refit") == [1.0, 1.0]
    read: list[set[str]] = []

    def spy(*arguments: Any, **options: Any) -> tuple[pa.Table, pa.Schema]:
        table, schema = decode_segment(*arguments, **options)
        read.append(set(table.column_names))
        return table, schema

    monkeypatch.setattr("umbel.storage.runs.segments.decode_segment", spy)
    resumed = run(tmp_path)
    value = {"element", "status", "attempt", "digest", "format", "size", "length", "payload", "model"}
    assert read == [
        value,
        {"trial", "status", "attempt", "data", "model", "metric_loss", "metric_other"},
        value,
        value - {"payload"},  # nothing is made of the last node's values
    ]
    assert resumed.value("refit") == [1.0, 1.0]
