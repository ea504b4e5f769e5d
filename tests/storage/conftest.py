"""What the tests of the store share: stores of each kind, and hand-written runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segments import SegmentWriter
from umbel.storage.store import Store, open_store

COUNTRIES = ["DEU", "FRA", "ITA"]
TRIALS = 4


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    """A local store."""
    return ObjectStore.open(tmp_path / "store")


@pytest.fixture(params=["local", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    return open_store(str(tmp_path / "store") if request.param == "local" else f"memory://{uuid4().hex}")


def trials_table(trials: list[int], metric: list[float | None], **columns: Any) -> pa.Table:
    """Rows of a trials table as the runtime writes them, dictionary columns included."""
    n = len(trials)
    status = columns.pop("status", ["ok"] * n)
    return pa.table(
        {
            "run": pa.array(["gdp"] * n).dictionary_encode(),
            "sweep": pa.array(["backtest"] * n).dictionary_encode(),
            "trial": pa.array(trials, pa.int64()),
            "country": pa.array([COUNTRIES[trial // TRIALS] for trial in trials], pa.string()),
            "config_country": pa.array([COUNTRIES[trial // TRIALS] for trial in trials], pa.string()),
            "config_lags": pa.array([trial % TRIALS for trial in trials], pa.int64()),
            "metric_mase": pa.array(metric, pa.float64()),
            "status": pa.array(status, pa.string()).dictionary_encode(),
            "error": pa.array([None if s == "ok" else f"boom {t}" for s, t in zip(status, trials, strict=True)]).cast(
                pa.string()
            ),
            "attempt": pa.array([1] * n, pa.int32()),
            "seed": pa.array(trials, pa.int64()),
            "started": pa.array([1_700_000_000_000_000 + trial for trial in trials], pa.timestamp("us", "UTC")),
            "seconds": pa.array([0.5] * n, pa.float64()),
            "host": pa.array(["box"] * n),
            "worker": pa.array(["w0"] * n),
            "code": pa.array(["c" * 8] * n),
            "data": pa.array([None] * n, pa.string()),
            "key": pa.array([f"key{trial}" for trial in trials]),
            "model": pa.array(columns.pop("model", [None] * n), pa.string()),
        }
    )


def values_table(elements: list[int], payloads: list[bytes | None], **columns: Any) -> pa.Table:
    """Rows of a node's values as the runtime writes them."""
    n = len(elements)
    return pa.table(
        {
            "element": pa.array(elements, pa.int64()),
            "status": pa.array(columns.get("status", ["ok"] * n), pa.string()).dictionary_encode(),
            "error": pa.array(columns.get("error", [None] * n), pa.string()),
            "digest": pa.array(columns.get("digest", [None] * n), pa.string()),
            "format": pa.array(["pickle"] * n, pa.string()),
            "size": pa.array([None if payload is None else len(payload) for payload in payloads], pa.int64()),
            "payload": pa.array(payloads, pa.binary()),
            "model": pa.array(columns.get("model", [None] * n), pa.string()),
            "attempt": pa.array([1] * n, pa.int32()),
            "started": pa.array([1_700_000_000_000_000] * n, pa.timestamp("us", "UTC")),
            "seconds": pa.array([0.5] * n, pa.float64()),
            "host": pa.array(["box"] * n),
            "worker": pa.array(["w0"] * n),
            "code": pa.array(["c" * 8] * n),
            "key": pa.array([f"key{element}" for element in elements]),
        }
    )


Write = Callable[..., None]


@pytest.fixture
def write_trials() -> Write:
    """Writes one segment of trials: ``write_trials(store, trials, metrics, **columns)``."""

    def write(
        store: Store, trials: list[int], metric: list[float | None], sweep: str = "backtest", **columns: Any
    ) -> None:
        write_segment(store, f"runs/gdp/trials/{sweep}", trials_table(trials, metric, **columns))

    return write


@pytest.fixture
def write_values() -> Write:
    """Writes one segment of values: ``write_values(store, node, elements, payloads, **columns)``."""

    def write(store: Store, node: str, elements: list[int], payloads: list[bytes | None], **columns: Any) -> None:
        write_segment(store, f"runs/gdp/values/{node}", values_table(elements, payloads, **columns))

    return write


def write_segment(store: Store, folder: str, table: pa.Table) -> None:
    """Write a table as one segment."""
    with SegmentWriter(store.objects) as writer:
        for batch in table.to_batches():
            writer.add(folder, batch)


@pytest.fixture
def record() -> dict[str, Any]:
    """A run.json: load (map) -> backtest (sweep) -> backtest-best -> refit (map) -> report (task)."""
    sweep = {
        "group_names": ["country"],
        "groups": [[country] for country in COUNTRIES],
        "trials": TRIALS,
        "metric": "mase",
        "mode": "min",
        "space": {},
        "search": "random",
        "seed": 0,
    }
    nodes = [
        {"name": "load", "kind": "map", "size": 3, "inputs": [], "code": "f"},
        {"name": "backtest", "kind": "sweep", "size": 12, "inputs": ["load"], "code": "f", "sweep": sweep},
        {"name": "backtest-best", "kind": "best", "size": 3, "inputs": ["backtest"], "code": None},
        {"name": "refit", "kind": "map", "size": 3, "inputs": ["backtest-best", "load"], "code": "f"},
        {"name": "report", "kind": "task", "size": 1, "inputs": ["refit"], "code": "f"},
    ]
    return {
        "format": 1,
        "id": "gdp",
        "name": "gdp",
        "created": "2026-01-02T03:04:05+00:00",
        "user": "ada",
        "host": "box",
        "command": ["gdp.py"],
        "versions": {"umbel": "0.1.0"},
        "graph": {"nodes": nodes},
    }
