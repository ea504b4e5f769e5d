"""What has come out of a run so far: the driver's record of results, on their way to the store and to later nodes.

Rows go to the segment writer; what later elements need of them (handles of values, the best trials) is kept here, and
read back from the segments when a run is resumed. The ledger knows nothing of workers or scheduling.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from umbel.runtime.driver.best_trials import BestTrials
from umbel.runtime.driver.plan import Plan, PlannedNode
from umbel.runtime.driver.programs import InputKind, LeaseInputs, StudyInputs, SweepProgram
from umbel.runtime.graph.literals import Literals
from umbel.runtime.graph.nodes import BestNode, Sweep
from umbel.runtime.graph.sizes import Sizes
from umbel.runtime.leases.asked_chunk import AskedChunk
from umbel.runtime.leases.lease_report import LeaseReport
from umbel.runtime.leases.rows import (
    ElementOutcome,
    Outcome,
    Place,
    TrialChunk,
    TrialPart,
    TrialRows,
    element_rows,
    output_rows,
)
from umbel.runtime.leases.shared_memory import SharedCopies
from umbel.runtime.leases.values import ValueHandle, item_digest, load_value, store_value
from umbel.runtime.search.budgets import Budgets
from umbel.runtime.search.earlier_trials import EarlierTrials
from umbel.runtime.search.rungs import RungBook
from umbel.runtime.search.study_records import study_records
from umbel.scheduler.blame import GIVEN_UP
from umbel.scheduler.engine import Restored
from umbel.scheduler.graph import NodeId
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.protocol import Accept, FailElements, Lease, LoseElement
from umbel.storage.layout import output_folder, trials_folder, values_folder
from umbel.storage.lineage.mentions import Mentions
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.segments import SegmentWriter, scan_segments
from umbel.storage.runs.trial_rows import SUCCEEDED
from umbel.storage.values.columns import booleans, contains, int_values, python_values

__all__ = ["Ledger"]

#: What rows made by the driver say of their worker.
DRIVER = "driver"
#: Columns of a sweep's segments that a resumed run needs.
TRIAL_COLUMNS = ("trial", "status", "attempt", "data", "model")
STUDY_COLUMNS = ("params", "distributions", "steps", "borrowed_from")
RUNG_COLUMNS = ("steps", "rungs")
VALUE_COLUMNS = ("element", "status", "attempt", "digest", "format", "size", "length", "payload", "model")


class Ledger:
    """The results of one run.

    Args:
        plan: the run's graph.
        literals: the plain values among its arguments.
        objects: the store.
        run_id: the run.
        writer: where rows go.
        clock: seconds since the epoch.
        warn: told what the user should know (a group without a best trial, a damaged segment).
    """

    def __init__(
        self,
        plan: Plan,
        literals: Literals,
        objects: ObjectStore,
        run_id: str,
        writer: SegmentWriter,
        clock: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._literals = literals
        self._objects = objects
        self._run_id = run_id
        self._writer = writer
        self._clock = clock
        self._warn = warn
        self._place = Place(run_id, socket.gethostname(), DRIVER)
        self._values: dict[NodeId, dict[int, ValueHandle]] = {p.id: {} for p in plan.nodes if p.consumed}
        #: Copies of large values, nearer to the workers than the store.
        self.copies = SharedCopies()
        #: How many elements nodes have, and the groups of sweeps.
        self.sizes = Sizes(plan, self._length, self._value)
        #: What trials reported on their way, of sweeps that prune.
        self.rungs = RungBook(plan.programs)
        #: The best trials of each sweep so far.
        self.best = BestTrials(plan, self.sizes)
        #: What earlier runs have done.
        self.earlier = EarlierTrials(plan, self.sizes, self._data_of, self._rows_of)
        self._rows: dict[NodeId, TrialRows] = {}
        #: Elements that did not end well; and those among them that failed themselves, not for want of an input.
        self.failed = self.own_failures = 0
        self._own_failed: dict[NodeId, int] = {}
        #: The digests that rows mention.
        self.mentions = Mentions()
        #: Of sweeps with an adaptive search.
        self.studies = {
            planned.id: study_records(planned.node)
            for planned in plan.nodes
            if isinstance(planned.node, Sweep) and planned.node.search is not None
        }
        #: Of sweeps with a budget of their own.
        self.budgets = Budgets(plan.nodes, lambda node: len(self.sizes.groups(node)))
        self._writer.keep_order([self._folder(planned) for planned in plan.nodes])

    # ---- resuming ------------------------------------------------------------------------------------------

    def restore(self, *, retry_failed: bool = False) -> dict[NodeId, Restored]:
        """Read back what earlier sessions of this run made durable; damaged segments are set aside, with a warning.

        Args:
            retry_failed: leave out what did not end well, so that it is run again.
        """
        restored: dict[NodeId, Restored] = {}
        for planned in self._plan.nodes:
            folder = self._folder(planned)
            is_sweep = isinstance(planned.node, Sweep)
            done, failed = IntervalSet(), IntervalSet()
            own: set[int] = set()
            for segment in scan_segments(self._objects, folder, self._columns_for(planned), verify=True):
                table = segment.table
                if table is None:
                    aside = self._objects.set_aside(segment.path)
                    self._warn(
                        f"{segment.path} is damaged ({segment.reason}); set aside as {aside}, what it held is run again"
                    )
                    continue
                self._mention(planned, table)
                bad = ~contains(table.column("status"), SUCCEEDED)
                if retry_failed and bad.any():
                    table, bad = table.filter(booleans(~bad)), np.zeros(int((~bad).sum()), np.bool_)
                elements = int_values(table.column("trial" if is_sweep else "element"))
                done.add_each(elements)
                if failed:  # what was tried again counts as it ended then
                    for element in elements.tolist():
                        failed.remove(element, element + 1)
                        own.discard(element)
                failed.add_each(elements[bad])
                own.update(elements[bad & (int_values(table.column("attempt")) > 0)].tolist())
                self._heed(planned, table, restored=True)
            if done:
                restored[planned.id] = Restored(done, failed)
                self.failed += len(failed)
                self._own_failed[planned.id] = len(own)
                self.own_failures += len(own)
        return restored

    def _columns_for(self, planned: PlannedNode) -> Callable[[Sequence[str]], list[str]]:
        if isinstance(planned.node, Sweep):
            studies = STUDY_COLUMNS if planned.id in self.studies else ()
            wanted = (*TRIAL_COLUMNS, *studies, *(RUNG_COLUMNS if planned.id in self.rungs else ()))
            return lambda names: [n for n in names if n in wanted or n.startswith("metric_")]
        unread = () if planned.consumed else ("payload",)
        return lambda names: [n for n in names if n in VALUE_COLUMNS and n not in unread]

    def failed_before(self, node: NodeId) -> int:
        """How many elements of a node failed themselves in earlier sittings."""
        return self._own_failed.get(node, 0)

    # ---- lists whose length the run reveals ----------------------------------------------------------------

    def _length(self, node: NodeId) -> int | None:
        return self._values[node][0].length

    def _value(self, node: NodeId) -> object:
        return load_value(self._values[node][0], self._objects)

    # ---- what leases need ----------------------------------------------------------------------------------

    def inputs(self, lease: Lease, *, whole_blocks: bool = False) -> LeaseInputs:
        """The handles of a lease's inputs, and what is known of its study if it has one.

        Args:
            lease: the lease.
            whole_blocks: its group's trials are granted to one worker at a time.
        """
        planned = self._plan.nodes[lease.node]
        node = planned.node
        start, stop = lease.start, lease.stop
        groups: tuple[Mapping[str, object], ...] = ()
        study: StudyInputs | None = None
        if isinstance(node, Sweep):
            trials = node.source.trials
            start, stop = start // trials, (stop - 1) // trials + 1
            groups = tuple(self.sizes.groups(planned.id)[start:stop])
            if planned.id in self.studies:
                study = self._study(planned, start, whole_blocks)
        handles = (
            self._handles(planned, position, start, stop)
            for position, argument in enumerate(node.arguments)
            if argument.kind is not InputKind.AXIS
        )
        return LeaseInputs(tuple(handles), groups, study)

    def _study(self, planned: PlannedNode, group: int, whole_blocks: bool) -> StudyInputs:
        """What is known of a study, and what others lend it."""
        assert isinstance(planned.node, Sweep)
        records, trials = self.studies[planned.id], planned.node.source.trials
        portfolio = None
        if records.lending is not None:
            portfolio = records.lending.portfolio(group, lambda other: self.sizes.group_text(planned, other * trials))
        return StudyInputs(whole_blocks, records.known(group), portfolio)

    def _handles(self, planned: PlannedNode, position: int, start: int, stop: int) -> tuple[ValueHandle, ...]:
        argument, source = planned.node.arguments[position], planned.sources[position]
        if source is None:
            return self._literals.handles(planned.id, position, start, stop)
        values, size = self._values[source], self.sizes.size(source)
        if argument.kind is InputKind.EACH:
            places = (argument.place(element, size) for element in range(start, stop))
        else:  # without those that failed, if their task skips failures: otherwise this lease would not exist
            places = (element for element in range(size) if element in values)
        return tuple(self._with_copy(source, element, values[element]) for element in places)

    def _with_copy(self, node: NodeId, element: int, handle: ValueHandle) -> ValueHandle:
        copy = self.copies.get(node, element)
        return handle if copy is None else replace(handle, copy=copy)

    # ---- results -------------------------------------------------------------------------------------------

    def record(self, accept: Accept, report: LeaseReport) -> None:
        """Take over the rows that the engine accepted of a report."""
        if report.rows is None or not accept.ranges:
            return
        with pa.ipc.open_stream(pa.py_buffer(report.rows)) as stream:
            batch = stream.read_next_batch()
        planned = self._plan.nodes[accept.node]
        element = batch.column("trial" if isinstance(planned.node, Sweep) else "element")
        count = sum(stop - start for start, stop in accept.ranges)
        if count != batch.num_rows:
            numbers = int_values(element)
            wanted = np.zeros(len(numbers), bool)
            for start, stop in accept.ranges:
                wanted |= (numbers >= start) & (numbers < stop)
            batch = batch.filter(booleans(wanted))
        self._add(planned, batch)
        for number, reference in report.copies:
            handle = self._values[planned.id].get(number)
            if handle is not None and any(start <= number < stop for start, stop in accept.ranges):
                self.copies.add(planned.id, number, reference, handle.size_bytes)

    def _add(self, planned: PlannedNode, batch: pa.RecordBatch | None, *, restored: bool = False) -> None:
        if batch is None or batch.num_rows == 0:
            return
        self._writer.add(self._folder(planned), batch)
        self._mention(planned, batch)
        self._heed(planned, batch, restored=restored)

    def _heed(self, planned: PlannedNode, rows: pa.RecordBatch | pa.Table, *, restored: bool) -> None:
        """Keep of rows what later elements need."""
        if isinstance(planned.node, Sweep):
            self.best.add(planned.id, rows)
            self.rungs.add_rows(planned.id, rows, restored=restored)
            if planned.id in self.studies:
                self.studies[planned.id].add(rows)
            if planned.id in self.budgets:
                self.budgets.add(planned.id, rows)
        elif planned.consumed:
            self._keep_handles(planned, rows)

    def _mention(self, planned: PlannedNode, rows: pa.RecordBatch | pa.Table) -> None:
        if isinstance(planned.node, Sweep):
            self.mentions.add_trials(planned.id, rows, planned.node.source.trials)
        else:
            self.mentions.add_elements(planned.id, rows)

    def _keep_handles(self, planned: PlannedNode, rows: pa.RecordBatch | pa.Table) -> None:
        held = self._values[planned.id]
        names = ("element", "digest", "format", "size", "payload", "length")
        columns = (python_values(rows.column(name)) for name in names)
        for element, digest, kind, size, payload, length in zip(*columns, strict=True):
            if digest is not None:
                held[element] = ValueHandle(digest, kind, size, payload, length)

    def keep_output(self, node: NodeId, worker: str, output: Sequence[tuple[int, int, str]]) -> None:
        """Take over what elements printed."""
        folder = output_folder(self._run_id, self._plan.nodes[node].name)
        self._writer.add(folder, output_rows(Place(self._run_id, self._place.host, worker), output))

    def fail(self, command: FailElements) -> None:
        """Record elements as failed because of one that they needed."""
        cause = self._plan.nodes[command.cause_node]
        if command.node in self.budgets:
            self.budgets.dropped(command.node, command.start, command.stop)
        if isinstance(cause.node, BestNode):
            why = self.best.reason(cause, command.cause_element)
        else:
            where = f"element {command.cause_element} of " if cause.node.fans_out else ""
            problem = self.sizes.problems.get(command.cause_node)
            failed = f"{where}{cause.name!r}, which it needs, failed"
            why = failed if problem is None else problem.what
        self._end(self._plan.nodes[command.node], command.start, command.stop, "failed", f"not run: {why}", attempt=0)

    def lose(self, command: LoseElement) -> None:
        """Record an element as lost with its workers, or as timed out if they hung."""
        status, error = GIVEN_UP[command.cause]
        planned = self._plan.nodes[command.node]
        self.own_failures += 1
        self._end(planned, command.element, command.element + 1, status, error, command.attempt)

    def _end(self, planned: PlannedNode, start: int, stop: int, status: str, error: str, attempt: int) -> None:
        self.failed += stop - start
        now = self._clock()
        program = self._plan.programs.get(planned.id)
        if isinstance(program, SweepProgram):
            rows = self._rows_of(planned.id)
            trials = program.source.trials
            while start < stop:
                group = start // trials
                end = min(stop, (group + 1) * trials)
                keys, first = self.sizes.groups(planned.id)[group], group * trials
                data = self._data_of(planned.id, group)
                chunk: TrialChunk | AskedChunk
                if program.search is None:
                    chunk = TrialChunk(program, keys, group, start - first, end - first, data)
                else:
                    chunk = AskedChunk(program, keys, group, start - first, end - first, data, None)
                    chunk.leave_out()
                outcomes = [Outcome(now, 0.0, None, status, error)] * (end - start)
                self._add(planned, rows.build([TrialPart(chunk, 0, outcomes, attempt)]))
                start = end
        else:
            ended = [ElementOutcome(now, 0.0, None, status, error)] * (stop - start)
            code = program.code if program is not None else ""
            self._add(planned, element_rows(self._place, code, start, ended, attempt))

    def _rows_of(self, node: NodeId) -> TrialRows:
        if node not in self._rows:
            program = self._plan.programs[node]
            assert isinstance(program, SweepProgram)
            self._rows[node] = TrialRows(program, self._place)
        return self._rows[node]

    def _data_of(self, node: NodeId, group: int) -> str | None:
        """The digest of a group's data; None: there are none."""
        planned = self._plan.nodes[node]
        assert isinstance(planned.node, Sweep)
        if not planned.node.has_data:
            return None
        argument, source = planned.node.arguments[0], planned.sources[0]
        if source is not None and not (
            self._values[source] if argument.kind is not InputKind.EACH else group in self._values[source]
        ):
            return None  # the data themselves failed
        handle = self._handles(planned, 0, group, group + 1)[0]
        if argument.kind is InputKind.ITEM:
            assert handle.length is not None
            return item_digest(handle, group % handle.length)
        return handle.digest

    # ---- what the driver does itself -----------------------------------------------------------------------

    def recall(self, node: NodeId, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Take over what earlier runs have of the trials ``[start, stop)``; returns which these are."""
        found = IntervalSet()
        for numbers, rows in self.earlier.find(node, start, stop):
            self._add(self._plan.nodes[node], rows, restored=True)
            found.add_each(np.asarray(numbers))
        return tuple(found)

    def evaluate(self, node: NodeId, start: int, stop: int) -> tuple[int, ...]:
        """Choose the best trials of the groups ``[start, stop)``; returns the groups that have none."""
        planned = self._plan.nodes[node]
        outcomes: list[ElementOutcome] = []
        without: list[int] = []
        for group in range(start, stop):
            chosen = self.best.choose(planned, group)
            now = self._clock()
            if chosen is not None:
                outcomes.append(ElementOutcome(now, 0.0, store_value(chosen, self._objects)))
            else:
                without.append(group)
                outcomes.append(ElementOutcome(now, 0.0, None, "failed", self.best.reason(planned, group)))
        self.failed += len(without)
        self._add(planned, element_rows(self._place, "", start, outcomes, 1))
        return tuple(without)

    # ---- what is told --------------------------------------------------------------------------------------

    def warnings(self) -> Iterable[str]:
        """What the user should know at the end."""
        yield from self.sizes.warnings()
        yield from self.best.warnings()
        for name in self.rungs.silent():
            yield (
                f"no trial of sweep {name!r} was stopped early, although it says prune=, because none reported on its "
                "way: call umbel.report(metrics, step=…) in its function"
            )

    # ---- names ---------------------------------------------------------------------------------------------

    def _folder(self, planned: PlannedNode) -> str:
        if isinstance(planned.node, Sweep):
            return trials_folder(self._run_id, planned.name)
        return values_folder(self._run_id, planned.name)
