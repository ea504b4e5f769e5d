"""Small random histories: a graph, a cluster and its troubles, all drawn from one number.

`check(seed)` simulates one, with the engine's invariants checked after every event, and compares what the engine does
with a plain dict of elements. A history that fails is replayed, with all its events, by::

    python -m tests.scheduler.histories SEED
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tests.scheduler.element_states import Watcher
from umbel.scheduler.blame import DEATHS_TO_LOSE, LOSSES_TO_SUSPECT
from umbel.scheduler.graph import Batched, Graph, Input, NodeId, NodeSpec, RetryPolicy, ShapeId
from umbel.scheduler.protocol import (
    Accept,
    Capacity,
    Command,
    Evaluate,
    Event,
    FailElements,
    FinishNode,
    Grant,
    Lease,
    LoseElement,
    LossCause,
    Recalled,
    Reported,
    Retire,
    WorkerId,
    WorkerLost,
)
from umbel.scheduler.simulation.measures import Simulation
from umbel.scheduler.simulation.setup import (
    Autoscaler,
    Costs,
    Faults,
    MachineKind,
    Network,
    Polling,
    Scenario,
    lognormal_seconds,
)
from umbel.scheduler.simulation.simulator import Simulator
from umbel.scheduler.transitions import Transition

#: The result of an element, as the plain model sees it.
OK, FAILED, LOST, UPSTREAM, EVALUATED = "ok", "failed", "lost", "failed upstream", "evaluated"
RECALLED = "recalled"
#: Whoever needs an element goes on after these.
WELL = {OK, EVALUATED, RECALLED}


def random_graph(draw: random.Random) -> Graph:
    """Nodes of mixed shapes that wait for earlier ones, element by element, block by block, or for all."""
    groups, specs = draw.randint(1, 4), list[NodeSpec]()
    for position in range(draw.randint(1, 4)):
        at = NodeId(position)
        per_group = draw.choice([1, 1, draw.randint(2, 8)])
        size, inputs = groups * per_group, list[Input]()
        if draw.random() < 0.1:
            size, per_group = 1, 0
        for parent in draw.sample(range(position), min(position, draw.randint(0, 2))):
            source = specs[parent]
            aligned = size == groups * per_group and source.size % groups == 0
            blocks = (source.size // groups, per_group) if aligned and draw.random() < 0.8 else (0, 1)
            if source.size == groups and size % groups == 0 and draw.random() < 0.3:
                blocks = (1, 1)  # a cross product, if there are more elements than groups
            inputs.append(Input(NodeId(parent), *blocks, needs_success=draw.random() < 0.8))
        driver = bool(inputs) and draw.random() < 0.2
        retry = RetryPolicy(retries=draw.choice([0, 0, 1, 2]), base_s=draw.choice([0.01, 0.5]))
        timeout_s = draw.choice([None, None, None, 3.0])
        specs.append(
            NodeSpec(
                at,
                f"n{position}",
                size,
                tuple(inputs),
                shape=None if driver else ShapeId(draw.choice([0, 0, 1])),
                affinity_block=per_group if per_group > 1 and draw.random() < 0.5 else 0,
                retry=retry,
                priority=draw.choice([0, 0, 3]),
                timeout_s=None if driver else timeout_s,
                recalls=not driver and draw.random() < 0.2,
                batched=Batched(size % 7 + 1, 5 if size % 2 else 10**6) if size % 5 == 2 else None,
            )
        )
    return Graph(specs)


def scenario(seed: int) -> Scenario:
    """The history of a seed."""
    draw = random.Random(seed)
    graph = random_graph(draw)
    run = [spec for spec in graph if spec.shape is not None and spec.size]
    seconds, failing = {}, {}
    for spec in run:
        mean_s = draw.choice([0.0, 0.002, 0.05, 1.0, 8.0])
        drawn = lognormal_seconds(spec.size, mean_s, draw.choice([0.0, 0.5, 1.5]), seed, spec.id)
        seconds[spec.id] = np.minimum(drawn, 10.0)  # longer ones might never survive the machines' losses
        if draw.random() < 0.4:
            failing[spec.id] = {draw.randrange(spec.size): draw.randint(1, 3) for _ in range(draw.randint(1, 3))}
    for spec in graph:
        if spec.shape is None and spec.size and draw.random() < 0.3:
            failing[spec.id] = {draw.randrange(spec.size): 1}
    known = {spec.id: sorted(draw.sample(range(spec.size), draw.randint(0, spec.size))) for spec in run if spec.recalls}
    poison, silent = {}, {}
    if run and draw.random() < 0.25:
        spec = draw.choice(run)
        poison[spec.id] = [draw.randrange(spec.size)]
    timed = [spec for spec in run if spec.timeout_s is not None]
    if timed and draw.random() < 0.3:
        spec = draw.choice(timed)
        element = draw.randrange(spec.size)
        silent[spec.id] = [element]
        seconds[spec.id][element] = 1e6  # it would never end by itself
    troubled = draw.random() < 0.5
    fatal = {}
    if run and draw.random() < 0.1:
        spec = draw.choice(run)
        fatal[spec.id] = [draw.randrange(spec.size)]
    cpus, gpus = draw.choice([1.0, 2.0, 3.0]), draw.choice([0.0, 1.0])
    initial, most = draw.choice([(1, 1), (0, 2), (2, 2), (1, 3)])
    machines = [MachineKind({"CPU": cpus, "GPU": gpus}, initial, most, draw.choice([0.0, 0.0, 0.5]), 0.2)]
    if not gpus:
        machines.append(MachineKind({"CPU": 1.0, "GPU": 1.0}, 0, draw.randint(1, 2)))
    return Scenario(
        graph,
        {**{s.id: np.zeros(s.size) for s in graph if s.shape is not None}, **seconds},
        machines=machines,
        shapes={ShapeId(0): {"CPU": draw.choice([0.5, 1.0])}, ShapeId(1): {"CPU": 0.5, "GPU": 1.0}},
        autoscaler=Autoscaler(lag_s=draw.choice([0.1, 3.0]), lag_jitter_s=1.0),
        network=Network(
            delay_s=draw.choice([0.0, 0.001, 0.1]),
            jitter_s=draw.choice([0.0, 0.01]),
            doubled=draw.choice([0.0, 0.3]),
            late=draw.choice([0.0, 0.2]),
            late_s=draw.choice([0.05, 2.0]),
        ),
        polling=Polling(each=draw.random() < 0.5),
        faults=Faults(
            machine_losses_per_hour=draw.choice([0.0, 60.0]) if troubled else 0.0,
            crashes_per_hour=draw.choice([0.0, 200.0]) if troubled else 0.0,
            machine_noticed_s=draw.choice([0.01, 2.0]),
            crash_noticed_s=draw.choice([0.001, 0.5]),
            poison=poison,
            fatal=fatal,
            failing=failing,
            silent=silent,
        ),
        costs=Costs(worker_start_s=0.2),
        known=known,
        allowances=random_allowances(seed),
        seed=seed,
    )


def random_allowances(seed: int) -> list[tuple[float, Capacity]]:
    """What other runs leave to this one: in half of the histories all, else now more, now less, and all in the end."""
    draw = random.Random(f"allowances {seed}")
    if draw.random() < 0.5:
        return []
    times = sorted(draw.uniform(0.0, 20.0) for _ in range(draw.randint(1, 8)))
    some = [
        (at, Capacity(ShapeId(draw.choice([0, 0, 1])), draw.choice([0, 0, 1, 1, 2, 3]), draw.random() < 0.5))
        for at in times
    ]
    return some + [(25.0, Capacity(ShapeId(shape), 1000)) for shape in (0, 1)]


@dataclass
class Held:
    """A lease at a worker, as far as the driver has heard of it."""

    lease: Lease
    position: int
    stop: int


@dataclass
class Record:
    """What has befallen an element: at most so much, since any element that was in flight counts here."""

    #: Machines lost in a row, without progress in its lease.
    losses: int = 0
    #: Deaths of its worker, and losses beyond those for which it is not suspected.
    deaths: int = 0


@dataclass
class PlainModel:
    """How each element has ended so far, in a dict, and what may not happen."""

    scenario: Scenario
    ended: dict[tuple[NodeId, int], str] = field(default_factory=dict)
    finished: list[NodeId] = field(default_factory=list)
    held: dict[WorkerId, list[Held]] = field(default_factory=dict)
    records: dict[tuple[NodeId, int], Record] = field(default_factory=dict)

    def observe(self, now: float, event: Event, commands: list[Command]) -> None:
        """Take note of an event and its commands."""
        self.follow(event)
        if isinstance(event, Recalled):
            for element in (e for start, stop in event.found for e in range(start, stop)):
                self.check_inputs(event.node, element)
                self.end(event.node, element, RECALLED)
        for command in commands:
            match command:
                case Accept(node, ranges):
                    assert isinstance(event, Reported)
                    retried = {retry.element for retry in event.retries}
                    for element in (e for start, stop in ranges for e in range(start, stop)):
                        assert event.begin <= element < event.position
                        assert element not in retried
                        self.end(node, element, FAILED if element in event.failed else OK)
                case Grant(worker, lease):
                    assert 1 <= lease.attempt <= self.scenario.graph[lease.node].retry.retries + 1
                    for element in range(lease.start, lease.stop):
                        assert (lease.node, element) not in self.ended, "granted although it has ended"
                        self.check_inputs(lease.node, element)
                    self.held.setdefault(worker, []).append(Held(lease, lease.start, lease.stop))
                case Retire(worker):
                    self.held.pop(worker, None)
                case Evaluate(node, start, stop):
                    for element in range(start, stop):
                        self.check_inputs(node, element)
                        self.end(node, element, self.evaluated(node, element))
                case FailElements(node, start, stop, cause_node, cause_element):
                    assert self.ended.get((cause_node, cause_element), FAILED) not in WELL
                    for element in range(start, stop):
                        self.end(node, element, UPSTREAM)
                case LoseElement(node, element, _, cause):
                    record = self.records[node, element]
                    assert record.deaths >= DEATHS_TO_LOSE, f"element {element} of node {node} is lost too soon"
                    assert cause is not LossCause.PREEMPTED or record.losses > LOSSES_TO_SUSPECT
                    self.end(node, element, LOST)
                case FinishNode(node):
                    self.finished.append(node)

    def follow(self, event: Event) -> None:
        """Keep count of how far leases are, and of what befell their elements."""
        if isinstance(event, Reported):
            for held in self.held.get(event.worker, []):
                if held.lease.id == event.lease and held.position <= event.begin and event.stop <= held.stop:
                    if event.position > held.position:
                        for element in range(event.position, event.stop):
                            self.record(held.lease.node, element).losses = 0
                    held.position, held.stop = event.position, event.stop
            kept = [held for held in self.held.get(event.worker, []) if held.position < held.stop]
            self.held[event.worker] = kept
        elif isinstance(event, WorkerLost):
            for held in self.held.pop(event.worker, [])[:1]:
                for element in range(held.position, held.stop):
                    record = self.record(held.lease.node, element)
                    if event.cause is LossCause.PREEMPTED:
                        record.losses += 1
                        record.deaths += record.losses > LOSSES_TO_SUSPECT
                    else:
                        record.losses, record.deaths = 0, record.deaths + 1

    def record(self, node: NodeId, element: int) -> Record:
        """What has befallen an element so far."""
        return self.records.setdefault((node, element), Record())

    def end(self, node: NodeId, element: int, how: str) -> None:
        """An element has ended."""
        assert (node, element) not in self.ended, f"element {element} of node {node} ends twice"
        self.ended[node, element] = how

    def parents(self, node: NodeId, element: int) -> list[tuple[NodeId, int, bool]]:
        """The elements that an element waits for, and whether it needs their success."""
        found = []
        for source in self.scenario.graph[node].inputs:
            first, count = 0, self.scenario.graph[source.parent].size
            if source.parent_block:
                blocks = self.scenario.graph[source.parent].size // source.parent_block
                block = element // source.child_block % blocks  # several rounds: a cross product
                first, count = block * source.parent_block, source.parent_block
            found += [(source.parent, parent, source.needs_success) for parent in range(first, first + count)]
        return found

    def check_inputs(self, node: NodeId, element: int) -> None:
        """All that an element waits for has ended, and well where that is needed."""
        for parent, at, needed in self.parents(node, element):
            assert (parent, at) in self.ended, f"element {element} of node {node} begins before its inputs ended"
            assert not needed or self.ended[parent, at] in WELL

    def evaluated(self, node: NodeId, element: int) -> str:
        """What comes of an element when the driver evaluates it."""
        return FAILED if element in self.scenario.faults.failing.get(node, {}) else EVALUATED

    def check_end(self) -> None:
        """Every element has ended as it had to."""
        faults = self.scenario.faults
        for spec in self.scenario.graph:
            for element in range(spec.size):
                how = self.ended.get((spec.id, element))
                assert how is not None, f"element {element} of {spec.name} has not ended"
                assert how in self.possible(spec, element), (spec.name, element, how, self.possible(spec, element))
        assert sorted(self.finished) == [spec.id for spec in self.scenario.graph]
        if not (faults.poison or faults.fatal or faults.silent or faults.crashes_per_hour):
            assert LOST not in self.ended.values()

    def possible(self, spec: NodeSpec, element: int) -> set[str]:
        """How an element may end; one way only, where chance has no say in it."""
        parents = self.parents(spec.id, element)
        if any(needed and self.ended[parent, at] not in WELL for parent, at, needed in parents):
            return {UPSTREAM}
        if spec.shape is None:
            return {self.evaluated(spec.id, element)}
        if element in self.scenario.known.get(spec.id, ()):
            return {RECALLED}
        faults, retries = self.scenario.faults, spec.retry.retries
        if element in faults.poison.get(spec.id, ()):
            return {LOST} if spec.timeout_s is None else {LOST, FAILED}
        if element in faults.fatal.get(spec.id, ()):
            return {LOST} if spec.timeout_s is None else {LOST, FAILED}
        if element in faults.silent.get(spec.id, ()):
            return {LOST}
        chance = {LOST} if faults.crashes_per_hour else set()
        expected = FAILED if faults.failing.get(spec.id, {}).get(element, 0) > retries else OK
        slowest = min((m.slow_speed if m.slow_share else 1.0) for m in self.scenario.machines)
        if spec.timeout_s is not None and self.scenario.seconds[spec.id][element] / slowest > spec.timeout_s:
            chance |= {FAILED}  # whether it is stopped in time depends on when its worker answers
        return {expected} | chance


def check(seed: int, seen: Counter[Transition] | None = None) -> Simulation:
    """Simulate the history of a seed and check every step of it.

    Args:
        seed: from it follows everything.
        seen: counts the changes of state that elements went through.

    Raises:
        AssertionError: it goes wrong; says how to replay it.
    """
    world = scenario(seed)
    model = PlainModel(world)
    try:

        def observe(now: float, event: Event, commands: list[Command]) -> None:
            simulator.engine.check_invariants()
            model.observe(now, event, commands)
            watcher.observe(event, commands)

        simulator = Simulator(world, observe)
        watcher = Watcher(simulator.engine)
        outcome = simulator.run()
        model.check_end()
        if seen is not None:
            seen.update(watcher.seen)
    except Exception as error:
        raise AssertionError(
            f"the history of seed {seed} goes wrong; replay it with: python -m tests.scheduler.histories {seed}"
        ) from error
    return outcome


def replay(seed: int) -> None:
    """Print the history of a seed, event by event, then check it."""
    world = scenario(seed)
    print(world)

    def show(now: float, event: Event, commands: list[Command]) -> None:
        print(f"{now:12.6f}  {event}")
        for command in commands:
            print(f"{'':14}-> {command}")

    try:
        Simulator(world, show).run()
    finally:
        check(seed)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        replay(int(argument))
