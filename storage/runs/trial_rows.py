"""What do a sweep's segments say about its trials?

Reads the rows, in order of trial, and finds each group's best. It must not write, and must not know why a trial failed.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.search.pareto import Objective, non_dominated
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import SweepRecord
from umbel.storage.runs.segment_format import unify
from umbel.storage.runs.segments import read_segments, scan_segments
from umbel.storage.values.columns import contains, empty_table, float_values, int_values, integers, last_of_each

__all__ = [
    "NOT_RUN",
    "OUT_OF_ORDER",
    "PRUNED",
    "SUCCEEDED",
    "WHOLE",
    "best_trials",
    "empty_trials",
    "judged_by",
    "metric_column",
    "ordered_columns",
    "read_trials",
    "trials_numbered",
    "warn_of_corrupt",
]

#: The statuses whose metrics count.
SUCCEEDED = frozenset({"ok", "pruned"})
#: Of these, the status of trials that did not run to their end.
PRUNED = frozenset({"pruned"})
#: What later runs may take over. Whether a trial is pruned depends on others, so its row says nothing to another sweep.
WHOLE = SUCCEEDED - PRUNED
#: The column that is true of trials which an adaptive search suggested without knowing what came of all before them.
OUT_OF_ORDER = "out_of_order"
#: How the error of an element begins that was not run because another failed.
NOT_RUN = "not run: "
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
_STARTED = pa.timestamp("us", "UTC")
_HEAD = {"run": pa.string(), "sweep": pa.string(), "trial": pa.int64()}
_TAIL = {
    "status": pa.string(),
    "error": pa.string(),
    "steps": pa.int64(),
    "attempt": pa.int32(),
    "seed": pa.int64(),
    "started": _STARTED,
    "seconds": pa.float64(),
    "host": pa.string(),
    "worker": pa.string(),
    "code": pa.string(),
    "data": pa.string(),
    "key": pa.string(),
    "model": pa.string(),
    "model_at": pa.string(),
    "reused_from": pa.string(),
}
_MAX_NAMED = 5


def read_trials(
    objects: ObjectStore, run_id: str, sweep: SweepRecord, columns: Sequence[str] | None = None
) -> pa.Table:
    """The finished trials of a sweep, one row each, in order of trial.

    Damaged segments are left out and named in a warning. Of a trial that was recorded twice the later row counts.

    Args:
        objects: the store.
        run_id: the run.
        sweep: the sweep.
        columns: which columns ("trial" is always read); None: all.
    """
    wanted = None if columns is None else list(dict.fromkeys(["trial", *columns]))
    scan = read_segments(objects, layout.trials_folder(run_id, sweep.name), wanted)
    warn_of_corrupt(scan.corrupt, objects.url)
    tables = [*scan.tables, empty_trials(sweep)] if wanted is None or not scan.tables else scan.tables
    table = unify(tables)
    order = last_of_each(int_values(table["trial"]))
    if order is not None:
        table = table.take(integers(order))
    return ordered_columns(table, sweep)


def best_trials(objects: ObjectStore, run_id: str, sweep: SweepRecord) -> tuple[pa.Table, list[int]]:
    """Each group's best trials, in order of the groups, and the positions of the groups that have none.

    The best is the lowest (mode "min") or highest finite metric among trials that ran to their end, or, if none did,
    among those that were pruned; of equals, the first. With several metrics the best of a group are its Pareto set, in
    order of trial: all that ran to their end with finite metrics, and that no other of the group dominates.
    Memory: status and metrics of all trials, and all columns of one segment at a time.
    """
    columns = [metric_column(each.metric) for each in sweep.objectives]
    rows = read_trials(objects, run_id, sweep, ["trial", *columns, "status"])
    trials = int_values(rows["trial"])
    scores = judged_by(rows, sweep.objectives)
    single = len(columns) == 1
    counts = np.isfinite(scores).all(axis=1) & contains(rows["status"], SUCCEEDED if single else WHOLE)
    pruned = contains(rows["status"], PRUNED)[counts]
    trials, scores = trials[counts], scores[counts]
    groups = trials // sweep.trials
    if single:
        order = np.lexsort((trials, scores[:, 0], pruned, groups))
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = np.diff(groups[order]) != 0
        winners = order[is_first]
    else:  # rows are in order of trial, so groups follow one another
        cuts = np.flatnonzero(np.diff(groups)) + 1
        kept = [non_dominated(part) for part in np.split(scores, cuts)]
        winners = np.flatnonzero(np.concatenate(kept))
    missing = sorted(set(range(max(1, len(sweep.groups)))) - set(groups[winners].tolist()))
    return trials_numbered(objects, run_id, sweep, trials[winners]), missing


def judged_by(rows: pa.Table | pa.RecordBatch, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    """What trials are judged by: one row a trial, one column an objective, of which less is better; NaN: not there."""
    found = np.full((rows.num_rows, len(objectives)), math.nan)
    for place, each in enumerate(objectives):
        name = metric_column(each.metric)
        if name in rows.schema.names:
            found[:, place] = each.sign * float_values(rows.column(name))
    return found


def trials_numbered(objects: ObjectStore, run_id: str, sweep: SweepRecord, trials: npt.NDArray[np.int64]) -> pa.Table:
    """All columns of some trials, in order of trial. Memory: those, and all rows of one segment."""
    import pyarrow.compute as pc  # not above: every worker imports this module

    wanted = integers(trials)
    tables = [empty_trials(sweep)]
    for segment in scan_segments(objects, layout.trials_folder(run_id, sweep.name)):
        if segment.table is not None:
            rows = segment.table.filter(pc.is_in(segment.table["trial"], value_set=wanted))
            if len(rows):
                tables.append(rows)
    table = unify(tables)
    order = last_of_each(int_values(table["trial"]))
    return ordered_columns(table if order is None else table.take(integers(order)), sweep)


def metric_column(metric: str) -> str:
    """The column that holds a metric; characters that warehouses would want quoted become "_"."""
    return "metric_" + _UNSAFE.sub("_", metric)


def empty_trials(sweep: SweepRecord) -> pa.Table:
    """A trials table without rows: the columns that every one has."""
    keys = {name: _type_of([group[i] for group in sweep.groups]) for i, name in enumerate(sweep.group_names)}
    return empty_table(pa.schema(list({**_HEAD, **keys, **_TAIL}.items())))


def _type_of(values: Sequence[object]) -> pa.DataType:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return pa.string()
    if kinds == {int}:
        return pa.int64()
    if kinds == {bool}:
        return pa.bool_()
    return pa.float64() if kinds and kinds <= {int, float} else pa.null()


def ordered_columns(table: pa.Table, sweep: SweepRecord) -> pa.Table:
    """The columns in the order that every trials table has, whatever the order in which they were first seen."""
    known = [*_HEAD, *sweep.group_names]
    names = table.column_names
    first = [name for name in known if name in names]
    configs = [name for name in names if name.startswith("config_") and name not in first]
    metrics = [name for name in names if name.startswith("metric_") and name not in first]
    last = [name for name in _TAIL if name in names and name not in first]
    placed = {*first, *configs, *metrics, *last}
    return table.select([*first, *configs, *metrics, *last, *(name for name in names if name not in placed)])


def warn_of_corrupt(corrupt: Sequence[tuple[str, str]], url: str) -> None:
    """Warn about damaged segments, naming the first few."""
    if not corrupt:
        return
    named = "; ".join(f"{path} ({reason})" for path, reason in corrupt[:_MAX_NAMED])
    more = f"; and {len(corrupt) - _MAX_NAMED} more" if len(corrupt) > _MAX_NAMED else ""
    warnings.warn(
        f"{len(corrupt)} damaged segment{'s' if len(corrupt) > 1 else ''} in the store {url} left out: {named}{more}. "
        "Running the same command again sets them aside and repeats their rows.",
        UserWarning,
        stacklevel=4,
    )
