"""`umbel.diff`: what differs between two runs, and what came of it?

Code, data, space and arguments, environment, and the results group by group, with one line that names what differs. It
reads what both runs have recorded, and the values of a few elements that changed. It must not run anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import median
from typing import Any

from umbel.runtime.code_changes import CodeChange, code_changes
from umbel.runtime.recorded_modules import recorded_modules
from umbel.runtime.resume import graph_differences
from umbel.runtime.statistics import sign_test
from umbel.runtime.value_changes import describe_change, distance
from umbel.scheduler.errors import UmbelError
from umbel.storage.columns import int_values, python_rows
from umbel.storage.run import Run
from umbel.storage.trial_rows import metric_column

__all__ = ["DataChange", "Difference", "GroupChange", "SweepChange", "diff", "environment_changes"]

#: Elements of a node whose values are compared, and of these, the farthest apart, are described.
COMPARED_LIMIT, VALUES_LIMIT = 50, 3
#: Lines of a function's diff, and groups of a sweep, that the text shows.
LINES_LIMIT, GROUPS_LIMIT = 60, 10


@dataclass(frozen=True, slots=True)
class DataChange:
    """A node whose values differ although its code and its inputs do not: data that changed outside."""

    node: str
    #: The elements that differ, those first that are farthest apart, and how many elements there are.
    elements: tuple[int, ...]
    size: int
    #: The groups that they belong to, where they are those of a sweep: ``"country=CHL"``.
    groups: tuple[str, ...]
    #: What differs in the first few, a line each.
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group's best metric in both runs."""

    group: Mapping[str, Any]
    before: float
    after: float
    #: "better", "worse" or "equal", as the sweep's mode has it.
    verdict: str


@dataclass(frozen=True, slots=True)
class SweepChange:
    """What came of a sweep in both runs."""

    sweep: str
    metric: str
    groups: tuple[GroupChange, ...]
    better: int
    worse: int
    equal: int
    #: Of the exact two-sided sign test over the groups that differ: could it be chance?
    p_value: float
    #: Median of the changes of groups that differ, after less before; None: none does.
    median_change: float | None
    #: Trials that ended, and that failed, before and after.
    trials: tuple[int, int]
    failed: tuple[int, int]
    #: Groups with a best trial in one run only.
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether a group's best differs or is there in one run only, or other numbers of trials failed."""
        return bool(
            self.better or self.worse or self.only_before or self.only_after or self.failed[0] != self.failed[1]
        )

    @property
    def summary(self) -> str:
        """What differs, in a line."""
        parts = [f"{self.better} better, {self.worse} worse, {self.equal} equal"]
        if self.only_before:
            parts.append(f"{len(self.only_before)} without a result now ({_some(list(self.only_before))})")
        if self.only_after:
            parts.append(f"{len(self.only_after)} with a result now only ({_some(list(self.only_after))})")
        if self.failed[0] != self.failed[1]:
            parts.append(f"failed trials {self.failed[0]:,} → {self.failed[1]:,}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two runs; prints as text."""

    before: str
    after: str
    code: tuple[CodeChange, ...]
    data: tuple[DataChange, ...]
    #: Nodes whose values differ because of what stands above.
    follows: tuple[str, ...]
    #: Space, groups, search, seed, and the shape of the graph; then the plain values among its arguments.
    space: tuple[str, ...]
    arguments: tuple[str, ...]
    #: The command lines, if they differ.
    command: tuple[str, ...]
    #: Python, system, image, and packages, as "name 1.0 → 1.1".
    environment: tuple[str, ...]
    results: tuple[SweepChange, ...]

    @property
    def summary(self) -> str:
        """One line that names what differs."""
        parts = []
        if self.code:
            parts.append(f"code ({_some([change.name.rpartition('.')[2] for change in self.code])})")
        for change in self.data:
            which = _some(list(change.groups)) if change.groups else f"{len(change.elements)} of {change.size}"
            parts.append(f"data of {change.node} ({which})" if change.size > 1 else f"data of {change.node}")
        parts += ["space"] if self.space else []
        parts += ["arguments"] if self.arguments else []
        parts += [f"environment ({_some(list(self.environment))})"] if self.environment else []
        what = "; ".join(parts) or "nothing in code, data, space, arguments or environment"
        moved = [f"{each.sweep}: {each.summary}" for each in self.results if each.differs]
        return f"differs: {what}. " + ("Results: " + "; ".join(moved) if moved else "Results are equal")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"summary": self.summary, **asdict(self)}

    def text(self) -> str:
        """All of it, for people."""
        lines = [f"{self.before} → {self.after}", self.summary]
        for change in self.code:
            lines += ["", f"code: {change.name} {change.how}", *_head(change.diff.splitlines(), LINES_LIMIT)]
        for data in self.data:
            which = f"{len(data.elements):,} of {data.size:,} elements"
            groups = f": {_some(list(data.groups), 8)}" if data.groups else ""
            lines += ["", f"data: {data.node}, {which}{groups}", *(f"  {line}" for line in data.details)]
        if self.follows:
            lines += ["", "values that follow from that:", *(f"  {text}" for text in self.follows)]
        for title in ("space", "arguments", "command", "environment"):
            found = getattr(self, title)
            lines += ["", f"{title}:", *(f"  {line}" for line in found)] if found else []
        for sweep in self.results:
            lines += ["", *_sweep_lines(sweep)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def diff(before: Run, after: Run) -> Difference:
    """What differs between two runs, of one store or of two.

    Args:
        before: the earlier one, to which the other is compared.
        after: the other.

    Raises:
        StoreError: a store can't be read.

    Cost: reads the digests of all values, the metrics of all trials, and the values of a few elements that differ.
    Unpickling those runs code that is stored in them: compare runs of stores whose writers you trust.
    """
    old, new = _entries(before), _entries(after)
    old_files, new_files = before.source_files(), after.source_files()
    code = [
        change
        for change in code_changes(_parts(old), _parts(new), old_files, new_files)
        if change.how == "changed" or change.diff
    ]
    # Values may be of the project's own classes, which need not be importable here, and must be the same for both.
    with recorded_modules(new_files, after.record.get("modules") or {}):
        data, follows = _data_changes(before, after, old, new)
    differences = graph_differences(list(old.values()), list(new.values()))
    arguments = [text for text in differences if "argument" in text]
    space = [text for text in differences if "argument" not in text]
    commands = [" ".join(run.record.get("command") or ()) for run in (before, after)]
    return Difference(
        before.name,
        after.name,
        tuple(code),
        tuple(data),
        tuple(follows),
        tuple(space),
        tuple(arguments),
        tuple(commands) if commands[0] != commands[1] else (),
        tuple(_environment(before, after)),
        tuple(_results(before, after)),
    )


def _entries(run: Run) -> dict[str, Mapping[str, Any]]:
    return {str(entry["name"]): entry for entry in (run.record.get("graph") or {}).get("nodes") or []}


def _parts(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: digest for entry in entries.values() for name, digest in (entry.get("code_parts") or {}).items()}


# ---- data ------------------------------------------------------------------------------------------------------


def _data_changes(
    before: Run, after: Run, old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> tuple[list[DataChange], list[str]]:
    """The nodes where data changed by themselves, and the names of those that follow."""
    changed: dict[str, set[int]] = {}
    origins: list[DataChange] = []
    follows: list[str] = []
    for name, entry in new.items():
        if name not in old or old[name].get("kind") != entry.get("kind"):
            continue
        if entry.get("sweep"):
            trials = int(entry["sweep"]["trials"])
            size = (after.graph.node(name).size or 0) // trials
            changed[name] = _inherited(entry, changed, size)
            if old[name].get("code") != entry.get("code") or old[name].get("sweep") != entry.get("sweep"):
                changed[name] = set(range(size))
            continue
        left, right = _digests(before, name), _digests(after, name)
        differ = {element for element in left.keys() & right.keys() if left[element] != right[element]}
        changed[name] = differ
        if not differ:
            continue
        same_code = old[name].get("code") == entry.get("code") and old[name].get("arguments") == entry.get("arguments")
        own = differ - _inherited(entry, changed, max(right) + 1) if same_code else set()
        if own and entry["kind"] not in ("best", "top"):
            origins.append(_data_change(before, after, name, sorted(own), len(right)))
        if not own or entry["kind"] in ("best", "top"):
            groups = _group_names(after, name, sorted(differ))
            which = f"{len(differ):,} of {len(right):,}" + (f": {_some(groups)}" if groups else "")
            follows.append(f"{name} ({which})" if len(right) > 1 else name)
    return origins, follows


def _inherited(entry: Mapping[str, Any], changed: Mapping[str, set[int]], size: int) -> set[int]:
    """The elements (of a sweep: groups) that something which changed went into."""
    found: set[int] = set()
    for argument in entry.get("arguments") or ():
        source = changed.get(argument.get("node") or "")
        if not source:
            continue
        if argument["kind"] != "each":
            return set(range(size))
        repeat = int(argument.get("repeat", 1))
        found |= {element for element in range(size) if element // repeat in source}
    return found


def _digests(run: Run, node: str) -> dict[int, str]:
    rows = run.elements(node, ["digest"])
    return dict(zip(int_values(rows["element"]).tolist(), rows["digest"].to_pylist(), strict=True))


def _data_change(before: Run, after: Run, name: str, elements: list[int], size: int) -> DataChange:
    found: list[tuple[float, int, list[str]]] = []
    for element in elements[:COMPARED_LIMIT]:
        try:
            values = before.value(name, element), after.value(name, element)
            found.append((distance(*values), element, describe_change(*values)))
        except UmbelError as error:
            found.append((0.0, element, [f"can't be read: {error.what}"]))
    found.sort(key=lambda each: -each[0])  # what changed most is most often the reason of the rest
    elements = [element for _, element, _ in found] + elements[COMPARED_LIMIT:]
    groups = _group_names(after, name, elements)
    details: list[str] = []
    for position, (_, element, lines) in enumerate(found[:VALUES_LIMIT]):
        label = groups[position] if groups else f"element {element}" if size > 1 else "value"
        details += [f"{label}: {line}" for line in lines]
    if len(elements) > VALUES_LIMIT:
        details.append(f"and {len(elements) - VALUES_LIMIT} more")
    return DataChange(name, tuple(elements), size, tuple(groups), tuple(details))


def _group_names(run: Run, name: str, elements: Sequence[int]) -> list[str]:
    """The groups of the sweep that has this node as its data."""
    for entry in _entries(run).values():
        feeds = any(each.get("node") == name and each["kind"] == "each" for each in entry.get("arguments") or ())
        if entry.get("sweep") and feeds:
            sweep = run.graph.node(entry["name"]).sweep
            if sweep is not None and sweep.group_names and max(elements) < len(sweep.groups):
                return [_label(dict(zip(sweep.group_names, sweep.groups[e], strict=True))) for e in elements]
    return []


# ---- environment -----------------------------------------------------------------------------------------------


def _environment(before: Run, after: Run) -> list[str]:
    if before.record.get("environment") == after.record.get("environment"):
        return []
    old, new = before.environment() or {}, after.environment() or {}
    return environment_changes(old, new)


def environment_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two environments differ, as `umbel.runtime.provenance.environment` describes them."""
    if not old or not new:
        return ["not recorded in one of the runs"]
    found = [
        f"{key} {old.get(key) or 'none'} → {new.get(key) or 'none'}"
        for key in ("python", "implementation", "system", "machine", "libc", "image")
        if old.get(key) != new.get(key)
    ]
    left, right = old.get("packages") or {}, new.get("packages") or {}
    return found + [
        f"{name} {left.get(name, 'none')} → {right.get(name, 'none')}"
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    ]


# ---- results ---------------------------------------------------------------------------------------------------


def _results(before: Run, after: Run) -> list[SweepChange]:
    found = []
    for name in after.sweeps:
        if name not in before.sweeps:
            continue
        old, new = before.graph.sweep(name), after.graph.sweep(name)
        if (old.metric, old.mode) == (new.metric, new.mode):
            found.append(_sweep_change(before, after, name, new.metric, new.mode))
    return found


def _sweep_change(before: Run, after: Run, name: str, metric: str, mode: str) -> SweepChange:
    left, right = _best_by_group(before, name), _best_by_group(after, name)
    groups = []
    for label, (group, new) in right.items():
        if label in left:
            old = left[label][1]
            verdict = "equal" if new == old else "better" if (new < old) == (mode == "min") else "worse"
            groups.append(GroupChange(group, old, new, verdict))
    counts = {verdict: sum(each.verdict == verdict for each in groups) for verdict in ("better", "worse", "equal")}
    moved = [each.after - each.before for each in groups if each.verdict != "equal"]
    ended = [run.elements(name, ["status"])["status"].to_pylist() for run in (before, after)]
    return SweepChange(
        name,
        metric,
        tuple(groups),
        counts["better"],
        counts["worse"],
        counts["equal"],
        sign_test(counts["better"], counts["worse"]),
        median(moved) if moved and all(map(isfinite, moved)) else None,
        (len(ended[0]), len(ended[1])),
        (_failed(ended[0]), _failed(ended[1])),
        tuple(label for label in left if label not in right),
        tuple(label for label in right if label not in left),
    )


def _failed(statuses: Sequence[str]) -> int:
    return sum(status not in ("ok", "pruned") for status in statuses)


# ---- words -----------------------------------------------------------------------------------------------------


def _label(group: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in group.items()) or "(all)"


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _head(lines: list[str], limit: int) -> list[str]:
    return lines if len(lines) <= limit else [*lines[:limit], f"… and {len(lines) - limit} more lines"]


def _sweep_lines(sweep: SweepChange) -> list[str]:
    change = "" if sweep.median_change is None else f"; median change of those that differ {sweep.median_change:+.4g}"
    lines = [
        f"results: {sweep.sweep}, best {sweep.metric} of {len(sweep.groups):,} groups: {sweep.better} better, "
        f"{sweep.worse} worse, {sweep.equal} equal{change}; sign test p = {sweep.p_value:.3g}",
        f"  trials {sweep.trials[0]:,} → {sweep.trials[1]:,}, failed {sweep.failed[0]:,} → {sweep.failed[1]:,}",
    ]
    moved = sorted((g for g in sweep.groups if g.verdict != "equal"), key=lambda g: -abs(g.after - g.before))
    lines += [f"  {_label(g.group)}: {g.before:.6g} → {g.after:.6g} ({g.verdict})" for g in moved[:GROUPS_LIMIT]]
    if len(moved) > GROUPS_LIMIT:
        lines.append(f"  and {len(moved) - GROUPS_LIMIT} more")
    lines += [f"  only before: {_some(list(sweep.only_before), 8)}"] if sweep.only_before else []
    lines += [f"  only after: {_some(list(sweep.only_after), 8)}"] if sweep.only_after else []
    return lines


def _best_by_group(run: Run, sweep: str) -> dict[str, tuple[dict[str, Any], float]]:
    """Each group's best metric, by the group in words."""
    record = run.graph.sweep(sweep)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a group has none shows in the comparison
        rows = python_rows(run.best(sweep))
    groups = [{name: row[name] for name in record.group_names} for row in rows]
    return {_label(g): (g, float(row[metric_column(record.metric)])) for g, row in zip(groups, rows, strict=True)}
