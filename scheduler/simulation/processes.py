"""What do the simulated workers do, and when? The events at worker processes.

A worker begins leases, comes to their ends, answers polls and dies, as `umbel.runtime.executors.worker` would.
Answers go to a function that stands for the driver; what the driver sends arrives at `on_poll` and `on_push`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, exp

from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Lease, LeaseId, Reported
from umbel.scheduler.simulation.clock import Clock, Wire
from umbel.scheduler.simulation.measures import Meters
from umbel.scheduler.simulation.setup import Scenario
from umbel.scheduler.simulation.worker import ElementTimes, RunningLease, SimulatedWorker

__all__ = ["Answer", "Processes", "WorkerCommand"]

#: A lease to run, or where one is to end earlier.
WorkerCommand = Lease | tuple[LeaseId, int]
#: Reports, and whether an element overran its time limit.
Answer = tuple[list[Reported], bool]

#: From this load on the driver is described by its queue.
FLOODED = 0.9
#: Seconds over which its load by news is averaged.
LOAD_OVER_S = 10.0


class Processes:
    """All worker processes of a simulation.

    Args:
        scenario: what is simulated.
        times: by node, what its elements do.
        clock: virtual time.
        wire: how long messages take.
        meters: what is measured.
        on_answer: an answer arrives at the driver.
        on_copy: an answer arrives there a second time.
        on_death: a process has died by itself.
        on_fatal: a process has taken its machine down.
    """

    def __init__(
        self,
        scenario: Scenario,
        times: Mapping[NodeId, ElementTimes],
        clock: Clock,
        wire: Wire,
        meters: Meters,
        *,
        on_answer: Callable[[SimulatedWorker, Answer], None],
        on_copy: Callable[[SimulatedWorker, Answer], None],
        on_death: Callable[[SimulatedWorker], None],
        on_fatal: Callable[[SimulatedWorker], None],
    ) -> None:
        self._scenario = scenario
        self._times = times
        self._clock = clock
        self._wire = wire
        self._meters = meters
        self._on_answer = on_answer
        self._on_copy = on_copy
        self._on_death = on_death
        self._on_fatal = on_fatal
        self._lease_s = scenario.costs.lease_s
        self._each_poll = scenario.polling.each or any(spec.timeout_s is not None for spec in scenario.graph)
        #: Share of the driver's time that answers with news take.
        self._news_load = self._news_at = 0.0
        self._answer_s = answer_s = scenario.costs.answer_s
        #: Of what an answer with news takes, the share that one without takes too.
        self._quiet_share = answer_s / (answer_s + scenario.costs.batch_s) if answer_s else 1.0
        self._period_extra_s = wire.round_trip_s + scenario.costs.answer_s
        self.polled(0)

    def polled(self, workers: int) -> None:
        """The driver polls this many workers from now on."""
        polling = self._scenario.polling
        #: Seconds that a poll waits for news.
        self._wait_s = max(polling.every_s, polling.spacing_s * workers)
        #: Seconds that the driver takes for one answer of each of them, and the share of its time if none has news.
        self._round_s = self._answer_s * workers
        self._quiet_load = self._round_s / (self._wait_s + self._period_extra_s)

    # ---- messages from the driver --------------------------------------------------------------------------

    def on_poll(self, worker: SimulatedWorker, commands: Sequence[WorkerCommand]) -> None:
        """A poll arrives, with commands."""
        if worker.alive:
            worker.poll_at = self._clock.now
            self._take(worker, commands)

    def on_push(self, worker: SimulatedWorker, commands: Sequence[WorkerCommand]) -> None:
        """Commands arrive outside a poll."""
        if worker.alive:
            self._take(worker, commands)

    def _take(self, worker: SimulatedWorker, commands: Sequence[WorkerCommand]) -> None:
        for command in commands:
            if isinstance(command, Lease):
                worker.leases.append(RunningLease(command, self._times[command.node], worker.speed))
                if worker.running is None:
                    self._begin(worker)
            else:
                self._shorten(worker, *command)
        if worker.poll_at is None:
            return
        if worker.news:
            self._answer(worker)
        else:
            self._plan_answer(worker)

    def _shorten(self, worker: SimulatedWorker, lease: LeaseId, stop: int) -> None:
        for held in worker.leases:
            if held.lease.id == lease:
                held.shorten(stop, self._clock.now)
                worker.news = True
                if held is worker.running:
                    self._plan_end(worker)

    # ---- leases --------------------------------------------------------------------------------------------

    def _begin(self, worker: SimulatedWorker) -> None:
        """Run the next lease, if there is one."""
        held = worker.next_lease()
        if worker.running is None:
            if held is not None:
                self._meters.busy.change(worker.weight, self._clock.now)
        elif held is None:
            self._meters.busy.change(-worker.weight, self._clock.now)
        worker.running = held
        if held is not None:
            held.began = held.opened = self._clock.now + self._lease_s
            self._plan_end(worker)

    def _plan_end(self, worker: SimulatedWorker) -> None:
        held = worker.running
        assert held is not None
        worker.version += 1
        times = held.times
        poison = times.first_poison(held.lease.start, held.stop) if times.poison else None
        if poison is None:
            self._clock.at(held.time_at(held.stop), self._on_end, worker, worker.version)
        else:
            halfway = (held.time_at(poison) + held.time_at(poison + 1)) / 2
            self._clock.at(halfway, self._on_poison, worker, worker.version)

    def _on_end(self, worker: SimulatedWorker, version: int) -> None:
        """The running lease has come to its end."""
        held = worker.running
        if worker.version != version or held is None:
            return
        held.ended = True
        self._begin(worker)
        worker.news = True
        if worker.poll_at is not None:
            self._answer(worker)

    def _on_poison(self, worker: SimulatedWorker, version: int) -> None:
        held = worker.running
        if worker.version != version or held is None:
            return
        if held.position(self._clock.now) in held.times.fatal:
            self._on_fatal(worker)
        else:
            self.on_crash(worker, None)

    # ---- answers -------------------------------------------------------------------------------------------

    def _plan_answer(self, worker: SimulatedWorker) -> None:
        """When does the poll that waits here return, if not for a lease's end?"""
        wait_s, held, poll_at = self._wait_s, worker.running, worker.poll_at
        assert poll_at is not None
        due = poll_at + wait_s
        if self._each_poll:
            self._clock.at(due, self._on_wait_over, worker, poll_at)
            return
        if held is None:
            return  # nothing to say until a command comes
        ends = held.time_at(held.stop)
        if due < ends and held.position(self._clock.now) <= held.collected:
            # Nothing to say until the element in hand has ended: by the end of this wait, or of a later one.
            next_end = held.time_at(held.collected + 1)
            period_s = wait_s + self._period_extra_s + self._queue_s()
            due += max(0, ceil((next_end - due) / period_s)) * period_s
        if due < ends:
            self._clock.at(due, self._on_wait_over, worker, poll_at)

    def _on_wait_over(self, worker: SimulatedWorker, poll_at: float) -> None:
        if worker.alive and worker.poll_at == poll_at:
            self._answer(worker)

    def _answer(self, worker: SimulatedWorker) -> None:
        """The poll that waits here returns."""
        now, polled_at, running = self._clock.now, worker.poll_at, worker.running
        assert polled_at is not None
        if running is not None and running.times.silent and running.is_silent(now):
            return  # until its lease ends; or the driver loses patience
        if not self._each_poll:
            self._count_quiet_polls(polled_at)
        worker.poll_at, worker.news = None, False
        answer = worker.collect(now)
        self._clock.at(now + self._wire.delay_s() + self._queue_s(), self._on_answer, worker, answer)
        later_s = self._wire.copy_delay_s()
        if later_s is not None:
            self._clock.at(now + later_s, self._on_copy, worker, answer)

    def _count_quiet_polls(self, since: float) -> None:
        """Count the polls without news up to now, which were not simulated."""
        now = self._clock.now
        count = int((now - since) / (self._wait_s + self._period_extra_s + self._queue_s()))
        if count:
            self._meters.traffic.spread(2 * count, since, now)
            self._meters.driver_busy_s += count * self._scenario.costs.answer_s

    def count_waiting_polls(self, workers: Iterable[SimulatedWorker]) -> None:
        """At the end: count the polls without news of workers that have had nothing to do."""
        for worker in workers if not self._each_poll else ():
            if worker.poll_at is not None:
                self._count_quiet_polls(worker.poll_at)

    def driver_takes_s(self, handled_s: float) -> float:
        """How long the driver takes for an answer with news, in between polls without that are only counted."""
        if self._each_poll:
            return handled_s
        now = self._clock.now
        self._news_load *= exp((self._news_at - now) / LOAD_OVER_S)
        self._news_load += handled_s / LOAD_OVER_S
        self._news_at = now
        if self._quiet_load + self._news_load > FLOODED:
            return handled_s  # it waits in the queue instead
        return handled_s / (1.0 - self._quiet_load)

    def _queue_s(self) -> float:
        """How long an answer queues if all that arrives keeps the driver busy: each worker has one poll out.

        So there are at most as many answers in the queue as workers, and none takes longer than one with news.
        """
        if self._each_poll:
            return 0.0
        left = max(self._quiet_share, 1.0 - self._news_load)
        return max(0.0, self._round_s / left - self._wait_s)

    # ---- deaths --------------------------------------------------------------------------------------------

    def kill(self, worker: SimulatedWorker) -> None:
        """A process ends, for whatever reason; what it had not reported is lost."""
        if not worker.alive:
            return
        worker.alive = False
        worker.version += 1
        now, meters = self._clock.now, self._meters
        if worker.running is not None:
            meters.busy.change(-worker.weight, now)
        for held in worker.leases:
            if held.began is not None:
                in_hand = held.position(now)
                meters.run_again += in_hand - held.collected + (not held.ended)
                meters.lost_core_s += max(0.0, now - held.time_at(held.collected)) * worker.weight
        worker.running = None

    def on_crash(self, worker: SimulatedWorker, _: object) -> None:
        """A process dies by itself."""
        if worker.alive:
            self.kill(worker)
            self._on_death(worker)
