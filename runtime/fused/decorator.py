"""`umbel.fused`: a function that runs the trials of a sweep many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from umbel.runtime.fused.batches import Fusion
from umbel.runtime.graph.nodes import TaskNode
from umbel.runtime.graph.task import Resources, Task
from umbel.scheduler.errors import GraphError, UsageError

__all__ = ["FusedTask", "fused"]

P = ParamSpec("P")
R = TypeVar("R")


class FusedTask(Task[P, R]):
    """A function for `umbel.sweep` that runs many trials at once. Made by `umbel.fused`."""

    def __init__(self, fn: Callable[P, R], fusion: Fusion, **options: Any) -> None:
        super().__init__(fn, **options)
        self.fusion = fusion

    def bind(self, *args: Any, **kwargs: Any) -> TaskNode:
        """Not for fused functions: they run trials of a sweep."""
        self._refuse("bind")

    def map(self, *args: Any, **kwargs: Any) -> TaskNode:
        """Not for fused functions: they run trials of a sweep."""
        self._refuse("map")

    def _refuse(self, method: str) -> NoReturn:
        raise GraphError(
            f"{self.name!r} is fused, so it runs the trials of a sweep",
            got=f"{self.name}.{method}(…)",
            expected=f"umbel.sweep({self.name}, …)",
            hint="@umbel.task makes a task of a function that gets one element at a time",
        )


@overload
def fused(
    fn: Callable[P, R],
    *,
    by: str | Sequence[str] = (),
    max_batch: int | Literal["auto"] = "auto",
    fuse_groups: bool = False,
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
) -> FusedTask[P, R]: ...
@overload
def fused(
    fn: None = None,
    *,
    by: str | Sequence[str] = (),
    max_batch: int | Literal["auto"] = "auto",
    fuse_groups: bool = False,
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
) -> Callable[[Callable[P, R]], FusedTask[P, R]]: ...
def fused(
    fn: Callable[P, R] | None = None,
    *,
    by: str | Sequence[str] = (),
    max_batch: int | Literal["auto"] = "auto",
    fuse_groups: bool = False,
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
) -> FusedTask[P, R] | Callable[[Callable[P, R]], FusedTask[P, R]]:
    """Let a function run the trials of a sweep many at once: ``fn(configs)``, or ``fn(configs, data)``.

    ``configs`` (`Configs`) holds the configs of a batch of trials as columns. The function returns a dict of arrays by
    metric name, each with a number a trial in the order of ``configs``; or `umbel.Result` of such a dict and models.
    `umbel.torch.fit_many` trains networks that way. All else is as in any sweep: rows, resuming, retries, `best()`.

    Args:
        fn: the function.
        by: names in the space, or group keys, whose values all trials of a batch share: whatever the function can't
            have differ within a batch, such as the width of a layer. Without ``fuse_groups`` the group is always
            shared.
        max_batch: how many trials at most. "auto" begins with 64 and doubles as long as that makes a trial cheaper. If
            memory does not suffice the batch is halved, and stays so for its values of ``by`` on its worker.
        fuse_groups: True lets a batch hold trials of several groups; ``data`` is then a list with an element a group,
            and ``configs.group`` says which each trial's is.
        name: its name in runs; the function's own name otherwise.
        cpus: processors that a worker occupies.
        gpus: GPUs, possibly a fraction.
        memory: bytes of memory.
        resources: custom Ray resources.
        labels: Ray node labels that its worker's node must carry.
        retries: how often a trial that fails alone is tried again.
        retry_on: the exceptions that are worth another try; a time-out counts as TimeoutError.
        timeout_s: seconds after which a batch is stopped, under the Ray executor; all its trials are `timeout` then.
        on_failure: as of `umbel.task`.
        priority: as of `umbel.task`.
        cache: whether trials of earlier runs may be taken over, if code, data, config and seed are the same.

    Raises:
        UsageError: an argument is wrong.
    """
    names = (by,) if isinstance(by, str) else by
    if not isinstance(names, (list, tuple)) or not all(isinstance(each, str) and each for each in names):
        raise UsageError("by holds something else than names of the config", got=by, expected='by=("hidden", "window")')
    if len(set(names)) < len(names):
        raise UsageError("by holds a name twice", got=by, expected="each name once")
    whole = isinstance(max_batch, int) and not isinstance(max_batch, bool) and max_batch >= 1
    if max_batch != "auto" and not whole:
        raise UsageError("max_batch is no number of trials", got=max_batch, expected='a whole number ≥ 1, or "auto"')
    if not isinstance(fuse_groups, bool):
        raise UsageError("fuse_groups is neither True nor False", got=fuse_groups, expected="True or False")
    fusion = Fusion(tuple(names), max_batch, fuse_groups)

    def make(function: Callable[P, R]) -> FusedTask[P, R]:
        return FusedTask(
            function,
            fusion,
            name=name,
            resources=Resources(cpus, gpus, memory, dict(resources or {}), dict(labels or {})),
            retries=retries,
            retry_on=retry_on,
            timeout_s=timeout_s,
            on_failure=on_failure,
            priority=priority,
            cache=cache,
        )

    return make if fn is None else make(fn)
