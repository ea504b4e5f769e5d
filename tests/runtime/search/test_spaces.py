"""A space means here what it means in the library that it was written for: against real Tune and Optuna objects."""

from __future__ import annotations

import datetime
import doctest
import enum
import math
import pickle
import random
import subprocess
import sys
from typing import Any

import cloudpickle
import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from tests.scheduler.sample_spaces import FLAT, NESTED
from umbel.runtime.leases.values import value_digest
from umbel.runtime.search import spaces
from umbel.runtime.search.spaces import to_space, tune_space
from umbel.scheduler.errors import SpaceError
from umbel.scheduler.search.domains import Choice, Constant, Domain, Grid
from umbel.scheduler.search.numeric import Integer, LogInteger, LogUniform, Normal, Stepped, Uniform
from umbel.scheduler.search.sampling import TrialSource, rounds_of_grid
from umbel.scheduler.search.space import Space

DRAWS = 4000


class Loss(enum.Enum):
    MAE = 1


def _domain(value: object) -> Domain:
    ((_, domain),) = to_space({"x": value}).dimensions
    return domain


def _ours(value: object) -> list[Any]:
    batch = TrialSource(to_space({"x": value}), "random", 0, "s", DRAWS).batch("{}", 0, DRAWS)
    return [config["x"] for config in batch.configs()]


def _furthest(a: list[float], b: list[float]) -> float:
    """Kolmogorov and Smirnov's distance: the largest gap between the two samples' distribution functions."""
    points = np.unique(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


TUNE = {
    "uniform": (tune.uniform(-2, 5), Uniform(-2, 5)),
    "quniform": (tune.quniform(-0.5, 1.5, 0.25), Uniform(-0.5, 1.5, 0.25)),
    "quniform of tenths": (tune.quniform(0.1, 0.7, 0.1), Uniform(0.1, 0.7, 0.1)),
    "loguniform": (tune.loguniform(1e-4, 1e2), LogUniform(1e-4, 1e2)),
    "qloguniform": (tune.qloguniform(0.5, 32, 0.5), LogUniform(0.5, 32, 0.5)),
    "randn": (tune.randn(3, 2), Normal(3, 2)),
    "qrandn": (tune.qrandn(0, 1, 0.2), Normal(0, 1, 0.2)),
    "randint": (tune.randint(1, 9), Integer(1, 9)),
    "randint of floats": (tune.randint(1.0, 9.0), Integer(1, 9)),
    "qrandint": (tune.qrandint(4, 20, 4), Integer(4, 21, 4)),
    "qrandint off the grain": (tune.qrandint(-3, 19, 4), Integer(0, 17, 4)),
    "qrandint of 1": (tune.qrandint(1, 9, 1), Integer(1, 9)),
    "lograndint": (tune.lograndint(1, 1000), LogInteger(1, 1000)),
    "qlograndint": (tune.qlograndint(10, 1000, 10), LogInteger(10, 1001, 10)),
    "qlograndint off the grain": (tune.qlograndint(3, 1005, 10), LogInteger(10, 1001, 10)),
    "qlograndint of 1": (tune.qlograndint(2, 10, 1), LogInteger(2, 10)),
    "choice": (tune.choice([15, 25, 40]), Choice((15, 25, 40))),
}

#: Domains with so few values that each comes up in every sample.
COMPLETE = [name for name in TUNE if name.startswith(("quniform", "randint", "qrandint", "qlograndint of 1", "choice"))]


class TestTune:
    @pytest.mark.parametrize("name", TUNE)
    def test_the_domain(self, name: str) -> None:
        theirs, ours = TUNE[name]
        assert _domain(theirs) == ours

    @pytest.mark.parametrize("name", TUNE)
    def test_samples_have_the_bounds_the_grain_the_shape_and_the_type_of_tunes_own(self, name: str) -> None:
        theirs, _ = TUNE[name]
        sampled = theirs.sample(size=DRAWS, random_state=1)
        expected = [theirs.cast(value) for value in sampled]
        found = _ours(theirs)
        near = [np.round(sample, 9).tolist() for sample in (found, expected)]
        assert _furthest(*near) < 1.95 * math.sqrt(2 / DRAWS)  # 0.1 % significance
        assert type(found[0]) is (type(expected[0]) if name != "choice" else int)
        if "randn" not in name and "choice" not in name:
            assert theirs.lower <= min(found) <= max(found) <= theirs.upper
        if name in COMPLETE:
            assert set(near[0]) == set(near[1])

    def test_quantized_floats_do_not_leave_their_bounds(self) -> None:
        """tune.quniform(0.1, 0.7, 0.1) gives 0.7000000000000001; the same value within the bounds is 0.7."""
        assert max(_ours(tune.quniform(0.1, 0.7, 0.1))) == 0.7

    def test_grid_search(self) -> None:
        assert _domain(tune.grid_search([1, "a", None])) == Grid((1, "a", None))
        assert to_space({"a": {"b": tune.grid_search([1, 2])}}).column_names == ("a_b",)

    def test_choices_of_anything(self) -> None:
        assert _domain(tune.choice([math.sin, math.cos])) == Choice((math.sin, math.cos))
        assert _domain(tune.choice(["a", {"b": [1]}])) == Choice(("a", {"b": [1]}))

    def test_sample_from_is_computed_from_the_rest_and_a_seed(self) -> None:
        space = to_space(
            {
                "sum": tune.sample_from(lambda spec: spec.config.half + spec.config["model"]["b"]),
                "model": {"a": tune.randint(0, 1000), "b": tune.sample_from(lambda config: config["model"]["a"] * 10)},
                "half": tune.sample_from(lambda spec: spec.config.model.a / 2),
                "noise": tune.sample_from(lambda: np.random.normal() + random.random()),
            }
        )
        source = TrialSource(space, "random", 0, "s", 50)
        random.seed(1)
        before = random.getstate()
        configs = source.batch("{}", 0, 50).configs()
        assert random.getstate() == before
        for config in configs:
            model: Any = config["model"]
            assert config["half"] == model["a"] / 2
            assert model["b"] == model["a"] * 10
            assert config["sum"] == model["a"] * 10.5
        assert len({config["noise"] for config in configs}) == 50
        again = pickle.loads(cloudpickle.dumps(source)).batch("{}", 20, 30)
        assert again.configs() == configs[20:30]
        assert again.columns["half"].dtype == float

    def test_generators_that_sample_from_brings_along_are_seeded(self) -> None:
        own, legacy = np.random.default_rng(), np.random.RandomState()
        functions: list[Any] = [random.random, lambda: own.random() + legacy.rand()]
        for function in functions:
            source = TrialSource(to_space({"x": tune.sample_from(function)}), "random", 0, "s", 5)
            state, digest = own.bit_generator.state, source.space.describe(value_digest)
            values = [config["x"] for config in source.batch("{}", 0, 5).configs()]
            assert own.bit_generator.state == state
            assert len(set(values)) == 5
            own.random()
            legacy.rand()
            random.random()
            assert source.space.describe(value_digest) == digest
            elsewhere = pickle.loads(cloudpickle.dumps(source))
            for i in (3, 1):
                assert elsewhere.batch("{}", i, i + 1).configs() == [{"x": values[i]}]

    def test_sample_from_in_a_circle_or_raising(self) -> None:
        circle = {"a": tune.sample_from(lambda spec: spec.config.b), "b": tune.sample_from(lambda spec: spec.config.a)}
        with pytest.raises(SpaceError, match="in a circle"):
            TrialSource(to_space(circle), "random", 0, "s", 5).batch("{}", 0, 5)
        raising = to_space({"a": tune.sample_from(lambda spec: spec.config.c)})
        with pytest.raises(SpaceError, match=r"dimension 'a': .*\n.*AttributeError: c"):
            TrialSource(raising, "random", 0, "s", 5).batch("{}", 0, 5)

    def test_param_space_is_read_as_tune_reads_it(self) -> None:
        space = tune_space({"layers": [1, 2], "f": len, "n": {"x": tune.uniform(0, 1), "none": {}}, "ids": {1: 2}})
        kinds = {path: type(domain) for path, domain in space.dimensions}
        constants = dict.fromkeys([("layers",), ("f",), ("n", "none"), ("ids",)], Constant)
        assert kinds == {**constants, ("n", "x"): Uniform}
        for wrong in ({"a": [tune.uniform(0, 1)]}, {"a": {"eval": "1"}}, [1], tune.grid_search([1])):
            with pytest.raises(SpaceError):
                tune_space(wrong)

    def test_grid_times_samples_counts_as_tune_does(self) -> None:
        space = {
            "b": tune.grid_search([1, 2, 3]),
            "a": {"x": tune.grid_search(["u", "v"])},
            "c": tune.randint(0, 10**9),
        }
        space["twice"] = tune.sample_from(lambda spec: spec.config.c * 2)
        ours = to_space(space)
        count = rounds_of_grid(ours, 2)
        configs = TrialSource(ours, "tune", 0, "s", count).batch("{}", 0, count).configs()
        theirs = [spec for _ in range(2) for _, spec in generate_variants({"config": space})]
        assert [(c["b"], c["a"]) for c in configs] == [(s["config"]["b"], s["config"]["a"]) for s in theirs]
        assert len({c["c"] for c in configs}) == count == 12
        assert all(c["twice"] == 2 * c["c"] for c in configs)  # type: ignore[operator]

    @pytest.mark.parametrize(
        ("domain", "says"),
        [
            (tune.uniform(2, 1), "low is above high"),
            (tune.randint(5, 5), "the range is empty"),
            (tune.randint(1.5, 5), "low is not an integer"),
            (tune.qrandint(1, 10, 0.5), "not all integers"),
            (tune.qrandint(1, 3, 5), "no multiple of q"),
            (tune.choice([]), "there are no values"),
            (tune.choice([tune.uniform(0, 1), 3]), "a choice can't be a domain itself"),
            (tune.grid_search([tune.randint(0, 2)]), "a choice can't be a domain itself"),
            (tune.grid_search(3), "not in a list"),
        ],
    )
    def test_domains_that_can_not_be_drawn_are_refused_by_name(self, domain: object, says: str) -> None:
        with pytest.raises(SpaceError, match=f"dimension 'alpha': .*{says}"):
            to_space({"alpha": domain})


OPTUNA: dict[str, tuple[BaseDistribution, Domain]] = {
    "float": (FloatDistribution(-1, 2), Uniform(-1, 2)),
    "float log": (FloatDistribution(1e-3, 1, log=True), LogUniform(1e-3, 1)),
    "float step": (FloatDistribution(0.5, 3.0, step=0.5), Stepped(0.5, 3.0, 0.5)),
    "int": (IntDistribution(1, 8), Integer(1, 9)),
    "int step": (IntDistribution(3, 11, step=4), Integer(3, 12, 4)),
    "int log": (IntDistribution(1, 64, log=True), LogInteger(1, 65)),
    "categorical": (CategoricalDistribution(("a", None, 3)), Choice(("a", None, 3))),
}


class TestOptuna:
    @pytest.mark.parametrize("name", OPTUNA)
    def test_the_domain(self, name: str) -> None:
        theirs, ours = OPTUNA[name]
        assert _domain(theirs) == ours

    @pytest.mark.parametrize("name", [name for name in OPTUNA if name != "categorical"])
    def test_samples_are_those_that_optuna_could_draw(self, name: str) -> None:
        theirs, _ = OPTUNA[name]
        found = _ours(theirs)
        assert all(theirs._contains(value) for value in found)
        if name == "int log":
            return  # Optuna rounds to the nearest integer, we down as Tune does: 1 is likelier here
        sampler = optuna.samplers.RandomSampler(seed=1)
        study = optuna.create_study(sampler=sampler)
        trial = optuna.trial.FrozenTrial(
            number=0,
            state=optuna.trial.TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=0,
        )
        expected = [float(sampler.sample_independent(study, trial, "x", theirs)) for _ in range(DRAWS)]
        assert _furthest(found, expected) < 1.95 * math.sqrt(2 / DRAWS)


class TestPlainValues:
    @pytest.mark.parametrize(
        ("value", "domain"),
        [
            ([1, 2], Choice((1, 2))),
            (("a", None), Choice(("a", None))),
            (range(3), Choice((0, 1, 2))),
            (np.array([0.5, 1.5]), Choice((0.5, 1.5))),
            ([[64, 64], [128]], Choice(([64, 64], [128]))),
            (3, Constant(3)),
            (2.5, Constant(2.5)),
            (True, Constant(True)),
            ("adam", Constant("adam")),
            (b"x", Constant(b"x")),
            (None, Constant(None)),
            (np.float64(0.5), Constant(0.5)),
            (np.array(7), Constant(7)),
            (Loss.MAE, Constant(Loss.MAE)),
            (datetime.date(2020, 1, 1), Constant(datetime.date(2020, 1, 1))),
            (LogUniform(1, 2), LogUniform(1, 2)),
            (Constant([1, 2]), Constant([1, 2])),
        ],
    )
    def test_lists_are_choices_and_scalars_constants(self, value: object, domain: Domain) -> None:
        found = _domain(value)
        assert found == domain
        assert found.describe() == domain.describe()

    def test_dialects_mix_and_nest(self) -> None:
        space = to_space({"a": tune.uniform(0, 1), "b": {"c": IntDistribution(1, 3), "d": [1, 2], "e": {"f": None}}})
        assert space.column_names == ("a", "b_c", "b_d", "b_e_f")

    @pytest.mark.parametrize("tree", [FLAT, NESTED])
    def test_domains_are_taken_as_they_are(self, tree: dict[str, Any]) -> None:
        assert to_space(tree) == Space.from_nested(tree)

    def test_only_constants_make_a_space(self) -> None:
        """For repeated seeds."""
        assert to_space({"alpha": 0.1}).grid_size() == 1

    def test_a_space_is_returned_as_it_is(self) -> None:
        space = Space.from_nested({"a": Constant(1)})
        assert to_space(space) is space

    @pytest.mark.parametrize(
        ("space", "says"),
        [
            ({}, "the search space is empty"),
            ([("a", 1)], "the search space is not a dict"),
            (None, "the search space is not a dict"),
            (tune.uniform(0, 1), "the search space is not a dict"),
            (tune.grid_search([1, 2]), "a grid_search without a name"),
            ({1: [2]}, "not a non-empty string"),
            ({"a": {2: [2]}}, "not a non-empty string"),
            ({"a": {1, 2}}, "dimension 'a': a builtins.set is not a domain"),
            ({"a": object()}, "dimension 'a': a builtins.object is not a domain"),
            ({"a": np.zeros((2, 2))}, "dimension 'a': an array of 2 dimensions"),
            ({"a": {"f": math.sin}}, r"dimension 'a\.f': a function or class"),
            ({"a": lambda: 3}, "dimension 'a': a function or class"),
            ({"a": Loss}, "dimension 'a': a function or class"),
            ({"a": []}, "dimension 'a': Choice: there are no values"),
            ({"a": [Uniform(0, 1)]}, "dimension 'a': a choice can't be a domain itself"),
            ({"a": [FloatDistribution(0, 1)]}, "dimension 'a': a choice can't be a domain itself"),
            ({"a": [{"kind": "tree", "depth": tune.randint(1, 9)}]}, "'a': a choice can't hold a domain[^$]*by run"),
            ({"a": tune.choice([{"b": [{"c": Uniform(0, 1)}]}, 1])}, "'a': a choice can't hold a domain[^$]*by run"),
            ({"a": {"b": [{"c": tune.grid_search([1])}]}}, "'a.b': a choice can't hold a domain[^$]*by run"),
            ({"a_b": 1, "a": {"b": 2}}, "share one column"),
        ],
    )
    def test_what_is_no_space_is_refused(self, space: object, says: str) -> None:
        with pytest.raises(SpaceError, match=says) as caught:
            to_space(space)
        assert "\n" in str(caught.value)


def test_reading_a_space_imports_neither_ray_nor_optuna() -> None:
    program = (
        "import sys\n"
        "from umbel.runtime.search.spaces import to_space\n"
        "to_space({'a': [1, 2], 'b': 3})\n"
        "print(sorted({'ray', 'optuna'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


def test_docstring_examples() -> None:
    assert doctest.testmod(spaces).failed == 0
