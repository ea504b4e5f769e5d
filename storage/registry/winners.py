"""Which trial won in each group of a run, and which model goes with it?

The best trial's own model, or what a later node made for that group. Groups that have none are named, with what to do.
It must not store anything, and must not load a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.pareto import Objective, in_words
from umbel.scheduler.words import counted
from umbel.storage.registry.groups import group_text
from umbel.storage.registry.model_rows import GROUP, by_columns
from umbel.storage.runs.graph_record import NodeRecord, SweepRecord, near_names
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import PRUNED, SUCCEEDED, best_trials, metric_column
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.columns import float_values, floats, inferred, int_values, integers, python_rows, strings
from umbel.storage.values.packs import MODEL, MODEL_AT

__all__ = ["Winners", "find_winners", "named"]

#: Columns of the trials table that say where a winner comes from.
_KEPT = ("sweep", "trial", "seed", "started", "seconds", "code", "data", "key", "reused_from")
#: Columns of a node's elements that say which model each made.
_OF_ELEMENT = ("element", "status", "error", "digest", MODEL, MODEL_AT, "payload")
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Winners:
    """The winners of a run, a row a group."""

    #: Columns: the keys, group, run, sweep, trial, config_…, metric_…, …, node, element, model, model_at.
    rows: pa.Table
    #: The bytes of models that are values small enough to lie in the run's segments; None: they lie elsewhere.
    payloads: list[bytes | None]
    by: tuple[str, ...]
    metric: str | None
    mode: str | None


def find_winners(
    run: Run, by: Sequence[str] | None, models: object, sweep: object, metric: str | None = None
) -> Winners:
    """Find the winner of each group.

    Args:
        run: a run that is done.
        by: the group keys; fewer than the sweep has: the best of all groups that agree in these. None: all.
        models: the node whose elements are the models, in the order of the groups; None: those of the trials.
        sweep: which sweep; None: the only one, or the one that ``models`` comes from.
        metric: of a sweep that is judged by several metrics the one by which a winner is chosen from each Pareto set.

    Raises:
        NotFoundError: the run has no such node or sweep.
        UsageError: groups without a winner or without a model; they are named.
    """
    if models is None:
        found = run.graph.sweep(sweep)
        return _of_trials(run, found, _keys(found, by), _objective(found, metric, needed=True))
    node = run.graph.node(models)
    if node.sweep is not None:
        return _of_trials(run, node.sweep, _keys(node.sweep, by), _objective(node.sweep, metric, needed=True))
    origin = _sweep_of(run, node, sweep)
    keys = () if origin is None else origin.group_names
    if by is not None and set(by) != set(keys):
        raise UsageError(
            f"the elements of {node.name!r} are groups by other keys",
            got=", ".join(by),
            expected=", ".join(keys) or "no keys",
            hint="leave by= out",
        )
    judged = None if origin is None else _objective(origin, metric, needed=False)
    return _of_elements(run, node, origin, tuple(by) if by is not None else keys, judged)


def _objective(sweep: SweepRecord, metric: str | None, *, needed: bool) -> Objective | None:
    """What one winner a group is chosen by; None: that is left to the node that made the models."""
    if metric is None and len(sweep.objectives) == 1:
        return sweep.objectives[0]
    names = [each.metric for each in sweep.objectives]
    if metric is None and not needed:
        return None
    if metric not in names:
        by = "several metrics" if metric is None else "others than this metric"
        raise UsageError(
            f"the sweep {sweep.name!r} is judged by {by}",
            got=metric,
            expected=f"one of {', '.join(names)}",
            hint=f"metric={names[0]!r} (--metric {names[0]}) takes the best by that from each group's Pareto set",
        )
    return sweep.objectives[names.index(metric)]


def _keys(sweep: SweepRecord, by: Sequence[str] | None) -> tuple[str, ...]:
    for name in by or ():
        if name not in sweep.group_names:
            raise UsageError(
                f"the sweep {sweep.name!r} has no groups by this key",
                got=name,
                expected=", ".join(sweep.group_names) or "no keys: its only group is the whole",
                hint=near_names(name, sweep.group_names),
            )
    return sweep.group_names if by is None else tuple(dict.fromkeys(by))


def _sweep_of(run: Run, node: NodeRecord, sweep: object) -> SweepRecord | None:
    """The sweep whose groups are a node's elements; None: the node is one value, and no sweep leads to it."""
    if sweep is not None:
        found = run.graph.sweep(sweep)
        if node.size != max(1, len(found.groups)):
            raise UsageError(
                f"{node.name!r} has not one element a group of the sweep {found.name!r}",
                got=counted(node.size or 0, "element"),
                expected=f"{max(1, len(found.groups))}",
            )
        return found
    nearest = run.graph.groups_of(node.name)
    if nearest is not None or node.size == 1:
        return nearest or _whole_sweep(run, node)
    raise UsageError(
        f"which groups the elements of {node.name!r} are is not known: no sweep of as many groups leads to it",
        got=counted(node.size or 0, "element"),
        expected="one element a group: refit.map(sweep.best(), data)",
        hint="name another node as models=, or the sweep, too",
    )


def _whole_sweep(run: Run, node: NodeRecord) -> SweepRecord | None:
    """The sweep without groups that leads to a node, if there is one."""
    front, seen = [node.name], set[str]()
    while front:
        name = front.pop(0)
        found = run.graph.nodes.get(name)
        if found is None or name in seen:
            continue
        seen.add(name)
        if found.sweep is not None and not found.sweep.groups:
            return found.sweep
        front.extend(found.inputs)
    return None


# ---- models of the trials --------------------------------------------------------------------------------------


def _of_trials(run: Run, sweep: SweepRecord, by: tuple[str, ...], judged: Objective | None) -> Winners:
    assert judged is not None
    best, missing = best_trials(run.objects, run.id, sweep)
    best = _best_by(best, judged, by)
    texts = _texts(best, by)
    lost = sorted({group_text([_of(sweep, group)[key] for key in by]) for group in missing} - set(texts))
    _refuse_missing(run, lost, f"no trial has a finite {in_words(sweep.objectives)}")
    digests = best[MODEL].to_pylist()
    without = [text for text, digest in zip(texts, digests, strict=True) if digest is None]
    if without:
        raise UsageError(
            f"the best trials of {len(without)} of {counted(len(texts), 'group')} of the run {run.name!r} "
            "have no model",
            got=named(without),
            expected=f"a model of each winner, kept by the sweep {sweep.name!r}",
            hint='let the trial return umbel.Result(metrics, model=...) (and the sweep not have keep="none") under a '
            "new name of the run, or name the node that makes the models: models=refit (--models refit)",
        )
    rows = _with_keys(run, best, by, texts)
    for name, kind in (("node", pa.string()), ("element", pa.int64())):
        rows = rows.append_column(name, pa.nulls(len(rows), kind))
    rows = rows.append_column(MODEL, best[MODEL])
    at = best[MODEL_AT] if MODEL_AT in best.column_names else pa.nulls(len(best), pa.string())
    rows = rows.append_column(MODEL_AT, at)
    return Winners(rows, [None] * len(rows), by, judged.metric, judged.mode)


def _best_by(best: pa.Table, judged: Objective, by: tuple[str, ...]) -> pa.Table:
    """Of trials whose groups agree in some keys the best; in the order in which they come first."""
    if not len(best):
        return best
    score = float_values(best[metric_column(judged.metric)]) * judged.sign
    pruned = [status in PRUNED for status in best["status"].to_pylist()]
    trials = int_values(best["trial"]).tolist()
    chosen: dict[str, int] = {}
    for place, text in enumerate(_texts(best, by)):
        held = chosen.setdefault(text, place)
        if (pruned[place], score[place], trials[place]) < (pruned[held], score[held], trials[held]):
            chosen[text] = place
    return best.take(integers(list(chosen.values())))


# ---- models of a later node ------------------------------------------------------------------------------------


def _of_elements(
    run: Run, node: NodeRecord, sweep: SweepRecord | None, by: tuple[str, ...], judged: Objective | None
) -> Winners:
    values = read_elements(run.objects, run.id, node, payload=True)
    measured = [
        name for name in values.column_names if name.startswith("metric_") and values[name].null_count < len(values)
    ]
    values = values.select([name for name in values.column_names if name in (*_OF_ELEMENT, *measured)])
    elements = {int(row["element"]): row for row in python_rows(values)}
    groups = [{}] if sweep is None else [_of(sweep, position) for position in range(max(1, len(sweep.groups)))]
    texts = [group_text([group[key] for key in by]) for group in groups]
    failed = [
        text for place, text in enumerate(texts) if (elements.get(place) or {"status": None})["status"] not in SUCCEEDED
    ]
    _refuse_missing(run, failed, f"elements of {node.name!r} failed")
    found = [elements[place] for place in range(len(texts))]
    if sweep is None or judged is None:  # of a Pareto set the node itself has chosen, or mixed
        keys = {name: inferred([group[key] for group in groups]) for key, name in zip(by, by_columns(by), strict=True)}
        rows = pa.table({**keys, GROUP: strings(texts), "run": strings([run.id] * len(texts))})
    else:
        best, missing = best_trials(run.objects, run.id, sweep)
        _refuse_missing(run, [texts[place] for place in missing], f"no trial has a finite {judged.metric}")
        rows = _with_keys(run, _best_by(best, judged, sweep.group_names), by, texts)
    for name in measured:  # the model's own, instead of those of the trial whose config it has
        column = floats([row.get(name) for row in found])
        at = rows.column_names.index(name) if name in rows.column_names else None
        rows = rows.append_column(name, column) if at is None else rows.set_column(at, name, column)
    rows = rows.append_column("node", strings([node.name] * len(rows)))
    rows = rows.append_column("element", integers(list(range(len(rows)))))
    # A task that returns umbel.Result(metrics, model=...) has both; else its value is the model.
    own = [row.get(MODEL) is not None for row in found]
    digests = [row[MODEL] if is_own else row["digest"] for row, is_own in zip(found, own, strict=True)]
    at = [row.get(MODEL_AT) if is_own else None for row, is_own in zip(found, own, strict=True)]
    payloads = [None if is_own else row.get("payload") for row, is_own in zip(found, own, strict=True)]
    rows = rows.append_column(MODEL, strings(digests)).append_column(MODEL_AT, strings(at))
    metric, mode = (None, None) if judged is None else (judged.metric, judged.mode)
    return Winners(rows, payloads, by, metric, mode)


# ---- rows ------------------------------------------------------------------------------------------------------


def _of(sweep: SweepRecord, position: int) -> dict[str, Any]:
    """The keys and values of a group."""
    values = sweep.groups[position] if sweep.groups else ()
    return dict(zip(sweep.group_names, values, strict=True))


def _texts(rows: pa.Table, by: tuple[str, ...]) -> list[str]:
    columns = [rows[name].to_pylist() for name in by]
    return [group_text(values) for values in zip(*columns, strict=True)] if by else [group_text([])] * len(rows)


def _with_keys(run: Run, best: pa.Table, by: tuple[str, ...], texts: list[str]) -> pa.Table:
    """The columns of winners that are kept: keys first, then the canonical text."""
    names = best.column_names
    columns = {column: best[name] for name, column in zip(by, by_columns(by), strict=True)}
    columns[GROUP] = strings(texts)
    columns["run"] = strings([run.id] * len(best))
    for name in (*_KEPT, *(each for each in names if each.startswith(("config_", "metric_")))):
        if name in names:
            columns.setdefault(name, best[name])
    return pa.table(columns)


def _refuse_missing(run: Run, groups: list[str], why: str) -> None:
    if groups:
        raise UsageError(
            f"{counted(len(groups), 'group')} of the run {run.name!r} can't be registered: {why}",
            got=named(groups),
            expected="a winner with a model in each group",
            hint=f"umbel why-failed {run.name} tells why; mend that, or leave these groups out, and run it under a new "
            "name: what is done is taken over",
        )


def named(groups: list[str]) -> str:
    """The first few of some groups, and how many there are besides."""
    more = f" and {len(groups) - _MAX_NAMED} more" if len(groups) > _MAX_NAMED else ""
    return ", ".join(groups[:_MAX_NAMED]) + more
