"""How many elements does each node of a plan have, and which groups its sweeps, as far as results have revealed it?

Most sizes are known from the start. Those that depend on a list that a task returns are worked out here when the task
has ended: of the fan-outs over it, of the sweeps over groups made of it, and of all nodes that follow these. It must
not know where values lie, nor how anything is scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from umbel.runtime.driver.plan import Plan, PlannedNode
from umbel.runtime.driver.programs import InputKind
from umbel.runtime.graph.nodes import BestNode, Sweep
from umbel.runtime.graph.sweep import groups_of
from umbel.scheduler.errors import GraphError, UmbelError, UsageError
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Sized, Unsizable

__all__ = ["Sizes"]

#: A failed element: because of it the size of a node will never be known.
Cause = tuple[NodeId, int]
#: Kinds of arguments whose source decides, with its length, how many elements there are.
LENGTHS = (InputKind.EACH, InputKind.ITEM)
_MEND = "mend the task that returns it, and run under a new name: trials that nothing has changed for are taken over"


class Sizes:
    """The sizes and groups of one plan.

    Args:
        plan: the graph.
        length: gives the length of the list that a node returned; None: it is no list.
        value: gives the value that a node returned.
    """

    def __init__(self, plan: Plan, length: Callable[[NodeId], int | None], value: Callable[[NodeId], object]) -> None:
        self._plan = plan
        self._length = length
        self._value = value
        self._sizes = {p.id: p.node.size for p in plan.nodes if p.node.size is not None}
        self._groups = {
            p.id: p.node.groups for p in plan.nodes if isinstance(p.node, Sweep) and p.node.groups is not None
        }
        self._unsizable: dict[NodeId, Cause] = {}
        #: By node that returned it, what is wrong with a list: what depends on it can't be run.
        self.problems: dict[NodeId, UmbelError] = {}
        #: The nodes whose lists reveal sizes, and what failed of them.
        self._lists: dict[NodeId, Cause | None] = {}
        kinds = (InputKind.ITEM, InputKind.AXIS)
        self._revealing = {
            source
            for planned in plan.nodes
            for argument, source in zip(planned.node.arguments, planned.sources, strict=True)
            if argument.kind in kinds and source is not None
        }
        #: Nodes whose size is to be found, in the order of the graph.
        self._open = [planned for planned in plan.nodes if planned.node.size is None]

    def size(self, node: NodeId) -> int:
        """How many elements a node has; 0 if that is not known, or will never be."""
        return self._sizes.get(node, 0)

    def groups(self, node: NodeId) -> Sequence[Mapping[str, object]]:
        """The groups of a sweep, or of a node of its best trials; none if they are not known."""
        planned = self._plan.nodes[node]
        if isinstance(planned.node, BestNode):
            (node,) = (source for source in planned.sources if source is not None)
        return self._groups.get(node, ())

    def group_text(self, planned: PlannedNode, element: int) -> str:
        """The group of a trial, or of an element of a node of best trials, in words."""
        node = planned.node
        group = element // node.source.trials if isinstance(node, Sweep) else element
        return ", ".join(f"{key}={value}" for key, value in self.groups(planned.id)[group].items()) or "(all)"

    @property
    def unsizable(self) -> Mapping[NodeId, Cause]:
        """The nodes whose size will never be known, and the failed element that it depends on."""
        return self._unsizable

    def warnings(self) -> Iterable[str]:
        """Which nodes were not run because how many elements they have is not known, a line a cause."""
        without: dict[str, list[str]] = {}
        for node, (cause, _) in self._unsizable.items():
            without.setdefault(self._plan.nodes[cause].name, []).append(self._plan.nodes[node].name)
        for cause_name, names in without.items():
            they_have = "it has" if len(names) == 1 else "they have"
            named = ", ".join(map(repr, names))
            yield f"{named} not run: how many elements {they_have} is not known, because {cause_name!r} failed"

    @property
    def found(self) -> dict[str, int | None]:
        """By name, the sizes that results have revealed; None: never, because of a failure."""
        later = [planned for planned in self._plan.nodes if planned.node.size is None]
        return {p.name: None if p.id in self._unsizable else self._sizes[p.id] for p in later if self._settled(p.id)}

    def _settled(self, node: NodeId) -> bool:
        return node in self._sizes or node in self._unsizable

    def ended(self, node: NodeId, *, failed: bool) -> list[Sized | Unsizable]:
        """A node has ended; returns what follows for the sizes of others.

        If it did not return a list, or one that does not fit or can't be groups, what depends on it has no size, and
        `problems` tells why.
        """
        if node not in self._revealing:
            return []
        self._lists[node] = (node, 0) if failed else None
        events: list[Sized | Unsizable] = []
        still_open: list[PlannedNode] = []
        for planned in self._open:
            found: int | Cause | None
            try:
                found = self._find(planned)
            except (GraphError, UsageError) as error:
                self.problems.setdefault(node, error)
                found = (node, 0)
            if found is None:
                still_open.append(planned)
            elif isinstance(found, int):
                self._sizes[planned.id] = found
                events.append(Sized(planned.id, found))
            else:
                self._unsizable[planned.id] = found
                events.append(Unsizable(planned.id, *found))
        self._open = still_open
        return events

    def _find(self, planned: PlannedNode) -> int | Cause | None:
        """The size of a node, or why there is none; None: not yet."""
        node = planned.node
        if isinstance(node, BestNode):
            (sweep,) = (source for source in planned.sources if source is not None)
            cause = self._unsizable.get(sweep)
            if cause is not None:
                return cause
            return len(self._groups[sweep]) if sweep in self._sizes else None
        lengths: dict[str, int] = {}
        for position, (argument, source) in enumerate(zip(node.arguments, planned.sources, strict=True), 1):
            if argument.kind not in (*LENGTHS, InputKind.AXIS):
                continue
            length = self._length_of(argument.kind, argument.source, source)
            if length is None or isinstance(length, tuple):
                return length
            if argument.kind in LENGTHS and not argument.wraps:
                label = argument.keyword or ("data" if isinstance(node, Sweep) else f"argument {position}")
                lengths[label] = length * argument.repeat
        if isinstance(node, Sweep):
            if planned.id not in self._groups:
                self._groups[planned.id] = tuple(self._make_groups(planned, node))
            lengths["groups"] = len(self._groups[planned.id])
        if len(set(lengths.values())) > 1:
            raise GraphError(
                f"what {planned.name!r} goes through together is of different lengths, as the run has revealed",
                got=", ".join(f"{label}: {length}" for label, length in lengths.items()),
                expected="the same length everywhere",
                hint=_MEND,
            )
        size = next(iter(lengths.values()))
        return size * node.source.trials if isinstance(node, Sweep) else size

    def _length_of(self, kind: InputKind, values: object, source: NodeId | None) -> int | Cause | None:
        """The length of what one argument goes through; of an AXIS 0, once its values are there."""
        if source is None:
            assert isinstance(values, Sequence)
            return len(values)
        if kind is InputKind.EACH:
            return self._unsizable.get(source) or self._sizes.get(source)
        if source not in self._lists:
            return None
        failed = self._lists[source]
        if failed is not None:
            return failed
        if kind is InputKind.AXIS:
            return 0
        length = self._length(source)
        if length is None:
            name = self._plan.nodes[source].name
            raise GraphError(
                f"node {name!r} has no elements, because it did not return a list",
                got=f"a {type(self._value(source)).__name__}",
                expected="a list, tuple, range, one-dimensional array or Series",
                hint="elements() runs over what the task returns: let it return a list",
            )
        return length

    def _make_groups(self, planned: PlannedNode, node: Sweep) -> list[dict[str, object]]:
        axes: dict[str, object] = dict(node.axes)
        names: list[str] = []
        for argument, source in zip(node.arguments, planned.sources, strict=True):
            if argument.kind is InputKind.AXIS and source is not None:
                assert argument.keyword is not None
                axes[argument.keyword] = self._value(source)
                names.append(f"{argument.keyword!r} from {self._plan.nodes[source].name!r}")
        try:
            return groups_of(axes)
        except UsageError as error:
            raise UsageError(
                f"sweep {planned.name!r} can't be made of the groups that the run has revealed ({', '.join(names)})",
                got=f"{error.what}: {error.got}",
                expected=error.expected,
                hint=_MEND,
            ) from error
