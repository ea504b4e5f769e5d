"""Where do the packed models of a run lie? Its rows say. It must not load any."""

from __future__ import annotations

from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord
from umbel.storage.runs.trial_rows import read_trials
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.packs import MODEL, MODEL_AT

__all__ = ["find_packed_models"]


def find_packed_models(objects: ObjectStore, run_id: str, graph: GraphRecord) -> dict[str, str]:
    """The place of each packed model of a run, by its digest. Cost: reads the run's segments."""
    places: dict[str, str] = {}
    for node in graph.nodes.values():
        if node.sweep is not None:
            rows = read_trials(objects, run_id, node.sweep, ["trial", MODEL, MODEL_AT])
        else:
            rows = read_elements(objects, run_id, node, ["element", MODEL, MODEL_AT])
        if {MODEL, MODEL_AT} <= set(rows.column_names):
            packed = rows.filter(rows[MODEL_AT].is_valid())
            places.update(zip(packed[MODEL].to_pylist(), packed[MODEL_AT].to_pylist(), strict=True))
    return places
