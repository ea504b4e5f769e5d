"""The graph as the user builds it: nodes bound from tasks and sweeps, and what each takes as its inputs.

Nothing runs here. `umbel.runtime.driver.plan` turns the nodes that lead to a target into what the engine and the
workers need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umbel.runtime.driver.programs import InputKind
from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.adaptive import AdaptiveSearch
from umbel.scheduler.search.pareto import Objective, in_words
from umbel.scheduler.search.sampling import TrialSource

if TYPE_CHECKING:
    from umbel.runtime.graph.task import Task
    from umbel.runtime.search.lending import LentGroup
    from umbel.runtime.search.pruning import Pruning
    from umbel.storage.runs.run import Run

__all__ = ["Argument", "BestNode", "Elements", "Node", "Sweep", "TaskNode"]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a node: where its values come from, and how they relate to the node's elements."""

    #: None: by position. Of an AXIS: the group key.
    keyword: str | None
    #: A node, or plain values: a sequence (EACH) or a single value (ONE).
    source: object
    kind: InputKind
    #: Of EACH: how many elements of the node in a row share one of the source. When the source is through, it begins
    #: again.
    repeat: int = 1
    #: True: the node may go through the source several times. False: its size is that of the source times `repeat`.
    wraps: bool = False

    def place(self, element: int, size: int) -> int:
        """Which of the ``size`` elements of the source an element of the node gets."""
        return element // self.repeat % size


class Node:
    """A task bound into a graph; its value is that of its element, or the list of its elements' values.

    Attributes:
        base_name: the name it asks for: its task's.
        size: how many elements it has; None: only the run reveals it.
        fans_out: True if it stands for a list of elements, False if for one.
    """

    base_name: str
    size: int | None
    fans_out: bool
    arguments: tuple[Argument, ...]
    #: The name it got in the graph that was planned last, where several nodes ask for the same one.
    planned_name: str | None = None

    @property
    def name(self) -> str:
        """Its name in the run, by which `Run.value` and the like find it."""
        return self.planned_name or self.base_name

    def parents(self) -> list[Node]:
        """The nodes that this one takes values from, in the order of its arguments."""
        return [argument.source for argument in self.arguments if isinstance(argument.source, Node)]

    def __len__(self) -> int:
        if not self.fans_out:
            raise TypeError(f"node {self.name!r} is a single value and has no length")
        if self.size is None:
            raise UsageError(
                f"how many elements {self.name!r} has is known only in a run",
                expected="a fan-out over a list that is known before",
                hint="leave what depends on it to a task that gets the whole list",
            )
        return self.size

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        raise UsageError(
            f"node {self.name!r} can't be iterated over: its values exist only in a run",
            expected="a fan-out as an argument of task.map(…), or umbel.run(node).value(node)",
            hint=None if self.fans_out else "if it returns a list: task.map(node.elements()) runs over its elements",
        )

    def elements(self) -> Elements:
        """The elements of the list that a single task returns, for `Task.map`, `umbel.sweep` and `umbel.product`.

        How many there are is known once the task has run: ``load.map(find_files.bind(folder).elements())``.

        Raises:
            UsageError: this node is a fan-out already.
        """
        if self.fans_out:
            raise UsageError(
                f"node {self.name!r} is a fan-out already", expected="a node made by bind", hint="pass it as it is"
            )
        return Elements(self)

    def __repr__(self) -> str:
        shape = f" × {'?' if self.size is None else format(self.size, ',')}" if self.fans_out else ""
        return f"<{type(self).__name__} {self.name}{shape}>"


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a list that only a run reveals; made by `Node.elements`."""

    source: Node

    def __iter__(self) -> Any:
        return iter(self.source)  # which says why not


class TaskNode(Node):
    """One call of a task (`Task.bind`), or one call an element (`Task.map`)."""

    def __init__(
        self, task: Task[..., Any], size: int | None, arguments: tuple[Argument, ...], *, fans_out: bool
    ) -> None:
        self.task = task
        self.base_name = task.name
        self.size = size
        self.fans_out = fans_out
        self.arguments = arguments


class Sweep(Node):
    """A fan-out over groups × trials, made by `umbel.sweep`; as a value it is the sweep's best trials."""

    def __init__(
        self,
        task: Task[..., Any],
        *,
        name: str,
        source: TrialSource,
        axes: Mapping[str, Sequence[object] | Node],
        groups: Sequence[Mapping[str, object]] | None,
        arguments: tuple[Argument, ...],
        objectives: tuple[Objective, ...],
        keep: str,
        search: AdaptiveSearch | None = None,
        pruning: Pruning | None = None,
        lenders: Sequence[str] = (),
        lent: Sequence[LentGroup] = (),
        budget: int | None = None,
        floor: int = 1,
    ) -> None:
        self.task = task
        self.base_name = name
        self.source = source
        #: None: each config is a function of the trial's index.
        self.search = search
        #: The values of each group key; a node, if only the run reveals them.
        self.axes = dict(axes)
        #: All combinations of them; None: only the run reveals them.
        self.groups = None if groups is None else tuple(groups)
        #: The data first, if there are any.
        self.arguments = arguments
        #: What trials are judged by: several give a Pareto set instead of one best trial.
        self.objectives = objectives
        self.keep = keep
        #: How trials are stopped early, if they are.
        self.pruning = pruning
        #: The earlier runs that lend configs, and their groups.
        self.lenders, self.lent = tuple(lenders), tuple(lent)
        #: Trials of all groups together, and how many each gets first; None: each gets all of its own.
        self.budget, self.floor = budget, floor
        self.size = None if self.groups is None or self._data_revealed() else len(self.groups) * source.trials
        self.fans_out = True

    def _data_revealed(self) -> bool:
        """True if only the run reveals whether there are data for each group."""
        return any(
            argument.kind is InputKind.ITEM
            or (argument.kind is InputKind.EACH and isinstance(argument.source, Node) and argument.source.size is None)
            for argument in self.arguments
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that trials are judged by."""
        return tuple(each.metric for each in self.objectives)

    @property
    def has_data(self) -> bool:
        """True if the function is given data beside the config."""
        return any(argument.kind is not InputKind.AXIS for argument in self.arguments)

    def best(self) -> BestNode:
        """A fan-out with the best trial of each group, as `umbel.Best`, in the order of the groups.

        With several metrics an element is the Pareto set of its group, as a list of `umbel.Best` in the order of the
        first metric, best first: all trials that no other of the group dominates.
        """
        return BestNode(self, None)

    def top(self, k: int) -> BestNode:
        """A fan-out with the k best trials of each group, best first, as a list of `umbel.Best`.

        Raises:
            UsageError: k is less than 1, or there are several metrics.
        """
        if len(self.objectives) > 1:
            raise UsageError(
                f"top(k) orders trials by one metric, and sweep {self.base_name!r} has several",
                got=in_words(self.objectives),
                expected="best(), the Pareto set of each group",
                hint="choose among its trials in a task: pick.map(sweep.best())",
            )
        if not isinstance(k, int) or k < 1:
            raise UsageError("top(k) needs at least one trial a group", got=k, expected="a whole number ≥ 1")
        return BestNode(self, k)

    def run(self, **options: Any) -> Run:
        """`umbel.run` with this sweep as its target."""
        from umbel.runtime.driver.run import run

        return run(self, **options)


class BestNode(Node):
    """The best trial, the Pareto set, or the k best, of each group of a sweep: chosen by the driver, a group as soon as
    it is complete."""

    def __init__(self, sweep: Sweep, k: int | None) -> None:
        self.sweep = sweep
        self.k = k
        self.base_name = f"{sweep.base_name}-best" if k is None else f"{sweep.base_name}-top{k}"
        self.size = None if sweep.groups is None or sweep.size is None else len(sweep.groups)
        self.fans_out = True
        self.arguments = (Argument(None, sweep, InputKind.EACH),)
