"""What is simulated: a graph with the seconds each element takes, the cluster it runs on, and what goes wrong there.

Plain descriptions, in seconds and in the units of Ray's resources. Everything random in a simulation follows from
`Scenario.seed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.scheduler.errors import UsageError
from umbel.scheduler.graph import Graph, NodeId, NodeSpec, ShapeId
from umbel.scheduler.protocol import Capacity

__all__ = [
    "Autoscaler",
    "Costs",
    "Faults",
    "MachineKind",
    "Network",
    "Polling",
    "Scenario",
    "Seconds",
    "lognormal_seconds",
    "one_sweep",
    "philox",
]

#: For each element of a node, the seconds it takes on a machine of speed 1.
Seconds = npt.NDArray[np.float64]


def philox(seed: int, stream: int) -> np.random.Generator:
    """A counter-based generator for one of the streams of a seed."""
    return np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), stream]))


@dataclass(frozen=True, slots=True)
class MachineKind:
    """Machines of one kind."""

    #: What each has, by Ray's names; fractions are kept to 1/10,000.
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 8.0})
    #: How many are there from the start.
    initial: int = 1
    #: How many there can be.
    most: int = 1
    #: Share of them that run at `slow_speed` instead of 1.
    slow_share: float = 0.0
    slow_speed: float = 0.25


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """How new machines come: some seconds after they are asked for."""

    lag_s: float = 60.0
    #: Mean of what chance adds to that (exponential).
    lag_jitter_s: float = 10.0
    #: How the driver has the cluster grow, as in `umbel.runtime.executors.ray_executor`: workers asked for beyond
    #: those that have joined (as many again, once more have), how often it looks, and when it expects no more.
    ahead: int = 4
    look_every_s: float = 1.0
    give_up_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Network:
    """How long messages between driver and workers take, each way.

    A worker answers one poll at a time, so its answers can't overtake each other; a copy of one can arrive later, and
    commands can overtake each other and cross answers.
    """

    delay_s: float = 0.0005
    #: Mean of what chance adds (exponential).
    jitter_s: float = 0.0002
    #: Share of the answers that arrive a second time, some time later.
    doubled: float = 0.0
    #: Share of all messages that take up to `late_s` more.
    late: float = 0.0
    late_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Polling:
    """When workers answer; as in `umbel.runtime.executors.ray_executor`."""

    every_s: float = 0.4
    #: With n workers they answer every ``n * spacing_s`` seconds if that is longer.
    spacing_s: float = 0.002
    #: True: answers without news are simulated one by one. False: they are counted, and what they take of the driver's
    #: time makes the rest slower in proportion. Nodes with a time limit need signs of life and imply True.
    each: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong."""

    #: Chance an hour that a machine is lost with all its workers (preempted, or dead): nobody is to blame.
    machine_losses_per_hour: float = 0.0
    #: Chance an hour that a worker's process crashes.
    crashes_per_hour: float = 0.0
    #: Seconds until the driver hears of a lost machine and of a crashed process.
    machine_noticed_s: float = 5.0
    crash_noticed_s: float = 0.05
    #: Elements that kill their worker halfway through, at every attempt.
    poison: Mapping[NodeId, Sequence[int]] = field(default_factory=dict)
    #: Elements that take their whole machine with them, likewise.
    fatal: Mapping[NodeId, Sequence[int]] = field(default_factory=dict)
    #: Elements that fail, and at how many of their attempts (one is enough where the driver evaluates them).
    failing: Mapping[NodeId, Mapping[int, int]] = field(default_factory=dict)
    #: Elements during which their worker answers no polls.
    silent: Mapping[NodeId, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Costs:
    """What Umbel itself costs; the defaults were measured (`docs/scale.md` says where and how)."""

    #: Seconds between two elements of a lease.
    element_s: float = 0.00002
    #: Seconds to open a lease on its worker.
    lease_s: float = 0.0005
    #: Seconds to start a worker's process, once it has a place.
    worker_start_s: float = 1.0
    #: Seconds of the driver's time for each answer, for a batch of rows in it, and for each of the rows. Answers queue
    #: up: this limits a driver.
    answer_s: float = 0.0005
    batch_s: float = 0.0008
    row_s: float = 2e-7
    #: Seconds of the driver's time for each element that it evaluates itself.
    evaluate_s: float = 0.0003
    #: Bytes of an answer without rows, of a batch of rows, of each row, of a poll and of a grant.
    answer_bytes: int = 600
    batch_bytes: int = 4500
    row_bytes: int = 150
    poll_bytes: int = 500
    grant_bytes: int = 700


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulation.

    Raises:
        UsageError: parts do not fit together, or a shape fits on no machine.
    """

    graph: Graph
    #: By node; nodes that the driver evaluates have none.
    seconds: Mapping[NodeId, Seconds]
    machines: Sequence[MachineKind] = (MachineKind(),)
    #: What a worker of each shape holds; shapes that are left out hold one CPU.
    shapes: Mapping[ShapeId, Mapping[str, float]] = field(default_factory=dict)
    autoscaler: Autoscaler = field(default_factory=Autoscaler)
    network: Network = field(default_factory=Network)
    polling: Polling = field(default_factory=Polling)
    faults: Faults = field(default_factory=Faults)
    costs: Costs = field(default_factory=Costs)
    #: Elements whose results an earlier run has, of nodes that ask for it; bounds count their work all the same.
    known: Mapping[NodeId, Sequence[int]] = field(default_factory=dict)
    #: What others leave to this run: from a time on (seconds), no more workers of a shape than that.
    allowances: Sequence[tuple[float, Capacity]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for spec in self.graph:
            if spec.shape is None:
                continue
            seconds = self.seconds.get(spec.id)
            if seconds is None or seconds.shape != (spec.size,):
                raise UsageError(
                    f"the durations of node {spec.name!r} do not fit it",
                    got="none" if seconds is None else f"{seconds.size} of them",
                    expected=f"one for each of its {spec.size} elements, in seconds",
                )
            if seconds.size and not (np.isfinite(seconds).all() and seconds.min() >= 0):
                raise UsageError(f"a duration of node {spec.name!r} is negative or not a number")
            can_be_had = [machine for machine in self.machines if max(machine.initial, machine.most) > 0]
            if not any(fit(self.needs(spec.shape), machine.resources) for machine in can_be_had):
                raise UsageError(
                    f"no machine can hold a worker of node {spec.name!r}",
                    got="; ".join(_text(machine.resources) for machine in self.machines) or "no machines",
                    expected=f"one with {_text(self.needs(spec.shape))}",
                )

    def needs(self, shape: ShapeId) -> Mapping[str, float]:
        """What a worker of a shape holds."""
        return self.shapes.get(shape, _ONE_CPU)


_ONE_CPU: Mapping[str, float] = {"CPU": 1.0}


def fit(needs: Mapping[str, float], has: Mapping[str, float]) -> int:
    """How many times ``needs`` fits into ``has``; a worker that needs nothing still takes a CPU's time."""
    wanted = {name: amount for name, amount in needs.items() if amount > 0} or _ONE_CPU
    return min(int(has.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items())


def _text(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items()) or "nothing"


def lognormal_seconds(size: int, mean_s: float, sigma: float, seed: int, node: int = 0) -> Seconds:
    """Durations with a log-normal distribution: element i's is a pure function of (seed, node, i).

    Args:
        size: how many.
        mean_s: the distribution's mean, in seconds.
        sigma: standard deviation of the logarithm: 0 for all alike, 1 for a heavy tail (the longest of a million is
            then some 80 times the mean).
        seed: the scenario's seed.
        node: the node's id.
    """
    drawn = philox(seed, 2**32 + node).standard_normal(size)
    return np.asarray(mean_s * np.exp(sigma * drawn - sigma * sigma / 2), dtype=np.float64)


def one_sweep(
    trials: int = 1_000_000,
    machines: int | Sequence[MachineKind] = 1000,
    slots: int = 8,
    *,
    mean_s: float = 30.0,
    sigma: float = 0.3,
    machine_losses_per_hour: float = 0.01,
    seed: int = 0,
    **changes: Any,
) -> Scenario:
    """A sweep of independent trials on machines that are all there at the start and are replaced when they are lost.

    With its defaults it is the scenario of the scale benchmark.

    Args:
        trials: how many.
        machines: how many machines, or which.
        slots: workers a machine; without meaning if it is said which.
        mean_s: mean seconds of a trial.
        sigma: spread of the log-normal durations; see `lognormal_seconds`.
        machine_losses_per_hour: share of the machines that is lost an hour.
        seed: from it follows everything.
        changes: other fields of `Scenario`.
    """
    graph = Graph([NodeSpec(NodeId(0), "trials", trials)])
    if isinstance(machines, int):
        machines = (MachineKind({"CPU": float(slots)}, initial=machines, most=machines),)
    options: dict[str, Any] = {
        "machines": machines,
        "faults": Faults(machine_losses_per_hour=machine_losses_per_hour),
        **changes,
    }
    return Scenario(graph, {NodeId(0): lognormal_seconds(trials, mean_s, sigma, seed)}, seed=seed, **options)
