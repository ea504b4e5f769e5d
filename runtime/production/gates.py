"""When may a version of a registered model take another's place? The built-in gates: `umbel.gates`.

Each call makes a gate, a function of (candidate, current) that judges every group. Without a current version, or where
that has no such group, there is nothing to compare with, and only what the candidate is by itself counts. If there is
something, but no group has two numbers that can be compared, the gate does not pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from umbel.scheduler.errors import UntrustedError, UsageError
from umbel.scheduler.words import counted
from umbel.storage.registry.gate_results import Gate, GateResult, GroupEvidence
from umbel.storage.registry.model_rows import GROUP, SIZE
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import as_taken, predict
from umbel.storage.runs.graph_record import near_names
from umbel.storage.runs.trial_rows import metric_column
from umbel.storage.values.columns import float_values

__all__ = [
    "Gate",
    "GateResult",
    "GroupEvidence",
    "better_on_most",
    "held_out",
    "max_latency_s",
    "max_size_bytes",
    "no_group_worse",
    "parse_gate",
]

#: Inputs of a group and what is true of them; or a function that gives them for a group.
HeldOut = Mapping[str, tuple[Any, Any]] | Callable[[str], tuple[Any, Any]]
#: How often a model is asked to measure how long it takes, and what is not counted.
_REPEATS = 20
_WARM_UP = 2


def better_on_most(metric: str | None = None, *, share: float = 0.5, mode: str | None = None) -> Gate:
    """The metric that is registered is better in at least a share of the groups that both have.

    Args:
        metric: its name; None: the one that winners were chosen by.
        share: from 0 to 1.
        mode: "min" or "max", which is better; None: as the winners were chosen, and "min" for other metrics.

    Raises:
        UsageError: an argument is wrong; when it judges: the candidate has no such metric.
    """
    _check_share(share)
    _check_mode(mode)

    return _MetricGate("better_on_most", metric, mode, share=share)


def no_group_worse(metric: str | None = None, *, by: float = 0.05, mode: str | None = None) -> Gate:
    """The metric that is registered is in no group worse by more than a share of what it is now; and no group is lost.

    Args:
        metric: its name; None: the one that winners were chosen by.
        by: 0.05 means five percent.
        mode: see `better_on_most`.

    Raises:
        UsageError: an argument is wrong; when it judges: the candidate has no such metric.
    """
    _check_by(by)
    _check_mode(mode)

    return _MetricGate("no_group_worse", metric, mode, by=by)


def held_out(
    data: HeldOut,
    score: Callable[[Any, Any], float],
    *,
    mode: str = "min",
    by: float = 0.0,
    share: float | None = None,
) -> Gate:
    """Both versions are asked on data that neither has seen, and scored.

    A group without data, or whose candidate does not answer, does not pass. Cost: each model is loaded and asked once.

    Args:
        data: for each group, by its text, (inputs, truth); or a function of the group's text that returns it.
        score: a function of (outputs, truth).
        mode: "min" or "max": which scores are better.
        by: no group may be worse by more than this share of its present score.
        share: instead, this share of the groups must be better.

    Raises:
        UsageError: an argument is wrong.
    """
    _check_by(by)
    _check_mode(mode)
    if share is not None:
        _check_share(share)

    limit = f"by={by:g}" if share is None else f"share={share:g}"
    name = f"held_out({getattr(score, '__name__', 'score')}, {limit})"

    def gate(candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
        groups = dict.fromkeys([*candidate.groups, *([] if current is None else current.groups)])
        found = {group: _held_out_of(data, group) for group in groups}
        mine, notes = _scores(candidate, found, score)
        theirs, their_notes = ({}, {}) if current is None else _scores(current, found, score)
        rows = _compared(mine, theirs, 1.0 if mode == "min" else -1.0, by if share is None else None, notes)
        why = next((f"such as {group}: {note}" for group, note in their_notes.items()), "")
        return _result(name, rows, bool(theirs), share, why)

    gate.__name__ = name
    return gate


def max_latency_s(p95: float, inputs: object = None) -> Gate:
    """The candidate answers in at most this time, loading not counted: the 95th percentile of 20 calls, in each group.

    Args:
        p95: in seconds, on the machine that promotes.
        inputs: what it is asked; None: the example that was registered.

    Raises:
        UsageError: an argument is wrong; when it judges: there is no example.
    """
    _check_positive("max_latency_s", p95)

    def gate(candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
        asked = candidate.smoke if inputs is None else inputs
        if asked is None:
            raise UsageError(
                f"version {candidate.number} of {candidate.model!r} has no example inputs to measure its latency with",
                hint="register with inputs=, or max_latency_s(p95, inputs=...)",
            )
        rows = tuple(_timed(candidate, group, asked, p95) for group in candidate.groups)
        return GateResult(f"max_latency_s({p95:g})", all(row.ok for row in rows), rows)

    return gate


def max_size_bytes(most: int) -> Gate:
    """No model of the candidate takes more bytes in the store.

    Raises:
        UsageError: an argument is wrong.
    """
    _check_positive("max_size_bytes", most)

    def gate(candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
        before = {} if current is None else _column(current, SIZE)
        rows = tuple(
            GroupEvidence(group, size <= most, size, before.get(group))
            for group, size in _column(candidate, SIZE).items()
        )
        return GateResult(f"max_size_bytes({most})", all(row.ok for row in rows), rows)

    return gate


# ---- by name, for the command line -----------------------------------------------------------------------------


def _whole(text: str) -> int:
    """A whole number, as ``1e6`` too."""
    return int(float(text))


_NAMED: dict[str, tuple[Callable[..., Gate], dict[str, Callable[[str], Any]], str | None]] = {
    "better-on-most": (better_on_most, {"metric": str, "share": float, "mode": str}, None),
    "no-group-worse": (no_group_worse, {"metric": str, "by": float, "mode": str}, None),
    "max-latency-s": (max_latency_s, {"p95": float}, "p95"),
    "max-size-bytes": (max_size_bytes, {"most": _whole}, "most"),
}


def parse_gate(text: str) -> Gate:
    """A gate by its name: ``"no-group-worse:by=0.1,metric=mase"``, ``"max-latency-s:0.05"``.

    Raises:
        UsageError: there is none of this name, or it does not take this.
    """
    name, _, given = text.partition(":")
    if name not in _NAMED:
        raise UsageError(
            "there is no gate of this name",
            got=name,
            expected="one of " + ", ".join(_NAMED),
            hint=near_names(name, _NAMED) or "umbel promote --help shows what each takes",
        )
    make, kinds, only = _NAMED[name]
    options: dict[str, Any] = {}
    for part in filter(None, given.split(",")):
        key, equals, value = part.partition("=")
        if not equals and only is not None:
            key, value = only, part
        try:
            options[key] = kinds[key](value)
        except (KeyError, ValueError):
            takes = ", ".join(f"{each}=…" for each in kinds)
            raise UsageError(f"the gate {name} does not take this", got=part, expected=f"{name}:{takes}") from None
    if only is not None and only not in options:
        raise UsageError(f"the gate {name} needs a number", got=text, expected=f"{name}:{only}=…")
    return make(**options)


# ---- judging ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _MetricGate:
    """Judges by a metric that is registered: by the share of groups that are better, or by none being worse."""

    kind: str
    metric: str | None
    mode: str | None
    share: float | None = None
    by: float | None = None

    def check(self, candidate: ModelVersion) -> None:
        """Refuse a version that does not have the metric."""
        _metric_of(candidate, self.metric, self.mode)

    def __call__(self, candidate: ModelVersion, current: ModelVersion | None) -> GateResult:
        metric, sign = _metric_of(candidate, self.metric, self.mode)
        mine, theirs = _registered(candidate, metric), _registered(current, metric)
        limit = f"by={self.by:g}" if self.share is None else f"share={self.share:g}"
        why = ""
        if current is not None and metric_column(metric) not in current.table().column_names:
            why = f"version {current.number} has no metric {metric!r}"
        rows = _compared(mine, theirs, sign, self.by)
        return _result(f"{self.kind}({metric!r}, {limit})", rows, bool(theirs), self.share, why)


def _compared(
    candidate: Mapping[str, float],
    current: Mapping[str, float],
    sign: float,
    by: float | None,
    notes: Mapping[str, str] | None = None,
) -> tuple[GroupEvidence, ...]:
    """Each group, ok if it is better (by: None), or not worse by more than a share."""
    rows = []
    for group in dict.fromkeys([*candidate, *current]):
        new, old = candidate.get(group), current.get(group)
        note = (notes or {}).get(group, "")
        if new is None:
            ok, note = False, note or "the candidate has no model of this group"
        elif not math.isfinite(new):
            ok, note = False, note or "no finite number"
        elif old is None or not math.isfinite(old):
            ok, note = True, note or "nothing to compare with"
        else:
            worse = sign * (new - old)
            ok = worse < 0 if by is None else worse <= by * abs(old)
        rows.append(GroupEvidence(group, ok, new, old, note))
    return tuple(rows)


def _result(
    name: str, rows: tuple[GroupEvidence, ...], any_current: bool, share: float | None, why: str = ""
) -> GateResult:
    """What follows from the groups.

    Args:
        name: of the gate.
        rows: the groups.
        any_current: whether there is anything that the candidate would take the place of.
        share: of the groups that were compared, how many must be better; None: all groups must be ok.
        why: nothing could be compared, if that is known.
    """
    if not any_current:
        return GateResult(name, all(row.ok for row in rows), rows, "there is nothing to compare with yet")
    compared = [row for row in rows if _is_finite(row.candidate) and _is_finite(row.current)]
    if not compared:  # without rows: what was not compared is evidence for no group
        note = "no group could be compared: there are no two finite numbers of one" + (f" ({why})" if why else "")
        return GateResult(name, False, (), note)
    if share is None:
        return GateResult(name, all(row.ok for row in rows), rows, f"compared in {counted(len(compared), 'group')}")
    better = sum(row.ok for row in compared)
    note = f"better in {better} of {counted(len(compared), 'group')}"
    return GateResult(name, better >= share * len(compared), rows, note)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _metric_of(version: ModelVersion, metric: str | None, mode: str | None) -> tuple[str, float]:
    """The metric to compare by, and 1 if less is better, else -1."""
    name = version.metric if metric is None else metric
    known = [column[7:] for column in version.table().column_names if column.startswith("metric_")]
    if name is None or metric_column(name)[7:] not in known:
        raise UsageError(
            f"version {version.number} of {version.model!r} has no such metric",
            got=name,
            expected="one of " + ", ".join(known) if known else None,
            hint=near_names(str(name), known) or "held_out(data, score) compares on data instead",
        )
    better = mode or (version.mode if name == version.metric else None) or "min"
    return name, 1.0 if better == "min" else -1.0


def _registered(version: ModelVersion | None, metric: str) -> dict[str, float]:
    if version is None:
        return {}
    column = metric_column(metric)
    if column not in version.table().column_names:
        return dict.fromkeys(version.groups, math.nan)
    return _column(version, column)


def _column(version: ModelVersion, column: str) -> dict[str, float]:
    table = version.table()
    return dict(zip(table[GROUP].to_pylist(), float_values(table[column]).tolist(), strict=True))


# ---- asking ----------------------------------------------------------------------------------------------------


def _held_out_of(data: HeldOut, group: str) -> tuple[Any, Any] | None:
    return data.get(group) if isinstance(data, Mapping) else data(group)


def _scores(
    version: ModelVersion, data: Mapping[str, tuple[Any, Any] | None], score: Callable[[Any, Any], float]
) -> tuple[dict[str, float], dict[str, str]]:
    """The score of each group, NaN where there is none, and why."""
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    for group in version.groups:
        found = data.get(group)
        scores[group] = math.nan
        if found is None:
            notes[group] = "no held-out data"
            continue
        try:
            scores[group] = float(score(version.predict(group, found[0]), found[1]))
        except UntrustedError:
            raise
        except Exception as error:  # whatever the model, or the score, raises
            notes[group] = f"{type(error).__name__}: {error}"[:200]
    return scores, notes


def _timed(version: ModelVersion, group: str, inputs: object, most_s: float) -> GroupEvidence:
    try:
        model, asked = version.load(group), as_taken(inputs, version.takes)
        seconds = []
        for _ in range(_REPEATS + _WARM_UP):
            began = time.perf_counter()
            predict(model, asked)
            seconds.append(time.perf_counter() - began)
    except UntrustedError:
        raise
    except Exception as error:  # whatever the model raises
        return GroupEvidence(group, False, note=f"{type(error).__name__}: {error}"[:200])
    took_s = float(np.percentile(seconds[_WARM_UP:], 95))
    return GroupEvidence(group, took_s <= most_s, took_s)


# ---- arguments -------------------------------------------------------------------------------------------------


def _check_share(share: float) -> None:
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise UsageError("share is no share", got=repr(share), expected="0 to 1")


def _check_by(by: float) -> None:
    if not isinstance(by, (int, float)) or not 0 <= by < math.inf:
        raise UsageError("by is no share", got=repr(by), expected="0 or more: 0.05 means five percent")


def _check_mode(mode: str | None) -> None:
    if mode not in (None, "min", "max"):
        raise UsageError("mode is unknown", got=repr(mode), expected='"min" or "max"')


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(f"{name} needs a limit", got=repr(value), expected="a number above 0")
