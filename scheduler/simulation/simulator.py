"""What would happen on that cluster? The engine itself, driven by a virtual clock.

A discrete-event simulation of everything around `Engine`: machines that come and go, worker processes that start, run
leases and crash, messages that take time, arrive twice or overtake each other, and a driver that takes its time for
each answer. Shells for real clusters carry out the engine's commands; this one only pretends, so that a thousand
machines fit into one process and an hour into a minute.

A scenario, seed included, gives one history, byte for byte: `Simulation.digest` covers every event and command. There
is no clock and no global randomness here. This module is the driver's side, as `umbel.runtime.driver.session` and
`umbel.runtime.executors.ray_executor` are in earnest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil

from umbel.scheduler.engine import Engine
from umbel.scheduler.errors import UsageError
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import (
    Accept,
    Capacity,
    Command,
    Evaluate,
    Evaluated,
    Event,
    Grant,
    LossCause,
    Recall,
    Recalled,
    Reported,
    Retire,
    Revoke,
    StopWorker,
    Tick,
    WantWorkers,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)
from umbel.scheduler.simulation.bounds import longest_chain_s, work_bound_s
from umbel.scheduler.simulation.clock import Clock, Wire
from umbel.scheduler.simulation.executor import Members
from umbel.scheduler.simulation.machines import Machines
from umbel.scheduler.simulation.measures import Meters, Simulation, Traffic
from umbel.scheduler.simulation.processes import Answer, Processes, WorkerCommand
from umbel.scheduler.simulation.setup import Scenario
from umbel.scheduler.simulation.worker import ElementTimes, SimulatedWorker

__all__ = ["Observer", "Simulator", "simulate"]

#: Told of each event that the engine was given: when, the event, and the commands that it answered.
Observer = Callable[[float, Event, list[Command]], None]

#: Ticks in a row without a command, while nothing else can happen any more, after which a simulation is given up.
QUIET_TICKS = 100


def simulate(scenario: Scenario, observer: Observer | None = None) -> Simulation:
    """Run a scenario to its end.

    Costs some 40 µs a lease, however many elements it has, and 8 bytes an element.

    Args:
        scenario: what is simulated.
        observer: told of each event.

    Raises:
        UsageError: it can't end, because the machines that it needs never come.
        InternalError: the engine contradicts itself.
    """
    return Simulator(scenario, observer).run()


class Simulator:
    """One simulation; `run` runs it. See `simulate`."""

    def __init__(self, scenario: Scenario, observer: Observer | None = None) -> None:
        self.scenario = scenario
        self.engine = Engine(scenario.graph, jitter_seed=scenario.seed)
        self._observer = observer
        self._digest = blake2b(digest_size=16)
        self._clock = Clock()
        self._wire = Wire(scenario.network, scenario.seed)
        self._meters = Meters(Traffic((scenario.costs.answer_bytes + scenario.costs.poll_bytes) / 2))
        self._times = _element_times(scenario)
        shapes = sorted({spec.shape for spec in scenario.graph if spec.shape is not None})
        self._processes = Processes(
            scenario,
            self._times,
            self._clock,
            self._wire,
            self._meters,
            on_answer=self._on_answer,
            on_copy=self._on_copy,
            on_death=self._on_death,
            on_fatal=self._on_fatal,
        )
        self._machines = Machines(
            scenario,
            self._clock,
            self._meters,
            on_started=self._on_started,
            on_crash=self._processes.on_crash,
            on_lost=self._on_lost,
        )
        self._members = Members(
            shapes, self._machines, self._processes, self._clock, self._meters, scenario.autoscaler, self._tell
        )
        #: Workers that have commands to be sent.
        self._outbox: dict[SimulatedWorker, None] = {}
        #: Until when the driver is busy with answers that have arrived.
        self._free_at = 0.0
        self._tick_at = 0.0

    def run(self) -> Simulation:
        """To the end; see `simulate`."""
        self._machines.start()
        self._members.start()
        for at_s, allowed in self.scenario.allowances:
            self._clock.at(at_s, self._on_allowance, allowed)
        self._members.look()
        self._tell(Tick())
        self._push_outbox()
        clock, engine, quiet = self._clock, self.engine, 0
        while not engine.finished:
            next_at = clock.next_at
            if next_at <= self._tick_at:
                clock.step()
                quiet = 0
            else:
                clock.now = self._tick_at
                self._members.look()
                told = self._tell(Tick())
                self._push_outbox()
                quiet = quiet + 1 if not told and next_at == float("inf") else 0
                if quiet > QUIET_TICKS:
                    raise UsageError(
                        "the simulation can't end: work is left, and nothing will happen any more",
                        got=f"{len(self._machines.fleet.machines)} machines, {len(self._members)} workers",
                        expected="machines for every shape, there from the start or to be had",
                    )
        return self._result()

    # ---- the engine ----------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> list[Command]:
        """Give the engine an event, and carry out what it answers; what follows at once is told to it too."""
        now = max(self._clock.now, self._free_at)
        waiting: deque[Event] = deque()
        told: list[Command] = []
        while True:
            commands = self.engine.handle(event, now)
            self._meters.events += 1
            self._digest.update(_line(now, event, commands))
            if self._observer is not None:
                self._observer(now, event, commands)
            for command in commands:
                self._carry_out(command, waiting)
            told = told + commands if told else commands
            if not waiting:
                break
            event = waiting.popleft()
        self._tick_at = max(now + self.engine.wakeup_s(now), self._clock.now)
        return told

    def _carry_out(self, command: Command, waiting: deque[Event]) -> None:
        match command:
            case Accept():
                pass  # measured where the report is at hand
            case Grant(name, lease):
                meters = self._meters
                meters.leases += 1
                if meters.first_grant_s is None:
                    meters.first_grant_s = self._clock.now
                self._send(name, lease)
            case Revoke(name, lease_id, stop):
                self._send(name, (lease_id, stop))
            case Evaluate(node, start, stop):
                taken_s = (stop - start) * self.scenario.costs.evaluate_s
                self._free_at = max(self._clock.now, self._free_at) + taken_s
                self._meters.driver_busy_s += taken_s
                failing = self.scenario.faults.failing.get(node, {})
                failed = tuple(sorted(element for element in failing if start <= element < stop))
                waiting.append(Evaluated(node, start, stop, failed))
            case Recall(node, start, stop):
                known = sorted(element for element in self.scenario.known.get(node, ()) if start <= element < stop)
                waiting.append(Recalled(node, start, stop, tuple((element, element + 1) for element in known)))
            case WantWorkers(shape, count):
                self._members.want(shape, count)
            case StopWorker(name):
                waiting.append(WorkerLost(name, LossCause.HUNG))
                self._members.end(name)
            case Retire(name):
                self._members.end(name)
            case _:
                pass

    def _send(self, name: WorkerId, command: WorkerCommand) -> None:
        worker = self._members.by_name[name]
        worker.outgoing.append(command)
        self._outbox[worker] = None

    def _push_outbox(self) -> None:
        """Send commands to workers that were not to be sent a poll anyway."""
        for worker in self._outbox:
            if worker.outgoing:
                self._dispatch(worker, self._processes.on_push, 0)
        self._outbox.clear()

    def _dispatch(
        self, worker: SimulatedWorker, arrive: Callable[[SimulatedWorker, list[WorkerCommand]], None], poll_bytes: int
    ) -> None:
        commands, worker.outgoing = worker.outgoing, []
        now, costs = self._clock.now, self.scenario.costs
        self._meters.traffic.add(1, poll_bytes + len(commands) * costs.grant_bytes, now)
        self._clock.at(max(now, self._free_at) + self._wire.delay_s(), arrive, worker, commands)

    # ---- answers -------------------------------------------------------------------------------------------

    def _on_answer(self, worker: SimulatedWorker, answer: Answer | None) -> None:
        """An answer has arrived; None: the worker is ready."""
        if worker not in self._members:
            self._waste(worker, answer)
            return
        costs, now, rows = self.scenario.costs, self._clock.now, 0
        if answer is None:
            self._members.join(worker)
            self._tell(WorkerJoined(worker.name, worker.shape))
        else:
            rows = sum(self._hear(worker, report) for report in answer[0])
            if answer[1]:
                self._tell(WorkerLost(worker.name, LossCause.PREEMPTED))
                self._members.end(worker.name)
        handled_s = costs.answer_s + (costs.batch_s + rows * costs.row_s if rows else 0.0)
        self._free_at = max(now, self._free_at) + self._processes.driver_takes_s(handled_s)
        self._meters.driver_busy_s += handled_s
        size_bytes = costs.answer_bytes + (costs.batch_bytes + rows * costs.row_bytes if rows else 0)
        self._meters.traffic.add(1, size_bytes, now)
        if worker in self._members:
            self._dispatch(worker, self._processes.on_poll, costs.poll_bytes)
        self._push_outbox()

    def _on_copy(self, worker: SimulatedWorker, answer: Answer) -> None:
        """An answer has arrived a second time."""
        for report in answer[0]:
            self._tell(report)
        self._push_outbox()

    def _on_started(self, worker: SimulatedWorker, _: None) -> None:
        self._clock.at(self._clock.now + self._wire.delay_s(), self._on_answer, worker, None)

    def _hear(self, worker: SimulatedWorker, report: Reported) -> int:
        """Take over a report; returns how many rows came with it."""
        ran = report.position - report.begin
        node = self.engine.node_of(report.lease)
        accepted, useful_s = 0, 0.0
        told = self._tell(report)
        if node is None:
            return ran
        seconds = self._times[node].seconds
        for command in told:
            if type(command) is Accept:
                for start, stop in command.ranges:
                    accepted += stop - start
                    useful_s += float(seconds[start] if stop - start == 1 else seconds[start:stop].sum())
        meters = self._meters
        meters.accepted += accepted
        meters.useful_core_s += useful_s / worker.speed * worker.weight
        if accepted < ran:
            meters.run_again += ran - accepted
            total_s = float(seconds[report.begin : report.position].sum())
            meters.lost_core_s += max(0.0, total_s - useful_s) / worker.speed * worker.weight
        return ran

    def _waste(self, worker: SimulatedWorker, answer: Answer | None) -> None:
        """An answer came too late: its worker has been given up."""
        for report in answer[0] if answer is not None else ():
            self._meters.run_again += report.position - report.begin
            self._meters.lost_core_s += report.busy_s * worker.weight

    # ---- workers -------------------------------------------------------------------------------------------

    def _on_allowance(self, allowed: Capacity, _: None) -> None:
        self._members.allow(allowed)
        self._push_outbox()

    def _on_death(self, worker: SimulatedWorker) -> None:
        """A process has died by itself."""
        noticed_at = self._clock.now + self.scenario.faults.crash_noticed_s
        self._clock.at(noticed_at, self._on_loss_noticed, worker, LossCause.CRASHED)
        self._machines.release(worker)

    def _on_fatal(self, worker: SimulatedWorker) -> None:
        """A process has taken its machine down."""
        self._machines.lose(worker)

    def _on_lost(self, worker: SimulatedWorker) -> None:
        """A process has gone with its machine."""
        self._processes.kill(worker)
        noticed_at = self._clock.now + self.scenario.faults.machine_noticed_s
        self._clock.at(noticed_at, self._on_loss_noticed, worker, LossCause.PREEMPTED)

    def _on_loss_noticed(self, worker: SimulatedWorker, cause: LossCause) -> None:
        if worker not in self._members:
            return
        self._members.forget(worker)
        self._meters.workers_lost += 1
        self._tell(WorkerLost(worker.name, cause))
        self._members.refill(worker.shape)
        self._push_outbox()

    # ---- what came out -------------------------------------------------------------------------------------

    def _result(self) -> Simulation:
        scenario, meters = self.scenario, self._meters
        self._processes.count_waiting_polls(self._members.by_name.values())
        end = max(self._clock.now, self._free_at)
        busy, cpus = meters.busy.timeline(end), meters.cpus.timeline(end)
        meters.machines.change(0.0, end)
        width_s = max(busy.width_s, cpus.width_s, meters.traffic.width_s)
        bins = max(1, ceil(end / width_s))
        there = cpus.amounts(width_s, bins)
        used = zip(busy.amounts(width_s, bins), there, strict=True)
        messages, size_bytes = meters.traffic.amounts(width_s, bins)
        widths = [width_s] * (bins - 1) + [end - (bins - 1) * width_s or width_s]
        work_s = work_bound_s(scenario, meters.available)
        chain_s = longest_chain_s(scenario.graph, scenario.seconds)
        return Simulation(
            seed=scenario.seed,
            makespan_s=end,
            first_machine_s=meters.available[0][0] if meters.available else 0.0,
            first_grant_s=meters.first_grant_s or 0.0,
            lower_bound_s=max(work_s, chain_s),
            work_bound_s=work_s,
            chain_bound_s=chain_s,
            available_core_s=meters.cpus.total,
            busy_core_s=meters.busy.total,
            useful_core_s=meters.useful_core_s,
            lost_core_s=meters.lost_core_s,
            machine_s=meters.machines.total,
            bin_s=width_s,
            cpus=_rates(there, widths),
            utilisation=tuple(some / all_ if all_ else 0.0 for some, all_ in used),
            messages_per_s=_rates(messages, widths),
            bytes_per_s=_rates(size_bytes, widths),
            messages=round(sum(messages)),
            bytes=round(sum(size_bytes)),
            driver_busy_s=meters.driver_busy_s,
            events=meters.events,
            leases=meters.leases,
            duplicated=self.engine.duplicated,
            accepted=meters.accepted,
            run_again=meters.run_again,
            workers_started=meters.workers_started,
            workers_lost=meters.workers_lost,
            machines_started=self._machines.fleet.started,
            machines_lost=meters.machines_lost,
            digest=self._digest.hexdigest(),
        )


def _element_times(scenario: Scenario) -> dict[NodeId, ElementTimes]:
    faults = scenario.faults
    return {
        spec.id: ElementTimes(
            spec,
            scenario.seconds[spec.id],
            scenario.costs.element_s,
            failing=faults.failing.get(spec.id, {}),
            poison=faults.poison.get(spec.id, ()),
            fatal=faults.fatal.get(spec.id, ()),
            silent=faults.silent.get(spec.id, ()),
        )
        for spec in scenario.graph
        if spec.shape is not None
    }


def _rates(amounts: Sequence[float], widths: Sequence[float]) -> tuple[float, ...]:
    return tuple(amount / width for amount, width in zip(amounts, widths, strict=True))


def _line(now: float, event: Event, commands: list[Command]) -> bytes:
    """An event and its commands as the bytes that the digest covers; the frequent ones written out, for speed."""
    if type(event) is Reported:
        text = (
            f"{now!r} {event.worker} {event.lease} {event.begin} {event.position} {event.stop} {event.failed} "
            f"{event.retries}"
        )
    else:
        text = f"{now!r} {event!r}"
    for command in commands:
        if type(command) is Grant:
            lease = command.lease
            text += f"|{command.worker} {lease.id} {lease.node} {lease.start} {lease.stop} {lease.attempt}"
        elif type(command) is Accept:
            text += f"|{command.node} {command.ranges}"
        else:
            text += f"|{command!r}"
    return text.encode()
