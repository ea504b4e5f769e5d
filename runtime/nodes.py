"""The graph as the user builds it: nodes bound from tasks and sweeps, and what each takes as its inputs.

Nothing runs here. `umbel.runtime.plan` turns the nodes that lead to a target into what the engine and the workers need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umbel.runtime.programs import InputKind
from umbel.scheduler.errors import UsageError
from umbel.scheduler.sampling import TrialSource

if TYPE_CHECKING:
    from umbel.runtime.task import Task
    from umbel.storage.run import Run

__all__ = ["Argument", "BestNode", "Node", "Sweep", "TaskNode"]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a node: where its values come from, and how they relate to the node's elements."""

    #: None: by position.
    keyword: str | None
    #: A node, or plain values: a sequence (EACH) or a single value (ONE).
    source: object
    kind: InputKind
    #: Of EACH: how many elements of the node in a row share one of the source. When the source is through, it begins
    #: again.
    repeat: int = 1

    def place(self, element: int, size: int) -> int:
        """Which of the ``size`` elements of the source an element of the node gets."""
        return element // self.repeat % size


class Node:
    """A task bound into a graph; its value is that of its element, or the list of its elements' values.

    Attributes:
        base_name: the name it asks for: its task's.
        size: how many elements it has.
        fans_out: True if it stands for a list of elements, False if for one.
    """

    base_name: str
    size: int
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
        return self.size

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        raise UsageError(
            f"node {self.name!r} can't be iterated over: its values exist only in a run",
            expected="a fan-out as an argument of task.map(…), or umbel.run(node).value(node)",
        )

    def __repr__(self) -> str:
        shape = f" × {self.size:,}" if self.fans_out else ""
        return f"<{type(self).__name__} {self.name}{shape}>"


class TaskNode(Node):
    """One call of a task (`Task.bind`), or one call an element (`Task.map`)."""

    def __init__(self, task: Task[..., Any], size: int, arguments: tuple[Argument, ...], *, fans_out: bool) -> None:
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
        groups: Sequence[Mapping[str, object]],
        arguments: tuple[Argument, ...],
        metric: str,
        mode: str,
        keep: str,
    ) -> None:
        self.task = task
        self.base_name = name
        self.source = source
        self.groups = tuple(groups)
        self.arguments = arguments
        self.metric = metric
        self.mode = mode
        self.keep = keep
        self.size = len(self.groups) * source.trials
        self.fans_out = True

    def best(self) -> BestNode:
        """A fan-out with the best trial of each group, as `umbel.Best`, in the order of the groups."""
        return BestNode(self, None)

    def top(self, k: int) -> BestNode:
        """A fan-out with the k best trials of each group, best first, as a list of `umbel.Best`.

        Raises:
            UsageError: k is less than 1.
        """
        if not isinstance(k, int) or k < 1:
            raise UsageError("top(k) needs at least one trial a group", got=k, expected="a whole number ≥ 1")
        return BestNode(self, k)

    def run(self, **options: Any) -> Run:
        """`umbel.run` with this sweep as its target."""
        from umbel.runtime.run import run

        return run(self, **options)


class BestNode(Node):
    """The best trial, or the k best, of each group of a sweep: chosen by the driver, a group as soon as it is
    complete."""

    def __init__(self, sweep: Sweep, k: int | None) -> None:
        self.sweep = sweep
        self.k = k
        self.base_name = f"{sweep.base_name}-best" if k is None else f"{sweep.base_name}-top{k}"
        self.size = len(sweep.groups)
        self.fans_out = True
        self.arguments = (Argument(None, sweep, InputKind.EACH),)
