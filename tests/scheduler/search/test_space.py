"""Domains keep their bounds, grains and types; spaces keep their names apart."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler.sample_spaces import FLAT, NESTED, PROPERTY, listed
from umbel.scheduler.errors import SpaceError
from umbel.scheduler.search.domains import Choice, Constant, Domain, Grid
from umbel.scheduler.search.numeric import Integer, LogInteger, LogUniform, Normal, Stepped, Uniform
from umbel.scheduler.search.space import Space

#: Shares at the ends, where rounding errors would leave the bounds, and between.
ENDS = np.array([2.0**-53, 1 - 2.0**-53])
EVEN = (np.arange(20_000) + 0.5) / 20_000

finite = st.floats(-1e12, 1e12)
positive = st.floats(1e-12, 1e12)
grains = st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.0, 7.0, 1e-3])


def _values(domain: Domain, u: np.ndarray[Any, np.dtype[np.float64]] = EVEN) -> list[Any]:
    return listed(domain.from_uniform(np.concatenate([ENDS, u])))


def _all(domain: Domain) -> list[Any]:
    assert domain.count is not None
    return listed(domain.from_index(np.arange(domain.count)))


def _counted(domain: Domain) -> dict[Any, int]:
    """How often each value comes up among 20,000 evenly spaced shares."""
    return dict(sorted(Counter(listed(domain.from_uniform(EVEN))).items()))


class TestBounds:
    @PROPERTY
    @given(finite, finite)
    def test_uniform(self, a: float, b: float) -> None:
        low, high = sorted((a, b))
        values = _values(Uniform(low, high), EVEN[::100])
        assert all(low <= value <= high and type(value) is float for value in values)

    @PROPERTY
    @given(positive, positive)
    def test_log_uniform(self, a: float, b: float) -> None:
        low, high = sorted((a, b))
        values = _values(LogUniform(low, high), EVEN[::100])
        assert all(low <= value <= high for value in values)

    @PROPERTY
    @given(st.integers(-1000, 1000), st.integers(0, 50), grains, st.booleans())
    def test_quantized_floats_lie_on_the_grain_and_reach_both_bounds(
        self, first: int, steps: int, q: float, log: bool
    ) -> None:
        first = abs(first) + 1 if log else first
        low, high = first * q, (first + steps) * q
        domain = LogUniform(low, high, q) if log else Uniform(low, high, q)
        values = _values(domain, EVEN[::100])
        assert {low, high} <= set(values)
        assert all(low <= value <= high for value in values)
        assert all(math.isclose(value / q, round(value / q), abs_tol=1e-9) for value in values)
        assert domain.count == steps + 1
        assert set(values) <= set(_all(domain))

    @PROPERTY
    @given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**62), st.integers(1, 1000))
    def test_integer(self, low: int, width: int, step: int) -> None:
        high = min(low + width, 2**63 - 1)
        if low == high:
            return
        values = _values(Integer(low, high, step), EVEN[::100])
        assert all(low <= value < high and (value - low) % step == 0 and type(value) is int for value in values)
        assert values[0] == low or high - low > 2**52

    @PROPERTY
    @given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 50))
    def test_log_integer(self, first: int, width: int, step: int) -> None:
        low, high = first * step, first * step + width
        values = _values(LogInteger(low, high, step), EVEN[::100])
        assert all(low <= value < high and value % step == 0 for value in values)
        assert values[0] == low
        assert values[1] == (high - 1) // step * step

    def test_the_ends_of_the_float_range(self) -> None:
        assert _values(LogUniform(5e-324, 1.79e308))[1] <= 1.79e308
        assert _values(LogUniform(5e-324, 1.79e308))[0] >= 5e-324
        assert _values(Uniform(3.5, 3.5), EVEN[:3]) == [3.5] * 5
        assert _values(Integer(-(2**62), 2**62 - 1))[1] < 2**62 - 1
        assert _values(LogInteger(2**53 - 2, 2**53))[1] < 2**53


class TestShapes:
    """The share of the values below x is what the distribution says, on evenly spaced shares, exactly countable."""

    def test_uniform(self) -> None:
        assert np.mean(Uniform(-2, 6).from_uniform(EVEN) < 0) == pytest.approx(0.25, abs=1e-4)

    def test_log_uniform(self) -> None:
        values = LogUniform(1e-4, 1e2).from_uniform(EVEN)
        for power in range(-4, 3):
            assert np.mean(values < 10.0**power) == pytest.approx((power + 4) / 6, abs=1e-4)

    def test_normal(self) -> None:
        values = Normal(10, 3).from_uniform(EVEN)
        assert values.mean() == pytest.approx(10, abs=1e-3)
        assert values.std() == pytest.approx(3, abs=1e-2)
        assert np.mean(values < 13) == pytest.approx(0.8413447, abs=1e-4)

    def test_quantized_normal(self) -> None:
        values = Normal(0, 1, 0.5).from_uniform(EVEN)
        assert set(np.unique(values * 2) % 1) == {0.0}
        assert np.mean(values == 0) == pytest.approx(0.1974127, abs=1e-4)  # P(|Z| < 1/4)
        assert not any(math.copysign(1, value) < 0 for value in values if value == 0)

    def test_quantized_bounds_are_half_as_likely_as_in_tune(self) -> None:
        assert _counted(Uniform(0, 1, 0.25)) == {0: 2500, 0.25: 5000, 0.5: 5000, 0.75: 5000, 1: 2500}

    def test_stepped_values_are_all_as_likely(self) -> None:
        assert _counted(Stepped(0.5, 3.0, 1)) == pytest.approx(dict.fromkeys([0.5, 1.5, 2.5], 20_000 / 3), abs=1)
        assert _all(Stepped(0.1, 0.4, 0.1))[-1] == 0.4
        assert len(_all(Stepped(0, 0, 5))) == 1

    def test_integers_are_all_as_likely(self) -> None:
        assert _counted(Integer(3, 12, 2)) == dict.fromkeys([3, 5, 7, 9, 11], 4000)
        assert _all(Integer(3, 12, 2)) == [3, 5, 7, 9, 11]

    def test_log_integers(self) -> None:
        expected = {k: len(EVEN) * math.log((k + 1) / k, 8) for k in range(1, 8)}
        assert _counted(LogInteger(1, 8)) == pytest.approx(expected, abs=2)
        assert _all(LogInteger(1, 8)) == [1, 2, 3, 4, 5, 6, 7]

    def test_choices_are_all_as_likely(self) -> None:
        column = Choice(["a", None, "a", 3]).from_uniform(EVEN)
        assert isinstance(column, list)
        assert [column.count(value) for value in ("a", None, 3)] == [10_000, 5000, 5000]


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([1, 2], np.int64),
            ([1.0, 2.5], np.float64),
            ([True, False], np.bool_),
            (np.linspace(0, 1, 3), np.float64),
            (range(4), np.int64),
            ([np.int32(1), 2], np.int64),
        ],
    )
    def test_values_of_one_type_make_a_typed_column(self, values: Any, dtype: type) -> None:
        column = Choice(values).from_uniform(EVEN)
        assert isinstance(column, np.ndarray)
        assert column.dtype == dtype

    @pytest.mark.parametrize("values", [[1, 1.0, True, "1"], [None], ["a"], [2**70], [1, None], [[1], [2]]])
    def test_other_values_make_a_list_and_keep_their_types(self, values: list[object]) -> None:
        column = Choice(tuple(values)).from_index(np.arange(len(values)))
        assert isinstance(column, list)
        assert [(type(value), value) for value in column] == [(type(value), value) for value in values]

    def test_numpy_scalars_become_python_scalars_at_any_depth(self) -> None:
        domain = Choice(([np.int64(1)], (np.float32(0.5),), {"a": np.bool_(True)}, np.str_("x")))
        assert domain.values == ([1], (0.5,), {"a": True}, "x")
        assert type(domain.values[0][0]) is int
        assert type(domain.values[3]) is str
        assert type(Constant(np.float64(1)).value) is float
        assert type(Uniform(np.float32(0), 1).low) is float  # type: ignore[arg-type]
        assert type(Integer(np.int8(0), 5).low) is int  # type: ignore[arg-type]

    def test_constants_repeat(self) -> None:
        assert _values(Constant(True), EVEN[:2]) == [True] * 4
        assert _values(Constant({"a": 1}), EVEN[:1]) == [{"a": 1}] * 3
        assert Constant(3).from_index(np.zeros(0, dtype=np.int64)).__class__ is np.ndarray

    def test_continuous_domains_have_no_grid(self) -> None:
        for domain in (Uniform(0, 1), LogUniform(1, 2), Normal(0, 1, 0.5)):
            assert domain.count is None
            with pytest.raises(TypeError):
                domain.from_index(np.arange(1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Uniform(2, 1), "low is above high"),
        (lambda: Uniform(0, math.inf), "high is not a finite number"),
        (lambda: Uniform(math.nan, 1), "low is not a finite number"),
        (lambda: Uniform("0", 1), "low is not a finite number"),  # type: ignore[arg-type]
        (lambda: Uniform(False, 1), "low is not a finite number"),
        (lambda: Uniform(0, 10**400), "high is not a finite number"),
        (lambda: Uniform(-1.7e308, 1.7e308), "too wide"),
        (lambda: Uniform(0, 1, 0), "q is not positive"),
        (lambda: Uniform(0, 1, 0.3), "high is not a multiple of q"),
        (lambda: Uniform(0.1, 0.9, 0.3), "low is not a multiple of q"),
        (lambda: Uniform(0, 1, 1e-300), "q is too small"),
        (lambda: LogUniform(0, 1), "low is not positive"),
        (lambda: Stepped(0, 1, 0), "step is not positive"),
        (lambda: Stepped(0, 1, 1e-200), "step is too small"),
        (lambda: Normal(0, 0), "sd is not positive"),
        (lambda: Normal(0, 1e308), "don't fit floats"),
        (lambda: Normal(0, 1, -1), "q is not positive"),
        (lambda: Integer(1, 1), "the range is empty"),
        (lambda: Integer(1.5, 3), "low is not an integer"),  # type: ignore[arg-type]
        (lambda: Integer(True, 3), "low is not an integer"),
        (lambda: Integer(0, 2**64), "high does not fit 64 bits"),
        (lambda: Integer(-(2**63), 2**63 - 1), "too wide"),
        (lambda: Integer(0, 5, 0), "step is not positive"),
        (lambda: LogInteger(0, 5), "low is not positive"),
        (lambda: LogInteger(3, 9, 2), "low is not a multiple of step"),
        (lambda: LogInteger(1, 2**60), "high is too large"),
        (lambda: Choice([]), "there are no values"),
        (lambda: Choice("abc"), "not in a list"),
        (lambda: Choice({"a": 1}), "not in a list"),  # type: ignore[arg-type]
        (lambda: Choice({1, 2}), "not in a list"),  # type: ignore[arg-type]
        (lambda: Grid(3), "not in a list"),  # type: ignore[arg-type]
    ],
)
def test_domains_refuse_what_they_cannot_be(make: Any, says: str) -> None:
    with pytest.raises(SpaceError, match=says) as caught:
        make()
    assert caught.value.got is not None
    assert caught.value.expected is not None


class TestSpace:
    def test_columns_follow_the_nesting(self) -> None:
        space = Space.from_nested({"lr": Uniform(0, 1), "model": {"lags": Integer(1, 9), "opt": {"x": Constant(1)}}})
        assert space.column_names == ("lr", "model_lags", "model_opt_x")
        assert [path for path, _ in space.dimensions] == [("lr",), ("model", "lags"), ("model", "opt", "x")]

    def test_column_names_need_no_quoting(self) -> None:
        assert Space.from_nested({"model/learning-rate.x": Uniform(0, 1)}).column_names == ("model_learning_rate_x",)

    def test_an_empty_nested_dict_is_kept(self) -> None:
        assert Space.from_nested({"options": {}}).dimensions == ((("options",), Constant({})),)

    @pytest.mark.parametrize(
        "tree",
        [
            {"a_b": Constant(1), "a": {"b": Constant(2)}},
            {"a": Constant(1), "A": Constant(2)},
            {"a-b": Constant(1), "a.b": Constant(2)},
        ],
    )
    def test_names_that_would_share_a_column_are_refused(self, tree: dict[str, object]) -> None:
        with pytest.raises(SpaceError, match="share one column"):
            Space.from_nested(tree)

    @pytest.mark.parametrize("tree", [{3: Constant(1)}, {"a": {None: Constant(1)}}, {"": Constant(1)}, {3: {}}])
    def test_names_must_be_strings(self, tree: dict[str, object]) -> None:
        with pytest.raises(SpaceError, match="not a non-empty string"):
            Space.from_nested(tree)

    def test_a_name_without_ascii_letters_has_no_column(self) -> None:
        with pytest.raises(SpaceError, match="can't become a column name"):
            Space.from_nested({"λ": Constant(1)})

    def test_an_empty_space_is_refused(self) -> None:
        with pytest.raises(SpaceError, match="the search space is empty"):
            Space.from_nested({})

    def test_a_dimension_can_not_hold_dimensions(self) -> None:
        with pytest.raises(SpaceError, match="holds dimensions too"):
            Space(((("a",), Constant(1)), (("a", "b"), Constant(1))))

    def test_what_is_no_domain_is_named(self) -> None:
        with pytest.raises(SpaceError, match=r"dimension 'a\.b': not a domain"):
            Space.from_nested({"a": {"b": 3}})
        with pytest.raises(SpaceError, match="dimension 'a': not a domain"):
            Space(((("a",), 3),))  # type: ignore[arg-type]

    def test_grid_size_is_the_product(self) -> None:
        space = Space.from_nested(
            {
                "a": Grid((1, 2, 3)),
                "b": Constant(0),
                "c": Uniform(0, 1, 0.1),
                "d": Integer(0, 2**40),
                "e": LogInteger(2, 9, 2),
                "f": Stepped(0, 1, 0.5),
            }
        )
        assert space.grid_size() == 3 * 11 * 2**40 * 4 * 3

    def test_a_grid_over_a_continuous_domain_is_refused_by_name(self) -> None:
        with pytest.raises(SpaceError, match=r"grid over a continuous domain\n.*'model\.alpha'"):
            Space.from_nested({"model": {"alpha": LogUniform(1, 2)}}).grid_size()

    @pytest.mark.parametrize("tree", [{"a": Grid((1, 2)), "b": {"c": LogUniform(1, 2, 0.5)}}, FLAT, NESTED])
    def test_spaces_pickle(self, tree: dict[str, Any]) -> None:
        space = Space.from_nested(tree)
        again = pickle.loads(pickle.dumps(space))
        assert again == space
        assert again.column_names == space.column_names


class TestDescription:
    def test_it_survives_json(self) -> None:
        space = Space.from_nested(
            {"a": Choice([1, 1.0, True, "1", None, math.nan]), "b": Uniform(0, 1, 0.1), "c": {"d": Integer(1, 3)}}
        )
        described = space.describe()
        assert json.loads(json.dumps(described)) == described
        assert described == {
            "dimensions": [
                {"path": ["a"], "kind": "Choice", "values": ["1", "1.0", "true", '"1"', "null", "NaN"]},
                {"path": ["b"], "kind": "Uniform", "low": 0.0, "high": 1.0, "q": 0.1},
                {"path": ["c", "d"], "kind": "Integer", "low": 1, "high": 3, "step": 1},
            ]
        }

    def test_spaces_differ_where_their_descriptions_do(self) -> None:
        domains: list[Domain] = [
            Uniform(0, 1),
            Uniform(0, 1, 0.5),
            Stepped(0, 1, 0.5),
            LogUniform(1, 2),
            Normal(0, 1),
            Integer(1, 2),
            LogInteger(1, 2),
            Choice((1,)),
            Choice((1.0,)),
            Choice((True,)),
            Choice(("1",)),
            Grid((1,)),
            Constant(1),
            Constant(True),
            Constant([1]),
        ]
        texts = {json.dumps(Space.from_nested({"x": domain}).describe()) for domain in domains}
        assert len(texts) == len(domains)

    def test_values_without_canonical_form_need_a_digest(self) -> None:
        space = Space.from_nested({"model": {"loss": Choice((math.sin, math.cos))}})
        with pytest.raises(SpaceError, match=r"dimension 'model\.loss': a builtins\.builtin_function"):
            space.describe()
        described = space.describe(lambda value: value.__name__)  # type: ignore[attr-defined]
        assert '<digest \\"sin\\">' in json.dumps(described)
