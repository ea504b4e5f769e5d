"""`umbel.diff`: what differs between two runs, and what came of it?

Code, data, space and arguments, environment, and the results group by group, with one line that names what differs. It
reads what both runs have recorded, and the values of a few elements that changed. It must not run anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from umbel.runtime.answers.code_changes import CodeChange, code_changes
from umbel.runtime.answers.result_changes import GroupChange, SweepChange, label, result_changes, some
from umbel.runtime.answers.value_changes import describe_change, distance
from umbel.runtime.driver.resume import graph_differences
from umbel.runtime.provenance.recorded_modules import recorded_modules
from umbel.scheduler.errors import UmbelError
from umbel.storage.runs.run import Run
from umbel.storage.values.columns import int_values

__all__ = ["DataChange", "Difference", "GroupChange", "SweepChange", "diff", "environment_changes"]

#: Elements of a node whose values are compared, and of these, the farthest apart, are described.
COMPARED_LIMIT, VALUES_LIMIT = 50, 3
#: Lines of a function's diff that the text shows.
LINES_LIMIT = 60


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
            parts.append(f"code ({some([change.name.rpartition('.')[2] for change in self.code])})")
        for change in self.data:
            which = some(list(change.groups)) if change.groups else f"{len(change.elements)} of {change.size}"
            parts.append(f"data of {change.node} ({which})" if change.size > 1 else f"data of {change.node}")
        parts += ["space"] if self.space else []
        parts += ["arguments"] if self.arguments else []
        parts += [f"environment ({some(list(self.environment))})"] if self.environment else []
        what = "; ".join(parts) or "nothing in code, data, space, arguments or environment"
        moved = [f"{each.sweep}: {each.summary}" for each in self.results if each.differs]
        same = "Results are equal" if self.results else "There are no results of the same sweep and metrics to compare"
        return f"differs: {what}. " + ("Results: " + "; ".join(moved) if moved else same)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"summary": self.summary, **asdict(self)}

    def text(self) -> str:
        """All of it, for people."""
        lines = [f"{self.before} → {self.after}", self.summary]
        for change in self.code:
            lines += ["", f"code: {change.name} {change.how}", *_head(change.diff.splitlines(), LINES_LIMIT)]
        for data in self.data:
            which = f", {len(data.elements):,} of {data.size:,} elements" if data.size > 1 else ""
            groups = f": {some(list(data.groups), 8)}" if data.groups else ""
            lines += ["", f"data: {data.node}{which}{groups}", *(f"  {line}" for line in data.details)]
        if self.follows:
            lines += ["", "values that follow from that:", *(f"  {text}" for text in self.follows)]
        for title in ("space", "arguments", "command", "environment"):
            found = getattr(self, title)
            lines += ["", f"{title}:", *(f"  {line}" for line in found)] if found else []
        for sweep in self.results:
            lines += ["", *sweep.lines()]
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
        tuple(result_changes(before, after)),
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
        changed[name] = differ | (left.keys() ^ right.keys())  # a list that grew changes what is made of it
        if not differ:
            continue
        same_code = old[name].get("code") == entry.get("code") and old[name].get("arguments") == entry.get("arguments")
        own = differ - _inherited(entry, changed, max(right) + 1) if same_code else set()
        if own and entry["kind"] not in ("best", "top"):
            origins.append(_data_change(before, after, name, sorted(own), len(right)))
        if not own or entry["kind"] in ("best", "top"):
            groups = _group_names(after, name, sorted(differ))
            which = f"{len(differ):,} of {len(right):,}" + (f": {some(groups)}" if groups else "")
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
                return [label(dict(zip(sweep.group_names, sweep.groups[e], strict=True))) for e in elements]
    return []


# ---- environment -----------------------------------------------------------------------------------------------


def _environment(before: Run, after: Run) -> list[str]:
    if before.record.get("environment") == after.record.get("environment"):
        return []
    old, new = before.environment() or {}, after.environment() or {}
    return environment_changes(old, new)


def environment_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two environments differ, as `umbel.runtime.provenance.sitting.environment` describes them."""
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


# ---- words ----------------------------------------------------------------------------------------------------


def _head(lines: list[str], limit: int) -> list[str]:
    return lines if len(lines) <= limit else [*lines[:limit], f"… and {len(lines) - limit} more lines"]
