"""What did a served model answer, and what turned out to be true?

Replicas log their answers with a `PredictionLog`, and whoever learns the truth records it with an `OutcomeLog`;
`umbel.storage.predictions.reader` joins the two. A row of the log is one answer of one version to one request; an
answer that the caller never saw, because another version's was given, is a shadow. It must not know what is made of
it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import time as now_s
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa

from umbel.scheduler.errors import UsageError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.batch_log import BatchLog, LogState
from umbel.storage.runs.segment_format import encode_segment
from umbel.storage.values.columns import booleans, floats, integers, strings, timestamps

__all__ = [
    "OUTCOME_COLUMNS",
    "OUTCOME_FORM",
    "PREDICTION_COLUMNS",
    "OutcomeLog",
    "PredictionLog",
    "is_outcome",
    "is_text",
    "write_outcomes",
]

#: What an outcome may be, for messages.
OUTCOME_FORM = "a finite number, a truth value, a text (a label), or a list of numbers for an answer of several"

_TIME = pa.timestamp("us", tz="UTC")
#: The columns of the log.
PREDICTION_COLUMNS = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("time", _TIME),
        pa.field("group", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("arm", pa.string()),
        pa.field("alias", pa.string()),
        pa.field("shadow", pa.bool_()),
        pa.field("digest", pa.string()),
        pa.field("input_digest", pa.string()),
        pa.field("inputs", pa.string()),
        pa.field("output", pa.string()),
        pa.field("output_value", pa.float64()),
        pa.field("latency_s", pa.float64()),
        pa.field("key_hash", pa.string()),
        pa.field("share", pa.float64()),
        pa.field("sampled_at", pa.float64()),
    ]
)
#: The columns of what turned out to be true.
OUTCOME_COLUMNS = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("outcome", pa.float64()),
        pa.field("outcome_json", pa.string()),
        pa.field("time", _TIME),
    ]
)


#: Outcomes that go into one object.
_ROWS_AT_ONCE = 200_000


class _Prediction(NamedTuple):
    """A row of the log, in the order of its columns; the time in seconds since the epoch."""

    request_id: str
    time: float
    group: str
    version: int
    arm: str
    alias: str | None
    shadow: bool
    digest: str | None
    input_digest: str | None
    inputs: str | None
    output: str | None
    latency_s: float | None
    key_hash: str | None
    share: float | None
    sampled_at: float


class PredictionLog:
    """Logs what one replica answers. Safe to use from several threads; `add` never waits for the store.

    A replica that is killed loses what it had not written: at most the last `max_age_s`. While the store is away, rows
    wait, up to ``max_waiting_bytes``; what is let go beyond that is counted (`state`), and the next object says so.

    Args:
        objects: the store.
        model: its name in the registry.
        replica: who writes; it stands in the objects' metadata.
        max_age_s: a row is in the store after about this long.
        max_rows: or when there are this many.
        max_waiting_bytes: about how much memory may wait.

    Raises:
        UsageError: this can't be the name of a model.
    """

    def __init__(
        self,
        objects: ObjectStore,
        model: str,
        replica: str,
        *,
        max_age_s: float = 5.0,
        max_rows: int = 10_000,
        max_waiting_bytes: int = 64 * 2**20,
    ) -> None:
        layout.check_name("model", model)
        self._log: BatchLog[_Prediction] = BatchLog(
            objects,
            lambda written, token: layout.log_object(model, "predictions", written, token),
            _prediction_table,
            metadata={"umbel.model": model, "umbel.replica": replica},
            max_age_s=max_age_s,
            max_rows=max_rows,
            max_waiting_bytes=max_waiting_bytes,
        )
        self.flush = self._log.flush
        self.close = self._log.close

    def add(
        self,
        request_id: str,
        *,
        group: str,
        version: int,
        arm: str,
        output: str | None,
        alias: str | None = None,
        shadow: bool = False,
        digest: str | None = None,
        input_digest: str | None = None,
        inputs: str | None = None,
        latency_s: float | None = None,
        key_hash: str | None = None,
        share: float | None = None,
        sampled_at: float = 1.0,
        time: float | None = None,
    ) -> None:
        """Log an answer. Cost: about 6 µs.

        Args:
            request_id: names the request; outcomes are joined by it. Each group of a batch needs one of its own.
            group: which group's model.
            version: which version of it.
            arm: the alias under which this version takes part: "champion", "challenger".
            output: the answer as JSON; one that is a single number is kept as a number, too. None: there was none.
            alias: the alias that the caller asked for.
            shadow: another answer was given; this one is for comparison.
            digest: of the model's artifact.
            input_digest: of the inputs.
            inputs: the inputs as JSON, if they are kept.
            latency_s: seconds that the model took.
            key_hash: of the caller's key, by which arms are assigned: equal for requests that share an assignment.
            share: how often this arm was to be chosen, 0 to 1; None: it was not chosen at random.
            sampled_at: the share of requests that is logged.
            time: of the answer, seconds since the epoch; None: now.
        """
        row = _Prediction(
            request_id,
            now_s() if time is None else time,
            group,
            version,
            arm,
            alias,
            shadow,
            digest,
            input_digest,
            inputs,
            output,
            latency_s,
            key_hash,
            share,
            sampled_at,
        )
        self._log.append(row, len(inputs or "") + len(output or ""))

    @property
    def state(self) -> LogState:
        """What has become of the rows."""
        return self._log.state

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _prediction_table(rows: Sequence[_Prediction]) -> pa.Table:
    columns = dict(zip(_Prediction._fields, zip(*rows, strict=True), strict=True))
    columns["output_value"] = tuple(map(_number, columns["output"]))
    makers: dict[pa.DataType, Callable[[Any], pa.Array]] = {
        pa.string(): strings,
        pa.int64(): integers,
        pa.bool_(): booleans,
        pa.float64(): floats,
        _TIME: timestamps,
    }
    arrays = [makers[field.type](columns[field.name]) for field in PREDICTION_COLUMNS]
    return pa.Table.from_arrays(arrays, schema=PREDICTION_COLUMNS)


def _number(output: str | None) -> float | None:
    """The number that a JSON text is; None: it is something else."""
    if output is None or output[:1] in ("", "[", "{", '"'):
        return None
    try:
        value = json.loads(output)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


# ---- outcomes --------------------------------------------------------------------------------------------------


class _Outcome(NamedTuple):
    request_id: str
    outcome: float | None
    outcome_json: str | None
    time: float


class OutcomeLog:
    """Records what turned out to be true, request by request or many at once. Of several outcomes of one request the
    first counts. Its bounds and its promises are those of `PredictionLog`.

    Raises:
        UsageError: this can't be the name of a model.
    """

    def __init__(
        self,
        objects: ObjectStore,
        model: str,
        *,
        max_age_s: float = 5.0,
        max_rows: int = 100_000,
        max_waiting_bytes: int = 256 * 2**20,
    ) -> None:
        layout.check_name("model", model)
        self._log: BatchLog[_Outcome] = BatchLog(
            objects,
            lambda written, token: layout.log_object(model, "outcomes", written, token),
            _outcome_table,
            metadata={"umbel.model": model},
            max_age_s=max_age_s,
            max_rows=max_rows,
            max_waiting_bytes=max_waiting_bytes,
        )
        self.flush = self._log.flush
        self.close = self._log.close

    def add(self, request_id: str, outcome: Any, *, time: float | None = None) -> None:
        """Record an outcome.

        Args:
            request_id: of the request whose answers it judges.
            outcome: a number, a truth value, a text (a label, for the loss "wrong"), or a list of numbers, or of such
                lists, for an answer of several.
            time: when it became known, seconds since the epoch; None: now.

        Raises:
            UsageError: the id is no text, or the outcome is something else, or has a number that is not finite.
        """
        row = _outcome(request_id, outcome, time)
        self._log.append(row, len(row.outcome_json or ""))

    @property
    def state(self) -> LogState:
        """What has become of the rows."""
        return self._log.state

    def __enter__(self) -> OutcomeLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write_outcomes(
    objects: ObjectStore,
    model: str,
    request_ids: Sequence[str],
    outcomes: Sequence[Any],
    times: Sequence[float | None],
) -> int:
    """Record many outcomes at once, durable on return; see `OutcomeLog.add`. None and NaN as outcomes are left out.

    Raises:
        UsageError: an id or an outcome is none; then nothing is recorded.
        StoreError: the store can't be written; a part may have been recorded, and recording all again is no harm.
    """
    layout.check_name("model", model)
    given = zip(request_ids, outcomes, times, strict=True)
    rows = [_outcome(request, value, time) for request, value, time in given if not _is_missing(value)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        data = encode_segment(_outcome_table(rows[start : start + _ROWS_AT_ONCE]), {"umbel.model": model})
        path = layout.log_object(model, "outcomes", datetime.now(UTC), uuid4().hex[:12])
        objects.create(path, data, unique=True)
    return len(rows)


def _is_missing(outcome: Any) -> bool:
    """Whether this is how tables say that there is no value."""
    return outcome is None or (isinstance(outcome, float) and math.isnan(outcome))


def _outcome(request_id: str, outcome: Any, time: float | None) -> _Outcome:
    if not isinstance(request_id, str) or not request_id or not is_text(request_id):
        raise UsageError("an outcome needs the id of its request", got=ascii(request_id)[:200], expected="a text")
    if time is not None and not math.isfinite(time):
        raise UsageError("this can't be the time of an outcome", got=time, expected="seconds since the epoch")
    return _Outcome(request_id, *_outcome_values(outcome), now_s() if time is None else time)


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON can say half of a surrogate pair alone, which can't be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _outcome_values(outcome: Any) -> tuple[float | None, str | None]:
    """An outcome as a number, or as JSON."""
    if hasattr(outcome, "tolist"):  # NumPy's numbers and arrays
        outcome = outcome.tolist()
    wrong = UsageError(
        "this can't be an outcome",
        got=ascii(outcome)[:100],
        expected=OUTCOME_FORM,
        hint="what is not known yet is recorded when it is" if outcome is None else None,
    )
    try:
        if not is_outcome(outcome):
            raise wrong
        if isinstance(outcome, (int, float)):  # a truth value counts as 0 or 1
            return float(outcome), None
        return None, json.dumps(outcome, allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise wrong from None


def is_outcome(value: Any) -> bool:
    """Whether a value that JSON can say is one that answers can be compared with; see `OutcomeLog.add`."""
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, (list, tuple)):
        return bool(value) and all(not isinstance(each, str) and is_outcome(each) for each in value)
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _outcome_table(rows: Sequence[_Outcome]) -> pa.Table:
    ids, outcomes, texts, times = zip(*rows, strict=True)
    arrays = [strings(ids), floats(outcomes), strings(texts), timestamps(times)]
    return pa.Table.from_arrays(arrays, schema=OUTCOME_COLUMNS)
