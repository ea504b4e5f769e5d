"""In what values differ, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from umbel.runtime.answers.value_changes import describe_change, distance

TABLE = pa.table({"country": ["AUT", "BRA"], "value": [1.0, 2.0], "year": [1, 2]})


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (1.5, 2.5, ["1.5 → 2.5"]),
        ("a", 1, ["a str became a int"]),
        ([1, 2], [1, 2, 3], ["2 items became 3"]),
        (["a", "b"], ["a", "c"], ["1 of 2 items differ (at 1: 'b' → 'c')"]),
        ({"a": 1, "b": [1.0]}, {"b": [3.0], "c": 1}, ["keys gone: 'a'", "keys new: 'c'", "'b': 1 of 1 items differ"]),
        (np.zeros((2, 2)), np.zeros((3, 2)), ["shape (2, 2) became (3, 2)"]),
        (np.zeros(2), np.zeros(2, np.float32), ["float64 became float32"]),
        (np.array([1.0, np.nan]), np.array([1.5, np.nan]), ["1 of 2 values differ, largest difference 0.5"]),
        (TABLE, TABLE.set_column(1, "value", pa.array([1.0, 5.0])), ["column value: 1 of 2 values differ"]),
        (TABLE, TABLE.slice(1), ["2 rows became 1", "column country", "column value: mean 1.5 → 2", "column year"]),
        (TABLE, TABLE.drop_columns(["year"]), ["columns gone: year"]),
        (TABLE, TABLE.append_column("new", pa.array([1, 2])), ["columns new: new"]),
        (TABLE, TABLE.set_column(2, "year", pa.array(["1", "2"])), ["column year: int64 became string"]),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]}), ["column a: 1 of 2 values differ"]),
        (pd.Series([1, 2]), pd.Series([1, 3]), ["column value: 1 of 2 values differ"]),
        ([float("nan")], [float("nan")], ["the values look the same"]),
    ],
)
def test_what_differs(before: Any, after: Any, wanted: list[str]) -> None:
    found = describe_change(before, after)
    assert len(found) == len(wanted)
    for line, start in zip(found, wanted, strict=True):
        assert line.startswith(start)


@dataclass
class Series:
    values: np.ndarray
    name: str = "a"


def test_objects_by_their_attributes() -> None:
    before, after = Series(np.zeros(3)), Series(np.array([0.0, 2.0, 0.0]), "b")
    assert describe_change(before, after) == [
        "'values': 1 of 3 values differ, largest difference 2 (at 1: 0 → 2)",
        "'name': 'a' → 'b'",
    ]
    assert describe_change([before, before], [before, after])[0].startswith("1 of 2 items differ")
    nested = {"a": {"x": np.zeros(2)}}
    assert describe_change(nested, {"a": {"x": np.ones(2)}})[0].startswith("'a': 'x': 2 of 2 values differ")
    copied = cloudpickle.loads(cloudpickle.dumps(Series))
    assert describe_change(before, copied(np.zeros(3))) == ["the values look the same, but their content differs"]


def test_objects_that_can_not_be_compared() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    assert describe_change(Odd(), Odd()) == ["can't be compared: RuntimeError"]


def test_distances_put_the_farthest_first() -> None:
    before = Series(np.array([1.0, 2.0]))
    near, far = Series(np.array([1.0, 2.001])), Series(np.array([9.0, 2.0]))
    assert 0 == distance(before, before) < distance(before, near) < distance(before, far)
    assert distance([1, 2], [1, 2, 3]) == 1
    assert distance({"a": 1}, {"a": 1, "b": 2}) == 1
    assert distance(TABLE, TABLE.set_column(1, "value", pa.array([1.0, 5.0]))) == 2
    assert distance("a", 1) == distance("a", "b") == 1
    assert 0 < distance(pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})) < 2


def test_many_columns_are_counted() -> None:
    before = pa.table({f"c{i}": [i] for i in range(10)})
    after = pa.table({f"c{i}": [i + 1] for i in range(10)})
    found = describe_change(before, after)
    assert len(found) == 7
    assert found[-1] == "and 4 more columns differ"
