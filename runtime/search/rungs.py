"""How do workers learn what trials elsewhere have reported at rungs? A board in each worker, and a book in the driver.

A worker judges its own trials at once, by what its board knows. What it notes rides along with its reports to the
driver; the book keeps it and hands it on, to the workers that have trials of the same group, with whatever is sent to
them next. So a board is behind by a poll or two, and nobody ever waits. The book must not judge anything.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

import pyarrow as pa

from umbel.runtime.driver.programs import Program, SweepProgram
from umbel.runtime.search.pruning import Judged, Judges, Pruning, from_json
from umbel.runtime.search.pruning_optuna import ENDED
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Lease, WorkerId
from umbel.scheduler.search.pruning import Record
from umbel.storage.runs.trial_rows import SUCCEEDED
from umbel.storage.values.columns import contains, int_values, python_values

__all__ = ["RungBoard", "RungBook", "TellRungs"]

#: Records of one rung of one group that are passed on. With so many a cut-off hardly moves any more: whoever judges
#: goes on with these and its own.
PASSED_ON = 4096
#: Records of a sweep that compares across groups that are passed on.
PASSED_ON_ACROSS = 65_536
#: Records in one message.
MESSAGE = 4096
#: A worker is told of the groups of the leases that it got last: the one that runs, and the next.
LEASES = 2


@dataclass(frozen=True, slots=True)
class TellRungs:
    """A command to a worker: these trials of a node have reported this elsewhere."""

    node: NodeId
    records: tuple[Record, ...]


class RungBoard:
    """What a worker knows of a sweep's trials at their rungs.

    Trials are judged on one thread; `tell` and `take` are for others.
    """

    def __init__(self, program: SweepProgram, pruning: Pruning) -> None:
        self._new: deque[Record] = deque()
        self._told: deque[tuple[Record, ...]] = deque()
        self._judges: Judges = pruning.judges(program.source, self._new.append, self.absorb)

    def course(self, trial: int) -> Judged:
        """A trial that begins."""
        return self._judges.course(trial)

    def absorb(self) -> None:
        """Take into account what came in meanwhile; on the judging thread."""
        while self._told:
            self._judges.learn(self._told.popleft())

    def tell(self, records: tuple[Record, ...]) -> None:
        """Learn what was reported elsewhere; it counts from the next verdict on."""
        self._told.append(records)

    def take(self) -> tuple[Record, ...]:
        """What was noted here since the last call, at most `MESSAGE` of it."""
        return tuple(self._new.popleft() for _ in range(min(len(self._new), MESSAGE)))


@dataclass(slots=True)
class _Log:
    """Records of one group (of all, if these are compared), in the order in which they came."""

    #: With who sent it; None: it is from an earlier sitting.
    records: list[tuple[WorkerId | None, Record]] = field(default_factory=list)
    known: dict[tuple[int, int], float] = field(default_factory=dict)
    #: How many by (group, rung).
    counts: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, worker: WorkerId | None, group: int, record: Record, most: float) -> None:
        place = (group, record.rung)
        if self.known.get((record.trial, record.rung)) == record.value or self.counts[place] >= PASSED_ON:
            return  # a trial that was tried again, or ran twice, says the same again
        if len(self.records) < most:
            self.known[record.trial, record.rung] = record.value
            self.counts[place] += 1
            self.records.append((worker, record))


class RungBook:
    """What the driver knows of trials at their rungs, and whom it has told.

    Args:
        programs: by node; sweeps that don't prune are left aside.
    """

    def __init__(self, programs: Mapping[NodeId, Program]) -> None:
        self._programs = {
            node: program
            for node, program in programs.items()
            if isinstance(program, SweepProgram) and program.pruning is not None
        }
        self._logs: dict[tuple[NodeId, int], _Log] = defaultdict(_Log)
        self._leases: dict[WorkerId, deque[Lease]] = {}
        #: How much of a log a worker has been sent.
        self._sent: dict[tuple[WorkerId, NodeId, int], int] = {}
        #: Nodes with trials that ended well, and those of which any reported.
        self._ended: set[NodeId] = set()
        self._reporting: set[NodeId] = set()

    def __contains__(self, node: NodeId) -> bool:
        """Whether a node is a sweep that prunes."""
        return node in self._programs

    def granted(self, worker: WorkerId, lease: Lease) -> None:
        """A worker is about to have trials of these groups."""
        if lease.node in self._programs:
            self._leases.setdefault(worker, deque(maxlen=LEASES)).append(lease)

    def note(self, node: NodeId, worker: WorkerId | None, records: Iterable[Record]) -> None:
        """Take over what trials reported."""
        program = self._programs.get(node)
        if program is None:
            return
        most = PASSED_ON_ACROSS if self._across(program) else inf
        for record in records:
            group = record.trial // program.source.trials
            self._logs[node, self._log_of(program, group)].add(worker, group, record, most)

    def add_rows(self, node: NodeId, rows: pa.RecordBatch | pa.Table, *, restored: bool) -> None:
        """Take rows into account: whether trials report at all, and, if they are not of this sitting, their marks."""
        names = rows.schema.names
        program = self._programs.get(node)
        if program is None or "steps" not in names or not rows.num_rows:
            return
        if contains(rows.column("status"), SUCCEEDED).any():
            self._ended.add(node)
        if rows.column("steps").null_count < rows.num_rows:
            self._reporting.add(node)
        if not restored or "rungs" not in names:
            return
        trials = int_values(rows.column("trial")).tolist()
        texts, statuses = python_values(rows.column("rungs")), python_values(rows.column("status"))
        for trial, text, status in zip(trials, texts, statuses, strict=True):
            if text is not None:
                self.note(node, None, _records(program, trial, text, status))

    def news(self, worker: WorkerId) -> list[TellRungs]:
        """What a worker has not been told yet of the groups that it has trials of. Cost: nothing if there is none."""
        told: list[TellRungs] = []
        for lease in self._leases.get(worker, ()):
            program = self._programs[lease.node]
            trials = program.source.trials
            groups = range(lease.start // trials, (lease.stop - 1) // trials + 1)
            for log_of in dict.fromkeys(self._log_of(program, group) for group in groups):
                log = self._logs.get((lease.node, log_of))
                key = (worker, lease.node, log_of)
                sent = self._sent.get(key, 0)
                if log is None or sent >= len(log.records):
                    continue
                upto = min(len(log.records), sent + MESSAGE)
                self._sent[key] = upto
                records = tuple(record for sender, record in log.records[sent:upto] if sender != worker)
                if records:
                    told.append(TellRungs(lease.node, records))
        return told

    def forget(self, worker: WorkerId) -> None:
        """A worker is gone."""
        for lease in self._leases.pop(worker, ()):
            for key in [key for key in self._sent if key[0] == worker and key[1] == lease.node]:
                del self._sent[key]

    def silent(self) -> list[str]:
        """The sweeps that were to be pruned and whose trials never reported."""
        return [p.name for node, p in self._programs.items() if node in self._ended and node not in self._reporting]

    def _across(self, program: SweepProgram) -> bool:
        return program.pruning is not None and program.pruning.across

    def _log_of(self, program: SweepProgram, group: int) -> int:
        return 0 if self._across(program) else group


def _records(program: SweepProgram, trial: int, text: str, status: str) -> Iterable[Record]:
    """The records of a row; those that this sweep's rule would not have made are left out.

    A row that was taken over from an earlier run may be of another rule.
    """
    assert program.pruning is not None
    rule = program.pruning.ours
    marks = from_json(text)
    for mark in marks:
        if rule is None or rule.rung(trial % program.source.trials, mark.step) == mark.rung:
            yield Record(trial, mark.rung, mark.step, mark.value, mark.rank if program.pruning.across else None)
    if rule is None and marks:
        yield Record(trial, ENDED.get(status, ENDED["failed"]), marks[-1].step, marks[-1].value)
