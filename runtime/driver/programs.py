"""What a worker needs to know of each node to run any lease of it: sent once, when the worker starts.

What differs from lease to lease, the handles of its inputs, travels with the lease as `LeaseInputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from umbel.runtime.fused.batches import Fusion
from umbel.runtime.leases.values import ValueHandle
from umbel.runtime.search.pruning import Pruning
from umbel.scheduler.graph import NodeId
from umbel.scheduler.search.adaptive import AdaptiveSearch, KnownTrial
from umbel.scheduler.search.pareto import Objective
from umbel.scheduler.search.sampling import TrialSource
from umbel.scheduler.search.transfer import Portfolio

__all__ = ["InputKind", "LeaseInputs", "Parameter", "Program", "StudyInputs", "SweepProgram", "TaskProgram"]


class InputKind(Enum):
    """How a parameter's handles relate to the elements of the node."""

    #: One handle an element (of a sweep: a group).
    EACH = "each"
    #: One handle, the same for all.
    ONE = "one"
    #: A list of handles, whole, the same for all.
    ALL = "all"
    #: One handle, that of a list, of which each element of the node (of a sweep: each group) gets its item.
    ITEM = "item"
    #: Not a parameter: the values of a group key, which the groups are made of.
    AXIS = "axis"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a handle fills; ``keyword`` None means by position."""

    keyword: str | None
    kind: InputKind
    #: Of an ITEM: how many elements in a row get the same item.
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """What is the same for tasks and sweeps."""

    node: NodeId
    name: str
    #: The pickled function and the exceptions that it is retried on, ``(fn, retry_on)``.
    function: bytes
    #: The code's fingerprint.
    code: str
    retries: int
    timeout_s: float | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class TaskProgram(Program):
    """A task: one call an element."""

    #: Other tasks or sweeps take its values.
    feeds_others: bool = False


@dataclass(frozen=True, slots=True)
class SweepProgram(Program):
    """A sweep: one call a trial, with a config made from the trial's index."""

    source: TrialSource
    #: The group keys; their values come with the leases.
    group_names: tuple[str, ...]
    #: What trials are judged by.
    objectives: tuple[Objective, ...]
    #: Which trials' models are stored: "best" (those that nothing beats that was seen before of their group), "all" or
    #: "none".
    keep: str
    #: None: each config is a function of the trial's index.
    search: AdaptiveSearch | None = None
    #: How trials are stopped early, if they are.
    pruning: Pruning | None = None
    #: How trials are run many at once, if they are.
    fusion: Fusion | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that trials are judged by."""
        return tuple(each.metric for each in self.objectives)


@dataclass(frozen=True, slots=True)
class StudyInputs:
    """What is known of the study that a lease goes on with."""

    #: True: nobody else works on it, so that its trials follow from the seed and the results alone.
    in_order: bool
    known: tuple[KnownTrial, ...] = ()
    #: What other groups lend it.
    portfolio: Portfolio | None = None


@dataclass(frozen=True, slots=True)
class LeaseInputs:
    """The handles for one lease, one tuple a parameter of its program.

    Of an EACH parameter it holds those of the lease's elements in order (of a sweep: of the groups that the lease
    touches), of a ONE or ITEM parameter one, of an ALL parameter all.
    """

    handles: tuple[tuple[ValueHandle, ...], ...] = ()
    #: Of a sweep: the groups that the lease touches, in order.
    groups: tuple[Mapping[str, object], ...] = ()
    #: Of a sweep with an adaptive search; such a lease lies within one group.
    study: StudyInputs | None = None
