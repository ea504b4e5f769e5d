"""What the tests of registered models share: runs that are done, written by hand, with models that can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.storage.conftest import TRIALS, trials_table, values_table, write_segment
from umbel.storage.store import Store
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.codecs import encode


@dataclass(frozen=True)
class Scale:
    """A model that multiplies."""

    by: float

    def predict(self, inputs: list[float]) -> list[float]:
        return [self.by * value for value in inputs]


@dataclass(frozen=True)
class Broken:
    """A model that answers nothing."""

    def predict(self, inputs: list[float]) -> list[float]:
        raise ZeroDivisionError("no answer")


def add_run(
    store: Store,
    record: dict[str, Any],
    run_id: str = "gdp",
    *,
    models: Sequence[Any] = (Scale(1.0), Scale(2.0), Scale(3.0)),
    metrics: Sequence[float | None] = (0.1, 0.2, 0.3),
    metric: str = "mase",
    end: bool = True,
) -> str:
    """A run of a group a metric; the second trial of each is the best and has the group's model (None: it has none)."""
    store.create_run({**record, "id": run_id, "name": run_id})
    numbers = list(range(len(metrics) * TRIALS))
    values = [
        metrics[n // TRIALS] if n % TRIALS == 1 else (None if metrics[n // TRIALS] is None else 9.0) for n in numbers
    ]
    kept: list[str | None] = [None] * len(numbers)
    for group, model in enumerate(models[: len(metrics)]):
        if model is not None:
            kept[group * TRIALS + 1] = put_artifact(store.objects, encode(model))
    table = trials_table(numbers, values, model=kept)
    table = table.rename_columns([f"metric_{metric}" if name == "metric_mase" else name for name in table.column_names])
    write_segment(store, f"runs/{run_id}/trials/backtest", table)
    if end:
        store.end_run(run_id, {"status": "done"})
    return run_id


def add_refits(store: Store, run_id: str, models: Sequence[Any], **columns: Any) -> None:
    """Values of the node ``refit``: models that ride in the segment."""
    encoded = [encode(model) for model in models]
    table = values_table(
        list(range(len(models))), [each.data for each in encoded], digest=[each.digest for each in encoded], **columns
    )
    write_segment(store, f"runs/{run_id}/values/refit", table)
