"""How results become rows: the trials table and the table of values, built column by column as Arrow batches.

Workers build the rows of what they ran, and the driver those of what nobody ran (an element whose input failed, a trial
that was lost), by the same code: so a row looks the same wherever it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.runtime.driver.programs import SweepProgram
from umbel.runtime.leases.asked_chunk import AskedChunk, asked_column
from umbel.runtime.leases.metrics import DEFAULT
from umbel.runtime.leases.values import StoredModel, ValueHandle, value_digest
from umbel.runtime.provenance.credentials import hidden_values
from umbel.scheduler.identity import canonical_json, group_key, trial_keys
from umbel.scheduler.search.sampling import TrialBatch
from umbel.storage.runs.trial_rows import OUT_OF_ORDER, metric_column
from umbel.storage.values.columns import (
    binaries,
    booleans,
    coded,
    dictionary,
    floats,
    integers,
    strings,
    timestamps,
)
from umbel.storage.values.packs import MODEL, MODEL_AT, MODEL_PAYLOAD

__all__ = [
    "NOT_BEGUN",
    "ElementOutcome",
    "Outcome",
    "Place",
    "TrialChunk",
    "TrialPart",
    "TrialRows",
    "element_rows",
    "output_rows",
]


#: Status of an outcome that is none: the trial was not begun, and is to be granted again as if it had never been.
NOT_BEGUN = "not begun"


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are made."""

    run: str
    host: str
    worker: str


@dataclass(slots=True)
class Outcome:
    """How one attempt at a trial ended."""

    #: Seconds since the epoch.
    started: float
    seconds: float
    #: By metric; a bare number stands under `DEFAULT`. None: there are none.
    metrics: dict[str, float] | None
    status: str = "ok"
    error: str | None = None
    model: StoredModel | None = None
    #: True: to be tried again, so no row is made.
    retry: bool = False
    #: What it printed.
    output: str | None = None
    #: The last step that it reported.
    steps: int | None = None
    #: What it left at rungs, as JSON.
    rungs: str | None = None


@dataclass(slots=True)
class ElementOutcome:
    """How one attempt at an element of a task ended."""

    started: float
    seconds: float
    handle: ValueHandle | None
    status: str = "ok"
    error: str | None = None
    #: Numbers that came in a `Result`.
    metrics: dict[str, float] | None = None
    model: StoredModel | None = None
    #: Content key of code and inputs.
    key: str | None = None
    retry: bool = False
    #: Where a value that was read came from, as JSON.
    source: str | None = None
    #: What it printed.
    output: str | None = None


class TrialChunk:
    """Consecutive trials of one group: their configs, seeds and keys."""

    __slots__ = ("batch", "configs", "data", "first", "group", "group_keys", "keys", "seeds", "stop")

    def __init__(
        self, program: SweepProgram, keys: Mapping[str, object], group: int, start: int, stop: int, data: str | None
    ) -> None:
        first_of_group = group * program.source.trials
        self.group = group
        #: The group's keys and values.
        self.group_keys = keys
        #: Index in the sweep of the first trial, and after the last.
        self.first = first_of_group + start
        self.stop = first_of_group + stop
        #: Digest of the group's data.
        self.data = data
        self.batch: TrialBatch = program.source.batch(group_key(keys), start, stop)
        self.configs: list[dict[str, object]] = self.batch.configs(keys)
        self.seeds: list[int] = self.batch.seeds.tolist()
        # Made before the trials run: a function may change the config that it is given.
        self.keys: list[str] = trial_keys(program.code, data, self.configs, self.seeds, value_digest)

    def trials(self) -> Iterable[tuple[object, int]]:
        """The trials' configs and seeds."""
        return zip(self.configs, self.seeds, strict=True)


@dataclass(slots=True)
class TrialPart:
    """Outcomes of the trials ``[offset, offset + len(outcomes))`` of a chunk, for rows."""

    chunk: TrialChunk | AskedChunk
    offset: int
    outcomes: Sequence[Outcome]
    attempt: int


class TrialRows:
    """Makes rows of the trials table for one sweep."""

    def __init__(self, program: SweepProgram, place: Place) -> None:
        self._program = program
        self.place = place
        self._hidden = hidden_values(program.source.space).columns

    def build(self, parts: Sequence[TrialPart]) -> pa.RecordBatch | None:
        """One batch with a row for each outcome that is not to be tried again; None if there is none."""
        parts = [part for part in parts if len(part.outcomes)]
        if not parts:
            return None
        batch = self._build(parts)
        final = [not outcome.retry for part in parts for outcome in part.outcomes]
        if not all(final):
            batch = batch.filter(booleans(final))
        return batch if batch.num_rows else None

    def _build(self, parts: Sequence[TrialPart]) -> pa.RecordBatch:
        program, counts = self._program, [len(part.outcomes) for part in parts]
        total = sum(counts)
        outcomes = [outcome for part in parts for outcome in part.outcomes]
        which = np.repeat(np.arange(len(parts)), counts)
        firsts = [part.chunk.first + part.offset for part in parts]
        trials = np.concatenate([np.arange(a, a + n) for a, n in zip(firsts, counts, strict=True)])
        columns: dict[str, pa.Array] = {
            "run": _constant(self.place.run, total),
            "sweep": _constant(program.name, total),
            "trial": integers(trials),
        }
        for name in program.group_names:
            values = [part.chunk.group_keys[name] for part in parts]
            columns[name] = _group_column(values, which)
        for name, column in self._configs(parts):
            columns[f"config_{name}"] = column
        for name, column in self._metrics(outcomes):
            columns[name] = column
        columns["status"] = coded([outcome.status for outcome in outcomes])
        columns["error"] = strings([outcome.error for outcome in outcomes])
        columns["steps"] = integers([outcome.steps for outcome in outcomes])
        columns["attempt"] = integers(np.asarray([part.attempt for part in parts])[which], pa.int32())
        columns["seed"] = integers([seed for part in parts for seed in _cut(part, part.chunk.seeds)])
        columns["started"] = timestamps([outcome.started for outcome in outcomes])
        columns["seconds"] = floats([outcome.seconds for outcome in outcomes])
        columns["host"] = _constant(self.place.host, total)
        columns["worker"] = _constant(self.place.worker, total)
        columns["code"] = _constant(program.code, total)
        columns["data"] = dictionary(which, [part.chunk.data for part in parts])
        columns["key"] = strings([key for part in parts for key in _cut(part, part.chunk.keys)])
        columns.update(_model_columns([outcome.model for outcome in outcomes]))
        if program.pruning is not None:
            columns["rungs"] = strings([outcome.rungs for outcome in outcomes])
        columns["reused_from"] = strings([None] * total)
        if program.search is not None:
            asked = [(part, _asked(part)) for part in parts]
            columns["params"] = strings([each for part, chunk in asked for each in _cut(part, chunk.params)])
            columns["distributions"] = coded(
                [each for part, chunk in asked for each in _cut(part, chunk.distributions)]
            )
            out_of_order = [each for part, chunk in asked for each in _cut(part, chunk.out_of_order)]
            if any(out_of_order):
                columns[OUT_OF_ORDER] = booleans(out_of_order)
            if program.search.transfer:
                columns["borrowed_from"] = strings(
                    [each for part, chunk in asked for each in _cut(part, chunk.borrowed_from)]
                )
        return pa.record_batch(columns)

    def _configs(self, parts: Sequence[TrialPart]) -> Iterable[tuple[str, pa.Array]]:
        """The columns of the configs, and their names."""
        if self._program.search is None:
            for name in self._program.source.space.column_names:
                config = [_cut(part, _drawn(part).batch.columns[name]) for part in parts]
                hide = self._hidden.get(name)
                yield name, _config_column(config if hide is None else [list(map(hide, each)) for each in config])
            return
        asked = [(part, _asked(part)) for part in parts]
        for name in dict.fromkeys(name for _, chunk in asked for name in chunk.config_names):
            hide = self._hidden.get(name)
            values = [v for part, chunk in asked for v in chunk.config_values(name, part.offset, len(part.outcomes))]
            yield name, asked_column(values if hide is None else list(map(hide, values)))

    def reused(self, rows: pa.Table, trials: Sequence[int]) -> pa.RecordBatch:
        """Rows of an earlier run as rows of this one.

        Args:
            rows: as they were stored there.
            trials: for each row, which trial of this sweep it is the result of.
        """
        total = len(rows)
        new = {
            "run": _constant(self.place.run, total),
            "sweep": _constant(self._program.name, total),
            "trial": integers(list(trials)),
        }
        for name, column in new.items():
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows.combine_chunks().to_batches()[0]

    def _metrics(self, outcomes: Sequence[Outcome]) -> Iterable[tuple[str, pa.Array]]:
        judged_by = self._program.metrics
        # What a bare number stands for.
        default = judged_by[0] if len(judged_by) == 1 else None
        metrics = [outcome.metrics for outcome in outcomes]
        names: dict[str, str] = {metric_column(metric): metric for metric in judged_by}
        previous: object = None
        for found in metrics:
            if found is not None and (keys := found.keys()) != previous:
                previous = keys
                for name in found:
                    names.setdefault(metric_column(name or judged_by[0]), name)
        for column, name in names.items():
            if name == default:
                yield column, floats([None if m is None else m.get(name, m.get(DEFAULT)) for m in metrics])
            else:
                yield column, floats([None if m is None else m.get(name) for m in metrics])


def element_rows(
    place: Place, code: str, first: int, outcomes: Sequence[ElementOutcome], attempt: int
) -> pa.RecordBatch | None:
    """Rows of the table of values for the elements ``[first, first + len(outcomes))`` of a node.

    An outcome that is to be tried again gets no row; None if none is left.
    """
    kept = [(first + offset, outcome) for offset, outcome in enumerate(outcomes) if not outcome.retry]
    if not kept:
        return None
    rows = [outcome for _, outcome in kept]
    handles = [outcome.handle for outcome in rows]
    names: dict[str, None] = {}
    for outcome in rows:
        names.update(dict.fromkeys(outcome.metrics or ()))
    columns: dict[str, pa.Array] = {
        "element": integers([element for element, _ in kept]),
        "status": coded([outcome.status for outcome in rows]),
        "error": strings([outcome.error for outcome in rows]),
        "digest": strings([handle.digest if handle else None for handle in handles]),
        "format": strings([handle.format if handle else None for handle in handles]),
        "size": integers([handle.size_bytes if handle else None for handle in handles]),
        "length": integers([handle.length if handle else None for handle in handles]),
        "payload": binaries([handle.payload if handle else None for handle in handles]),
        **_model_columns([outcome.model for outcome in rows]),
    }
    for name in names:
        columns[metric_column(name or "value")] = floats([(outcome.metrics or {}).get(name) for outcome in rows])
    columns["attempt"] = integers([attempt] * len(rows), pa.int32())
    columns["started"] = timestamps([outcome.started for outcome in rows])
    columns["seconds"] = floats([outcome.seconds for outcome in rows])
    columns["host"] = _constant(place.host, len(rows))
    columns["worker"] = _constant(place.worker, len(rows))
    columns["code"] = _constant(code, len(rows))
    columns["key"] = strings([outcome.key for outcome in rows])
    if any(outcome.source is not None for outcome in rows):
        columns["source"] = strings([outcome.source for outcome in rows])
    return pa.record_batch(columns)


def _model_columns(models: Sequence[StoredModel | None]) -> dict[str, pa.Array]:
    columns = {
        MODEL: strings([None if model is None else model.digest for model in models]),
        MODEL_AT: pa.nulls(len(models), pa.string()),  # filled in when they are packed
    }
    if any(model is not None and model.payload is not None for model in models):
        columns[MODEL_PAYLOAD] = binaries([None if model is None else model.payload for model in models])
    return columns


def output_rows(place: Place, output: Sequence[tuple[int, int, str]]) -> pa.RecordBatch:
    """Rows of the table of outputs: what elements printed, as (element, attempt, text)."""
    return pa.record_batch(
        {
            "element": integers([element for element, _, _ in output]),
            "attempt": integers([attempt for _, attempt, _ in output], pa.int32()),
            "worker": _constant(place.worker, len(output)),
            "text": strings([text.encode(errors="replace").decode() for _, _, text in output]),
        }
    )


def _drawn(part: TrialPart) -> TrialChunk:
    assert isinstance(part.chunk, TrialChunk)
    return part.chunk


def _asked(part: TrialPart) -> AskedChunk:
    assert isinstance(part.chunk, AskedChunk)
    return part.chunk


def _cut(part: TrialPart, column: Any) -> Any:
    """A part's share of a column of its chunk."""
    return column[part.offset : part.offset + len(part.outcomes)]


def _constant(value: str, count: int) -> pa.Array:
    return dictionary(np.zeros(count, np.int32), [value])


def _group_column(values: Sequence[object], which: np.ndarray) -> pa.Array:
    """A group key for each row; that all groups' are of one kind was checked when the sweep was built."""
    first = values[0]
    if isinstance(first, str):
        return dictionary(which, [str(value) for value in values])
    column = np.asarray(values)[which]
    return booleans(column) if column.dtype == bool else _number_column(column)


def _config_column(parts: Sequence[Any]) -> pa.Array:
    """One config column: numbers and truth values as they are, all else as text."""
    if all(isinstance(part, np.ndarray) for part in parts):
        column = np.concatenate(parts)
        return booleans(column) if column.dtype == bool else _number_column(column)
    values = [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]
    return coded([value if isinstance(value, str) else _text(value) for value in values])


def _number_column(column: np.ndarray) -> pa.Array:
    return integers(column) if np.issubdtype(column.dtype, np.integer) else floats(column)


def _text(value: object) -> str | None:
    return None if value is None else canonical_json(value, value_digest)
