"""The configs of a batch, as columns and as rows."""

from __future__ import annotations

import numpy as np
import pytest

import umbel
from umbel.runtime.torch.configs import read_configs

ROWS = [
    {"lr": 0.1, "depth": 2, "flag": True, "kind": "a", "sizes": [1, 2], "net": {"x": 1}},
    {"lr": 0.2, "depth": 2, "flag": False, "kind": "b", "sizes": [3, 4], "net": {"x": 2}},
]


def test_columns() -> None:
    configs = umbel.Configs(ROWS, by=("depth",), seeds=[5, 6], group=[0, 1], trials=[10, 11])
    assert len(configs) == 2
    assert list(configs) == configs.keys() == list(ROWS[0])
    assert "lr" in configs
    assert "x" not in configs
    assert configs["lr"].tolist() == [0.1, 0.2]
    assert [configs[name].dtype.kind for name in configs] == ["f", "i", "b", "O", "O", "O"]
    assert configs["sizes"].tolist() == [[1, 2], [3, 4]]
    assert configs[1] == ROWS[1]
    assert configs.rows() == ROWS
    assert configs.common == {"depth": 2}
    assert (configs.seeds.tolist(), configs.group.tolist(), configs.trials.tolist()) == ([5, 6], [0, 1], [10, 11])
    assert {**dict(configs.items())}.keys() == set(ROWS[0])
    assert configs.get("x") is None
    with pytest.raises(KeyError):
        configs["x"]


def test_changing_them_changes_nothing_else() -> None:
    configs = umbel.Configs(ROWS)
    configs["lr"][0] = 9
    configs[0]["lr"] = 9
    assert configs[0] == ROWS[0]


def test_defaults() -> None:
    configs = umbel.Configs(ROWS)
    assert np.array_equal(configs.seeds, [0, 1])
    assert np.array_equal(configs.group, [0, 0])
    assert configs.common == {}


def test_numbers_too_large_for_a_column() -> None:
    assert umbel.Configs([{"n": 2**70}, {"n": 1}])["n"].tolist() == [2**70, 1]


def test_wrong_ones() -> None:
    with pytest.raises(umbel.UsageError, match="a batch has no trials"):
        umbel.Configs([])
    with pytest.raises(umbel.UsageError, match="trials of a batch differ in 'lr'"):
        umbel.Configs(ROWS, by=("lr",))


def test_fit_many_takes_the_seeds_that_are_beside_them() -> None:
    rows = [{"lr": 0.1}, {"lr": 0.2}]
    assert [row["seed"] for row in read_configs(umbel.Configs(rows, seeds=[5, 6]))] == [5, 6]
    own = [{"seed": 1}, {"seed": 2}]
    assert [row["seed"] for row in read_configs(umbel.Configs(own, seeds=[5, 6]))] == [1, 2]
