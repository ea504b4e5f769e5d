"""The fused example: the held-out years stay unseen, short series work, and a few countries run through."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import umbel

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))

forecasting: Any = importlib.import_module("forecasting")
gdp_data: Any = importlib.import_module("gdp_data")
gdp_torch: Any = importlib.import_module("gdp_torch")

SHORTEST = "CUW"  # seven growth rates to train on
COUNTRIES = ["DEU", "KOR", SHORTEST]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def configs(count: int) -> umbel.Configs:
    made = np.random.default_rng(3)
    rows = [{"lags": 3, "hidden": 4, "lr": 0.01, "weight_decay": made.uniform(), "dropout": 0.2} for _ in range(count)]
    return umbel.Configs(rows, by=gdp_torch.SHAPE, group=[place % 2 for place in range(count)])


def test_what_is_known_at_an_origin() -> None:
    series = gdp_data.panel().training["FRA"]
    scaled = gdp_torch.Scaled(series, 30)
    (first, later) = scaled.inputs([1, 30], 3)
    growth = (series.growth - series.growth[:30].mean()) / series.growth[:30].std()
    assert first.tolist() == [0, 0, growth[0], *first[3:]]
    assert later[:3] == pytest.approx(growth[27:30])
    (row,) = scaled.targets([28], 30)
    assert row[:5] == pytest.approx([growth[28], growth[29], 0, 0, 0])
    assert row[5:].tolist() == [1, 1, 0, 0, 0]


def test_a_trial_learns_nothing_from_the_years_that_it_is_judged_on() -> None:
    series = [gdp_data.panel().training[code] for code in ("FRA", SHORTEST)]
    for country in series:
        first = max(forecasting.FIRST_ORIGIN, len(country) - forecasting.ORIGINS)
        changed = forecasting.Series(
            country.country,
            country.years,
            np.append(country.growth[:first], country.growth[first:] + 1),
            {name: np.append(values[:first], values[first:] + 1) for name, values in country.covariates.items()},
        )
        for before, after in zip(
            gdp_torch.training_data(country, 3, first), gdp_torch.training_data(changed, 3, first), strict=True
        ):
            assert np.array_equal(before, after)
    assert np.isfinite(gdp_torch.train(configs(6), series)["mase"]).all()


def test_the_error_is_that_of_the_rolling_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin_with_zeros(self: torch.nn.Linear) -> None:
        for part in self.parameters():
            torch.nn.init.zeros_(part)

    monkeypatch.setattr(gdp_torch, "STEPS", 0)
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", begin_with_zeros)
    series = [gdp_data.panel().training[code] for code in ("FRA", SHORTEST)]
    found = gdp_torch.train(configs(2), series)["mase"]  # networks of zeros: the mean of the first years
    for country, error in zip(series, found, strict=True):
        first = max(forecasting.FIRST_ORIGIN, len(country) - forecasting.ORIGINS)
        mean = country.growth[:first].mean()
        errors = np.concatenate([np.abs(country.growth[at : at + 5] - mean) for at in range(first, len(country))])
        assert error == pytest.approx(errors.mean() / forecasting.absolute_scale(country.growth), rel=1e-5)


def test_the_script_prints_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gdp_torch, "STEPS", 10)
    options = ["--store", str(tmp_path / "store"), "--countries", "5", "--trials", "4", "--executor", "inline"]
    monkeypatch.setattr(sys, "argv", ["gdp_torch.py", *options])
    gdp_torch.main()
    printed = capsys.readouterr().out
    assert "winner of the search" in printed
    assert "mean drift" in printed
    assert "of 5" in printed
    rows = umbel.open_store(str(tmp_path / "store")).run("gdp-torch").trials("networks").to_pylist()
    assert len(rows) == 20
    assert {row["status"] for row in rows} == {"ok"}
