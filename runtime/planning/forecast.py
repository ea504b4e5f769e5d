"""What would a run of this graph take on that cluster? `umbel plan` answers before money is spent.

The graph is planned as for a run, its elements get durations (measured in an earlier run, or given), and the engine is
driven through it on simulated machines. Nothing runs, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from umbel.runtime.driver.plan import Plan, PlannedNode, make_plan
from umbel.runtime.executors.ray_cluster import ray_amounts
from umbel.runtime.executors.ray_executor import REPORT_EVERY_S, REPORT_SPACING_S
from umbel.runtime.graph.nodes import BestNode, Node
from umbel.runtime.graph.sequences import as_sequence
from umbel.runtime.graph.sizes import Sizes
from umbel.runtime.planning.measured import MeasuredRun, given_seconds
from umbel.scheduler.errors import UmbelError, UsageError
from umbel.scheduler.graph import Graph, NodeId
from umbel.scheduler.simulation.measures import Simulation
from umbel.scheduler.simulation.setup import Autoscaler, Costs, Faults, MachineKind, Polling, Scenario, Seconds
from umbel.scheduler.simulation.simulator import simulate
from umbel.storage.runs.run import Run

__all__ = ["SPREAD", "Forecast", "parse_seconds", "plan"]

#: Spread of durations that are given by their mean alone: standard deviation of the logarithm.
SPREAD = 0.3


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would take. Times are in seconds."""

    nodes: int
    slots: float
    gpus: float
    #: Elements of all graph nodes that workers run.
    elements: int
    #: Where their durations come from.
    source: str
    #: From the first lease granted to the last result.
    makespan_s: float
    #: Until the first lease is granted: machines coming, and workers starting.
    startup_s: float
    #: The least that `makespan_s` could be with these durations: work over slots, or the longest chain.
    lower_bound_s: float
    #: Hours of CPUs in leases, and of CPUs that are there.
    core_hours: float
    available_core_hours: float
    #: Hours of machines that are there, and what they cost; None without a price.
    node_hours: float
    cost: float | None
    #: CPUs that are there, and the share of them that is busy, from the start on, in bins of `bin_s`.
    bin_s: float
    cpus: tuple[float, ...]
    utilisation: tuple[float, ...]
    #: How busy the driver is: share of its time, and messages a second at the peak.
    driver_load: float
    peak_messages_per_s: float
    #: Machines lost on the way, and runs of elements that had to be repeated.
    nodes_lost: int
    run_again: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    @property
    def mean_utilisation(self) -> float:
        """Busy share of the CPUs that are there, over all the time."""
        return self.core_hours / self.available_core_hours if self.available_core_hours else 0.0


def plan(
    target: Node | Sequence[Node] | Plan,
    *,
    nodes: int,
    slots: float = 8,
    gpus: float = 0,
    run: Run | None = None,
    seconds: float | Mapping[str | None, float] | None = None,
    spread: float = SPREAD,
    price_per_node_hour: float | None = None,
    losses_per_hour: float = 0.0,
    lag_s: float | None = None,
    seed: int = 0,
) -> Forecast:
    """Forecast a run.

    Custom resources and memory that tasks ask for are taken to be there. Costs about 50 µs a lease: a million trials of
    more than half a second take a minute.

    Args:
        target: what `umbel.run` would be given.
        nodes: how many machines there are, or may come.
        slots: CPUs of each.
        gpus: GPUs of each.
        run: an earlier run whose times are taken over; elements that it did not have are drawn from those it had.
        seconds: mean time of an element, for all graph nodes or by name (None: all others); for those that ``run`` does
            not tell of.
        spread: how much given times vary: standard deviation of their logarithm.
        price_per_node_hour: of one machine, in any currency.
        losses_per_hour: share of the machines that is lost an hour; they are replaced.
        lag_s: the machines come this long after they are asked for; None: they are there from the start.
        seed: from it follows what is left to chance.

    Raises:
        UsageError: an argument is out of range, a node's times are unknown, or a task fits on no such machine.
    """
    _check(nodes, slots, gpus, price_per_node_hour, losses_per_hour, lag_s)
    planned = target if isinstance(target, Plan) else make_plan(target)
    measured = None if run is None else MeasuredRun(run, seed)
    sizes = _sizes(planned, measured)
    durations = _durations(planned, sizes, measured, seconds, spread, seed)
    overhead_s = None if measured is None else measured.overhead_s()
    has = {"CPU": float(slots), "GPU": float(gpus)}
    outcome = simulate(
        Scenario(
            # What time limits and retries did to an element is part of its measured time.
            Graph(
                [replace(spec, size=sizes.size(spec.id), sized_later=False, timeout_s=None) for spec in planned.graph]
            ),
            durations,
            machines=(MachineKind(has, initial=0 if lag_s is not None else nodes, most=nodes),),
            shapes={
                shape: {name: amount for name, amount in ray_amounts(resources).items() if name in has}
                for shape, resources in planned.shapes.items()
            },
            autoscaler=Autoscaler(lag_s=60.0 if lag_s is None else lag_s),
            polling=Polling(REPORT_EVERY_S, REPORT_SPACING_S),
            faults=Faults(machine_losses_per_hour=losses_per_hour),
            costs=Costs() if overhead_s is None else Costs(element_s=overhead_s),
            seed=seed,
        )
    )
    source = f"run {measured.name!r}" if measured is not None else "given"
    return _forecast(outcome, nodes, slots, gpus, durations, source, price_per_node_hour)


def _forecast(
    outcome: Simulation,
    nodes: int,
    slots: float,
    gpus: float,
    durations: Mapping[NodeId, Seconds],
    source: str,
    price_per_node_hour: float | None,
) -> Forecast:
    node_hours = outcome.machine_s / 3600
    return Forecast(
        nodes=nodes,
        slots=slots,
        gpus=gpus,
        elements=sum(len(seconds) for seconds in durations.values()),
        source=source,
        makespan_s=outcome.makespan_s - outcome.first_grant_s,
        startup_s=outcome.first_grant_s,
        lower_bound_s=max(outcome.chain_bound_s, outcome.work_bound_s - outcome.first_machine_s),
        core_hours=outcome.busy_core_s / 3600,
        available_core_hours=outcome.available_core_s / 3600,
        node_hours=node_hours,
        cost=None if price_per_node_hour is None else node_hours * price_per_node_hour,
        bin_s=outcome.bin_s,
        cpus=outcome.cpus,
        utilisation=outcome.utilisation,
        driver_load=outcome.driver_busy_s / outcome.makespan_s if outcome.makespan_s else 0.0,
        peak_messages_per_s=max(outcome.messages_per_s, default=0.0),
        nodes_lost=outcome.machines_lost,
        run_again=outcome.run_again,
    )


def _check(
    nodes: int, slots: float, gpus: float, price: float | None, losses_per_hour: float, lag_s: float | None
) -> None:
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise UsageError("nodes is not a count", got=repr(nodes), expected="a whole number ≥ 1", hint="say --nodes 50")
    for name, value, least in (
        ("slots", slots, 0.0),
        ("gpus", gpus, 0.0),
        ("the price", price, 0.0),
        ("losses an hour", losses_per_hour, 0.0),
        ("the lag", lag_s, 0.0),
    ):
        if value is not None and not (isinstance(value, (int, float)) and least <= value < 1e9):
            raise UsageError(f"{name}: this is not an amount", got=repr(value), expected=f"a number ≥ {least:g}")


def parse_seconds(texts: Sequence[str]) -> dict[str | None, float]:
    """Mean times as they are given on the command line: ``S`` for all nodes, ``NODE=S`` for one.

    Raises:
        UsageError: one is not a number.
    """
    found: dict[str | None, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name or None] = float(number)
        except ValueError:
            raise UsageError(
                "a mean time is not a number", got=text, expected="--seconds 30, or --seconds NODE=30 for one node"
            ) from None
    return found


def _sizes(planned: Plan, measured: MeasuredRun | None) -> Sizes:
    """The sizes of all nodes; those that only a run reveals, as the earlier run revealed them.

    Raises:
        UsageError: there is no earlier run, or it did not come so far.
    """

    def value(node: NodeId) -> object:
        name = planned.nodes[node].name
        if measured is None:
            raise UsageError(
                f"what {name!r} returns decides how many elements there are",
                got="no earlier run",
                expected="a run to take the sizes from",
                hint="say --from RUN, with the name of a run that came so far",
            )
        try:
            return measured.value(name)
        except UmbelError as error:
            raise UsageError(
                f"what {name!r} returns decides how many elements there are, and run {measured.name!r} does not tell",
                got=str(error),
                expected="a run that came so far",
            ) from error

    sizes = Sizes(planned, lambda node: len(as_sequence(value(node)) or ()), value)
    for node in planned.nodes:
        sizes.ended(node.id, failed=False)
    for problem in sizes.problems.values():
        raise problem
    return sizes


def _durations(
    planned: Plan,
    sizes: Sizes,
    measured: MeasuredRun | None,
    seconds: float | Mapping[str | None, float] | None,
    spread: float,
    seed: int,
) -> dict[NodeId, Seconds]:
    """The seconds of all elements that workers run.

    Raises:
        UsageError: those of some node are unknown, or there is no node of a name.
    """
    runnable = [node for node in planned.nodes if not isinstance(node.node, BestNode)]
    if isinstance(seconds, Mapping):
        unknown = [name for name in seconds if name is not None and name not in {node.name for node in runnable}]
        if unknown:
            raise UsageError(
                f"the graph has no node {unknown[0]!r} that takes time",
                expected=f"one of {', '.join(node.name for node in runnable)}",
            )
    found: dict[NodeId, Seconds] = {}
    missing: list[PlannedNode] = []
    for node in runnable:
        mean_s = seconds.get(node.name, seconds.get(None)) if isinstance(seconds, Mapping) else seconds
        known = None if measured is None else measured.seconds(node, sizes)
        if known is not None:
            found[node.id] = known
        elif mean_s is not None:
            found[node.id] = given_seconds(node, sizes.size(node.id), mean_s, spread, seed)
        else:
            missing.append(node)
    if missing:
        names = ", ".join(node.name for node in missing)
        raise UsageError(
            f"how long {names} takes is not known" + (f": run {measured.name!r} does not tell" if measured else ""),
            expected="an earlier run that has measured it (--from RUN), or a mean time",
            hint=f"say --seconds 30, or --seconds {missing[0].name}=30 for one node",
        )
    return found
