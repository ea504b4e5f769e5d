"""The main example: the held-out years stay unseen, short series work, and the numbers mean what the text says."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import umbel

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAST_TRAINING_YEAR = 2012
SHORTEST = "CUW"  # thirteen years of GDP, of which five are held out: seven growth rates to train on

if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))  # as for a script, its folder is where its modules are found

forecasting: Any = importlib.import_module("forecasting")
gdp_data: Any = importlib.import_module("gdp_data")
gdp: Any = importlib.import_module("gdp")

CONFIG = {
    "window": 20,
    "lags": 3,
    "ridge": 5.0,
    "persistence": 0.4,
    "world": 0.3,
    "clip": 1.5,
    "covariates": "all",
    "trend": True,
}


def configurations(count: int) -> list[dict[str, Any]]:
    """Configurations from all over the example's space, the extreme ones first."""
    rng = np.random.default_rng(7)
    extremes = [
        CONFIG | {"window": window, "lags": 4, "ridge": ridge, "clip": clip}
        for window, ridge, clip in ((8, 0.5, 1.0), (70, 0.5, 2.5))
    ]
    others = [
        {
            "window": int(rng.choice([8, 12, 20, 35, 70])),
            "lags": int(rng.integers(1, 5)),
            "ridge": float(10 ** rng.uniform(-0.3, 2)),
            "persistence": float(rng.uniform(0, 0.6)),
            "world": float(rng.uniform(0, 0.8)),
            "clip": float(rng.choice([1.0, 1.5, 2.5])),
            "covariates": str(rng.choice(list(forecasting.COVARIATES))),
            "trend": bool(rng.integers(2)),
        }
        for _ in range(count)
    ]
    return [*extremes, *others][:count]


@pytest.fixture
def other_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example's file, every number of every country changed in the held-out years."""
    table = pq.read_table(gdp_data.DATA)
    held_out = table["year"].to_numpy() > LAST_TRAINING_YEAR
    factors = np.where(held_out, np.random.default_rng(1).uniform(0.5, 2.0, len(table)), 1.0)
    for position, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            changed = pa.array(table[field.name].to_numpy() * factors, from_pandas=True)
            table = table.set_column(position, field, changed)
    path = tmp_path / "changed.parquet"
    pq.write_table(table, path)
    monkeypatch.setattr(gdp_data, "DATA", path)
    gdp_data.panel.cache_clear()
    yield path
    gdp_data.panel.cache_clear()


@pytest.fixture(scope="module")
def truth() -> Any:
    """The panel as it is, read before any test changes the file."""
    gdp_data.panel.cache_clear()
    return gdp_data.panel()


def test_every_country_is_cut_at_the_same_year(truth: Any) -> None:
    assert len(truth.training) == 182
    assert truth.held_out_years == (2013, 2017)
    for code, series in truth.training.items():
        assert series.years[-1] == LAST_TRAINING_YEAR
        assert (np.diff(series.years) == 1).all()
        assert len(truth.held_out[code]) == 5
        assert np.isfinite(series.growth).all()


def test_changing_the_held_out_years_changes_nothing_that_a_trial_gets(truth: Any, other_future: Path) -> None:
    other = gdp_data.panel()
    assert other is not truth
    for code in truth.training:
        assert pickle.dumps(gdp.load(code)) == pickle.dumps(truth.training[code])
        assert not np.allclose(gdp.load_held_out(code), truth.held_out[code])


def test_changing_the_held_out_years_changes_no_metric_of_any_trial(
    truth: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    countries = ["DEU", "KOR", SHORTEST]

    def metrics(store: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        node = gdp.graph(countries, trials=5)
        run = umbel.run(node, store=str(tmp_path / store), name="gdp", executor="inline", progress=False)
        trials = run.trials().select(["country", "trial", "metric_mase", "metric_rmse"]).to_pylist()
        summary = run.value(node)
        assert isinstance(summary, pa.Table)
        return trials, summary.to_pylist()

    trials, summary = metrics("before")
    request.getfixturevalue("other_future")
    other_trials, other_summary = metrics("after")
    assert len(trials) == 15
    assert other_trials == trials
    assert [row["mase"] for row in other_summary] != [row["mase"] for row in summary]  # the judges did see a change


def test_a_forecast_of_the_backtest_knows_only_the_years_before_its_origin(truth: Any) -> None:
    series = truth.training["FRA"]
    last_changed = forecasting.Series(
        series.country,
        series.years,
        np.append(series.growth[:-1], 0.5),
        {name: np.append(values[:-1], 9.0) for name, values in series.covariates.items()},
    )
    before = forecasting.backtest_errors(CONFIG, series)
    after = forecasting.backtest_errors(CONFIG, last_changed)
    # Twelve origins: eight see five years ahead, then 4, 3, 2 and 1. The last year is only ever a target, and the
    # last target of each of the final five origins.
    targets = np.cumsum([5] * 8 + [4, 3, 2, 1])
    touched = np.flatnonzero(before != after)
    assert touched.tolist() == (targets[-5:] - 1).tolist()


@pytest.mark.parametrize("config", configurations(8))
def test_every_country_gives_finite_errors(truth: Any, config: dict[str, Any]) -> None:
    for code in [SHORTEST, "SXM", "MNE", *list(truth.training)[::20]]:
        series = truth.training[code]
        assert all(np.isfinite(value) and value > 0 for value in gdp.backtest(config, series).values())
        assert np.isfinite(forecasting.fit(config, series).predict()).all()


def test_seven_growth_rates_give_three_origins(truth: Any) -> None:
    series = truth.training[SHORTEST]
    assert len(series) == 7
    assert len(forecasting.backtest_errors(CONFIG, series)) == 3 + 2 + 1
    assert len(forecasting.backtest_errors(CONFIG, series[:5])) == 1


def test_a_series_too_short_to_backtest_says_so(truth: Any) -> None:
    with pytest.raises(ValueError, match=r"CUW has 4 growth rates; a backtest needs 5"):
        forecasting.backtest_errors(CONFIG, truth.training[SHORTEST][:4])


def test_a_strong_ridge_leaves_the_prior(truth: Any) -> None:
    series = truth.training["FRA"]
    config = CONFIG | {"ridge": 1e12, "clip": 100.0, "window": 70, "lags": 1}
    world = series.covariates["world"][-20:].mean()
    level = 0.7 * series.growth.mean() + 0.3 * world
    expected = level + 0.4 ** np.arange(1, 6) * (series.growth[-1] - level)
    np.testing.assert_allclose(forecasting.fit(config, series).predict(), expected)


def test_lags_find_a_cycle() -> None:
    growth = np.tile([0.05, 0.01, -0.02, 0.03], 10)
    series = forecasting.Series("X", np.arange(1971, 2011), growth, {"world": np.full(40, growth.mean())})
    config = CONFIG | {"covariates": "none", "trend": False, "clip": 3.0, "ridge": 1e-6, "window": 40, "lags": 4}
    # Not to the last digit: the level stands in for an intercept.
    expected = [0.05, 0.01, -0.02, 0.03, 0.05]
    np.testing.assert_allclose(forecasting.fit(config, series).predict(), expected, atol=2e-3)


def test_mase_is_scaled_by_the_training_years_only() -> None:
    training = np.array([0.01, 0.03, 0.02])  # changes 0.02 and 0.01: the scale is 0.015
    actual, forecast = np.array([0.04, 0.01]), np.array([0.01, 0.01])
    assert forecasting.mase(actual, forecast, training) == pytest.approx(0.015 / 0.015)
    assert forecasting.last_value(training).tolist() == [0.02] * 5
    assert forecasting.mean_drift(training, 2) == pytest.approx([0.02, 0.02])


def test_the_model_survives_a_pickle_and_refuses_what_it_cannot_forecast(truth: Any) -> None:
    model = forecasting.fit(CONFIG, truth.training["CHN"])
    again = pickle.loads(pickle.dumps(model))
    assert again.country == "CHN"
    assert again.last_year == LAST_TRAINING_YEAR
    assert again.predict(3).tolist() == model.predict()[:3].tolist()
    for horizon in (0, 6):
        with pytest.raises(ValueError, match="1 to 5 years ahead"):
            again.predict(horizon)


def test_the_script_prints_its_result_and_draws_a_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "chart.png"
    options = ["--store", str(tmp_path / "store"), "--countries", "5", "--trials", "3", "--chart", str(chart)]
    monkeypatch.setattr(sys, "argv", ["gdp.py", *options, "--executor", "inline"])
    gdp.main()
    printed = capsys.readouterr().out
    assert "winner of the search" in printed
    assert "of 5" in printed
    assert chart.read_bytes().startswith(b"\x89PNG")
