"""What runs next, where, and what to do when it fails: the scheduler as a state machine without I/O.

`Engine.handle(event, now)` is the only way to change it, and returns the commands that its shell must carry out. The
Ray executor, the inline executor and the simulator are such shells. Time is an argument; nothing here is random, so the
same events give the same commands.

An element's life::

    waiting --inputs done--> pending --granted--> leased --reported--> done (well or badly)
                               ^                    |
                               +---- retry, worker lost, revoked

How failures are told apart (see `docs/architecture.md`):

- The user's exception arrives in a report, as failed for good or to be retried after a pause.
- A worker's crash casts suspicion on the elements of its running lease that it had not reported. A preempted worker
  does not, unless that happens to the same ones again and again. See `umbel.scheduler.blame`.
- A worker that does not answer within its element's time limit is stopped and treated as a crash.

Workers that would idle take over unbegun elements of others, and run stragglers a second time (see
`umbel.scheduler.sharing`). Of two results of one element the first counts: `Accept` names only what is the first word.
The other worker keeps its element in hand, as after any revocation; what it says of it is not accepted.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping

from umbel.scheduler.blame import (
    LOSSES_TO_SUSPECT,
    MACHINE_GONE_S,
    Quarantine,
    count_loss,
    losses_taken_along,
    unreported,
)
from umbel.scheduler.errors import InternalError
from umbel.scheduler.giving_back import surplus
from umbel.scheduler.graph import Graph, NodeId, ShapeId
from umbel.scheduler.graph_state import GraphState, Restored
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.invariants import broken_invariant
from umbel.scheduler.node_state import NodeState, Piece
from umbel.scheduler.protocol import (
    Accept,
    Cancel,
    Capacity,
    Command,
    Evaluated,
    Event,
    Grant,
    Lease,
    LeaseId,
    LoseElement,
    LossCause,
    Recalled,
    Reported,
    Retire,
    Retry,
    Revoke,
    Sized,
    StopWorker,
    Tick,
    Unsizable,
    WantWorkers,
    WorkerId,
    WorkerJoined,
    WorkerLost,
)
from umbel.scheduler.sharing import look_every_s, share
from umbel.scheduler.worker_state import OpenLease, ShapeState, WorkerState

__all__ = ["Engine", "Restored"]

#: A second lease is handed out ahead of time only if an element takes less than this: for longer ones the round
#: trip is negligible, and an element that waits behind a long one could have run elsewhere.
PREFETCH_BELOW_S = 0.25
#: Seconds past its element's time limit after which a silent worker is taken to hang. The worker itself reports a
#: time-out at the limit; this is for those that can't, because foreign code holds the interpreter lock.
HANG_GRACE_S = 5.0
#: More of that for each worker that there is: where there are many, each is heard less often.
HANG_GRACE_PER_WORKER_S = 0.005
#: Seconds between two `Tick`s at most.
TICK_EVERY_S = 1.0
#: Events kept for the story of a broken invariant.
STORY = 32


class Engine:
    """Schedules one graph.

    Args:
        graph: what to run.
        restored: by node, what is done already.
        jitter_seed: varies the jitter of retry pauses.
        allowance: how many elements of nodes that count against it (`NodeSpec.counts`) may be granted; None: all.

    Raises:
        InternalError: from `handle`, when an event contradicts the state; its text tells the last events.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        restored: Mapping[NodeId, Restored] | None = None,
        jitter_seed: int = 0,
        allowance: int | None = None,
    ) -> None:
        self.graph = graph
        self.cancelled = False
        self._jitter_seed = jitter_seed
        shapes = sorted({spec.shape for spec in graph if spec.shape is not None})
        self._shapes: dict[ShapeId, ShapeState] = {shape: ShapeState() for shape in shapes}
        self._story: deque[tuple[float, Event]] = deque(maxlen=STORY)
        self._state = GraphState(graph, self._shapes, restored or {}, allowance, self._broken)
        self.nodes = self._state.nodes
        self._commands = self._state.commands
        self._workers: dict[WorkerId, WorkerState] = {}
        self._leases: dict[LeaseId, OpenLease] = {}
        #: (not before, sequence, node, piece): retries that wait.
        self._retries: list[tuple[float, int, NodeId, Piece]] = []
        self._quarantine = Quarantine()
        self._sequence = 0
        self._next_lease = 0
        self._tick_due = 0.0
        #: Stragglers that were begun a second time.
        self.duplicated = 0
        self._has_time_limits = any(spec.timeout_s is not None for spec in graph)
        self._state.start()

    # ---- the one door --------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take note of an event at time ``now`` (seconds, any origin, never backwards); returns what to do."""
        self._story.append((now, event))
        match event:
            case Reported():
                self._on_reported(event, now)
            case Capacity():
                self._on_capacity(event, now)
            case WorkerJoined():
                self._on_worker_joined(event, now)
            case WorkerLost():
                self._on_worker_lost(event, now)
            case Evaluated():
                self._state.evaluated(event)
            case Recalled():
                self._state.recalled(event)
            case Sized(node_id, size):
                self._state.sized(self.nodes[node_id], size)
            case Unsizable():
                self._state.unsizable(event)
            case Tick():
                self._tick_due = now + TICK_EVERY_S
            case Cancel():
                self._on_cancel()
        self._after(now)
        commands = list(self._commands)
        self._commands.clear()
        return commands

    @property
    def finished(self) -> bool:
        """True if every element of every node has ended."""
        return self._state.unfinished == 0

    @property
    def busy(self) -> bool:
        """True if a lease is out."""
        return bool(self._leases)

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def node_of(self, lease: LeaseId) -> NodeId | None:
        """Which node an open lease is of; None if it is not open."""
        held = self._leases.get(lease)
        return None if held is None else held.lease.node

    def running(self) -> int:
        """How many workers hold a lease."""
        return sum(len(shape.workers) - len(shape.idle) for shape in self._shapes.values())

    def wakeup_s(self, now: float) -> float:
        """Seconds until a `Tick` is due; zero if it is overdue."""
        due = self._tick_due
        if not self.cancelled:
            if self._retries:
                due = min(due, self._retries[0][0])
            for shape in self._shapes.values():
                if shape.idle and shape.outstanding:
                    due = min(due, shape.look_at)
        return max(0.0, due - now)

    def outstanding(self, shape: ShapeId) -> int:
        """How many elements of a shape are ready and have not ended: so many workers could be of use."""
        return self._shapes[shape].outstanding

    # ---- events --------------------------------------------------------------------------------------------

    def _on_capacity(self, event: Capacity, now: float) -> None:
        shape = self._shapes[event.shape]
        shape.capacity = event.workers
        if event.preempt:
            for worker in surplus(shape, len(shape.workers) - shape.capacity):
                for open_lease in worker.leases:
                    del self._leases[open_lease.lease.id]
                    self._return_unreported(open_lease, LossCause.PREEMPTED, now, running=False)  # no loss counts
                self._retire(worker)

    def _retire(self, worker: WorkerState) -> None:
        shape = self._shapes[worker.shape]
        for held in (shape.idle, shape.leaving):
            held.pop(worker.id, None)
        del shape.workers[worker.id], self._workers[worker.id]
        self._commands.append(Retire(worker.id))

    def _on_worker_joined(self, event: WorkerJoined, now: float) -> None:
        if event.worker in self._workers:
            raise self._broken(f"worker {event.worker} joined twice")
        shape = self._shapes[event.shape]
        worker = WorkerState(event.worker, event.shape, heard_at=now)
        self._workers[event.worker] = worker
        shape.workers[event.worker] = worker
        shape.idle[event.worker] = None

    def _on_worker_lost(self, event: WorkerLost, now: float) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return  # retired, or reported lost before
        shape = self._shapes[worker.shape]
        del shape.workers[event.worker]
        shape.idle.pop(event.worker, None)
        shape.leaving.pop(event.worker, None)
        for position, open_lease in enumerate(worker.leases):
            del self._leases[open_lease.lease.id]
            self._return_unreported(open_lease, event.cause, now, running=position == 0)

    def _return_unreported(self, open_lease: OpenLease, cause: LossCause, now: float, *, running: bool) -> None:
        lease = open_lease.lease
        node = self.nodes[lease.node]
        node.leased -= open_lease.owed
        piece = unreported(open_lease, cause, now, running=running)
        self._quarantine.leave(open_lease, now + MACHINE_GONE_S)
        if running and open_lease.rival is not None:
            self._blame_rival(open_lease.rival, cause, now, alone=open_lease.unreported == 1)
        self._leave(node, open_lease)
        if piece is None:
            element = open_lease.position
            self._commands.append(LoseElement(lease.node, element, lease.attempt, cause))
            self._state.end(node, element, element + 1, [(element, element + 1)])
        elif piece.losses >= LOSSES_TO_SUSPECT and len(piece) > 0:
            node.waiting_retries += len(piece)
            self._quarantine.waiting.append((lease.node, piece))
        else:
            self._state.put_back(node, piece)

    def _blame_rival(self, rival: OpenLease, cause: LossCause, now: float, *, alone: bool) -> None:
        """What befell a worker counts for the element in hand, which runs on at its rival."""
        if cause is LossCause.PREEMPTED:
            count_loss(rival, now)
        else:
            rival.losses = 0
            rival.deaths += alone

    def _leave(self, node: NodeState, open_lease: OpenLease) -> None:
        """A lease that is about to be closed or cut gives up the element at its position to its rival, if any."""
        rival = open_lease.rival
        if rival is None:
            return
        open_lease.rival = rival.rival = None
        if rival.spare:
            rival.spare, open_lease.spare = False, True
            node.leased += 1

    def _on_reported(self, event: Reported, now: float) -> None:
        open_lease = self._leases.get(event.lease)
        if open_lease is None or open_lease.worker != event.worker:
            return  # word from a lease that was given to another since: not accepted
        worker = self._workers[event.worker]
        worker.heard_at = now
        node = self.nodes[open_lease.lease.node]
        begin = open_lease.position
        if event.begin < begin or event.stop > open_lease.stop:
            return  # a message that was delayed or doubled
        if not event.begin == begin <= event.position <= event.stop:
            raise self._broken(
                f"lease {event.lease} of {node.spec.name!r}, at [{begin}, {open_lease.stop}), is reported at "
                f"[{event.begin}, {event.position}) until {event.stop}"
            )
        if event.position > begin:
            self._record(node, open_lease, event, now)
        if event.stop < open_lease.stop:
            self._shorten(node, open_lease, event.stop)
        if open_lease.revoked_to is not None and event.stop <= max(open_lease.revoked_to, event.position + 1):
            open_lease.revoked_to = None
        if open_lease.position >= open_lease.stop:
            del self._leases[event.lease]
            worker.leases.remove(open_lease)
            if worker.leases:
                worker.leases[0].since = now
            elif worker.leaving:
                self._retire(worker)

    def _record(self, node: NodeState, open_lease: OpenLease, event: Reported, now: float) -> None:
        begin, stop = open_lease.position, event.position
        node.sizer.observe(stop - begin, event.busy_s)
        node.leased -= open_lease.owed
        self._quarantine.leave(open_lease)
        open_lease.losses = 0  # it gets on, so its machine does not go down with it each time
        retries = event.retries
        if open_lease.rival is not None:
            retries = self._settle_race(node, open_lease, retries)
        open_lease.position, open_lease.since, open_lease.spare = stop, now, False
        node.leased += open_lease.owed
        ended = list(node.done.gaps(begin, stop))  # the first result wins
        if event.retries:
            again = IntervalSet((retry.element, retry.element + 1) for retry in event.retries)
            ended = [part for a, b in ended for part in again.gaps(a, b)]
        self._commands.append(Accept(node.spec.id, tuple(ended)))
        failed = IntervalSet((element, element + 1) for element in event.failed) if event.failed else None
        for start, end in ended:
            self._state.end(node, start, end, list(failed.within(start, end)) if failed else [])
        for retry in retries:
            if retry.element in node.done:
                continue
            self._sequence += 1
            jitter = (hash((self._jitter_seed, self._sequence)) & 0xFFFF) / 0x10000
            due = now + node.spec.retry.pause_s(retry.attempt, jitter)
            piece = Piece(retry.element, retry.element + 1, retry.attempt + 1)
            heapq.heappush(self._retries, (due, self._sequence, node.spec.id, piece))
            node.waiting_retries += 1

    def _settle_race(self, node: NodeState, open_lease: OpenLease, retries: tuple[Retry, ...]) -> tuple[Retry, ...]:
        """One of two rivals has come past the element that both run; returns the retries that are still called for."""
        rival, element = open_lease.rival, open_lease.position
        assert rival is not None
        if any(retry.element == element for retry in retries):
            self._leave(node, open_lease)  # the other may still succeed
            return tuple(retry for retry in retries if retry.element != element)
        open_lease.rival = rival.rival = None
        if not rival.spare:
            rival.spare = True
            node.leased -= 1
        rival.revoked_to = element
        self._commands.append(Revoke(rival.worker, rival.lease.id, element))
        return retries

    def _shorten(self, node: NodeState, open_lease: OpenLease, stop: int) -> None:
        node.leased -= open_lease.owed
        if stop <= open_lease.position:
            self._leave(node, open_lease)
        lease = open_lease.lease
        cap = lease.stop - lease.start if open_lease.suspect else 0
        start = max(stop, open_lease.position + open_lease.spare)
        losses = losses_taken_along(open_lease)
        rest = Piece(start, open_lease.stop, lease.attempt, open_lease.deaths, cap, losses, open_lease.lost_at)
        open_lease.stop = stop
        if stop <= open_lease.position:
            open_lease.spare = False
        node.leased += open_lease.owed
        self._state.put_back(node, rest)

    def _on_cancel(self) -> None:
        self.cancelled = True
        for open_lease in self._leases.values():
            open_lease.revoked_to = 0
            self._commands.append(Revoke(open_lease.worker, open_lease.lease.id, 0))

    # ---- after every event: hand out work ------------------------------------------------------------------

    def _after(self, now: float) -> None:
        while self._retries and self._retries[0][0] <= now:
            _, _, node_id, piece = heapq.heappop(self._retries)
            node = self.nodes[node_id]
            node.waiting_retries -= 1
            self._state.put_back(node, piece)
        for node_id, piece in self._quarantine.admit(len(self._workers), now):
            self.nodes[node_id].waiting_retries -= len(piece)
            self._state.put_back(self.nodes[node_id], piece)
        if self.cancelled:
            return
        for shape in self._shapes.values():
            if shape.leaving or len(shape.workers) > shape.capacity:
                self._give_back(shape)
        if isinstance(self._story[-1][1], Reported):
            worker = self._workers.get(self._story[-1][1].worker)
            if worker is not None:
                self._feed(worker, now)
        for shape_id, shape in self._shapes.items():
            while shape.idle and shape.queue:
                before = len(shape.idle)
                self._feed(shape.workers[next(iter(shape.idle))], now)
                if len(shape.idle) == before:
                    break
            if shape.idle and shape.outstanding and now >= shape.look_at:
                self._share(shape, now)
            self._want(shape_id, shape)
        self._retire_idle()
        if self._has_time_limits and isinstance(self._story[-1][1], Tick):
            self._stop_hanging(now)

    def _give_back(self, shape: ShapeState) -> None:
        """Have as many workers leave as there are beyond the capacity: idle ones at once, others when they can."""
        beyond = len(shape.workers) - shape.capacity
        while len(shape.leaving) > max(0, beyond):
            stays, _ = shape.leaving.popitem()
            shape.workers[stays].leaving = False
        for worker in surplus(shape, beyond - len(shape.leaving)):
            if not worker.leases:
                self._retire(worker)
                continue
            worker.leaving = True
            shape.leaving[worker.id] = None
            for open_lease in worker.leases:
                open_lease.revoked_to = 0
                self._commands.append(Revoke(worker.id, open_lease.lease.id, 0))

    def _feed(self, worker: WorkerState, now: float) -> None:
        """Give a worker its next lease, and one ahead if elements are short."""
        shape = self._shapes[worker.shape]
        while not (worker.stopping or worker.leaving) and (not worker.leases or self._may_prefetch(worker)):
            if not self._grant(worker, shape, now):
                break
        if worker.leases:
            shape.idle.pop(worker.id, None)
        else:
            shape.idle[worker.id] = None

    def _may_prefetch(self, worker: WorkerState) -> bool:
        if len(worker.leases) >= 2:
            return False
        running = worker.leases[0]
        if self.nodes[running.lease.node].spec.batched is not None:
            return False  # it is long; what waits behind it could be running elsewhere
        mean_s = self.nodes[running.lease.node].sizer.mean_s
        if running.suspect or running.runs_twice:
            # Behind a suspect nothing waits, so that the next death is surely its own; behind a straggler, because it
            # may take long.
            return False
        return mean_s is None or mean_s < PREFETCH_BELOW_S

    def _may_follow(self, node: NodeState, running: OpenLease, workers: int) -> bool:
        """Whether elements of a node may wait behind a lease."""
        before = self.nodes[running.lease.node]
        if node.spec.in_order or node.spec.batched is not None:
            return False  # what waits may be taken over in the midst of its block, or batch
        if node.spec.timeout_s is not None and before.spec.timeout_s is None:
            return False  # if they hung, the silence would be put down to the lease before
        measured = node.sizer.mean_s is not None and before.sizer.mean_s is not None
        return measured or node.pending >= workers  # it may be long, so there must be enough for all others

    def _grant(self, worker: WorkerState, shape: ShapeState, now: float) -> bool:
        workers = max(len(shape.workers), shape.wanted)
        while shape.queue:
            node = self.nodes[shape.queue[0][2]]
            if not node.has_pending:
                heapq.heappop(shape.queue)
                node.queued = False
                continue
            most = self._state.allowance if node.spec.counts else None
            if most == 0:
                shape.held_back.append(heapq.heappop(shape.queue))
                continue
            if worker.leases and not self._may_follow(node, worker.leases[0], workers):
                return False
            if node.spec.batched is not None:  # what others run is theirs: the rest is shared by those who run nothing
                workers = max(1, workers - sum(bool(other.leases) for other in shape.workers.values()))
            piece = node.take(workers, worker.cursor.get(node.spec.id), suspects=not worker.leases, most=most)
            if piece is None:
                return False  # suspects only, and this worker has a lease running
            if self._state.allowance is not None and node.spec.counts:
                self._state.allowance -= len(piece)
            self._open(worker, shape, node, piece, now)
            return True
        return False

    def _open(self, worker: WorkerState, shape: ShapeState, node: NodeState, piece: Piece, now: float) -> OpenLease:
        """Grant a piece to a worker. `NodeState.leased` counts it."""
        lease = Lease(LeaseId(self._next_lease), node.spec.id, piece.start, piece.stop, piece.attempt)
        self._next_lease += 1
        open_lease = OpenLease(
            lease,
            worker.id,
            piece.start,
            piece.stop,
            piece.deaths,
            piece.suspect,
            piece.losses,
            piece.lost_at,
            quarantined=piece.losses >= LOSSES_TO_SUSPECT,
            granted_at=now,
            since=now,
        )
        self._leases[lease.id] = open_lease
        if not worker.leases:
            worker.heard_at = now  # its time limit starts now, not when it went idle
        worker.leases.append(open_lease)
        worker.cursor[node.spec.id] = piece.stop
        node.leased += len(piece)
        shape.look_at = min(shape.look_at, shape.looked_at + look_every_s(shape))
        self._commands.append(Grant(worker.id, lease))
        return open_lease

    def _share(self, shape: ShapeState, now: float) -> None:
        """Find work for idle workers among what the others hold."""
        found = share(shape, self.nodes, now)
        shape.looked_at, shape.look_at = now, max(found.look_at, now + look_every_s(shape))
        for lease_id, keep in found.cuts:
            open_lease = self._leases[lease_id]
            open_lease.revoked_to = keep
            self._commands.append(Revoke(open_lease.worker, lease_id, keep))
        for straggler in found.stragglers:
            worker = shape.workers[next(iter(shape.idle))]
            element, node = straggler.position, self.nodes[straggler.lease.node]
            again = Piece(
                element,
                element + 1,
                straggler.lease.attempt,
                losses=losses_taken_along(straggler),
                lost_at=straggler.lost_at,
            )
            twin = self._open(worker, shape, node, again, now)
            node.leased -= 1  # it is counted where it was first
            twin.spare, twin.rival, straggler.rival = True, straggler, twin
            del shape.idle[worker.id]
            self.duplicated += 1

    def _want(self, shape_id: ShapeId, shape: ShapeState) -> None:
        wanted = min(shape.capacity, shape.outstanding)
        if wanted > shape.wanted or wanted == 0 or wanted <= shape.wanted // 2 or shape.wanted > shape.capacity:
            changed = wanted != shape.wanted
            shape.wanted = wanted
            if changed:
                self._commands.append(WantWorkers(shape_id, wanted))

    def _retire_idle(self) -> None:
        """Where a shape lacks workers, idle workers of other shapes make room."""
        if len(self._shapes) < 2 or not any(len(shape.workers) < shape.wanted for shape in self._shapes.values()):
            return
        for shape in self._shapes.values():
            if shape.outstanding or not shape.idle:
                continue
            for worker_id in list(shape.idle):
                self._retire(shape.workers[worker_id])

    def _stop_hanging(self, now: float) -> None:
        grace_s = HANG_GRACE_S + HANG_GRACE_PER_WORKER_S * len(self._workers)
        for worker in self._workers.values():
            if not worker.leases or worker.stopping:
                continue
            limit_s = self.nodes[worker.leases[0].lease.node].spec.timeout_s
            if limit_s is not None and now - worker.heard_at > limit_s + grace_s:
                worker.stopping = True
                self._commands.append(StopWorker(worker.id))

    # ---- checks --------------------------------------------------------------------------------------------

    def _broken(self, what: str) -> InternalError:
        story = "\n".join(f"    {now:12.6f}  {event}" for now, event in self._story)
        return InternalError(what, hint=f"please report this; the last events were\n{story}")

    def check_invariants(self) -> None:
        """Check that no element is in two places or in none. Costs O(state); for tests and the simulator.

        Raises:
            InternalError: an invariant is broken; the text tells which, and the last events.
        """
        retries = [(node, piece) for _, _, node, piece in self._retries] + list(self._quarantine.waiting)
        wrong = broken_invariant(self.nodes, self._leases.values(), self._shapes, retries, self._quarantine)
        if wrong is not None:
            raise self._broken(wrong)
