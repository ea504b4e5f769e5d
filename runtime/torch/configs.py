"""What do the configs of fused trials say: one dict a trial, its seed, and its hyperparameters, checked?

Pure: no torch here, so that a wrong config is told before anything heavy begins. It must not know how trials are
trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umbel.runtime.fused.configs import Configs
from umbel.scheduler.errors import TrialUsageError, UsageError

__all__ = ["OPTIMIZERS", "OWN_KEYS", "hyperparameters", "optimizer_name", "read_configs", "read_seeds"]

#: What each optimizer takes from a config, and what holds where a config doesn't say: the values of torch.optim.
OPTIMIZERS: dict[str, dict[str, float | tuple[float, float]]] = {
    "sgd": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
    "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
}
#: Keys of a config that may differ from trial to trial whatever the module does with them.
OWN_KEYS = frozenset({"lr", "momentum", "weight_decay", "betas", "eps", "dropout", "seed"})
#: The seeds that torch.manual_seed takes.
SEEDS = (-(2**63), 2**64 - 1)


@dataclass(frozen=True, slots=True)
class _Rule:
    holds: Callable[[float], bool]
    expected: str


_NOT_NEGATIVE = _Rule(lambda value: 0 <= value < math.inf, "a finite number, not below 0")
_BELOW_ONE = _Rule(lambda value: 0 <= value < 1, "a number from 0 to below 1")
_RULES = {"betas": _BELOW_ONE, "momentum": _NOT_NEGATIVE}


def optimizer_name(optimizer: object) -> str:
    """The optimizer that is meant: by its name, or by the class in torch.optim."""
    name = optimizer.lower() if isinstance(optimizer, str) else getattr(optimizer, "__name__", "").lower()
    if name not in OPTIMIZERS:
        raise UsageError(
            "no such optimizer for fused trials",
            got=repr(optimizer),
            expected=", ".join(map(repr, OPTIMIZERS)),
            hint="lr, weight_decay, betas and so on come from each trial's config",
        )
    return name


def read_configs(configs: Sequence[Mapping[str, Any]] | Mapping[str, Any] | Configs) -> list[dict[str, Any]]:
    """One dict a trial, of plain values, from a list of dicts or from a dict of columns.

    In a dict of columns lists and arrays are columns; any other value (a number, a string, a tuple) holds for all
    trials. What a fused function is given has the seeds beside the configs: they count where the space has none.

    Raises:
        UsageError: there are no trials, or columns differ in length.
    """
    if isinstance(configs, Configs):
        seeds = configs.seeds.tolist()
        rows = [{"seed": seed, **row} for seed, row in zip(seeds, configs.rows(), strict=True)]
        return [{key: _plain(value) for key, value in row.items()} for row in rows]
    if isinstance(configs, Mapping):
        columns = {key: value for key, value in configs.items() if _is_column(value)}
        lengths = {key: len(value) for key, value in columns.items()}
        if not lengths:
            raise UsageError(
                "configs has no column, so it does not say how many trials there are",
                got=repr(dict(configs)),
                expected="at least one list or array, one value a trial",
                hint="a single trial: configs=[{...}]",
            )
        if len(set(lengths.values())) > 1:
            raise UsageError(
                "columns of configs differ in length", got=repr(lengths), expected="one value a trial in each"
            )
        count = next(iter(lengths.values()))
        rows = [
            {key: _plain(value[i]) if key in columns else _plain(value) for key, value in configs.items()}
            for i in range(count)
        ]
    else:
        if not isinstance(configs, Sequence) or not all(isinstance(config, Mapping) for config in configs):
            raise UsageError(
                "configs is neither a list of dicts nor a dict of columns",
                got=type(configs).__name__,
                expected="[{'lr': 0.01}, …] or {'lr': array([0.01, …])}",
            )
        rows = [{key: _plain(value) for key, value in config.items()} for config in configs]
    if not rows:
        raise UsageError("there are no configs", got="0", expected="at least one trial")
    return rows


def read_seeds(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[int]:
    """The seed of each trial; 0 where a config has none, so that no result depends on a trial's place in the batch.

    Args:
        rows: the configs.
        numbers: what the trials are called in errors.

    Raises:
        UsageError: a seed is not one; the trial is named.
    """
    return [_seed(row.get("seed", 0), trial) for trial, row in zip(numbers, rows, strict=True)]


def _seed(value: object, trial: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not SEEDS[0] <= value <= SEEDS[1]:
        raise TrialUsageError(
            f"the seed of trial {trial} is not one for torch.manual_seed",
            got=repr(value),
            expected=f"a whole number from {SEEDS[0]} to {SEEDS[1]}",
        )
    return value


def hyperparameters(optimizer: str, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """The optimizer's hyperparameters as float64 columns, one value a trial; ``betas`` as ``beta1`` and ``beta2``.

    Args:
        optimizer: its name.
        rows: the configs.
        numbers: what the trials are called in errors.

    Raises:
        UsageError: a value is out of its range; the trial is named.
    """
    found: dict[str, np.ndarray] = {}
    for key, default in OPTIMIZERS[optimizer].items():
        values = [_number(row.get(key, default), key, trial) for trial, row in zip(numbers, rows, strict=True)]
        if key == "betas":
            found["beta1"], found["beta2"] = np.array(values, dtype=np.float64).T
        else:
            found[key] = np.array(values, dtype=np.float64)[:, 0]
    return found


def _number(value: object, key: str, trial: int) -> tuple[float, ...]:
    rule, count = _RULES.get(key, _NOT_NEGATIVE), 2 if key == "betas" else 1
    try:
        numbers = tuple(float(part) for part in (value if count > 1 else [value]))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(rule.holds(number) for number in numbers):
        expected = rule.expected if count == 1 else f"two numbers, each {rule.expected}"
        raise TrialUsageError(f"{key} of trial {trial} is out of range", got=repr(value), expected=expected)
    return numbers


def _is_column(value: object) -> bool:
    return isinstance(value, list) or (hasattr(value, "__getitem__") and getattr(value, "ndim", 0) > 0)


def _plain(value: Any) -> Any:
    """Without NumPy's and torch's wrappers, so that a config is what it would be for one trial alone."""
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        found = value.tolist()
        return tuple(found) if isinstance(found, list) else found
    return value
