"""`umbel.task`: a function that can be called as ever, or bound into a graph."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, overload

from umbel.runtime.driver.programs import InputKind
from umbel.runtime.fused.batches import Fusion
from umbel.runtime.graph.nodes import Argument, Elements, Node, Sweep, TaskNode
from umbel.runtime.graph.sequences import as_sequence
from umbel.scheduler.errors import GraphError, UsageError
from umbel.storage.layout import check_name

__all__ = ["Resources", "Task", "task"]

#: What may become of a run when a call fails for good.
ON_FAILURE = ("keep going", "skip", "stop")

#: Members of a container in which nodes are looked for.
LOOKED_AT = 10_000
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a worker of this task holds while it lives, in Ray's terms."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, amount in [("cpus", self.cpus), ("gpus", self.gpus), *self.custom.items()]:
            if not (_is_number(amount) and 0 <= amount < 1e9):
                raise UsageError(
                    f"{name} is not an amount",
                    got=repr(amount),
                    expected="a number ≥ 0",
                    hint="for example cpus=2, gpus=0.5",
                )
        memory = self.memory_bytes
        if memory is not None and not (_is_number(memory) and memory > 0):
            raise UsageError(
                "memory is not an amount",
                got=repr(memory),
                expected="bytes > 0, or None",
                hint="for example memory=2 * 2**30 for 2 GiB",
            )

    def as_key(self) -> tuple[object, ...]:
        """The same for equal resources; hashable."""
        return (
            self.cpus,
            self.gpus,
            self.memory_bytes,
            tuple(sorted(self.custom.items())),
            tuple(sorted(self.labels.items())),
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Task(Generic[P, R]):
    """A function with what it needs to run: its resources, retries and time limit. Made by `umbel.task`."""

    #: How a sweep runs many of its trials at once, if it does (`umbel.fused`).
    fusion: Fusion | None = None

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        resources: Resources | None = None,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        timeout_s: float | None = None,
        on_failure: str = "keep going",
        priority: int = 0,
        cache: bool = True,
    ) -> None:
        if not callable(fn):
            raise UsageError(
                "umbel.task needs a function",
                got=fn,
                expected="a function or another callable",
                hint="put @umbel.task above a def; options go in parentheses: @umbel.task(retries=2)",
            )
        if isinstance(fn, Task):  # its own options would be lost without a word
            kind = "fused" if fn.fusion is not None else "a task"
            raise UsageError(
                f"this function is {kind} already, and umbel.fused takes the options of umbel.task",
                got=repr(fn),
                expected="one decorator: @umbel.task(cpus=2, retries=1), or @umbel.fused(by=…, cpus=2, retries=1)",
            )
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise UsageError(
                "umbel.task needs a function that returns its result, and this one is async",
                got=f"async def {fn.__name__}",
                expected="def",
                hint="call it from a def by asyncio.run(…): each call has a process, or a turn in one, for itself",
            )
        if not isinstance(retries, int) or retries < 0:
            raise UsageError(
                "retries is not a count",
                got=repr(retries),
                expected="a whole number ≥ 0",
                hint="retries=2 tries a failed call up to three times in all",
            )
        if timeout_s is not None and not (_is_number(timeout_s) and timeout_s > 0):
            raise UsageError(
                "timeout_s is not a time",
                got=repr(timeout_s),
                expected="seconds > 0, or None",
                hint="leave it out for no limit",
            )
        retry_on = tuple(retry_on) if isinstance(retry_on, (tuple, list)) else (retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in retry_on):
            raise UsageError(
                "retry_on holds something else than exception classes",
                got=repr(retry_on),
                expected="exception classes",
                hint="for example retry_on=(OSError, TimeoutError)",
            )
        self.fn = fn
        self.name = name or default_name(fn)
        check_name("task", self.name)
        self.resources = resources or Resources()
        self.retries = retries
        self.retry_on = retry_on
        self.timeout_s = timeout_s
        if on_failure not in ON_FAILURE:
            raise UsageError(
                "unknown on_failure", got=on_failure, expected=" or ".join(repr(known) for known in ON_FAILURE)
            )
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise UsageError("priority is not a whole number", got=priority, expected="a whole number; 0 is usual")
        self.on_failure = on_failure
        self.priority = priority
        self.cache = cache
        self.__umbel_function__ = fn
        update_wrapper(self, fn, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, as plain Python."""
        return self.fn(*args, **kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> TaskNode:
        """A node that calls the function once. Nodes among the arguments stand for their values, fan-outs for lists.

        Raises:
            GraphError: the arguments don't fit the function's signature.
        """
        self._check_signature(args, kwargs)
        check_no_node_inside(self.name, [*args, *kwargs.values()])
        arguments = []
        for keyword, value in _named(args, kwargs):
            if isinstance(value, Elements):
                raise GraphError(
                    f"{self.name}.bind(…) makes a single call, which can't run over the elements of a list",
                    got=f"{value.source!r}.elements()",
                    expected=f"{self.name}.map(…) for a call an element",
                    hint="bind(node) gives the one call the whole list",
                )
            whole = isinstance(value, Node) and value.fans_out
            arguments.append(Argument(keyword, _value_of(value), InputKind.ALL if whole else InputKind.ONE))
        return TaskNode(self, 1, tuple(arguments), fans_out=False)

    def map(self, *args: Any, **kwargs: Any) -> TaskNode:
        """A fan-out that calls the function once an element.

        Sequences (lists, tuples, ranges, one-dimensional arrays) and fan-outs are zipped; all else is passed to every
        call. ``node.elements()`` zips the list that a single node returns. For every combination instead, see
        `umbel.product`.

        Raises:
            GraphError: lengths differ, nothing is zipped, or the arguments don't fit the function's signature.
        """
        from umbel.runtime.graph.product import Crossed

        self._check_signature(args, kwargs)
        check_no_node_inside(self.name, [*args, *kwargs.values()])
        arguments: list[Argument] = []
        lengths: dict[str, int | None] = {}
        names = list(self._parameter_names(args, kwargs))
        for label, (keyword, value) in zip(names, _named(args, kwargs), strict=True):
            if isinstance(value, Node):
                kind = InputKind.EACH if value.fans_out else InputKind.ONE
                arguments.append(Argument(keyword, _value_of(value), kind))
                if value.fans_out:
                    lengths[label] = value.best().size if isinstance(value, Sweep) else value.size
            elif isinstance(value, Elements):
                arguments.append(Argument(keyword, value.source, InputKind.ITEM))
                lengths[label] = None
            elif isinstance(value, Crossed):
                kind = InputKind.ITEM if isinstance(value.source, Elements) else InputKind.EACH
                source = value.source.source if isinstance(value.source, Elements) else value.source
                arguments.append(Argument(keyword, source, kind, value.repeat, value.wraps))
                lengths[label] = value.length
            elif (items := as_sequence(value)) is not None:
                arguments.append(Argument(keyword, items, InputKind.EACH))
                lengths[label] = len(items)
            else:
                arguments.append(Argument(keyword, value, InputKind.ONE))
        if not lengths:
            raise GraphError(
                f"{self.name}.map(…) has nothing to map over",
                expected="at least one list, tuple, range, array or fan-out among the arguments",
                hint=f"{self.name}.bind(…) makes a single call",
            )
        known = {length for length in lengths.values() if length is not None}
        if len(known) > 1:
            raise GraphError(
                f"{self.name}.map(…) was given arguments of different lengths",
                got=", ".join(f"{label}: {length}" for label, length in lengths.items() if length is not None),
                expected="the same length everywhere",
                hint="if every call shall get a whole list, let a node bring it: umbel.task(lambda: values).bind()",
            )
        size = None if None in lengths.values() else next(iter(known))
        return TaskNode(self, size, tuple(arguments), fans_out=True)

    def _check_signature(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        signature = signature_of(self.fn)
        if signature is None:
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise GraphError(
                f"the arguments don't fit task {self.name!r}: {error}",
                got=f"{len(args)} by position, by name: {', '.join(kwargs) or 'none'}",
                expected=f"{self.name}{signature}",
                hint="give bind and map what a plain call of the function would be given",
            ) from None

    def _parameter_names(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        signature = signature_of(self.fn)
        known = list(signature.parameters) if signature else []
        return [known[i] if i < len(known) else f"argument {i + 1}" for i in range(len(args))] + list(kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


@overload
def task(
    fn: Callable[P, R],
    *,
    name: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    memory: int | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    retries: int = 0,
    retry_on: tuple[type[BaseException], ...] = (Exception,),
    timeout_s: float | None = None,
    on_failure: str = "keep going",
    priority: int = 0,
    cache: bool = True,
) -> Task[P, R]: ...
@overload
def task(
    fn: None = None,
    *,
    name: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    memory: int | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    retries: int = 0,
    retry_on: tuple[type[BaseException], ...] = (Exception,),
    timeout_s: float | None = None,
    on_failure: str = "keep going",
    priority: int = 0,
    cache: bool = True,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[P, R] | None = None,
    *,
    name: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    memory: int | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    retries: int = 0,
    retry_on: tuple[type[BaseException], ...] = (Exception,),
    timeout_s: float | None = None,
    on_failure: str = "keep going",
    priority: int = 0,
    cache: bool = True,
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a task of a function, as ``@umbel.task`` or ``@umbel.task(cpus=2, retries=1)``.

    Args:
        fn: the function.
        name: its name in runs; the function's own name otherwise.
        cpus: processors that a call occupies.
        gpus: GPUs, possibly a fraction.
        memory: bytes of memory.
        resources: custom Ray resources.
        labels: Ray node labels that its worker's node must carry.
        retries: how often a failed call is tried again.
        retry_on: the exceptions that are worth another try; a time-out counts as TimeoutError.
        timeout_s: seconds after which a call is stopped, under the Ray executor.
        on_failure: what becomes of the run when a call fails for good. "keep going": what needs its value fails too,
            all else goes on. "skip": the same, but calls that get a whole fan-out as a list get the list without it.
            "stop": the run stops, and can be resumed.
        priority: calls of higher priority start first, whatever their place in the graph.
        cache: whether a sweep of it may take over trials of earlier runs, if code, data, config and seed are the same.

    Raises:
        UsageError: an argument is wrong.
    """

    def make(function: Callable[P, R]) -> Task[P, R]:
        held = Resources(cpus, gpus, memory, dict(resources or {}), dict(labels or {}))
        return Task(
            function,
            name=name,
            resources=held,
            retries=retries,
            retry_on=retry_on,
            timeout_s=timeout_s,
            on_failure=on_failure,
            priority=priority,
            cache=cache,
        )

    return make if fn is None else make(fn)


def default_name(fn: Callable[..., Any]) -> str:
    """A function's name in runs."""
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "lambda" if name == "<lambda>" else name.lstrip("_") or "task"


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The function's signature, or None if it tells none (some built-ins)."""
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


def check_no_node_inside(name: str, arguments: Sequence[object]) -> None:
    """Refuse nodes inside lists, tuples, sets and dicts: the function would be given the nodes, not their values.

    Raises:
        GraphError: there is one.
    """
    front: list[object] = [each for each in arguments if type(each).__name__ != "Crossed"]
    for looked_at in itertools.count():
        if not front or looked_at == LOOKED_AT:
            return
        value = front.pop()
        if not isinstance(value, (list, tuple, set, frozenset, dict)):
            continue
        members = list(itertools.islice(value.values() if isinstance(value, dict) else value, LOOKED_AT))
        found = next((each for each in members if isinstance(each, (Node, Elements))), None)
        if found is not None:
            raise GraphError(
                f"an argument of task {name!r} holds a node inside a {type(value).__name__}",
                got=f"{found!r}, in a {type(value).__name__} of {len(value)}",
                expected="nodes as arguments of their own, whose values the function is given",
                hint="one parameter a node, with *args for many; or make one fan-out of them with map",
            )
        front += [each for each in members if isinstance(each, (list, tuple, set, frozenset, dict))]


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str | None, Any]]:
    return [(None, value) for value in args] + list(kwargs.items())


def _value_of(value: object) -> object:
    """A sweep as an argument stands for its best trials."""
    return value.best() if isinstance(value, Sweep) else value
