"""From nodes to a plan: the engine's graph, the workers' programs, and the record that says what this run is.

The plan is where functions are pickled and fingerprinted, so a function that can't be sent, or names that clash, are
found here, before anything runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from umbel.runtime.driver.programs import InputKind, Parameter, Program, SweepProgram, TaskProgram
from umbel.runtime.graph.nodes import BestNode, Node, Sweep, TaskNode
from umbel.runtime.graph.task import Resources, Task
from umbel.runtime.leases.values import value_digest
from umbel.runtime.provenance.capture import check_picklable
from umbel.runtime.provenance.credentials import hidden_values
from umbel.runtime.provenance.fingerprint import CodeFingerprint, fingerprint
from umbel.scheduler.errors import GraphError, UsageError
from umbel.scheduler.graph import Batched, Graph, Input, NodeId, NodeSpec, RetryPolicy, ShapeId

__all__ = ["Plan", "PlannedNode", "make_plan"]

#: Trials of a fused function that a lease holds at least, if there are so many.
LEAST_FUSED = 256


@dataclass(slots=True)
class PlannedNode:
    """A node with its name in this run and the positions of its parents."""

    id: NodeId
    name: str
    node: Node
    #: For each argument, the id of the node it comes from, or None for plain values.
    sources: tuple[NodeId | None, ...]
    #: True if a later node, or the caller, reads its values.
    consumed: bool = False


@dataclass(slots=True)
class Plan:
    """All that is needed to run a graph."""

    nodes: list[PlannedNode]
    graph: Graph
    #: By node; nodes that the driver evaluates have none.
    programs: dict[NodeId, Program]
    #: What a worker of each shape holds.
    shapes: dict[ShapeId, Resources]
    code: dict[NodeId, CodeFingerprint]
    targets: tuple[NodeId, ...]
    by_name: dict[str, PlannedNode] = field(default_factory=dict)

    @property
    def total_trials(self) -> int:
        """Trials of all sweeps together, as far as it is known how many they are."""
        return sum(planned.node.size or 0 for planned in self.nodes if isinstance(planned.node, Sweep))

    def describe(self, digests: Callable[[PlannedNode], list[str | None]]) -> list[dict[str, object]]:
        """The graph for the run's record: enough to tell whether another graph is the same.

        Args:
            digests: gives for each argument of a node the digest of its plain values, or None.
        """
        return [self._describe(planned, digests(planned)) for planned in self.nodes]

    def _describe(self, planned: PlannedNode, digests: list[str | None]) -> dict[str, object]:
        node = planned.node
        code = self.code.get(planned.id)
        entry: dict[str, object] = {
            "name": planned.name,
            "kind": _kind(node),
            "size": node.size,
            "inputs": [self.nodes[source].name for source in planned.sources if source is not None],
            "arguments": [
                {
                    "name": argument.keyword,
                    "kind": argument.kind.value,
                    "repeat": argument.repeat,
                    "node": None if source is None else self.nodes[source].name,
                    "digest": digest,
                }
                for argument, source, digest in zip(node.arguments, planned.sources, digests, strict=True)
            ],
            "code": code.digest if code else None,
        }
        if code is not None:
            entry["code_parts"] = code.parts
        if isinstance(node, Sweep):
            sweep: dict[str, object] = {
                "group_names": list(node.axes),
                "groups": None if node.groups is None else [list(group.values()) for group in node.groups],
                "trials": node.source.trials,
                "metric": _one_or_all([each.metric for each in node.objectives]),
                "mode": _one_or_all([each.mode for each in node.objectives]),
                "keep": node.keep,
                "search": node.source.search if node.search is None else node.search.label,
                "seed": node.source.seed,
                "space": hidden_values(node.source.space).space().describe(value_digest),
            }
            if node.search is not None and node.search.define is not None:
                sweep["define"] = fingerprint(node.search.define).digest
            if node.groups is None:  # made of the results of nodes: who reads this record makes them of those too
                sweep["axes"] = [_axis(key, values) for key, values in node.axes.items()]
            if node.search is not None and node.search.transfer:
                sweep["transfer"] = True
            if node.budget is not None:
                sweep["budget"], sweep["floor"] = node.budget, node.floor
            if node.lenders:
                sweep["transfer_from"] = list(node.lenders)
            if node.pruning is not None:
                sweep["prune"] = dict(node.pruning.description)
            entry["sweep"] = sweep
        elif isinstance(node, BestNode):
            entry["top"] = node.k
        return entry


def make_plan(target: Node | Sequence[Node]) -> Plan:
    """Plan the nodes that lead to a target (or several).

    Raises:
        UsageError: the target is not a node.
        CodeError: a function can't be sent to workers.
        GraphError: two sweeps of one name.
    """
    targets = [target] if isinstance(target, Node) else target
    if not isinstance(targets, (list, tuple)) or not targets or not all(isinstance(t, Node) for t in targets):
        raise UsageError(
            "there is nothing to run",
            got=target,
            expected="a node (task.bind(…), task.map(…), umbel.sweep(…)) or a list of nodes",
            hint="a decorated function alone is not a node: bind it first"
            if isinstance(target, Task)
            else "make one of a function, with umbel.task(fn).bind(…) for example",
        )
    ordered = _in_order(targets)
    ids = {id(node): NodeId(position) for position, node in enumerate(ordered)}
    names = _unique_names(ordered)
    nodes = [
        PlannedNode(
            ids[id(node)],
            name,
            node,
            tuple(ids[id(a.source)] if isinstance(a.source, Node) else None for a in node.arguments),
        )
        for node, name in zip(ordered, names, strict=True)
    ]
    for node, name in zip(ordered, names, strict=True):
        node.planned_name = name
    for planned in nodes:
        for source in planned.sources:
            if source is not None:
                nodes[source].consumed = True
    shapes: dict[tuple[object, ...], ShapeId] = {}
    resources: dict[ShapeId, Resources] = {}
    # By task, since thousands of nodes may share one.
    pickled: dict[int, bytes] = {}
    fingerprints: dict[int, CodeFingerprint] = {}
    programs: dict[NodeId, Program] = {}
    code: dict[NodeId, CodeFingerprint] = {}
    specs: list[NodeSpec] = []
    for planned in nodes:
        node = planned.node
        shape: ShapeId | None = None
        task: Task[..., Any] | None = None
        if isinstance(node, (TaskNode, Sweep)):
            task = node.task
            shape = shapes.setdefault(task.resources.as_key(), ShapeId(len(shapes)))
            resources[shape] = task.resources
            if id(task) not in pickled:
                pickled[id(task)] = _pickle(task, planned.name)
                fingerprints[id(task)] = fingerprint(task.fn)
            code[planned.id] = fingerprints[id(task)]
            programs[planned.id] = _program(planned, task, pickled[id(task)], code[planned.id].digest)
        specs.append(
            NodeSpec(
                planned.id,
                planned.name,
                node.size or 0,
                _inputs(planned, nodes),
                shape,
                affinity_block=_affinity_block(node),
                retry=RetryPolicy(retries=task.retries) if task else RetryPolicy(),
                priority=task.priority if task else 0,
                timeout_s=task.timeout_s if task else None,
                sized_later=node.size is None,
                in_order=isinstance(node, Sweep) and node.search is not None,
                whole_blocks=isinstance(node, Sweep) and node.search is not None and node.search.exhaustive,
                counts=isinstance(node, Sweep),
                batched=_batched(node),
            )
        )
    return Plan(
        nodes,
        Graph(specs),
        programs,
        resources,
        code,
        tuple(ids[id(t)] for t in targets),
        {planned.name: planned for planned in nodes},
    )


def _in_order(targets: Sequence[Node]) -> list[Node]:
    """The targets and all they need, inputs first; by a stack of its own, since chains may be long."""
    ordered: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(target, False) for target in reversed(targets)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.parents()) if id(parent) not in seen)
    return ordered


def _unique_names(nodes: Sequence[Node]) -> list[str]:
    taken: dict[str, int] = {}
    names: list[str] = []
    for node in nodes:
        count = taken[node.base_name] = taken.get(node.base_name, 0) + 1
        if count > 1 and isinstance(node, Sweep):
            raise GraphError(
                f"two sweeps are named {node.base_name!r}",
                got=repr(node),
                expected="a name of its own for each, since results are looked up by it",
                hint="give umbel.sweep(…, name=…)",
            )
        name = node.base_name if count == 1 else f"{node.base_name}-{count}"
        while count > 1 and name in taken:
            count += 1
            name = f"{node.base_name}-{count}"
        taken.setdefault(name, 1)
        names.append(name)
    return names


def _pickle(task: Task[..., Any], name: str) -> bytes:
    check_picklable(task.fn, f"in node {name!r}, the function")
    return bytes(cloudpickle.dumps((_plain(task.fn), task.retry_on)))


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that `Task` wraps, seen through tasks made of tasks."""
    while isinstance(fn, Task):
        fn = fn.fn
    return fn


def _program(planned: PlannedNode, task: Task[..., Any], function: bytes, code: str) -> Program:
    node = planned.node
    parameters = tuple(
        Parameter(argument.keyword, argument.kind, argument.repeat)
        for argument in node.arguments
        if argument.kind is not InputKind.AXIS
    )
    if isinstance(node, Sweep):
        return SweepProgram(
            planned.id,
            planned.name,
            function,
            code,
            task.retries,
            task.timeout_s,
            parameters,
            node.source,
            tuple(node.axes),
            node.objectives,
            node.keep,
            node.search,
            node.pruning,
            node.task.fusion,
        )
    return TaskProgram(
        planned.id, planned.name, function, code, task.retries, task.timeout_s, parameters, planned.consumed
    )


def _inputs(planned: PlannedNode, nodes: Sequence[PlannedNode]) -> tuple[Input, ...]:
    node = planned.node
    if isinstance(node, BestNode):
        (source,) = planned.sources
        assert source is not None
        return (Input(source, parent_block=node.sweep.source.trials, child_block=1, needs_success=False),)
    found: list[Input] = []
    for argument, source in zip(node.arguments, planned.sources, strict=True):
        if source is None:
            continue
        if argument.kind is InputKind.EACH:
            block = node.source.trials if isinstance(node, Sweep) else argument.repeat
            found.append(Input(source, parent_block=1, child_block=block))
        else:
            # A reduction over a fan-out whose task skips failures runs with what is left.
            task = getattr(nodes[source].node, "task", None)
            skips = argument.kind is InputKind.ALL and task is not None and task.on_failure == "skip"
            found.append(Input(source, parent_block=0, needs_success=not skips))
    return tuple(found)


def _affinity_block(node: Node) -> int:
    """Trials of one group share their data, build upon one another, or are run as one."""
    if not isinstance(node, Sweep):
        return 0
    shares = node.has_data or node.search is not None or node.task.fusion is not None
    return node.source.trials if shares else 0


def _batched(node: Node) -> Batched | None:
    """How many trials a lease of a fused function should hold: of a group, or, across groups, of all there is."""
    fusion = node.task.fusion if isinstance(node, Sweep) else None
    if not isinstance(node, Sweep) or fusion is None:
        return None
    least = LEAST_FUSED if fusion.max_batch == "auto" else min(fusion.max_batch, LEAST_FUSED)
    if fusion.fuse_groups:
        return Batched(least, sys.maxsize)
    return Batched(min(least, node.source.trials), node.source.trials)


def _axis(key: str, values: Sequence[object] | Node) -> dict[str, object]:
    """A group key for the run's record."""
    return {"name": key, "node": values.name} if isinstance(values, Node) else {"name": key, "values": list(values)}


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _kind(node: Node) -> str:
    if isinstance(node, Sweep):
        return "sweep"
    if isinstance(node, BestNode):
        return "best" if node.k is None else "top"
    return "map" if node.fans_out else "task"
