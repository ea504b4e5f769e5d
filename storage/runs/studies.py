"""How does Optuna see the trials of one group of a sweep?

As a study in memory, made of the rows. Where an adaptive search ran, params and distributions are on record with each
trial; else they follow from the space in the run's record. It must not write.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from umbel.scheduler.errors import NotFoundError
from umbel.scheduler.search.adaptive import Direction
from umbel.scheduler.search.distributions import place_of
from umbel.scheduler.search.space import column_name, dimension_name
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import SweepRecord, near_names
from umbel.storage.runs.trial_rows import metric_column, trials_numbered
from umbel.storage.values.columns import python_rows

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

__all__ = ["study_of"]

_STATES = {"ok": "COMPLETE", "pruned": "PRUNED"}


def study_of(objects: ObjectStore, record: Mapping[str, Any], sweep: SweepRecord, group: object) -> optuna.Study:
    """The trials of one group as a study; see `Run.study`."""
    import optuna
    from optuna.distributions import json_to_distribution

    place = _place(sweep, group)
    first = place * sweep.trials
    numbers = np.arange(first, first + sweep.trials, dtype=np.int64)
    rows = python_rows(trials_numbered(objects, str(record["id"]), sweep, numbers))
    space = _space(record, sweep.name)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        directions: list[Direction] = ["minimize" if each.mode == "min" else "maximize" for each in sweep.objectives]
        study = optuna.create_study(directions=directions, study_name=sweep.name)
    finally:
        optuna.logging.set_verbosity(verbosity)
    for row in rows:
        params, distributions = {}, {}
        if row.get("params") is not None:
            params = json.loads(row["params"])
            described = json.loads(row["distributions"] or "{}")
            distributions = {name: json_to_distribution(json.dumps(each)) for name, each in described.items()}
        elif "params" not in row:
            params = {name: each.param(row) for name, each in space.items() if each.has(row)}
            distributions = {name: space[name].distribution for name in params}
        recorded = [row.get(metric_column(each.metric)) for each in sweep.objectives]
        values = None if None in recorded else [float(value) for value in recorded if value is not None]
        state = _STATES.get(row["status"], "FAIL")
        if state == "COMPLETE" and (values is None or any(map(math.isnan, values))):
            state = "FAIL"
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=values if state != "FAIL" else None,
            params=params,
            distributions=distributions,
            intermediate_values={each["step"]: float(each["value"]) for each in json.loads(row.get("rungs") or "[]")},
            user_attrs={
                "trial": row["trial"],
                **{name: row[name] for name in sweep.group_names},
                **{name[7:]: each for name, each in row.items() if name.startswith("metric_") and each is not None},
            },
        )
        trial.datetime_start = row["started"]
        trial.datetime_complete = row["started"] + timedelta(seconds=row["seconds"] or 0.0)
        study.add_trial(trial)
    return study


def _place(sweep: SweepRecord, group: object) -> int:
    """Which group is meant."""
    if group is None and len(sweep.groups) <= 1:
        return 0
    if isinstance(group, Mapping):
        wanted: tuple[object, ...] = tuple(group.get(name) for name in sweep.group_names)
    else:
        wanted = (group,)
    if wanted in sweep.groups:
        return sweep.groups.index(wanted)
    names = [", ".join(map(str, each)) for each in sweep.groups]
    raise NotFoundError(
        f"the sweep {sweep.name!r} has no such group",
        got=group,
        expected="a dict of " + ", ".join(sweep.group_names) if sweep.group_names else "None: there is one group only",
        hint=near_names(", ".join(map(str, wanted)), names),
    )


@dataclass(frozen=True, slots=True)
class _Dimension:
    """A dimension of a space as recorded."""

    column: str
    distribution: BaseDistribution
    #: The canonical texts of the choices; None: they are numbers in a range.
    texts: tuple[str, ...] | None

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a value of it."""
        stored = row.get(self.column)
        return stored is not None if self.texts is None else place_of(stored, self.texts) is not None

    def param(self, row: Mapping[str, Any]) -> Any:
        """The value of a row that has one, as it was tried."""
        stored = row.get(self.column)
        place = None if self.texts is None else place_of(stored, self.texts)
        return stored if place is None or self.texts is None else _plain(self.texts[place])


def _space(record: Mapping[str, Any], sweep: str) -> dict[str, _Dimension]:
    """The dimensions of a sweep's space by name, as recorded."""
    entry = next(node for node in record["graph"]["nodes"] if node["name"] == sweep)
    found: dict[str, _Dimension] = {}
    for described in (entry["sweep"].get("space") or {}).get("dimensions") or ():
        path = tuple(described["path"])
        distribution = _distribution(described)
        if distribution is not None:
            texts = tuple(described["values"]) if "values" in described else None
            found[dimension_name(path)] = _Dimension(f"config_{column_name(path)}", distribution, texts)
    return found


def _plain(text: str) -> Any:
    """A choice from its canonical text; what is not plain stays text, as in its column."""
    try:
        value = json.loads(text)
    except ValueError:  # of a date, say
        return text
    return value if value is None or isinstance(value, (str, int, float)) else text


def _distribution(described: Mapping[str, Any]) -> BaseDistribution | None:
    """Optuna's counterpart of a recorded domain; None for a constant, and for what Optuna has no counterpart of."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, low, high = described["kind"], described.get("low"), described.get("high")
    step = described.get("step") or 1
    if kind in ("Choice", "Grid"):
        return CategoricalDistribution([_plain(text) for text in dict.fromkeys(described["values"])])
    if kind in ("Uniform", "Stepped"):
        return FloatDistribution(low, high, step=described.get("step") or described.get("q"))  # type: ignore[arg-type]
    if kind == "LogUniform":
        return FloatDistribution(low, high, log=True)  # type: ignore[arg-type]
    if kind == "Integer":
        return IntDistribution(low, low + (-((low - high) // step) - 1) * step, step=step)  # type: ignore[operator, arg-type]
    if kind == "LogInteger":
        return IntDistribution(low, high - 1, log=True)  # type: ignore[operator, arg-type]
    return None
