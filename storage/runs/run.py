"""What happened in a run, and what came out of it?

`Run` is the view of one run in a store that users hold: tables of its trials, failures and models, and the values of
its nodes. It reads what is durable, each time anew, so it also shows a run that is still going on. It must not write.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.scheduler.errors import NotFoundError, UmbelError
from umbel.scheduler.search.pareto import in_words
from umbel.scheduler.words import counted
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.model_places import find_packed_models
from umbel.storage.runs.checkpoints import list_checkpoints, load_checkpoint
from umbel.storage.runs.failure_rows import failed_elements, failed_trials, no_failures
from umbel.storage.runs.graph_record import GraphRecord
from umbel.storage.runs.origins import RunOrigins
from umbel.storage.runs.ownership import owner_status, request_cancel
from umbel.storage.runs.records import read_end
from umbel.storage.runs.revealed import revealed
from umbel.storage.runs.segment_format import unify
from umbel.storage.runs.segments import scan_segments
from umbel.storage.runs.trial_rows import (
    SUCCEEDED,
    best_trials,
    empty_trials,
    ordered_columns,
    read_trials,
    warn_of_corrupt,
)
from umbel.storage.runs.value_rows import models_of, read_elements, read_output, read_value
from umbel.storage.values.artifacts import get_artifact
from umbel.storage.values.codecs import decode
from umbel.storage.values.columns import contains, empty_table
from umbel.storage.values.packs import read_packed

if TYPE_CHECKING:
    import optuna
    import pyarrow.dataset

__all__ = ["Run", "run_status"]

_MAX_NAMED = 5


class Run(RunOrigins):
    """One run, read-only. `umbel.run` returns one, and `Store.run` finds one.

    Args:
        objects: the store.
        record: the content of the run's run.json.
    """

    def __init__(self, objects: ObjectStore, record: Mapping[str, Any]) -> None:
        #: The store.
        self.objects = objects
        self._known_graph = GraphRecord(record)
        #: Where packed models lie, by digest, as far as it is known.
        self._model_places: dict[str, str] = {}
        #: What run.json says: who, when, graph, versions.
        self.record = dict(record)

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name it was given."""
        return str(self.record.get("name", self.id))

    @property
    def store_url(self) -> str:
        """Where it lives."""
        return self.objects.url

    @property
    def sweeps(self) -> list[str]:
        """The names of its sweeps, in the order of the graph."""
        return list(self.graph.sweeps)

    @property
    def status(self) -> str:
        """How the run stands now.

        "done": it has ended. "running": a live process writes it. "interrupted": it was stopped in good order; running
        the same command again goes on. "stopped": a limit or a cancellation stopped it. "failed": it ended by an
        error. "died": its process vanished without a word.
        """
        return run_status(self.objects, self.id)

    @property
    def failed_targets(self) -> list[str]:
        """Of the nodes that the run was made for, those of which nothing came: all their elements failed.

        Cost: reads how their elements ended.
        """
        found: list[str] = []
        for node in (self.graph.nodes.get(name) for name in self.record.get("targets") or ()):
            if node is None or (node.size is None and not node.never) or node.size == 0:
                continue
            rows = self.elements(node.name, ["status"])
            if node.never or (len(rows) == node.size and not contains(rows["status"], SUCCEEDED).any()):
                found.append(node.name)
        return found

    @property
    def reason(self) -> str | None:
        """Why the run is not done, in words, if the process that carried it out has said so; or what nothing came of.

        See `failed_targets`.
        """
        if read_end(self.objects, self.id) is not None:
            failed = self.failed_targets
            return f"nothing came of {', '.join(map(repr, failed))}: all failed" if failed else None
        owner = owner_status(self.objects, self.id)
        return None if owner.record is None else owner.record.detail

    def __repr__(self) -> str:
        try:
            status = self.status
        except UmbelError:
            status = "unreadable"
        return f"<Run {self.name!r}: {status}, in {self.objects.url}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(node.name)}</td><td>{html.escape(node.kind)}</td>"
            f"<td style='text-align:right'>{'?' if node.size is None else format(node.size, ',')}</td></tr>"
            for node in self.graph.nodes.values()
        )
        facts = ", ".join(str(self.record[key]) for key in ("created", "user", "host") if self.record.get(key))
        return (
            f"<b>{html.escape(self.name)}</b>: {html.escape(self.status)} in <code>{html.escape(self.store_url)}</code>"
            f"<br><small>{html.escape(facts)}</small>"
            f"<table><tr><th>node</th><th>kind</th><th>size</th></tr>{rows}</table>"
        )

    @property
    def graph(self) -> GraphRecord:
        """Its nodes and sweeps, with the sizes and groups that the run has revealed so far."""
        self._known_graph = revealed(self._known_graph, self.objects)
        return self._known_graph

    # ---- trials --------------------------------------------------------------------------------------------

    def trials(self, sweep: object = None) -> pa.Table:
        """The finished trials of a sweep, one row each, in order of trial.

        Damaged segments are left out and named in a warning.

        Args:
            sweep: its name, or the sweep itself; None: the only one.

        Returns:
            Columns: run, sweep, trial, the group keys, config_…, metric_…, status, error, attempt, seed, started,
            seconds, host, worker, code, data, key, model (a digest, see `load_model`), model_at (its place in a pack),
            reused_from ("run/sweep/trial" of an earlier run whose result was taken over, or null). If groups learn from
            one another, borrowed_from: the trial that first tried the config ("country=DEU/1234", or "run/sweep/trial"
            of an earlier run), "model" if it was chosen by what all groups say, or null.

        Raises:
            NotFoundError: the run has no such sweep, or several to choose from.
            StoreError: the store can't be read.
        """
        return read_trials(self.objects, self.id, self.graph.sweep(sweep))

    def dataset(self, sweep: object = None) -> pyarrow.dataset.Dataset:
        """The segments of a sweep as a dataset, for queries that need not fit into memory.

        Rows are in the order of writing. All segments are checked first, one at a time.

        Args:
            sweep: its name, or the sweep itself; None: the only one.
        """
        import pyarrow.dataset as ds

        found = self.graph.sweep(sweep)
        whole, corrupt, schemas = [], [], [empty_trials(found)]
        folder = layout.trials_folder(self.id, found.name)
        segments = list(scan_segments(self.objects, folder, ()))
        listed = set(self.objects.list(folder))
        for segment in segments:
            if segment.path not in listed:
                continue  # merged into another since
            if segment.schema is None:
                corrupt.append((segment.path, segment.reason or "damaged"))
            else:
                whole.append(self.objects.full_path(segment.path))
                schemas.append(empty_table(segment.schema))
        warn_of_corrupt(corrupt, self.objects.url)
        schema = ordered_columns(unify(schemas), found).schema
        if not whole:
            return ds.dataset(empty_table(schema))
        return ds.dataset(whole, schema=schema, filesystem=self.objects.file_system, format="parquet")

    def best(self, sweep: object = None) -> pa.Table:
        """The best trial of each group, one row each, in order of the groups; with several metrics the Pareto sets.

        The best is the lowest (mode "min") or highest finite metric among trials that ran to their end, or, if none
        did, among those that were pruned; of equals, the first. With several metrics a group has as many rows as it has
        trials that no other of the group dominates, in order of trial: none is as good in all metrics and better in
        one. Groups that have none are absent, and a warning names the first few.

        Args:
            sweep: its name, or the sweep itself; None: the only one.
        """
        found = self.graph.sweep(sweep)
        rows, missing = best_trials(self.objects, self.id, found)
        if missing:
            groups = [dict(zip(found.group_names, found.groups[i], strict=True)) for i in missing[:_MAX_NAMED]]
            named = "; ".join(", ".join(f"{key}={value}" for key, value in group.items()) for group in groups)
            more = f"; and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            count = max(1, len(found.groups))
            have = "has" if count == 1 else "have"
            warnings.warn(
                f"{len(missing)} of {counted(count, 'group')} of the sweep {found.name!r} {have} no trial with a "
                f"finite {in_words(found.objectives)}{': ' if named else ''}{named}{more}",
                UserWarning,
                stacklevel=2,
            )
        return rows

    def study(self, group: object = None, sweep: object = None) -> optuna.Study:
        """The finished trials of one group as a study of Optuna's, for `optuna.visualization` and `optuna.importance`.

        Args:
            group: its keys and values, ``{"country": "DEU"}``, or the value if there is one key; None: the only group.
            sweep: its name, or the sweep itself; None: the only one.

        Raises:
            NotFoundError: there is no such group.
        """
        from umbel.storage.runs.studies import study_of

        return study_of(self.objects, self.record, self.graph.sweep(sweep), group)

    def failures(self) -> pa.Table:
        """All trials and elements that did not succeed, of all nodes in the order of the graph.

        Returns:
            Columns: node, index (trial or element), status, error, attempt, host, worker, started, seconds, and group
            and config as JSON.
        """
        parts = [no_failures()]
        for node in self.graph.nodes.values():
            if node.sweep is not None:
                parts.append(failed_trials(self.objects, self.id, node.sweep))
            else:
                parts.append(failed_elements(self.objects, self.id, node, self.graph))
        return pa.concat_tables(parts).combine_chunks()

    # ---- values --------------------------------------------------------------------------------------------

    def value(self, node: object, element: int | None = None) -> object:
        """What a node returned: of a fan-out a list, of a sweep its trials table. Unpickles, as `load_model` does.

        Args:
            node: its name in the run, or an object that has it as ``name``.
            element: the value of this element only.

        Raises:
            NotFoundError: there is no such node, or its value is not there yet.
            ElementFailedError: it, or one of its elements, failed; says why.
        """
        found = self.graph.node(node)
        if found.sweep is not None:
            return self.trials(found.name)
        return read_value(self.objects, self.id, found, element)

    def elements(self, node: object, columns: Sequence[str] | None = None) -> pa.Table:
        """The finished elements of a node, one row each, in order, without their values; of a sweep its trials.

        Args:
            node: its name in the run, or an object that has it as ``name``.
            columns: which columns, besides the one that counts elements or trials; None: all.

        Returns:
            Columns: element, status (ok, failed, timeout or lost), error, digest, format, size, model, attempt,
            started, seconds, host, worker, code, key, and metric_… if there are any.
        """
        found = self.graph.node(node)
        if found.sweep is not None:
            return read_trials(self.objects, self.id, found.sweep, columns)
        return read_elements(self.objects, self.id, found, columns)

    def output(self, element: int, node: object = None) -> str:
        """What a trial or an element printed, all attempts at it one after another; "" if nothing.

        Args:
            element: index of the trial in its sweep, or of the element in its node.
            node: its name, or an object that has it as ``name``; None: the only sweep.

        Raises:
            NotFoundError: there is no such node, or several sweeps to choose from.
        """
        name = self.graph.sweep(None).name if node is None else self.graph.node(node).name
        return read_output(self.objects, self.id, name, element)

    def checkpoint(self, trial: int, sweep: object = None) -> object:
        """The last checkpoint that a trial saved (`umbel.report`): the value, or the path of the unpacked files.

        Args:
            trial: index of the trial in its sweep.
            sweep: its name, or the sweep itself; None: the only one.

        Returns:
            None: it saved none. Files are unpacked into a new temporary folder.
        """
        known = list_checkpoints(self.objects, self.id, self.graph.sweep(sweep).name, trial)
        return load_checkpoint(self.objects, known)

    def cancel(self) -> None:
        """Ask the process that carries out this run, wherever it is, to stop in good order, within ten seconds or so.

        Raises:
            NotFoundError: nobody is carrying it out.
        """
        request_cancel(self.objects, self.id)

    # ---- models --------------------------------------------------------------------------------------------

    def models(self, node: object = None) -> pa.Table:
        """The models that trials or elements returned.

        Args:
            node: of this node only; None: of all.

        Returns:
            Columns: node, index (trial or element), the group keys, and model: the digest that `load_model` takes.
        """
        nodes = self.graph.nodes.values() if node is None else [self.graph.node(node)]
        parts = []
        for found in nodes:
            if found.sweep is not None:
                rows = read_trials(self.objects, self.id, found.sweep, ["trial", "model"])
                parts.append(models_of(found, rows, "trial", found.sweep))
            else:
                rows = read_elements(self.objects, self.id, found, ["element", "model"])
                parts.append(models_of(found, rows, "element", self.graph.groups_of(found.name)))
        parts = [part for part in parts if len(part)] or parts
        if not parts:
            return empty_table(pa.schema([("node", pa.string()), ("index", pa.int64()), ("model", pa.string())]))
        table = unify(parts)
        return table.select([*(name for name in table.column_names if name != "model"), "model"])

    def load_model(self, digest: str) -> object:
        """A model by its digest, which `models` and the trials table give.

        While the run goes on, a model can be loaded once its row is durable, two or three seconds after its trial.
        Models are unpickled, which runs code of whoever wrote them: it is for one's own runs, or those of people one
        trusts. Registered models ask for that trust (`umbel.storage.registry.trust`).
        Cost: one request; the first time the segments are read too, to learn where models lie.

        Raises:
            NotFoundError: there is none.
            StoreCorruptError: it is damaged.
        """
        at = self._model_places.get(digest)
        if at is None:
            try:
                return get_artifact(self.objects, digest)
            except NotFoundError:
                self._model_places = find_packed_models(self.objects, self.id, self.graph)
                at = self._model_places.get(digest)
                if at is None:
                    raise
        return decode(read_packed(self.objects, at, digest))


def run_status(objects: ObjectStore, run_id: str, now: datetime | None = None) -> str:
    """How a run stands (see `Run.status`), from its end.json and, while there is none, its owner."""
    end = read_end(objects, run_id)
    if end is not None:
        return str(end.get("status", "done"))
    owner = owner_status(objects, run_id, now)
    if owner.state == "held":
        return "running"
    if owner.state == "released":
        reason = None if owner.record is None else owner.record.reason
        return reason if reason in ("failed", "stopped", "died") else "interrupted"
    return "died"
