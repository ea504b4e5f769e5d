"""What did a run's graph look like, according to its run.json?

Names, kinds, sizes, inputs and sweeps, as the runtime recorded them; no code. It must not read the store.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from umbel.scheduler.errors import NotFoundError
from umbel.scheduler.search.pareto import Objective
from umbel.storage.values.columns import inferred

__all__ = ["GraphRecord", "NodeRecord", "SweepRecord", "near_names"]


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep of a run: groups times trials."""

    name: str
    group_names: tuple[str, ...]
    #: One list of values per group, in the order of `group_names`; none while they are not known.
    groups: tuple[tuple[Any, ...], ...]
    #: Trials per group.
    trials: int
    #: What trials are judged by: several give a Pareto set instead of one best trial.
    objectives: tuple[Objective, ...]
    #: False: the groups are made of what nodes return, see `axes`, and are not known yet.
    known: bool = True
    #: For each group key the node that brings its values, or None and the values.
    axes: tuple[tuple[str | None, tuple[Any, ...]], ...] = ()
    #: Trials of all groups together, if the sweep has a budget; `trials` is then the most that one group may get.
    budget: int | None = None

    @property
    def planned(self) -> int:
        """Trials that were to run; 0 while the groups are not known."""
        return self.size if self.budget is None else min(self.size, self.budget)

    @property
    def metric(self) -> str:
        """The metric that trials are judged by; of several the first."""
        return self.objectives[0].metric

    @property
    def mode(self) -> str:
        """ "min" or "max", for `metric`."""
        return self.objectives[0].mode

    @property
    def size(self) -> int:
        """Trials in all groups, of which a budget may reach some only; 0 while these are not known."""
        return max(1, len(self.groups)) * self.trials if self.known else 0


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of a run's graph."""

    name: str
    #: task, map, sweep, best, top or literal.
    kind: str
    #: How many elements it has; None: that is not known.
    size: int | None
    inputs: tuple[str, ...]
    sweep: SweepRecord | None
    #: True: it will never be known, because something failed.
    never: bool = False


class GraphRecord:
    """The graph of a run.

    Args:
        record: the content of run.json; what it lacks is taken as empty.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        nodes = (record.get("graph") or {}).get("nodes") or []
        self._fill(str(record.get("id", "")), map(_node, nodes))

    @classmethod
    def of(cls, run_id: str, nodes: Iterable[NodeRecord]) -> GraphRecord:
        """The graph of these nodes."""
        graph = cls({})
        graph._fill(run_id, nodes)
        return graph

    def _fill(self, run_id: str, nodes: Iterable[NodeRecord]) -> None:
        self.run_id = run_id
        self.nodes = {node.name: node for node in nodes}
        self.sweeps = {name: node.sweep for name, node in self.nodes.items() if node.sweep is not None}

    @property
    def complete(self) -> bool:
        """True if all sizes and groups are known."""
        return all(node.size is not None or node.never for node in self.nodes.values()) and all(
            sweep.known for sweep in self.sweeps.values()
        )

    def node(self, node: object) -> NodeRecord:
        """A node by its name, or by an object that has a ``name``.

        Raises:
            NotFoundError: the run has no such node; near names are given.
        """
        name = node if isinstance(node, str) else getattr(node, "name", node)
        found = self.nodes.get(name) if isinstance(name, str) else None
        if found is None:
            raise self._missing("node", name, self.nodes)
        return found

    def sweep(self, sweep: object = None) -> SweepRecord:
        """A sweep by its name, or by an object that has a ``name``; None: the only one.

        Raises:
            NotFoundError: the run has no such sweep, or none, or several to choose from.
        """
        if sweep is None and len(self.sweeps) == 1:
            return next(iter(self.sweeps.values()))
        if sweep is None and self.sweeps:
            raise NotFoundError(
                f"the run {self.run_id!r} has several sweeps",
                expected="one of " + ", ".join(self.sweeps),
                hint=f"name one: sweep={next(iter(self.sweeps))!r}",
            )
        if sweep is None:
            raise NotFoundError(f"the run {self.run_id!r} has no sweep", hint="use .value(node) for its other nodes")
        name = sweep if isinstance(sweep, str) else getattr(sweep, "name", sweep)
        found = self.sweeps.get(name) if isinstance(name, str) else None
        if found is None:
            raise self._missing("sweep", name, self.sweeps)
        return found

    def groups_of(self, name: str) -> SweepRecord | None:
        """The nearest sweep before a node whose groups are the node's elements, one for one."""
        seen: set[str] = set()
        front = [name]
        while front:
            following: list[str] = []
            for inner in front:
                node = self.nodes.get(inner)
                if node is None or inner in seen:
                    continue
                seen.add(inner)
                if node.sweep is not None and node.sweep.groups and len(node.sweep.groups) == self.nodes[name].size:
                    return node.sweep
                following.extend(node.inputs)
            front = following
        return None

    def _missing(self, kind: str, name: object, names: Iterable[str]) -> NotFoundError:
        return NotFoundError(
            f"the run {self.run_id!r} has no {kind} of this name",
            got=name,
            expected="one of " + ", ".join(names) if names else None,
            hint=near_names(str(name), names),
        )


def near_names(name: str, names: Iterable[str]) -> str | None:
    """ "did you mean …?" with the names most like one, or None."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.65)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else None


def group_columns(sweep: SweepRecord, positions: Iterable[int] | None = None) -> pa.Table:
    """The group keys as columns, one row per group.

    Args:
        sweep: the sweep.
        positions: which groups, in which order; None: all.
    """
    chosen = range(len(sweep.groups)) if positions is None else list(positions)
    return pa.table(
        {name: inferred([sweep.groups[position][i] for position in chosen]) for i, name in enumerate(sweep.group_names)}
    )


def _node(node: Mapping[str, Any]) -> NodeRecord:
    name = str(node["name"])
    sweep, size = node.get("sweep"), node.get("size", 1)
    return NodeRecord(
        name=name,
        kind=str(node.get("kind", "task")),
        size=None if size is None else int(size),
        inputs=tuple(node.get("inputs") or ()),
        sweep=None if sweep is None else _sweep(name, sweep),
    )


def _sweep(name: str, sweep: Mapping[str, Any]) -> SweepRecord:
    return SweepRecord(
        name=name,
        group_names=tuple(sweep.get("group_names") or ()),
        groups=tuple(tuple(group) for group in sweep.get("groups") or ()),
        trials=int(sweep["trials"]),
        objectives=_objectives(sweep["metric"], sweep["mode"]),
        known=sweep.get("axes") is None,
        budget=None if sweep.get("budget") is None else int(sweep["budget"]),
        axes=tuple((axis.get("node"), tuple(axis.get("values") or ())) for axis in sweep.get("axes") or ()),
    )


def _objectives(metric: Any, mode: Any) -> tuple[Objective, ...]:
    """A metric and a mode, or lists of both."""
    if isinstance(metric, list):
        return tuple(Objective(str(each), str(its)) for each, its in zip(metric, mode, strict=True))
    return (Objective(str(metric), str(mode)),)
