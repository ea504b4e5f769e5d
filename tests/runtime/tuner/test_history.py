"""What a trial has reported, bounded."""

from __future__ import annotations

import math

import pytest

from umbel.runtime.tuner.history import HISTORY_LIMIT, History


class TestHistory:
    def test_it_is_bounded_and_evenly_spread(self) -> None:
        history = History(3)
        for i in range(3 * HISTORY_LIMIT + 1):
            history.add({"x": float(i)})
        rows = history.all_rows()
        assert len(rows) <= HISTORY_LIMIT + 1
        assert [row["x"] for row in rows[:3]] == [0.0, 4.0, 8.0]
        assert rows[-1]["x"] == 3.0 * HISTORY_LIMIT
        course = history.courses["x"]
        assert course.score("avg", "max") == pytest.approx(1.5 * HISTORY_LIMIT)
        assert course.score("all", "max") == 3.0 * HISTORY_LIMIT
        assert math.isclose(course.score("last-10-avg", "max"), 3 * HISTORY_LIMIT - 4.5)
