"""How results become rows: the trials table and the table of values, built column by column as Arrow batches.

Workers build the rows of what they ran, and the driver those of what nobody ran (an element whose input failed, a trial
that was lost), by the same code: so a row looks the same wherever it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from umbel.runtime.metrics import DEFAULT
from umbel.runtime.programs import SweepProgram
from umbel.runtime.values import ValueHandle, value_digest
from umbel.scheduler.identity import canonical_json, group_key, trial_keys
from umbel.scheduler.sampling import TrialBatch

__all__ = ["ElementOutcome", "Outcome", "Place", "TrialChunk", "TrialPart", "TrialRows", "element_rows"]

_TIMESTAMP = pa.timestamp("us", tz="UTC")


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
    #: Digest of the stored model.
    model: str | None = None
    #: True: to be tried again, so no row is made.
    retry: bool = False


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
    model: str | None = None
    #: Content key of code and inputs.
    key: str | None = None
    retry: bool = False


class TrialChunk:
    """Consecutive trials of one group: their configs, seeds and keys."""

    __slots__ = ("batch", "configs", "data", "first", "group", "keys", "seeds", "stop")

    def __init__(self, program: SweepProgram, group: int, start: int, stop: int, data: str | None) -> None:
        keys = program.groups[group]
        first_of_group = group * program.source.trials
        self.group = group
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


@dataclass(slots=True)
class TrialPart:
    """Outcomes of the trials ``[offset, offset + len(outcomes))`` of a chunk, for rows."""

    chunk: TrialChunk
    offset: int
    outcomes: Sequence[Outcome]
    attempt: int


class TrialRows:
    """Makes rows of the trials table for one sweep."""

    def __init__(self, program: SweepProgram, place: Place) -> None:
        self._program = program
        self._place = place
        self._group_names = tuple(program.groups[0]) if program.groups else ()
        self._group_types = {
            name: _scalar_type([group[name] for group in program.groups]) for name in self._group_names
        }

    def build(self, parts: Sequence[TrialPart]) -> pa.RecordBatch | None:
        """One batch with a row for each outcome that is not to be tried again; None if there is none."""
        parts = [part for part in parts if len(part.outcomes)]
        if not parts:
            return None
        batch = self._build(parts)
        final = [not outcome.retry for part in parts for outcome in part.outcomes]
        if not all(final):
            batch = batch.filter(pa.array(final))
        return batch if batch.num_rows else None

    def _build(self, parts: Sequence[TrialPart]) -> pa.RecordBatch:
        program, counts = self._program, [len(part.outcomes) for part in parts]
        total = sum(counts)
        outcomes = [outcome for part in parts for outcome in part.outcomes]
        columns: dict[str, pa.Array] = {
            "run": _constant(self._place.run, total),
            "sweep": _constant(program.name, total),
            "trial": pa.array(
                np.concatenate(
                    [
                        np.arange(part.chunk.first + part.offset, part.chunk.first + part.offset + count)
                        for part, count in zip(parts, counts, strict=True)
                    ]
                ),
                pa.int64(),
            ),
        }
        for name in self._group_names:
            values = [program.groups[part.chunk.group][name] for part in parts]
            columns[name] = _repeated(values, counts, self._group_types[name])
        for name in program.source.space.column_names:
            columns[f"config_{name}"] = _joined(
                [part.chunk.batch.columns[name][part.offset : part.offset + len(part.outcomes)] for part in parts]
            )
        for name, column in self._metrics(outcomes):
            columns[f"metric_{name}"] = column
        columns["status"] = pa.array([outcome.status for outcome in outcomes]).dictionary_encode()
        columns["error"] = pa.array([outcome.error for outcome in outcomes], pa.string())
        columns["attempt"] = _repeat_numbers([part.attempt for part in parts], counts, np.int32)
        columns["seed"] = pa.array(
            [seed for part in parts for seed in part.chunk.seeds[part.offset : part.offset + len(part.outcomes)]],
            pa.int64(),
        )
        columns["started"] = _timestamps([outcome.started for outcome in outcomes])
        columns["seconds"] = pa.array([outcome.seconds for outcome in outcomes], pa.float64())
        columns["host"] = _constant(self._place.host, total)
        columns["worker"] = _constant(self._place.worker, total)
        columns["code"] = _constant(program.code, total)
        columns["data"] = _repeated([part.chunk.data for part in parts], counts, pa.string())
        columns["key"] = pa.array(
            [key for part in parts for key in part.chunk.keys[part.offset : part.offset + len(part.outcomes)]],
            pa.string(),
        )
        columns["model"] = pa.array([outcome.model for outcome in outcomes], pa.string())
        return pa.record_batch(columns)

    def _metrics(self, outcomes: Sequence[Outcome]) -> Iterable[tuple[str, pa.Array]]:
        metric = self._program.metric
        metrics = [outcome.metrics for outcome in outcomes]
        names: dict[str, None] = {metric: None}
        previous: object = None
        for found in metrics:
            if found is not None and (keys := found.keys()) != previous:
                previous = keys
                names.update((name or metric, None) for name in found)
        for name in names:
            if name == metric:
                column = [None if m is None else m.get(metric, m.get(DEFAULT)) for m in metrics]
            else:
                column = [None if m is None else m.get(name) for m in metrics]
            yield name, pa.array(column, pa.float64())


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
        "element": pa.array([element for element, _ in kept], pa.int64()),
        "status": pa.array([outcome.status for outcome in rows]).dictionary_encode(),
        "error": pa.array([outcome.error for outcome in rows], pa.string()),
        "digest": pa.array([handle and handle.digest for handle in handles], pa.string()),
        "format": pa.array([handle and handle.format for handle in handles], pa.string()),
        "size": pa.array([handle and handle.size_bytes for handle in handles], pa.int64()),
        "payload": pa.array([handle and handle.payload for handle in handles], pa.binary()),
        "model": pa.array([outcome.model for outcome in rows], pa.string()),
    }
    for name in names:
        values = [(outcome.metrics or {}).get(name) for outcome in rows]
        columns[f"metric_{name or 'value'}"] = pa.array(values, pa.float64())
    columns["attempt"] = pa.array([attempt] * len(rows), pa.int32())
    columns["started"] = _timestamps([outcome.started for outcome in rows])
    columns["seconds"] = pa.array([outcome.seconds for outcome in rows], pa.float64())
    columns["host"] = _constant(place.host, len(rows))
    columns["worker"] = _constant(place.worker, len(rows))
    columns["code"] = _constant(code, len(rows))
    columns["key"] = pa.array([outcome.key for outcome in rows], pa.string())
    return pa.record_batch(columns)


# ---- columns -----------------------------------------------------------------------------------------------


def _constant(value: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value], pa.string()))


def _repeat_numbers(values: Sequence[int], counts: Sequence[int], dtype: type[np.integer]) -> pa.Array:
    return pa.array(np.repeat(np.asarray(values, dtype), counts))


def _repeated(values: Sequence[object], counts: Sequence[int], kind: pa.DataType) -> pa.Array:
    """Each value as often as its count says; strings as a dictionary, since they come in long runs."""
    indices = pa.array(np.repeat(np.arange(len(values), dtype=np.int32), counts))
    distinct = pa.array(values, kind)
    if not pa.types.is_string(kind):
        return distinct.take(indices)
    if distinct.null_count:
        return distinct.take(indices).dictionary_encode()
    return pa.DictionaryArray.from_arrays(indices, distinct)


def _joined(columns: Sequence[object]) -> pa.Array:
    """The parts of one config column, one after another."""
    if all(isinstance(column, np.ndarray) for column in columns):
        return pa.array(np.concatenate([np.asarray(column) for column in columns]))
    values = [value for column in columns for value in column]  # type: ignore[attr-defined]
    texts = [value if isinstance(value, str) else _text(value) for value in values]
    return pa.array(texts, pa.string()).dictionary_encode()


def _text(value: object) -> str | None:
    return None if value is None else canonical_json(value, value_digest)


def _scalar_type(values: Sequence[object]) -> pa.DataType:
    """The column type of group keys: checked to be all of one kind when the sweep was built."""
    kinds = {type(value) for value in values}
    if kinds <= {bool}:
        return pa.bool_()
    if kinds <= {int}:
        return pa.int64()
    if kinds <= {int, float}:
        return pa.float64()
    return pa.string()


def _timestamps(seconds: Sequence[float]) -> pa.Array:
    micros = (np.asarray(seconds, np.float64) * 1e6).astype(np.int64)
    return pa.array(micros).cast(_TIMESTAMP)
