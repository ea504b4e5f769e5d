"""A trial is a pure function of (seed, sweep, group, index): however it is asked for, wherever, whenever."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler.sample_spaces import FLAT, NESTED, PROPERTY, flat_spaces
from umbel.scheduler.errors import InternalError, SpaceError
from umbel.scheduler.identity import group_key
from umbel.scheduler.search.domains import Choice, Constant, Domain, Grid
from umbel.scheduler.search.numeric import Integer, LogUniform, Uniform
from umbel.scheduler.search.sampling import MAX_TRIALS, TrialBatch, TrialSource, validate_search
from umbel.scheduler.search.space import Space

AUSTRIA = group_key({"country": "AUT"})
BRAZIL = group_key({"country": "BRA"})


def _source(tree: dict[str, Any] | None = None, **changes: Any) -> TrialSource:
    arguments: dict[str, Any] = {"search": "random", "seed": 0, "sweep": "backtest", "trials": 1000} | changes
    return TrialSource(Space.from_nested(FLAT if tree is None else tree), **arguments)


def _trials(source: TrialSource, start: int = 0, stop: int | None = None, group: str = AUSTRIA) -> list[Any]:
    batch = source.batch(group, start, source.trials if stop is None else stop)
    return list(zip(batch.configs(), batch.seeds.tolist(), strict=True))


class TestRandom:
    @PROPERTY
    @given(flat_spaces(), st.lists(st.integers(0, 90), max_size=6), st.integers())
    def test_any_split_of_a_range_gives_the_same_trials(
        self, tree: dict[str, Domain], cuts: list[int], seed: int
    ) -> None:
        source = _source(tree, trials=90, seed=seed)
        edges = [0, *sorted(cuts), 90]
        pieces = [_trials(source, start, stop) for start, stop in itertools.pairwise(edges)]
        assert list(itertools.chain.from_iterable(pieces)) == _trials(source)

    def test_one_at_a_time_backwards_gives_the_same_trials(self) -> None:
        source = _source()
        assert [_trials(source, t, t + 1)[0] for t in reversed(range(50))] == _trials(source, 0, 50)[::-1]

    def test_columns_are_equal_to_the_bit_in_any_split(self) -> None:
        source = _source()
        whole, tail = source.batch(AUSTRIA, 0, 1000), source.batch(AUSTRIA, 993, 1000)
        for name in ("alpha", "noise", "drop"):
            assert np.asarray(whole.columns[name])[993:].tobytes() == np.asarray(tail.columns[name]).tobytes()

    @PROPERTY
    @given(st.integers(1, 200), st.integers(0, 200))
    def test_widening_keeps_the_first_trials(self, trials: int, more: int) -> None:
        assert _trials(_source(trials=trials + more))[:trials] == _trials(_source(trials=trials))

    def test_groups_seeds_and_sweeps_draw_independently(self) -> None:
        alphas = [
            _source(seed=seed, sweep=sweep).batch(group, 0, 1000).columns["alpha"]
            for seed, sweep, group in itertools.product((0, 1, -1), ("a", "b"), (AUSTRIA, BRAZIL))
        ]
        logs = np.log(np.array(alphas))
        correlations = np.corrcoef(logs)[np.triu_indices(len(logs), 1)]
        assert np.abs(correlations).max() < 0.13  # 4 standard errors of 1000 pairs

    def test_the_order_in_which_a_space_is_written_does_not_matter(self) -> None:
        forwards = _trials(_source())
        assert _trials(_source(dict(reversed(FLAT.items())))) == forwards

    def test_constants_take_no_randomness(self) -> None:
        with_more = {"aaa": Constant(1), **FLAT, "zzz": Constant([2])}
        for (config, seed), (more, same_seed) in zip(_trials(_source()), _trials(_source(with_more)), strict=True):
            assert config == {name: value for name, value in more.items() if name in FLAT}
            assert seed == same_seed

    def test_seeds_do_not_depend_on_the_space(self) -> None:
        a = _source().batch(AUSTRIA, 5, 77).seeds
        b = _source({"only": Constant(1)}).batch(AUSTRIA, 5, 77).seeds
        c = _source({"g": Grid(tuple(range(100)))}, search="grid", trials=100).batch(AUSTRIA, 5, 77).seeds
        assert a.tolist() == b.tolist() == c.tolist()
        assert a.dtype == np.int64

    def test_seeds_fit_31_bits_and_hardly_repeat(self) -> None:
        seeds = _source(trials=20_000).batch(AUSTRIA, 0, 20_000).seeds
        assert seeds.min() >= 0
        assert seeds.max() < 2**31
        assert len(np.unique(seeds)) > 19_990
        assert seeds.mean() == pytest.approx(2**30, rel=0.02)

    def test_dimensions_are_uniform_and_independent(self) -> None:
        tree: dict[str, Domain] = {f"d{i}": Uniform(0, 1) for i in range(9)}
        columns = np.array(list(_source(tree, trials=20_000).batch(AUSTRIA, 0, 20_000).columns.values()))
        counts = np.array([np.histogram(column, bins=20, range=(0, 1))[0] for column in columns])
        chi_squared = ((counts - 1000) ** 2 / 1000).sum(axis=1)
        assert chi_squared.max() < 50  # 19 degrees of freedom: 1.3e-4 above 50
        correlations = np.corrcoef(columns)[np.triu_indices(9, 1)]
        assert np.abs(correlations).max() < 4 / np.sqrt(20_000)
        lagged = [abs(np.corrcoef(column[1:], column[:-1])[0, 1]) for column in columns]
        assert max(lagged) < 4 / np.sqrt(20_000)

    def test_far_trials_are_reachable(self) -> None:
        source = _source(trials=MAX_TRIALS)
        assert len(_trials(source, MAX_TRIALS - 3)) == 3

    def test_an_empty_range_is_empty(self) -> None:
        batch = _source().batch(AUSTRIA, 7, 7)
        assert len(batch) == 0
        assert batch.configs() == []

    @pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 1001)])
    def test_a_range_outside_the_group_is_a_defect(self, start: int, stop: int) -> None:
        with pytest.raises(InternalError):
            _source().batch(AUSTRIA, start, stop)


class TestEverywhere:
    """Pinned values: a change here makes every stored run unresumable, so it must never happen by accident."""

    def test_pinned_trial(self) -> None:
        assert _trials(_source(), 98, 100) == PINNED

    def test_another_process_makes_the_same_trials(self) -> None:
        program = (
            "import pickle, sys, json\n"
            "source = pickle.loads(sys.stdin.buffer.read())\n"
            f"batch = source.batch({AUSTRIA!r}, 98, 100)\n"
            "print(json.dumps([batch.configs(), batch.seeds.tolist()]))\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(_source()),
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "77"},
        )
        configs, seeds = json.loads(found.stdout)
        assert list(zip(configs, seeds, strict=True)) == PINNED

    def test_global_randomness_is_left_alone(self) -> None:
        before = str(np.random.get_state(legacy=False))
        _trials(_source(), 0, 5)
        assert str(np.random.get_state(legacy=False)) == before


class TestConfigs:
    def test_values_are_plain_python(self) -> None:
        for config in _source().batch(AUSTRIA, 0, 100).configs():
            assert {type(value) for value in config.values()} <= {int, float, str, type(None)}
            assert type(config["lags"]) is int
            assert type(config["alpha"]) is float

    def test_group_keys_are_merged_at_the_top(self) -> None:
        (config,) = _source(NESTED).batch(AUSTRIA, 0, 1).configs({"country": "AUT", "horizon": 5})
        assert list(config) == ["model", "k", "country", "horizon"]
        assert config["country"] == "AUT"
        assert config["horizon"] == 5

    def test_nested_configs_match_their_columns(self) -> None:
        batch = _source(NESTED).batch(AUSTRIA, 0, 20)
        assert list(batch.columns) == ["model_lags", "model_opt_lr", "model_opt_sizes", "k"]
        for row, config in enumerate(batch.configs()):
            model: Any = config["model"]
            assert model["lags"] == batch.columns["model_lags"][row]
            assert model["opt"]["lr"] == batch.columns["model_opt_lr"][row]
            assert model["opt"]["sizes"] == batch.columns["model_opt_sizes"][row]

    def test_a_trial_can_not_change_another_ones_config(self) -> None:
        source = _source({"sizes": Choice(([1, [2]],)), "options": Constant({"a": [1]}), "x": Constant((1, [2]))})
        batch = source.batch(AUSTRIA, 0, 2)
        first, second = batch.configs({"tags": ["t"]})
        spoiled: Any = first
        spoiled["sizes"][1].append(9)
        spoiled["options"]["a"].append(9)
        spoiled["x"][1].append(9)
        spoiled["tags"].append(9)
        expected = {"sizes": [1, [2]], "options": {"a": [1]}, "x": (1, [2]), "tags": ["t"]}
        assert second == expected
        assert source.batch(AUSTRIA, 0, 1).configs({"tags": ["t"]}) == [expected]

    def test_a_group_key_can_not_hide_a_dimension(self) -> None:
        batch: TrialBatch = _source().batch(AUSTRIA, 0, 1)
        with pytest.raises(SpaceError, match="both a group key and in the search space"):
            batch.configs({"alpha": 1})


class TestGrid:
    def test_the_last_dimension_is_fastest(self) -> None:
        tree = {"b": Grid((1, 2)), "c": Constant(7), "a": Choice(("x", "y", "z")), "n": Integer(0, 2)}
        source = _source(tree, search="grid", trials=12)
        expected = [{"b": b, "c": 7, "a": a, "n": n} for b, a, n in itertools.product((1, 2), ("x", "y", "z"), (0, 1))]
        assert source.batch(AUSTRIA, 0, 12).configs() == expected
        assert source.batch(BRAZIL, 5, 9).configs() == expected[5:9]

    @PROPERTY
    @given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
    def test_every_point_comes_once_in_any_split(self, counts: list[int], data: st.DataObject) -> None:
        tree: dict[str, Domain] = {f"d{i}": Integer(0, count) for i, count in enumerate(counts)}
        size = int(np.prod(counts))
        source = _source(tree, search="grid", trials=size)
        cut = data.draw(st.integers(0, size))
        points = [tuple(config.values()) for config, _ in _trials(source, 0, cut) + _trials(source, cut)]
        assert points == list(itertools.product(*map(range, counts)))

    def test_quantized_floats_are_listed(self) -> None:
        source = _source({"q": Uniform(0, 0.3, 0.1), "l": LogUniform(1, 3, 1)}, search="grid", trials=12)
        assert source.batch(AUSTRIA, 0, 12).columns["q"][::3].tolist() == [0.0, 0.1, 0.2, 0.3]  # type: ignore[union-attr]

    def test_a_huge_grid_needs_no_memory(self) -> None:
        source = _source({"a": Integer(0, 2**62), "b": Integer(0, 2**62)}, search="grid", trials=100)
        assert source.batch(AUSTRIA, 99, 100).configs() == [{"a": 0, "b": 99}]


class TestValidation:
    SPACE = Space.from_nested({"a": Choice((1, 2)), "b": Integer(0, 3)})

    def test_the_number_of_trials(self) -> None:
        assert validate_search(self.SPACE, "grid", None) == 6
        assert validate_search(self.SPACE, "grid", 4) == 4
        assert validate_search(self.SPACE, "random", 1000) == 1000
        assert validate_search(Space.from_nested({"a": Constant(1)}), "random", 30) == 30
        assert type(validate_search(self.SPACE, "random", np.int64(3))) is int  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("search", "trials", "says"),
        [
            ("bayes", 5, r"no such search\n.*'bayes'\n.*'random' or 'grid'"),
            ("grid", 7, r"more trials than the grid has points\n.*7, with 6"),
            ("grid", 0, "at least one trial"),
            ("random", 0, "at least one trial"),
            ("random", -3, "at least one trial"),
            ("random", None, "needs a number of trials"),
            ("random", 2.0, "not a whole number"),
            ("random", True, "not a whole number"),
            ("random", "5", "not a whole number"),
            ("random", 2**41, "too many trials"),
        ],
    )
    def test_what_can_not_be_walked_is_refused(self, search: str, trials: Any, says: str) -> None:
        with pytest.raises(SpaceError, match=says):
            validate_search(self.SPACE, search, trials)

    def test_continuous_dimensions_have_no_grid(self) -> None:
        space = Space.from_nested({"a": Choice((1, 2)), "model": {"alpha": Uniform(0, 1)}})
        with pytest.raises(SpaceError, match=r"grid over a continuous domain\n.*'model\.alpha'"):
            validate_search(space, "grid", None)

    def test_random_search_does_not_walk_grids(self) -> None:
        with pytest.raises(SpaceError, match=r"dimension 'a'.*\n(.*\n)*.*tune\.choice"):
            validate_search(Space.from_nested({"a": Grid((1, 2))}), "random", 2)

    def test_a_source_validates_itself(self) -> None:
        with pytest.raises(SpaceError, match="the seed is not an integer"):
            _source(seed="zero")
        with pytest.raises(SpaceError, match="no such search"):
            _source(search="tpe")
        assert pickle.loads(pickle.dumps(_source())) == _source()


PINNED: list[Any] = [
    (
        {
            "lags": 3,
            "alpha": 47.67548550010062,
            "window": 40,
            "trend": 1.5,
            "noise": -0.6073842979504852,
            "units": 704,
            "drop": 0.2,
            "fixed": "x",
        },
        627755725,
    ),
    (
        {
            "lags": 3,
            "alpha": 23.9732504360981,
            "window": 40,
            "trend": 1.5,
            "noise": -1.5474318516251737,
            "units": 40,
            "drop": 0.0,
            "fixed": "x",
        },
        474260146,
    ),
]
