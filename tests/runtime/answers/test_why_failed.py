"""Failures by cause, and the conditions that set them apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import run
from umbel.runtime.answers.why_failed import Cause, _in_common, _listed, _numeric, read_error


def inner(config: dict[str, Any]) -> float:
    if config["country"] == "CHL" and config["alpha"] > 0.75:
        raise ValueError(f"{config['alpha']} is too much: for {config['country']}")
    return float(config["alpha"])


def fit(config: dict[str, Any], data: str) -> float:
    if config["kind"] == "wide" and config["lags"] <= 2:
        return 1 / 0
    return inner(config)


@umbel.task
def load(country: str) -> str:
    if country == "DEU":
        raise FileNotFoundError("deu.csv")
    return country


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> umbel.Run:
    countries = ["AUT", "BRA", "CHL", "DEU"]
    sweep = umbel.sweep(
        fit,
        space={"alpha": tune.uniform(0, 1), "lags": tune.randint(1, 9), "kind": ["narrow", "wide", "other"]},
        over={"country": countries},
        data=load.map(countries),
        trials=150,
        metric="loss",
        name="fit",
    )
    return run(sweep, tmp_path_factory.mktemp("why"))


def test_causes_are_told_apart_with_what_they_have_in_common(failed: umbel.Run) -> None:
    found = umbel.why_failed(failed)
    by_kind = {(cause.node, cause.kind): cause for cause in found.causes}
    assert set(by_kind) == {
        ("fit", "ZeroDivisionError"),
        ("fit", "ValueError"),
        ("load", "FileNotFoundError"),
    }
    zero = by_kind["fit", "ZeroDivisionError"]
    assert set(zero.conditions) == {"kind = wide", "lags ≤ 2"}
    assert (zero.failed_inside, zero.inside, zero.failed_outside) == (zero.count, zero.count, 0)
    assert zero.p_value < 1e-6
    assert zero.place.startswith("fit (test_why_failed.py:")
    value = by_kind["fit", "ValueError"]
    assert value.place.startswith("inner (test_why_failed.py:")
    condition, country = sorted(value.conditions)
    assert country == "country = CHL"
    name, sign, bound = condition.split()
    assert (name, sign) == ("alpha", "≥")
    assert 0.75 < float(bound) < 0.8
    assert value.failed_inside == value.inside
    assert found.not_run == {"fit": 150}  # which is no cause, and is not counted as a failure
    assert found.failed == sum(cause.count for cause in found.causes) == failed.failures().num_rows - 150


def test_text_and_data(failed: umbel.Run, tmp_path: Path) -> None:
    found = umbel.why_failed(failed)
    text = found.text()
    assert "in common: kind = wide and lags ≤ 2" in text or "in common: lags ≤ 2 and kind = wide" in text
    assert text.startswith(f"work: {found.failed} of 604 failed, 3 causes\n")
    assert text.endswith("without a result because of these: 150 elements (150 of fit)")
    assert json.loads(json.dumps(found.as_dict()))["failed"] == found.failed
    good = run(umbel.task(lambda: 1, name="good").bind(), tmp_path)
    assert umbel.why_failed(good).text() == "work: nothing failed"


@pytest.mark.parametrize(
    ("status", "error", "wanted"),
    [
        ("timeout", "TimeoutError: not finished after its time limit of 1 s", ("timeout", "")),
        ("lost", "its worker process died while it ran; twice", ("lost", "")),
        ("failed", "UsageError: the result is not a number\n  got: x", ("UsageError", "")),
        (
            "failed",
            'Traceback (most recent call last):\n  File "/a/b.py", line 3, in f\n    g()\n'
            '  File "/x/site-packages/numpy/core.py", line 9, in g\n    raise LinAlgError\n'
            "numpy.linalg.LinAlgError: Singular: matrix\nsecond line: of it",
            ("numpy.linalg.LinAlgError", "f (b.py:3)"),
        ),
        ("failed", "something odd happened", ("failed", "")),
    ],
)
def test_errors_are_read(status: str, error: str, wanted: tuple[str, str]) -> None:
    assert read_error(status, error)[:2] == wanted


def test_chance_is_not_told() -> None:
    """Failures at random: in a hundred tries hardly ever a condition is found."""
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(100):
        hits = rng.random(200) < 0.1
        features = {
            "x": _numeric("x", rng.random(200), False),
            "y": _listed("y", rng.integers(0, 20, 200).tolist()),
        }
        cause = Cause("fit", "E", "", "", int(hits.sum()), ())
        told += bool(_in_common(cause, features, hits, np.ones(200, np.bool_)).conditions)
    assert told <= 2


def test_a_range_takes_two_conditions() -> None:
    x = np.linspace(0, 1, 1000)
    hits = (x > 0.4) & (x < 0.5)
    cause = Cause("fit", "E", "", "", int(hits.sum()), ())
    found = _in_common(cause, {"x": _numeric("x", x, False)}, hits, np.ones(1000, np.bool_))
    assert found.failed_inside == found.inside == hits.sum()
    assert len(found.conditions) == 2


def test_a_group_without_a_best_trial_is_no_cause_where_its_trials_failed(tmp_path: Path) -> None:
    def fails(config: dict[str, Any]) -> float:
        if config["group"] == "bad":
            raise ValueError("no")
        return math.nan if config["group"] == "nan" else 1.0

    @umbel.task
    def look(best: umbel.Best) -> float:
        return best.value

    for groups, wanted in ((["good", "bad"], [("fails", 3)]), (["good", "nan"], [("fails-best", 1)])):
        over = {"group": groups}
        sweep = umbel.sweep(fails, space={"x": [1, 2, 3]}, over=over, search="grid", metric="m")
        found = umbel.why_failed(run(look.map(sweep.best()), tmp_path, name=groups[1]))
        assert [(cause.node, cause.count) for cause in found.causes] == wanted
        assert found.failed == wanted[0][1]
        assert found.not_run["look"] == 1
