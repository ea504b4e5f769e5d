"""Keys are equal for equal trials only, and the same in every process."""

from __future__ import annotations

import datetime
import doctest
import enum
import itertools
import json
import math
from collections import OrderedDict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.scheduler import identity
from umbel.scheduler.errors import SpaceError
from umbel.scheduler.identity import KEY_LENGTH, canonical_json, element_key, group_key, trial_keys

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)

scalars = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
configs = st.dictionaries(st.text(), json_values, max_size=5)


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


def _typed(value: Any) -> Any:
    """A form that Python's == compares as strictly as canonical text should; NaN is equal to itself."""
    match value:
        case dict():
            return ("dict", frozenset((key, _typed(member)) for key, member in value.items()))
        case list() | tuple():
            return ("list", tuple(_typed(member) for member in value))
        case _:
            return (type(value).__name__, repr(value))


class TestCanonicalText:
    @PROPERTY
    @given(json_values)
    def test_json_values_make_the_json_that_python_reads_back(self, value: object) -> None:
        assert _typed(json.loads(canonical_json(value))) == _typed(value)
        expected = json.dumps(value, sort_keys=True, separators=(",", ":"))
        assert len(canonical_json(value)) == len(expected)  # sorted by quoted text, so only the order may differ

    @PROPERTY
    @given(json_values, json_values)
    def test_two_values_share_a_text_only_if_they_are_the_same(self, a: object, b: object) -> None:
        assert (canonical_json(a) == canonical_json(b)) == (_typed(a) == _typed(b))

    def test_the_order_of_keys_does_not_count(self) -> None:
        assert canonical_json({"b": 1, "a": {"d": 1, "c": 2}}) == canonical_json({"a": {"c": 2, "d": 1}, "b": 1})
        assert canonical_json(OrderedDict(b=1, a=2)) == '{"a":2,"b":1}'
        assert canonical_json({3, 1, 2}) == canonical_json(frozenset([2, 3, 1])) == "<set [1,2,3]>"

    def test_values_that_python_calls_equal_are_told_apart(self) -> None:
        texts = [canonical_json(value) for value in (1, 1.0, True, "1", None, "null", b"1", Colour.RED, Level.LOW, [1])]
        assert len(set(texts)) == len(texts)
        assert len({canonical_json({key: 0}) for key in (1, "1", 1.5, True, None)}) == 5
        assert canonical_json(0.0) != canonical_json(-0.0)

    def test_no_string_looks_like_another_type(self) -> None:
        date = datetime.date(2020, 1, 1)
        for value in (b"hi", date, {1, 2}, Decimal(1), Colour.RED, {1: 2}):
            text = canonical_json(value)
            assert canonical_json(text) != text
            assert canonical_json([text]) != canonical_json([value])

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (math.nan, "NaN"),
            (-math.inf, "-Infinity"),
            (np.float64(0.1), "0.1"),
            (np.float32(0.5), "0.5"),
            (np.int8(3), "3"),
            (np.uint64(2**64 - 1), "18446744073709551615"),
            (np.bool_(True), "true"),
            (np.str_("é"), '"\\u00e9"'),
            ((1, (2,)), "[1,[2]]"),
            (b"hi", "<bytes 6869>"),
            (datetime.date(2020, 1, 2), "<date 2020-01-02>"),
            (datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), "<datetime 2020-01-02T00:00:00+00:00>"),
            (datetime.time(1, 2), "<time 01:02:00>"),
            (datetime.timedelta(1, 2, 3), "<timedelta 1 2 3>"),
            (np.datetime64("2020-01-02"), "<<M8[D] 2020-01-02>"),
            (np.timedelta64(3, "s"), "<<m8[s] 3 seconds>"),
            (Decimal("1.10"), "<decimal 1.10>"),
            ({2: "b", 1: "a"}, '{1:"a",2:"b"}'),
        ],
    )
    def test_forms(self, value: object, text: str) -> None:
        assert canonical_json(value) == text

    def test_other_types_are_refused_or_digested(self) -> None:
        with pytest.raises(SpaceError, match=r"a builtins\.object has no canonical form"):
            canonical_json({"a": [object()]})
        assert canonical_json([math.sin], lambda _: "sine") == '[<digest "sine">]'
        assert canonical_json([math.sin], lambda _: "sine") != canonical_json(['<digest "sine">'])

    def test_a_value_that_contains_itself_is_refused(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(SpaceError, match="contains itself"):
            canonical_json(loop)
        with pytest.raises(SpaceError, match="contains itself"):
            trial_keys("c", None, [{"a": loop}], [0])

    def test_group_keys(self) -> None:
        assert group_key({"horizon": np.int64(5), "country": "AUT"}) == '{"country":"AUT","horizon":5}'
        assert group_key({"year": 2020}) != group_key({"year": "2020"})


class TestTrialKeys:
    def test_pinned(self) -> None:
        """Pinned: a change here makes every stored trial run again."""
        assert trial_keys("code", "data", [{"b": 1.5, "a": "x"}], [7]) == ["026f913e63d1d2c8e13cb45d7955b70b"]
        assert trial_keys("code", None, [{}], np.array([7])) == ["2354b7f88ee3eddd77f95623d0ec34f3"]

    def test_each_part_counts(self) -> None:
        values: list[object] = [1, 1.0, True, "1", None]
        configs: list[dict[str, object]] = [{}, *({"x": value} for value in values), {"y": 1}, {"x": 1, "y": 1}]
        keys = [
            trial_keys(code, data, [config], [seed])[0]
            for code, data, config, seed in itertools.product(
                ("a", "b", "None"),
                (None, "", "a", "None", "null"),
                configs,
                (0, 1, 11),
            )
        ]
        assert len(set(keys)) == len(keys)
        assert {len(key) for key in keys} == {KEY_LENGTH}

    @PROPERTY
    @given(st.lists(configs, max_size=6))
    def test_a_batch_is_its_trials_one_by_one(self, many: list[dict[str, object]]) -> None:
        seeds = list(range(len(many)))
        one_by_one = [trial_keys("c", "d", [config], [seed])[0] for config, seed in zip(many, seeds, strict=True)]
        assert trial_keys("c", "d", many, seeds) == one_by_one
        reordered = [dict(reversed(config.items())) for config in many]
        assert trial_keys("c", "d", reordered, np.array(seeds, dtype=np.int64)) == one_by_one

    @PROPERTY
    @given(configs, configs)
    def test_two_configs_share_a_key_only_if_they_are_the_same(
        self, a: dict[str, object], b: dict[str, object]
    ) -> None:
        keys = trial_keys("c", None, [a, b], [0, 0])
        assert (keys[0] == keys[1]) == (_typed(a) == _typed(b))

    def test_names_may_hold_percent_signs_and_quotes(self) -> None:
        names = ["%s", "%d", "%%", '"', "a:b", "é", "\n"]
        keys = trial_keys("c", None, [{name: 1, "z": 2} for name in names], [0] * len(names))
        assert len(set(keys)) == len(names)

    def test_values_without_canonical_form(self) -> None:
        with pytest.raises(SpaceError, match="no canonical form"):
            trial_keys("c", None, [{"f": math.sin}], [0])
        sine, cosine = trial_keys(
            "c", None, [{"f": math.sin}, {"f": math.cos}], [0, 0], lambda value: getattr(value, "__name__", "")
        )
        assert sine != cosine

    def test_as_many_seeds_as_configs(self) -> None:
        with pytest.raises(ValueError, match="2 configs but 1 seeds"):
            trial_keys("c", None, [{}, {}], [0])


def test_element_keys() -> None:
    inputs: list[list[str]] = [[], [""], ["a"], ["a", "b"], ["b", "a"], ["ab"], ['a","b']]
    keys = [element_key(code, each) for code in ("x", "y") for each in inputs]
    assert len(set(keys)) == len(keys)
    assert element_key("code", ["data"]) == "717af1cc0f0ef450389de92e5b68c92a"


def test_docstring_examples() -> None:
    assert doctest.testmod(identity).failed == 0
