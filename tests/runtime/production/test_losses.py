"""How wrong an answer was, by each loss; and what can't be compared."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.storage.conftest import record as record  # noqa: PLC0414 - a fixture
from umbel.runtime.production.losses import find_loss


def _rows(output: Any, outcome: Any) -> pa.Table:
    def number(value: Any) -> float | None:
        return value if isinstance(value, float) else None

    text = None if isinstance(outcome, float) or outcome is None else json.dumps(outcome)
    return pa.table(
        {
            "output": pa.array([json.dumps(output)], pa.string()),
            "output_value": pa.array([number(output)], pa.float64()),
            "outcome": pa.array([number(outcome)], pa.float64()),
            "outcome_json": pa.array([text], pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("loss", "output", "outcome", "expected"),
    [
        ("squared", 3.0, 1.0, 4.0),
        ("absolute", 3.0, 1.0, 2.0),
        ("percentage", 3.0, 2.0, 0.5),
        ("percentage", 3.0, 0.0, math.inf),
        ("wrong", 3.0, 3.0, 0.0),
        ("wrong", 3.0, 2.0, 1.0),
        ("wrong", "cat", "dog", 1.0),
        ("wrong", "cat", "cat", 0.0),
        ("wrong", math.nan, 1.0, math.nan),
        ("log", 0.5, 1.0, math.log(2)),
        ("log", 0.0, 1.0, -math.log(1e-15)),
        ("log", 1.5, 1.0, math.nan),
        ("pinball:0.9", 1.0, 3.0, 1.8),
        ("pinball:0.9", 3.0, 1.0, 0.2),
        ("squared", [1.0, 2.0], [1.0, 4.0], 2.0),
        ("squared", [[1.0], [2.0]], [1.0, 4.0], 2.0),
        ("squared", [3.0], 1.0, 4.0),
        ("squared", [1.0, 2.0], [1.0], math.nan),
        ("squared", "cat", 1.0, math.nan),
        ("squared", {"a": 1}, 1.0, math.nan),
        ("squared", None, 1.0, math.nan),
    ],
)
def test_losses(loss: str, output: Any, outcome: Any, expected: float) -> None:
    values, judged = find_loss(loss).of(_rows(output, outcome))
    assert judged.tolist() == [True]
    assert values.tolist() == [pytest.approx(expected, nan_ok=True)]


def test_no_outcome_no_loss() -> None:
    values, judged = find_loss("squared").of(_rows(1.0, None))
    assert (judged.tolist(), np.isnan(values).tolist()) == ([False], [True])


@pytest.mark.parametrize(("loss", "outcome"), [("squared", "high"), ("squared", {"a": 1}), ("wrong", [1.0, None])])
def test_an_outcome_that_no_answer_could_be_compared_with_is_none(loss: str, outcome: Any) -> None:
    for answer in (1.0, "high", None):
        values, judged = find_loss(loss).of(_rows(answer, outcome))
        assert (judged.tolist(), np.isnan(values).tolist()) == ([False], [True])
