"""A graph that uses all that a graph can be made of, each part small: for comparing executors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ray import tune

import umbel
from umbel.runtime.graph.nodes import Node, Sweep

COUNTRIES = ["DEU", "FRA", "ITA"]
#: Items of an array that is too large to travel in messages.
LARGE = 20_000


# ---- tasks ---------------------------------------------------------------------------------------------------


@umbel.task
def load(country: str, scale: float = 1.0, *, offset: float = 0.0) -> list[float]:
    return [scale * ord(letter) + offset for letter in country]


@umbel.task
def describe(*parts: object, **named: object) -> str:
    return f"{parts} {sorted(named.items())}"


@umbel.task
def listed(text: str) -> list[str]:
    return text.split()


@umbel.task(cpus=2)
def total(values: Sequence[float]) -> float:
    return math.fsum(values)


@umbel.task(cpus=0.5)
def half(value: float) -> float:
    return value / 2


@umbel.task
def refit(best: umbel.Best, data: Sequence[float]) -> umbel.Result:
    return umbel.Result({"loss": best.value, "sum": sum(data)}, model={"config": best.config, "trial": best.trial})


@umbel.task(retries=1)
def unlucky(x: int, tries: str) -> int:
    """Fails until it has left a mark."""
    with open(f"{tries}/{x}", "a+") as file:  # noqa: PTH123
        file.seek(0)
        first = not file.read()
        file.write("tried")
    if first:
        raise RuntimeError("not at once")
    return x


@umbel.task
def large_array(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=LARGE)


@umbel.task
def large_frame(values: np.ndarray[Any, Any]) -> pd.DataFrame:
    return pd.DataFrame({"value": values, "name": [f"row {i}" for i in range(len(values))]})


@umbel.task
def large_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


@umbel.task
def rows_of(tables: list[pa.Table]) -> int:
    return sum(table.num_rows for table in tables)


# ---- trials --------------------------------------------------------------------------------------------------


def with_data(config: dict[str, Any], data: Sequence[float]) -> umbel.Result:
    loss = abs(config["alpha"] - data[0] / 100)
    return umbel.Result({"loss": loss, "first": data[0]}, model=[config["country"], config["alpha"]])


def by_number(config: dict[str, Any], data: float) -> float:
    return float(config["alpha"] * data)


def nested(config: dict[str, Any]) -> dict[str, float]:
    return {"gain": config["net"]["depth"] * config["year"] - (config["country"] == "FRA") + (config["flag"] is None)}


def again(config: dict[str, Any], best: umbel.Best) -> float:
    return float(abs(config["beta"] - best.config["alpha"]) + 0 * best.value)


@umbel.task(retries=2, retry_on=(OSError, TimeoutError), name="flaky")
def flaky(config: dict[str, Any]) -> dict[str, float]:
    trial = umbel.trial()
    if trial.index % 4 == 1 and trial.attempt < 3:
        raise ConnectionError("once more")
    if trial.index % 4 == 2:
        raise TimeoutError("never well")
    if trial.index % 4 == 3:
        raise ValueError("not worth another try")
    return {"loss": config["alpha"], "attempt": trial.attempt}


def context(config: dict[str, Any]) -> dict[str, float]:
    trial = umbel.trial()
    assert trial.sweep == "context"
    assert trial.group == {"country": config["country"]}
    return {"loss": trial.index, "seed": trial.seed, "attempt": trial.attempt}


def reports(config: dict[str, Any]) -> Any:
    """Reports before it returns: nothing, more, or what overrules it."""
    trial = umbel.trial()
    for step in range(3):
        umbel.report({"loss": 10.0 - step, "steps": step}, step=step)
        assert trial.step == step
    return [None, {"loss": 1.0}, {"extra": 2.0}, 5.0][trial.index]


def counts(config: dict[str, Any]) -> umbel.Result:
    """A model a trial, the best of which is the last."""
    index = umbel.trial().index
    return umbel.Result({"loss": -index}, model=f"model {index}")


@dataclass
class WideGraph:
    """The graph: what a run is given, and its parts by name."""

    tries: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tasks()
        self._sweeps()
        self._large()
        self._revealed()

    def _tasks(self) -> None:
        data = load.map(COUNTRIES, 2.0, offset=half.bind(1.0))
        sums = total.map(data)
        nothing = load.map([])
        self.nodes |= {
            "data": data,
            "sums": sums,
            "halves": half.map(sums),
            "all": total.bind(sums),
            "zipped": describe.map(COUNTRIES, (1, 2, 3), range(3), left="whole", right=np.array([1.5, 2.5, 3.5])),
            "whole": describe.bind(data, "a", [1, 2], key=sums),
            "nothing": nothing,
            "of nothing": describe.bind(nothing),
            "unlucky": unlucky.map([1, 2], self.tries),
        }

    def _sweeps(self) -> None:
        data, country = self.nodes["data"], {"country": COUNTRIES}
        alpha = {"alpha": tune.uniform(0, 1)}
        first = umbel.sweep(with_data, space=alpha, over=country, data=data, trials=9, metric="loss", keep="all")
        self.nodes |= {
            "fan-out": first,
            "models": refit.map(first, data),
            "top": first.top(3),
            "list": umbel.sweep(
                by_number, space=alpha, over=country, data=[1.0, 2.0, 3.0], trials=3, metric="loss", name="list"
            ),
            "value": umbel.sweep(by_number, space=alpha, over=country, data=7.0, trials=3, metric="loss", name="value"),
            "node": umbel.sweep(
                by_number, space=alpha, data=self.nodes["all"], trials=3, metric="loss", mode="max", name="node"
            ),
            "nested": umbel.sweep(
                nested,
                space={"net": {"depth": [1, 2]}, "flag": [None, "x"], "constant": "c"},
                over={"country": COUNTRIES, "year": [2000, 2001]},
                search="grid",
                metric="gain",
                mode="max",
            ),
            "again": umbel.sweep(
                again, space={"beta": tune.uniform(0, 1)}, over=country, data=first, trials=5, metric="loss"
            ),
            "flaky": umbel.sweep(flaky, space=alpha, trials=8, metric="loss"),
            "context": umbel.sweep(context, space=alpha, over=country, trials=4, metric="loss"),
            "reports": umbel.sweep(reports, space=alpha, trials=4, metric="loss"),
        }
        for keep in ("best", "all", "none"):
            name = f"keep-{keep}"
            self.nodes[name] = umbel.sweep(counts, space=alpha, trials=6, metric="loss", keep=keep, name=name)

    def _large(self) -> None:
        arrays = large_array.map([1, 2])
        frames = large_frame.map(arrays)
        tables = large_table.map(frames)
        self.nodes |= {"arrays": arrays, "frames": frames, "tables": tables, "rows": rows_of.bind(tables)}

    def _revealed(self) -> None:
        """What has a length that only a result tells."""
        words = listed.bind("POL ESP")
        data = load.map(words.elements())
        sweep = umbel.sweep(
            with_data,
            space={"alpha": tune.uniform(0, 1)},
            over={"country": words},
            data=data,
            trials=4,
            metric="loss",
            keep="none",
            name="revealed",
        )
        self.nodes |= {"revealed data": data, "revealed": sweep, "revealed list": describe.bind(sweep)}

    @property
    def targets(self) -> list[Node]:
        """What to run."""
        return list(self.nodes.values())

    @property
    def sweeps(self) -> dict[str, Sweep]:
        """The sweeps among the nodes."""
        return {name: node for name, node in self.nodes.items() if isinstance(node, Sweep)}
