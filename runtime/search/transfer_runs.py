"""What do earlier runs have to lend to a sweep? Reads `transfer_from=`: the trials of runs in a store, group by group.

The space must be the same, dimension by dimension, so that a config from there can be tried here. It must not know how
configs are chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.runtime.leases.values import value_digest
from umbel.runtime.provenance.credentials import hidden_values
from umbel.runtime.search.lending import LentGroup
from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.adaptive import AdaptiveSearch
from umbel.scheduler.search.distributions import param_of
from umbel.scheduler.search.domains import Constant
from umbel.scheduler.search.pareto import Objective, in_words
from umbel.scheduler.search.space import Space, column_name, dimension_name
from umbel.scheduler.search.transfer import lent_score
from umbel.storage.runs.graph_record import SweepRecord
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import SUCCEEDED, metric_column, read_trials
from umbel.storage.values.columns import python_rows

__all__ = ["read_lenders"]


def read_lenders(
    runs: Run | Sequence[Run] | None, name: str, search: AdaptiveSearch, objective: Objective
) -> tuple[tuple[str, ...], tuple[LentGroup, ...]]:
    """The names of the runs that lend, and their groups.

    Args:
        runs: a run, or several.
        name: of the sweep that borrows.
        search: its search.
        objective: what it compares by.

    Raises:
        UsageError: something is no run; its sweep has another metric, mode or space; or it has no trials.
        NotFoundError: it has several sweeps, and none of this name.

    Cost: reads the trials of the runs.
    """
    if runs is None:
        return (), ()
    listed = [runs] if isinstance(runs, Run) else runs
    if not isinstance(listed, (list, tuple)) or not listed or not all(isinstance(run, Run) for run in listed):
        raise UsageError(
            "transfer_from is no run",
            got=runs,
            expected="a run, or a list of runs",
            hint='umbel.open_store("umbel-store").run("name") gives one',
        )
    names: list[str] = []
    groups: list[LentGroup] = []
    for run in listed:
        sweep = run.graph.sweeps.get(name) or run.graph.sweep(None)
        _check_like(run, sweep, search, objective)
        found = _groups(run, sweep, search)
        if not found:
            raise UsageError(f"the run {run.name!r} has nothing to lend: its sweep {sweep.name!r} has no trials yet")
        names.append(f"{run.id}/{sweep.name}")
        groups += found
    return tuple(names), tuple(groups)


def _check_like(run: Run, sweep: SweepRecord, search: AdaptiveSearch, objective: Objective) -> None:
    """Check that what is good in another sweep may be good in this one."""
    if sweep.objectives != (objective,):
        raise UsageError(
            f"the run {run.name!r} can't lend, since its trials were compared by something else",
            got=f"{in_words(sweep.objectives)} there",
            expected=f"{in_words((objective,))}, as here",
        )
    entry = next(node for node in run.record["graph"]["nodes"] if node["name"] == sweep.name)["sweep"]
    if (entry.get("define") is None) != (search.define is None):
        raise UsageError(
            f"the run {run.name!r} can't lend, since in one of the two a function defines the space",
            expected="a space of dimensions in both, or a function in both",
        )
    if search.define is not None:
        return
    here = _dimensions(hidden_values(search.source.space).space().describe(value_digest))
    there = _dimensions(entry.get("space") or {})
    for dimension in dict.fromkeys([*there, *here]):
        if here.get(dimension) != there.get(dimension):
            raise UsageError(
                f"the run {run.name!r} can't lend, since its space is another: {dimension!r} differs",
                got=f"{there.get(dimension, 'no such dimension')} there",
                expected=f"{here.get(dimension, 'no such dimension')}, as here",
                hint="search the same space, or leave that run out of transfer_from",
            )


def _dimensions(space: Mapping[str, Any]) -> dict[str, str]:
    """What each dimension is, by its name, as text."""
    found: dict[str, str] = {}
    for each in json.loads(json.dumps(space)).get("dimensions") or ():
        about = {key: value for key, value in each.items() if key not in ("path", "kind")}
        found[".".join(each["path"])] = f"{each['kind']} {json.dumps(about, ensure_ascii=False)}"
    return found


def _groups(run: Run, sweep: SweepRecord, search: AdaptiveSearch) -> list[LentGroup]:
    """The groups of a run, each with what came of its trials."""
    space = search.source.space
    columns = [] if search.define is not None else [f"config_{column_name(path)}" for path, _ in space.dimensions]
    judged = metric_column(sweep.metric)
    table = read_trials(run.objects, run.id, sweep, ["status", judged, "params", "borrowed_from", *columns])
    by_group: dict[int, tuple[list[Mapping[str, Any]], list[float], list[str], list[bool]]] = {}
    for row in python_rows(table):
        params = _params(row, space, search)
        if params is None:
            continue
        value = row.get(judged)
        values = (float(value),) if value is not None and row["status"] in SUCCEEDED else None
        score = lent_score(values, 0 if row["status"] == "pruned" else None, search.directions[0])
        configs, scores, origins, guided = by_group.setdefault(row["trial"] // sweep.trials, ([], [], [], []))
        configs.append(params)
        scores.append(score)
        origins.append(f"{run.id}/{sweep.name}/{row['trial']}")
        guided.append(row.get("borrowed_from") is not None)
    return [LentGroup(tuple(a), tuple(b), tuple(c), tuple(d)) for _, (a, b, c, d) in sorted(by_group.items())]


def _params(row: Mapping[str, Any], space: Space, search: AdaptiveSearch) -> dict[str, Any] | None:
    """The params of a row; None: they are not on record."""
    if row.get("params") is not None:
        return dict(json.loads(row["params"]))
    if "params" in row or search.define is not None:
        return None
    found: dict[str, Any] = {}
    for path, domain in space.dimensions:
        if isinstance(domain, Constant):
            continue
        value = param_of(domain, row.get(f"config_{column_name(path)}"), value_digest)
        if value is None:
            return None
        found[dimension_name(path)] = value[0]
    return found
