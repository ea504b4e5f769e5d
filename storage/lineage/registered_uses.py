"""Which registered versions hold models of some elements of some runs, or name some digest themselves?

Versions outlive their runs, and models that are registered may be written anew, under another digest; so their own rows
are looked at, too. It must not know how elements are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from umbel.scheduler.errors import StoreError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.registered_model import RegisteredModel

__all__ = ["Registered", "registered_uses"]

#: Columns of a version's rows that hold digests, and what these are there.
_DIGESTS = ("model", "data", "code", "source", "environment")
_COLUMNS = ("run", "run_created", "sweep", "trial", "node", "element", *_DIGESTS)
#: Versions that are read at once, from stores whose answers take time.
_READERS = 16


@dataclass(frozen=True, slots=True)
class Registered:
    """Models of a run that a registered version holds."""

    run: str
    #: When the run was made, ISO 8601.
    created: str
    model: str
    version: int
    #: What the digest is there, if the version's rows name it: "model", "data", ….
    roles: tuple[str, ...]
    #: Digests of the models.
    models: frozenset[str]


def registered_uses(
    objects: ObjectStore, digest: str, was_made: Callable[[str, str, str, int], bool]
) -> list[Registered]:
    """All models in registered versions that were made of something, by version and run; damaged versions are left out.

    Args:
        objects: the store.
        digest: the first digits of a digest that rows may name.
        was_made: whether (run, when it was made, node, trial or element) was made of it.

    Cost: a listing a model, and two requests a version.
    """
    names = [name for name in objects.list_folders(layout.REGISTRY) if layout.is_name(name)]
    models = [RegisteredModel(objects, each) for each in names]
    versions = [(model, number) for model in models for number in model.versions()]

    def look(each: tuple[RegisteredModel, int]) -> list[Registered]:
        try:
            return list(_uses(each[0].version(each[1]), digest, was_made))
        except StoreError:
            return []

    if objects.is_local_path or objects.is_process_local or len(versions) < 2:
        found = list(map(look, versions))
    else:
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(look, versions))
    return [use for uses in found for use in uses]


def _uses(version: ModelVersion, digest: str, was_made: Callable[[str, str, str, int], bool]) -> Iterator[Registered]:
    table = version.table()
    hits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.select([name for name in _COLUMNS if name in table.column_names]).to_pylist():
        created = str(row.get("run_created") or "")
        named = [column for column in _DIGESTS if str(row.get(column) or "").startswith(digest)]
        node, index = row.get("node"), row.get("element")
        if node is None:
            node, index = row.get("sweep"), row.get("trial")
        is_made = node is not None and index is not None and was_made(row["run"], created, node, index)
        if named or is_made:
            hits.setdefault((row["run"], created), []).append({**row, "named": named})
    for (run, created), rows in hits.items():
        roles = tuple(column for column in _DIGESTS if any(column in row["named"] for row in rows))
        models = frozenset(row["model"] for row in rows)
        yield Registered(run, created, version.model, version.number, roles, models)
