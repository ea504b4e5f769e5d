"""The best trials of each group, against all rows sorted."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.runtime.driver.selection import Fronts, Selection
from umbel.scheduler.search.pareto import Objective

TRIALS, GROUPS = 5, 4

ROW = st.tuples(
    st.sampled_from([0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf, None]),
    st.sampled_from(["ok", "ok", "ok", "pruned", "failed", "lost"]),
)


def rows_of(trials: list[int], all_rows: list[tuple[float | None, str]], *, coded: bool) -> pa.RecordBatch:
    status = pa.array([all_rows[trial][1] for trial in trials], pa.string())
    return pa.record_batch(
        {
            "metric_other": pa.array([None if trial % 2 else trial / 2 for trial in trials], pa.float64()),
            "trial": pa.array(trials, pa.int64()),
            "status": status.dictionary_encode() if coded else status,
            "metric_loss": pa.array([all_rows[trial][0] for trial in trials], pa.float64()),
            "model": pa.array([f"model {trial}" if trial % 3 else None for trial in trials], pa.string()),
        }
    )


def best_of(
    all_rows: list[tuple[float | None, str]], trials: range, mode: str, k: int
) -> list[tuple[bool, float, int]]:
    good = [
        (status == "pruned", metric, trial)
        for trial in trials
        for metric, status in [all_rows[trial]]
        if status in ("ok", "pruned") and metric is not None and math.isfinite(metric)
    ]
    return sorted(good, key=lambda each: merit(each, mode))[:k]


def merit(each: tuple[bool, float, int], mode: str) -> tuple[bool, float, int]:
    return (each[0], each[1] if mode == "min" else -each[1], each[2])


@settings(derandomize=True, deadline=None)
@given(
    st.lists(ROW, min_size=TRIALS * GROUPS, max_size=TRIALS * GROUPS),
    st.permutations(range(TRIALS * GROUPS)),
    st.lists(st.integers(0, TRIALS * GROUPS), max_size=4),
    st.sampled_from(["min", "max"]),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_order_and_any_cut_give_the_best(
    all_rows: list[tuple[float | None, str]], order: list[int], cuts: list[int], mode: str, k: int, as_tables: bool
) -> None:
    selection = Selection(TRIALS, "loss", mode, k)
    edges = [0, *sorted(cuts), len(order)]
    for start, stop in itertools.pairwise(edges):
        batch = rows_of(order[start:stop], all_rows, coded=not as_tables)
        selection.add(pa.Table.from_batches([batch.slice(0, 2), batch.slice(2)]) if as_tables else batch)
    at_once = Selection(TRIALS, "loss", mode, k)
    at_once.add(rows_of(list(range(TRIALS * GROUPS)), all_rows, coded=True))
    firsts: list[tuple[bool, float, int]] = []
    for group in range(GROUPS):
        expected = best_of(all_rows, range(group * TRIALS, (group + 1) * TRIALS), mode, k)
        found = selection.of(group)
        assert [(each.pruned, selection.value(each), each.trial) for each in found] == expected
        firsts += expected[:1]
        assert pickle.dumps(found) == pickle.dumps(at_once.of(group))  # values are known by the digests of pickles
        for candidate in found:
            others = {} if candidate.trial % 2 else {"other": candidate.trial / 2}
            assert dict(candidate.metrics) == {"loss": all_rows[candidate.trial][0], **others}
            assert candidate.model == (f"model {candidate.trial}" if candidate.trial % 3 else None)
    leader = selection.leader
    expected_leader = min(firsts, key=lambda each: merit(each, mode), default=None)
    assert (None if leader is None else (leader.pruned, selection.value(leader), leader.trial)) == expected_leader


@pytest.mark.parametrize("columns", [{"trial": []}, {"trial": [0], "status": ["ok"], "metric_other": [1.0]}])
def test_rows_without_the_metric_change_nothing(columns: dict[str, list[Any]]) -> None:
    selection = Selection(TRIALS, "loss", "min")
    selection.add(pa.table(columns))
    assert selection.of(0) == []
    assert selection.leader is None


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(ROW, st.sampled_from([0.0, 1.0, 2.0])), min_size=TRIALS * GROUPS, max_size=TRIALS * GROUPS),
    st.permutations(range(TRIALS * GROUPS)),
    st.lists(st.integers(0, TRIALS * GROUPS), max_size=4),
)
def test_pareto_sets_are_those_of_the_definition_however_rows_come(
    drawn: list[tuple[tuple[float | None, str], float]], order: list[int], cuts: list[int]
) -> None:
    rows, others = [row for row, _ in drawn], [other for _, other in drawn]
    fronts = Fronts(TRIALS, (Objective("loss", "min"), Objective("gain", "max")))
    places = [0, *sorted(cuts), len(order)]
    for start, stop in itertools.pairwise(places):
        batch = rows_of(order[start:stop], rows, coded=False)
        gain = pa.array([others[trial] for trial in order[start:stop]], pa.float64())
        fronts.add(batch.append_column("metric_gain", gain))
    for group in range(GROUPS):
        good = {
            trial: (loss, -others[trial])
            for trial in range(group * TRIALS, (group + 1) * TRIALS)
            for loss, status in [rows[trial]]
            if status == "ok" and loss is not None and math.isfinite(loss)
        }
        expected = [
            (point[0], trial)
            for trial, point in good.items()
            if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in good.values())
        ]
        assert [(fronts.value(each), each.trial) for each in fronts.of(group)] == sorted(expected)
