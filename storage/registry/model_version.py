"""What is a version of a registered model, and how are its models loaded?

It must not know aliases, and must not write.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from umbel.scheduler.errors import StoreCorruptError, UmbelError
from umbel.scheduler.words import counted
from umbel.storage.lineage.tree import Lineage
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_formats import decode_model
from umbel.storage.registry.model_rows import FORMAT, GROUP, SIZE, model_bytes, read_rows
from umbel.storage.registry.predicting import as_taken, predict
from umbel.storage.registry.records import VersionRecord
from umbel.storage.registry.trust import check_trust
from umbel.storage.runs.records import read_run_record
from umbel.storage.runs.run import Run
from umbel.storage.values.artifacts import read_artifact
from umbel.storage.values.columns import contains, python_rows
from umbel.storage.values.packs import MODEL

__all__ = ["ModelVersion"]


class ModelVersion:
    """One version of a registered model: a model a group. Immutable; pickles; safe to use from several threads.

    Args:
        objects: the store.
        record: what the version's record says.
        trust: its models may be loaded whatever they hold; see `load`.
        only: see the method of this name; None: all its groups.
    """

    def __init__(
        self, objects: ObjectStore, record: VersionRecord, trust: bool = False, only: frozenset[str] | None = None
    ) -> None:
        self._objects = objects
        self._record = record
        self._trust = trust
        self._only = only

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._objects, self._record, self._trust, self._only))

    def trusted(self, trust: bool = True) -> ModelVersion:
        """The same version, whose models are loaded without asking for trust each time; see `load`."""
        return self if trust == self._trust else ModelVersion(self._objects, self._record, trust, self._only)

    def only(self, groups: Collection[str]) -> ModelVersion:
        """The same version as if it had only these of its groups.

        Args:
            groups: canonical texts; those that it does not have are left out.
        """
        chosen = frozenset(groups) if self._only is None else self._only & frozenset(groups)
        return ModelVersion(self._objects, self._record, self._trust, chosen)

    def __repr__(self) -> str:
        groups = counted(self._record.groups if self._only is None else len(self.groups), "group")
        return f"<{self.model} version {self.number}: {groups}, in {self._objects.url}>"

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL of the store, without credentials."""
        return self._objects.url

    @property
    def model(self) -> str:
        """The name of the registered model."""
        return self._record.model

    @property
    def number(self) -> int:
        """Which version, from 1."""
        return self._record.number

    @property
    def by(self) -> tuple[str, ...]:
        """The group keys."""
        return self._record.by

    @property
    def metric(self) -> str | None:
        """The metric that the winners were chosen by; None: there was no sweep."""
        return self._record.metric

    @property
    def mode(self) -> str | None:
        """ "min" or "max": which values of `metric` are better."""
        return self._record.mode

    @property
    def takes(self) -> str:
        """What a model is given: "json" (plain lists, numbers, objects), "ndarray", "table" (Arrow) or "frame"."""
        return self._record.takes

    @property
    def record(self) -> dict[str, Any]:
        """What the version's record in the store says: who, when, why, run, …."""
        return self._record.as_dict()

    @property
    def version_record(self) -> VersionRecord:
        """The same, typed."""
        return self._record

    @property
    def schema(self) -> dict[str, Any] | None:
        """JSON schemas, ``{"inputs": …, "outputs": …}``; either may be None. None: nothing was recorded."""
        if self._record.inputs is None and self._record.outputs is None:
            return None
        return {"inputs": self._record.inputs, "outputs": self._record.outputs}

    @cached_property
    def smoke(self) -> object:
        """Example inputs as plain data, which every model has answered; None: there are none. Cost: one request.

        Raises:
            StoreCorruptError: they are damaged.
        """
        if self._record.smoke is None:
            return None
        data = read_artifact(self._objects, self._record.smoke)
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreCorruptError("the example inputs of a model are no JSON", got=str(error)) from error

    # ---- its groups ----------------------------------------------------------------------------------------

    def table(self) -> pa.Table:
        """A row a group, in the order of the groups. Cost: one request, the first time.

        Returns:
            Columns: the group keys, group (the canonical text), run, sweep, trial, seed, started, seconds, code, data,
            key, config_…, metric_…, node and element (of a model that a later node made), model (digest), model_at,
            model_format, model_size (bytes), source, environment, run_created, registered (of a version put together
            of others: the version that the row is from).

        Raises:
            StoreCorruptError: it is damaged.
        """
        return self._table

    @cached_property
    def _table(self) -> pa.Table:
        rows = read_rows(self._objects, self._record.rows, self._record.groups, self._record.by_columns)
        return rows if self._only is None else rows.filter(pa.array(contains(rows[GROUP], self._only)))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self._table[GROUP].to_pylist())}

    @property
    def groups(self) -> list[str]:
        """The canonical texts of its groups."""
        return list(self._places)

    def row(self, group: object) -> dict[str, Any]:
        """The row of a group.

        Args:
            group: its canonical text; or its values by key, ``{"country": "AUT"}``, in a tuple, or the only value.

        Raises:
            NotFoundError: there is no such group; near names are given.
        """
        place = find_group(group, self.by, self._places, f"version {self.number} of {self.model!r}")
        return python_rows(self._table.slice(place, 1))[0]

    def digest(self, group: object) -> str:
        """The digest of a group's model; see `row`."""
        return str(self.row(group)[MODEL])

    def digests(self) -> dict[str, str]:
        """The digest of each group's model, by the group's canonical text."""
        return dict(zip(self._table[GROUP].to_pylist(), self._table[MODEL].to_pylist(), strict=True))

    def size_bytes(self, group: object) -> int:
        """The size of a group's model as it is stored; see `row`."""
        return int(self.row(group)[SIZE])

    # ---- models --------------------------------------------------------------------------------------------

    def load(self, group: object, trust: bool = False) -> object:
        """The model of a group, checked against its digest.

        Args:
            group: see `row`.
            trust: run code that the store holds (pickles, types that skops does not know), even if the store is not
                listed as trusted (see `umbel.storage.registry.trust`).

        Raises:
            NotFoundError: there is no such group, or its model is gone.
            UntrustedError: it carries code, and the store is not trusted.
            StoreCorruptError: it is damaged, or not what was registered.
            StoreError: code or a package that it needs is missing here.
        """
        row = self.row(group)
        data = model_bytes(self._objects, row)
        what = f"the model of {row[GROUP]!r} ({self.model}, version {self.number})"
        return decode_model(data, lambda holds: check_trust(self._objects, trust or self._trust, what, holds))

    def check(self, group: object) -> None:
        """Read a group's model and compare it with its digest, without loading it; see `load`."""
        model_bytes(self._objects, self.row(group))

    def predict(self, group: object, inputs: object, *, trust: bool = False) -> object:
        """What the model of a group answers. It is loaded each time.

        Args:
            group: see `row`.
            inputs: plain data, or what the model takes.
            trust: see `load`.
        """
        return predict(self.load(group, trust), as_taken(inputs, self.takes))

    def carries_code(self, group: object) -> bool:
        """Whether the model of a group is a pickle; others ask for trust only where their formats can't do without."""
        return str(self.row(group)[FORMAT]) == "pickle"

    # ---- where it comes from -------------------------------------------------------------------------------

    def lineage(self, group: object) -> Lineage:
        """What the model of a group was made from: data, config, code, environment, run. See `Run.lineage`.

        If the run is deleted, what the row says of it.
        """
        row = self.row(group)
        made = self._lineage_of_run(row) or _lineage_of_row(row)
        name = f"{self.model} version {self.number}, {row[GROUP]}"
        facts = tuple((key, row[key]) for key in (FORMAT, SIZE) if row.get(key) is not None)
        return Lineage("model", name, str(row[MODEL]), facts, (made,))

    def _lineage_of_run(self, row: Mapping[str, Any]) -> Lineage | None:
        try:
            record = read_run_record(self._objects, str(row["run"]))
            if record is None or row.get("run_created") not in (None, record.get("created")):
                return None
            run = Run(self._objects, record)
            if row.get("node") is not None:
                return run.lineage(int(row["element"]), node=str(row["node"]))
            return run.lineage(int(row["trial"]), node=str(row["sweep"]))
        except UmbelError:
            return None


def _lineage_of_row(row: Mapping[str, Any]) -> Lineage:
    def known(*names: str) -> tuple[tuple[str, Any], ...]:
        return tuple((name, row[name]) for name in names if row.get(name) is not None)

    parts: list[Lineage] = []
    config = tuple((name[7:], value) for name, value in row.items() if name.startswith("config_") and value is not None)
    if config:
        parts.append(Lineage("config", "config", None, (*config, *known("seed"))))
    if row.get("data") is not None:
        parts.append(Lineage("value", "data of the group", str(row["data"])))
    if row.get("code") is not None:
        parts.append(Lineage("code", "code", str(row["code"]), known("source")))
    run = tuple((name, row[column]) for name, column in (("created", "run_created"),) if row.get(column) is not None)
    environment = row.get("environment")
    inside = () if environment is None else (Lineage("environment", "environment", str(environment)),)
    parts.append(Lineage("run", f"run {row['run']}, which is deleted", None, run, inside))
    if row.get("trial") is None:
        return Lineage("value", f"{row.get('node')}[{row.get('element')}]", str(row[MODEL]), (), tuple(parts))
    metrics = tuple(
        (name[7:], value) for name, value in row.items() if name.startswith("metric_") and value is not None
    )
    name = f"trial {row['trial']} of {row['sweep']}"
    return Lineage("trial", name, row.get("key"), (*metrics, *known("started", "data")), tuple(parts))
