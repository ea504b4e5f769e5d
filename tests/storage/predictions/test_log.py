"""The log of predictions and outcomes: written by many, killed, away, twice; and joined."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.scheduler.errors import InternalError, StoreError, StoreUnavailableError, UsageError
from umbel.storage import layout
from umbel.storage.garbage import find_garbage
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.log import OutcomeLog, PredictionLog, _Outcome, _outcome_table, write_outcomes
from umbel.storage.predictions.reader import read_predictions
from umbel.storage.runs.segment_format import encode_segment
from umbel.storage.values.columns import python_rows

START = datetime(2026, 1, 2, 23, 59, tzinfo=UTC).timestamp()


def add(log: PredictionLog, request: str, output: Any = 1.5, **more: Any) -> None:
    given = {"group": "DEU", "version": 1, "arm": "champion", "time": START, "output": json.dumps(output)}
    log.add(request, **{**given, **more})


def read(objects: ObjectStore, since: datetime | None = None) -> list[dict[str, Any]]:
    return python_rows(read_predictions(objects, "gdp", since))


def test_a_row_says_everything(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1") as log, OutcomeLog(objects, "gdp") as outcomes:
        log.add(
            "q1",
            group="DEU",
            version=3,
            arm="challenger",
            output="2.5",
            alias="champion",
            digest="d" * 64,
            input_digest="i" * 64,
            inputs='{"x": 1}',
            latency_s=0.25,
            key_hash="k",
            share=0.1,
            sampled_at=0.5,
            time=START,
        )
        outcomes.add("q1", 3.5, time=START + 60)
    assert read(objects) == [
        {
            "request_id": "q1",
            "time": datetime.fromtimestamp(START, UTC),
            "group": "DEU",
            "version": 3,
            "arm": "challenger",
            "alias": "champion",
            "shadow": False,
            "digest": "d" * 64,
            "input_digest": "i" * 64,
            "inputs": '{"x": 1}',
            "output": "2.5",
            "output_value": 2.5,
            "latency_s": 0.25,
            "key_hash": "k",
            "share": 0.1,
            "sampled_at": 0.5,
            "outcome": 3.5,
            "outcome_json": None,
            "outcome_time": datetime.fromtimestamp(START + 60, UTC),
        }
    ]


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        ([1, 2], None),
        ({"a": 1}, None),
        ("1", None),
        (True, None),
        (None, None),
        (10**400, None),
    ],
)
def test_an_output_that_is_one_number_is_kept_as_one(objects: ObjectStore, output: Any, value: float | None) -> None:
    with PredictionLog(objects, "gdp", "r1") as log:
        add(log, "q", output)
    assert read(objects)[0]["output_value"] == value


def test_an_empty_log(objects: ObjectStore) -> None:
    assert read(objects) == []
    PredictionLog(objects, "gdp", "r1").close()
    assert objects.list(recursive=True) == []
    table = read_predictions(objects, "gdp")
    assert table.column_names[:2] == ["request_id", "time"]
    assert table.column_names[-3:] == ["outcome", "outcome_json", "outcome_time"]


def test_names_that_could_leave_the_folder(objects: ObjectStore) -> None:
    for name in ("../x", "a/b", ""):
        with pytest.raises(UsageError, match="name of a model"):
            PredictionLog(objects, name, "r1")
        with pytest.raises(UsageError, match="name of a model"):
            read_predictions(objects, name)


def test_duplicates_count_once_and_shadows_apart(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1") as one, PredictionLog(objects, "gdp", "r2") as two:
        add(one, "a", 1.0)
        add(two, "a", 2.0, time=START + 1)  # the caller asked again, with the same id
        add(two, "a", 3.0, version=2, arm="challenger", shadow=True)
        add(two, "a", 4.0, version=2, arm="challenger", shadow=True, time=START + 1)
        add(two, "a", 5.0, version=3, arm="third", shadow=True)
        add(two, "a", 6.0, group="FRA")
    found = {(row["group"], row["version"], row["shadow"]): row["output_value"] for row in read(objects)}
    assert found == {
        ("DEU", 1, False): 1.0,
        ("DEU", 2, True): 3.0,
        ("DEU", 3, True): 5.0,
        ("FRA", 1, False): 6.0,
    }


def test_the_first_outcome_counts_and_may_come_before_the_answer_is_in_the_store(objects: ObjectStore) -> None:
    with OutcomeLog(objects, "gdp") as log:
        log.add("a", 2.0, time=START + 20)
        log.add("a", 1.0, time=START + 10)
        log.add("b", [1, 2.5], time=START + 10)
        log.add("nobody", 1.0)
    with PredictionLog(objects, "gdp", "r1") as predictions:
        for request in ("a", "b", "c"):
            add(predictions, request)
    found = {row["request_id"]: (row["outcome"], row["outcome_json"]) for row in read(objects)}
    assert found == {"a": (1.0, None), "b": (None, "[1, 2.5]"), "c": (None, None)}


def test_outcomes_that_are_none(objects: ObjectStore) -> None:
    with OutcomeLog(objects, "gdp") as log:
        with pytest.raises(UsageError, match="id of its request"):
            log.add("", 1.0)
        with pytest.raises(UsageError, match="can't be an outcome"):
            log.add("a", object())


def test_since(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1") as log:
        for minutes in range(4):
            add(log, str(minutes), time=START + 60 * minutes)
    moment = datetime.fromtimestamp(START + 120, UTC)
    assert [row["request_id"] for row in read(objects, moment)] == ["2", "3"]
    assert [row["request_id"] for row in read(objects, moment.replace(tzinfo=None))] == ["2", "3"]
    assert read(objects, datetime.now(UTC) + timedelta(days=2)) == []


def test_rows_come_in_batches(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1", max_rows=100, max_age_s=3600) as log:
        for i in range(250):
            add(log, str(i))
        log.flush()
        assert log.state.written == 250
        assert log.state.waiting == 0
    assert len(objects.list("registry", recursive=True)) <= 4
    assert len(read(objects)) == 250


def test_rows_are_written_when_they_are_old(objects: ObjectStore, eventually: Callable[..., None]) -> None:
    with PredictionLog(objects, "gdp", "r1", max_age_s=0.01) as log:
        add(log, "a")
        eventually(lambda: log.state.written == 1)


@pytest.fixture
def eventually() -> Callable[..., None]:
    import time

    def wait(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    return wait


class Away:
    """Makes a store fail as long as ``away`` is set."""

    def __init__(self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = True
        create = objects.create

        def failing(path: str, data: bytes | memoryview, *, unique: bool = False) -> None:
            if self.away:
                raise StoreUnavailableError("the store is away")
            create(path, data, unique=unique)

        monkeypatch.setattr(objects, "create", failing)


def test_a_store_that_is_away_loses_nothing(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Away(objects, monkeypatch)
    with PredictionLog(objects, "gdp", "r1", max_age_s=3600, max_rows=10) as log:
        for i in range(25):
            add(log, str(i), time=START + i)
        with pytest.raises(StoreUnavailableError, match="away"):
            log.flush()
        assert (log.state.written, log.state.waiting, log.state.dropped) == (0, 25, 0)
        assert "away" in (log.state.error or "")
        store.away = False
        log.flush()
        assert log.state.error is None
    assert [row["request_id"] for row in read(objects)] == [str(i) for i in range(25)]


def test_beyond_the_bound_the_oldest_go_and_are_counted(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Away(objects, monkeypatch)
    with PredictionLog(objects, "gdp", "r1", max_age_s=3600, max_waiting_bytes=20 * 1024) as log:
        for i in range(100):
            add(log, f"{i:03}", "x" * 500, time=START + i)
        assert log.state.dropped > 50
        with pytest.raises(StoreError):
            log.flush()
        dropped = log.state.dropped
        store.away = False
    assert log.state.dropped == dropped
    table = read_predictions(objects, "gdp")
    assert len(table) + dropped == 100
    assert table["request_id"].to_pylist()[-1] == "099"
    assert table.schema.metadata[b"umbel.dropped"] == str(dropped).encode()


def test_what_could_not_be_written_at_the_end_is_warned_of(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(objects, monkeypatch)
    log = PredictionLog(objects, "gdp", "r1", max_age_s=3600)
    add(log, "a")
    with pytest.warns(UserWarning, match="1 rows of a log could not be written"):
        log.close()
    assert log.state.dropped == 1


def test_a_row_that_is_no_row_takes_no_others_along(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1", max_age_s=3600) as log:
        for request in ("a", "\ud800", "b"):
            add(log, request)
        with pytest.raises(InternalError, match="can't be made a table"):
            log.flush()
        assert (log.state.written, log.state.dropped) == (2, 1)
    assert [row["request_id"] for row in read(objects)] == ["a", "b"]


def test_a_bad_row_at_the_end_loses_no_batch_behind_it(objects: ObjectStore) -> None:
    log = PredictionLog(objects, "gdp", "r1", max_age_s=3600, max_rows=2)
    with log._log._changed:  # nothing is written before all is there
        for request in ("\ud800", "a", "b", "c"):
            add(log, request)
        log._log._closing = True
    with pytest.warns(UserWarning, match="1 rows of a log"):
        log.close()
    assert [row["request_id"] for row in read(objects)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "outcome",
    [
        *(None, float("nan"), float("inf"), 10**400, [1.0, float("nan")], np.float64("inf"), {1, 2}),
        *({"a": 1}, [], ["high"], [1, None], [{"a": 1}], "\ud800"),
    ],
)
def test_what_is_no_outcome_is_refused(objects: ObjectStore, outcome: Any) -> None:
    with OutcomeLog(objects, "gdp") as log, pytest.raises(UsageError, match="can't be an outcome"):
        log.add("a", outcome)
    assert objects.list(recursive=True) == []


def test_numbers_labels_and_lists_are_outcomes(objects: ObjectStore) -> None:
    given = {"a": True, "b": "high", "c": [1, 2.5], "d": [[1.0], [2.0]], "e": np.arange(2), "f": 3}
    with OutcomeLog(objects, "gdp") as log, PredictionLog(objects, "gdp", "r1") as predictions:
        for request, outcome in given.items():
            log.add(request, outcome)
            add(predictions, request)
    found = {row["request_id"]: row["outcome_json"] or row["outcome"] for row in read(objects)}
    assert found == {"a": 1.0, "b": '"high"', "c": "[1, 2.5]", "d": "[[1.0], [2.0]]", "e": "[0, 1]", "f": 3.0}


def test_ids_that_are_no_text_are_refused(objects: ObjectStore) -> None:
    with OutcomeLog(objects, "gdp") as log:
        for request in ("\ud800", ""):
            with pytest.raises(UsageError, match="id of its request"):
                log.add(request, 1.0)
        with pytest.raises(UsageError, match="time of an outcome"):
            log.add("a", 1.0, time=float("nan"))


def test_tables_may_have_outcomes_that_are_not_known(objects: ObjectStore) -> None:
    count = write_outcomes(objects, "gdp", ["a", "b", "c"], [None, float("nan"), 1.0], [START] * 3)
    assert count == 1


def test_an_outcome_that_says_nothing_does_not_hide_a_later_one(objects: ObjectStore) -> None:
    nothing = [_Outcome("a", None, None, START), _Outcome("b", float("nan"), None, START)]
    objects.create(
        layout.log_object("gdp", "outcomes", datetime.now(UTC), "older"), encode_segment(_outcome_table(nothing), {})
    )
    with OutcomeLog(objects, "gdp") as log, PredictionLog(objects, "gdp", "r1") as predictions:
        for request in ("a", "b"):
            add(predictions, request)
            log.add(request, 2.0, time=START + 60)
    assert [row["outcome"] for row in read(objects)] == [2.0, 2.0]


def test_a_row_that_is_no_row_does_not_end_the_log(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1", max_age_s=3600) as log:
        add(log, "a", version="one")
        with pytest.raises(InternalError, match="can't be made a table"):
            log.flush()
        add(log, "b")
    assert [row["request_id"] for row in read(objects)] == ["b"]
    assert log.state.dropped == 1


def test_damaged_objects_are_left_out(objects: ObjectStore, tmp_path: Path) -> None:
    for request in ("a", "b"):
        with PredictionLog(objects, "gdp", "r1") as log:
            add(log, request)
    first = Path(objects.full_path(objects.list("registry", recursive=True)[0]))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.chmod(0o644)
    first.write_bytes(data)
    with pytest.warns(UserWarning, match="left out"):
        assert len(read(objects)) == 1


def test_gc_leaves_logs(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r1") as log, OutcomeLog(objects, "gdp") as outcomes:
        add(log, "a", digest="0" * 64)
        outcomes.add("a", 1.0)
    found = find_garbage(objects, grace=timedelta(0), now=datetime.now(UTC) + timedelta(days=9))
    assert found.items == ()
    assert found.unreadable == ()


KILLED = """
import sys, time
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.log import PredictionLog
log = PredictionLog(ObjectStore.open(sys.argv[1]), "gdp", "r1", max_age_s=3600)
for i in range(1000):
    log.add(str(i), group="DEU", version=1, arm="champion", output="1")
    if i == 599:
        log.flush()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.ray
def test_a_killed_replica_loses_only_what_it_had_not_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read(ObjectStore.open(store))) == 600


@settings(max_examples=40, deadline=None)
@given(
    answers=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans(), st.integers(0, 9)), max_size=30),
    truths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 9)), max_size=12),
)
def test_joins_are_those_of_a_dictionary(
    answers: list[tuple[int, int, bool, int]], truths: list[tuple[int, int, int]]
) -> None:
    objects = ObjectStore.open(f"memory://{os.urandom(8).hex()}")
    expected: dict[tuple[str, int | None], tuple[float, float | None]] = {}
    with PredictionLog(objects, "gdp", "r1") as log, OutcomeLog(objects, "gdp") as outcomes:
        for place, (request, version, shadow, value) in enumerate(answers):
            add(log, str(request), value, version=version, shadow=shadow, time=START + place)
        for request, value, seconds in truths:
            outcomes.add(str(request), value, time=START + seconds)
    first: dict[str, float] = {}
    for request, value, _ in sorted(truths, key=lambda truth: truth[2]):
        first.setdefault(str(request), float(value))
    for request, version, shadow, value in answers:
        key = (str(request), version if shadow else None)
        expected.setdefault(key, (float(value), first.get(str(request))))
    found = {
        (row["request_id"], row["version"] if row["shadow"] else None): (row["output_value"], row["outcome"])
        for row in read(objects)
    }
    assert found == expected
