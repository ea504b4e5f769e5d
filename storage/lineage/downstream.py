"""What was made from these data, or from this code? Every run of a store that used them, with its trials and models.

A digest is looked for in what each run mentions (`umbel.storage.lineage.mentions`) and in its run.json, and from
there the graph is followed, element by element. Registered versions are found by the elements that their models are
from (`umbel.storage.lineage.registered_uses`). Runs are not connected with each other: what other runs made of a model
that is found here is found by asking for the model. It must not write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umbel.scheduler.errors import UsageError
from umbel.scheduler.words import counted
from umbel.storage.lineage.mentions import DATA, MODEL, VALUE, RunMentions
from umbel.storage.lineage.mentions_index import all_mentions
from umbel.storage.lineage.registered_uses import Registered, registered_uses
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.records import read_run_record
from umbel.storage.runs.segment_format import unify
from umbel.storage.runs.trial_rows import read_trials
from umbel.storage.runs.value_rows import models_of, read_elements
from umbel.storage.values.columns import empty_table, int_values, integers

if TYPE_CHECKING:
    from umbel.storage.runs.run import Run

__all__ = ["Downstream", "Use", "find_downstream"]

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_ROLES = 3
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Use:
    """A run that used what was asked for."""

    run: str
    #: ISO 8601, UTC.
    created: str
    user: str
    #: What it is there: ``"data of fit, 3 groups"``, ``"code of fit"``, ``"value of load[3]"``.
    roles: tuple[str, ...]
    #: Trials and different models that were made from it.
    trials: int
    models: int
    #: By sweep the groups, by other node the elements, that were made from it.
    affected: Mapping[str, Sequence[int]]
    #: Registered versions that hold models of it: ``"growth version 3"``. They may outlive the run.
    versions: tuple[str, ...] = ()


#: By run and when it was made: its use, and the beginnings of the digests of its models.
_Found: TypeAlias = dict[tuple[str, str], tuple[Use, npt.NDArray[np.uint64]]]


class Downstream:
    """All that was made from something, run by run, newest first."""

    def __init__(self, objects: ObjectStore, digest: str, uses: Sequence[Use], models: int) -> None:
        self._objects = objects
        #: How many different models all of them have together.
        self.model_count = models
        #: What was asked for.
        self.digest = digest
        self.uses = tuple(uses)

    @property
    def runs(self) -> list[str]:
        """The runs' names."""
        return [use.run for use in self.uses]

    def trials(self) -> pa.Table:
        """The trials that were made from it. Costs reading the trials of all these runs.

        Returns:
            Columns: run, sweep, trial, the group keys, config_…, metric_…, status, …, as `Run.trials` has them.
        """
        tables = []
        for use in self.uses:
            graph = self._run(use).graph
            for name, groups in use.affected.items():
                sweep = graph.node(name).sweep
                if sweep is not None and len(groups):
                    rows = read_trials(self._objects, use.run, sweep)
                    which = integers(int_values(rows["trial"]) // sweep.trials)
                    tables.append(rows.filter(pc.is_in(which, value_set=integers(list(groups)))))
        return unify(tables) if tables else empty_table(pa.schema([("run", pa.string()), ("trial", pa.int64())]))

    def models(self) -> pa.Table:
        """The models that were made from it. Costs reading one column of all these runs.

        Returns:
            Columns: run, node, index (trial or element), the group keys, and model: the digest.
        """
        tables = []
        for use in self.uses:
            graph = self._run(use).graph
            for name, numbers in use.affected.items():
                node = graph.node(name)
                if node.sweep is not None:
                    rows = read_trials(self._objects, use.run, node.sweep, ["trial", "model"])
                    which = integers(int_values(rows["trial"]) // node.sweep.trials)
                    kept = rows.filter(pc.is_in(which, value_set=integers(list(numbers))))
                    found = models_of(node, kept, "trial", node.sweep)
                else:
                    rows = read_elements(self._objects, use.run, node, ["element", "model"])
                    kept = rows.filter(pc.is_in(rows["element"], value_set=integers(list(numbers))))
                    found = models_of(node, kept, "element", graph.groups_of(name))
                if len(found):
                    tables.append(found.add_column(0, "run", pa.array([use.run] * len(found), pa.string())))
        schema = pa.schema([("run", pa.string()), ("node", pa.string()), ("index", pa.int64()), ("model", pa.string())])
        return unify(tables) if tables else empty_table(schema)

    def _run(self, use: Use) -> Run:
        from umbel.storage.runs.run import Run

        return Run(self._objects, read_run_record(self._objects, use.run) or {"id": use.run})

    def text(self) -> str:
        """One line a run."""
        if not self.uses:
            return f"nothing in {self._objects.url} was made from {self.digest}"
        trials = sum(use.trials for use in self.uses)
        made = f"{counted(trials, 'trial')}, {counted(self.model_count, 'model')}"
        lines = [f"{self.digest[:12]}: {counted(len(self.uses), 'run')}, {made}"]
        for use in self.uses:
            roles = "; ".join(use.roles[:_ROLES]) + (
                f"; and {len(use.roles) - _ROLES} more" if len(use.roles) > _ROLES else ""
            )
            made = f"{counted(use.trials, 'trial')}, {counted(use.models, 'model')}"
            lines.append(f"  {use.run}  {use.created[:19].replace('T', ' ')}  {use.user}  {roles}  →  {made}")
            if use.versions:
                lines.append(f"    registered: {', '.join(use.versions)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Downstream of {self.digest[:12]}: {counted(len(self.uses), 'run')}>"


def find_downstream(objects: ObjectStore, digest: str) -> Downstream:
    """All runs of a store that used something; see `Store.downstream`."""
    text = digest.lower() if isinstance(digest, str) else ""
    if not _DIGEST.fullmatch(text):
        raise UsageError(
            "this is no digest",
            got=repr(digest),
            expected="8 to 64 hexadecimal digits, as lineages, `umbel show` and the trials table give them",
        )
    found: _Found = {}
    trials: dict[tuple[str, str], dict[str, int]] = {}  # a group, by run and sweep
    for run_id, mentioned in all_mentions(objects):
        use = _use(run_id, mentioned, text)
        if use is not None:
            key = run_id, use[0].created
            found[key] = use
            trials[key] = {entry["name"]: int(entry.get("trials") or 1) for entry in mentioned.summary["nodes"]}
    elements = {key: {name: frozenset(each) for name, each in use.affected.items()} for key, (use, _) in found.items()}

    def was_made(run: str, created: str, node: str, index: int) -> bool:
        key = run, created
        return key in found and index // trials[key].get(node, 1) in elements[key].get(node, ())

    for registered in registered_uses(objects, text, was_made):
        _add_registered(found, registered)
    uses = sorted((use for use, _ in found.values()), key=lambda use: (use.created, use.run), reverse=True)
    models = np.unique(np.concatenate([each for _, each in found.values()])) if found else ()
    return Downstream(objects, text, uses, len(models))


def _add_registered(found: _Found, registered: Registered) -> None:
    """Say which version holds models of a use; a run that is gone, or does not mention them, becomes one by that."""
    name = f"{registered.model} version {registered.version}"
    key = registered.run, registered.created
    use, models = found.get(key, (Use(*key, "", (), 0, 0, {}), np.zeros(0, np.uint64)))
    if not use.affected:
        held = np.array([int(each[:16], 16) for each in registered.models], np.uint64)
        models = np.unique(np.concatenate([models, held]))
        roles = (*use.roles, *(f"{role} in {name}" for role in registered.roles))
        use = replace(use, roles=roles, models=len(models))
    found[key] = replace(use, versions=(*use.versions, name)), models


def _use(run_id: str, mentioned: RunMentions, digest: str) -> tuple[Use, npt.NDArray[np.uint64]] | None:
    """A run that used it, and the beginnings of the digests of the models that it made from it."""
    summary, mentions = mentioned.summary, mentioned.columns
    shift = np.uint64(4 * max(0, 16 - len(digest)))
    wanted = np.uint64(int(digest[:16], 16))
    hits = np.flatnonzero((mentions["digest"] >> shift) == wanted)
    recorded = _recorded(summary, digest)
    if not len(hits) and not recorded:
        return None
    entries = summary["nodes"]
    affected = _follow(entries, mentions, hits, recorded)
    roles = [*dict.fromkeys(role for role, _ in recorded), *_roles(entries, mentions, hits)]
    is_model = mentions["kind"] == MODEL
    trials = 0
    models = [mentions["digest"][:0]]
    made: dict[str, list[int]] = {}
    for position, entry in enumerate(entries):
        flags = affected[position]
        if not flags.any():
            continue
        made[entry["name"]] = np.flatnonzero(flags).tolist()
        here = is_model & (mentions["node"] == position)
        per = int(entry.get("trials") or 1)
        trials += int(flags.sum()) * per if entry["kind"] == "sweep" else 0
        models.append(mentions["digest"][here][flags[np.minimum(mentions["index"][here] // per, len(flags) - 1)]])
    different = np.unique(np.concatenate(models))  # trials may share one
    created, user = str(summary.get("created", "")), str(summary.get("user", ""))
    return Use(run_id, created, user, tuple(roles), trials, len(different), made), different


def _recorded(summary: Mapping[str, Any], digest: str) -> list[tuple[str, int | None]]:
    """Where run.json names the digest: what it is there, and of which node; None: of all."""
    found: list[tuple[str, int | None]] = [
        (role, None) for role in ("source", "environment", "commit") if str(summary.get(role) or "").startswith(digest)
    ]
    for position, entry in enumerate(summary["nodes"]):
        if str(entry.get("code") or "").startswith(digest):
            found.append((f"code of {entry['name']}", position))
        found += [
            (f"{part} in the code of {entry['name']}", position)
            for part, content in (entry.get("code_parts") or {}).items()
            if content.startswith(digest)
        ]
        found += [
            (f"argument of {entry['name']}", position)
            for argument in entry.get("arguments") or ()
            if str(argument.get("digest") or "").startswith(digest)
        ]
    return found


def _roles(
    entries: Sequence[Mapping[str, Any]], mentions: Mapping[str, npt.NDArray[Any]], hits: npt.NDArray[np.int64]
) -> list[str]:
    found: dict[tuple[int, int], list[int]] = {}
    for hit in hits.tolist():
        found.setdefault((int(mentions["node"][hit]), int(mentions["kind"][hit])), []).append(
            int(mentions["index"][hit])
        )
    roles = []
    for (node, kind), index in sorted(found.items(), key=lambda item: (item[0][1] == DATA, item[0])):
        name = entries[node]["name"]
        if kind == DATA:
            roles.append(f"data of {name}, {counted(len(index), 'group')}")
        else:
            what, single = ("model" if kind == MODEL else "value"), entries[node]["kind"] == "task"
            which = (
                name if single else f"{name}[{index[0]}]" + (f" and {len(index) - 1} more" if len(index) > 1 else "")
            )
            roles.append(f"{what} of {which}")
    return roles


def _follow(
    entries: Sequence[Mapping[str, Any]],
    mentions: Mapping[str, npt.NDArray[Any]],
    hits: npt.NDArray[np.int64],
    recorded: Sequence[tuple[str, int | None]],
) -> list[Flags]:
    """For each node which of its elements (of a sweep: groups) were made from what was found, or are it."""
    positions = {entry["name"]: position for position, entry in enumerate(entries)}
    affected: list[Flags] = []
    for entry in entries:
        size = int(entry.get("size") or 0)
        affected.append(np.zeros(max(1, size // int(entry["trials"])) if entry["kind"] == "sweep" else size, np.bool_))
    for _, position in recorded:
        for flags in affected if position is None else [affected[position]]:
            flags[:] = True
    for hit in hits.tolist():
        kind, place, index = (int(mentions[name][hit]) for name in ("kind", "node", "index"))
        if kind in (VALUE, DATA) and index < len(affected[place]):
            affected[place][index] = True
    for position, entry in enumerate(entries):  # inputs stand before what they go into
        flags = affected[position]
        for argument in entry.get("arguments") or ():
            source = positions.get(argument.get("node") or "")
            if source is None or not len(flags) or not len(affected[source]):
                continue
            came = affected[source]
            if argument["kind"] == "each":
                flags |= came[np.arange(len(flags)) // int(argument.get("repeat", 1)) % len(came)]
            elif argument["kind"] == "all":
                flags |= came.any()
            else:
                flags |= came[0]
    return affected
