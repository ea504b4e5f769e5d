"""Why did trials fail, and what do those that failed have in common that those which succeeded have not?

Failures are put together by exception and place. For each such cause the trials are described by conditions on their
config, group and host, found as decision trees find them: the condition whose information gain is highest (Quinlan
1986), then another within it, up to three. One is told only if Fisher's exact test, corrected for the number of
conditions tried (Bonferroni), finds that chance is no explanation. It reads what a run has recorded and runs nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.runtime.answers.statistics import fisher_exact, information_gain
from umbel.scheduler.words import counted
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import NOT_RUN, SUCCEEDED
from umbel.storage.values.columns import contains, float_values, int_values, python_values

__all__ = ["Cause", "Failures", "why_failed"]

#: The chance that a condition which is told is none, after correction.
SIGNIFICANCE = 0.01
#: Conditions of one cause.
CONDITIONS = 3
#: Trials that are named.
NAMED = 5
_FRAME = re.compile(r'^  File "(?P<file>.+?)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
_RAISED = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$", re.MULTILINE)
_INSTALLED = re.compile(r"site-packages|dist-packages|/lib/python\d|^<frozen|/umbel/(?:runtime|storage|scheduler)/")
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one kind at one place."""

    #: The sweep or node that they are of.
    node: str
    #: The exception's class, or "timeout", "lost".
    kind: str
    #: ``function (file.py:12)``; "" if the error names no place.
    place: str
    #: The message of one of them.
    message: str
    #: How many, and the first of them.
    count: int
    indices: tuple[int, ...]
    #: What they have in common: ``("alpha ≥ 51.2", "country = CHL")``; empty: nothing stands out.
    conditions: tuple[str, ...] = ()
    #: Of those that meet all conditions, how many failed so, and how many there are.
    failed_inside: int = 0
    inside: int = 0
    #: Of the others.
    failed_outside: int = 0
    outside: int = 0
    #: Bits that the conditions say on whether a trial fails so, and the corrected chance of that by accident.
    gain_bits: float = 0.0
    p_value: float = 1.0


@dataclass(frozen=True, slots=True)
class Failures:
    """All that failed in a run, by cause, the most frequent first; prints as text."""

    run: str
    #: What failed itself, of all that ended.
    failed: int
    total: int
    causes: tuple[Cause, ...]
    #: By node, how many elements have no result because others failed: not run, or no best trial to choose.
    not_run: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """All causes, for people."""
        if not self.causes and not self.not_run:
            return f"{self.run}: nothing failed"
        lines = [f"{self.run}: {self.failed:,} of {self.total:,} failed, {counted(len(self.causes), 'cause')}"]
        for cause in self.causes:
            where = f", in {cause.place}" if cause.place else ""
            message = f": {cause.message}" if cause.message else ""
            lines += ["", f"{cause.count:,} × {cause.kind}{message}", f"  of {cause.node}{where}"]
            more = ", …" if cause.count > len(cause.indices) else ""
            lines.append(f"  {', '.join(map(str, cause.indices))}{more}")
            if cause.conditions:
                lines.append(f"  in common: {' and '.join(cause.conditions)}")
                lines.append(
                    f"    {cause.failed_inside:,} of {cause.inside:,} such failed so, {cause.failed_outside:,} of "
                    f"{cause.outside:,} others (information gain {cause.gain_bits:.3f} bit, Fisher's exact test "
                    f"p = {cause.p_value:.2g} after correction)"
                )
            else:
                lines.append("  nothing in config, group or host sets them apart")
        if self.not_run:
            count = sum(self.not_run.values())
            nodes = ", ".join(f"{number:,} of {name}" for name, number in self.not_run.items())
            lines += ["", f"without a result because of these: {counted(count, 'element')} ({nodes})"]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def why_failed(run: Run) -> Failures:
    """What failed in a run, by cause, with what the failures have in common.

    Raises:
        StoreError: the store can't be read.

    Cost: reads all trials; about a second for a million.
    """
    causes: list[Cause] = []
    not_run: dict[str, int] = {}
    failed = total = 0
    for node in run.graph.nodes.values():
        sweep = node.sweep
        index = "element" if sweep is None else "trial"
        rows = run.elements(node.name, ["status", "error", "host"] if sweep is None else None)
        bad = ~contains(rows["status"], SUCCEEDED)
        total += len(rows)
        if not bad.any():
            continue
        features = _features(rows, () if sweep is None else sweep.group_names)
        numbers = int_values(rows[index])
        places = np.flatnonzero(bad)
        errors = rows["error"].take(pa.array(places)).to_pylist()
        # A group without a best trial follows from its trials' failures, if there are any.
        chooses = node.kind in ("best", "top") and any(cause.node in node.inputs for cause in causes)
        own = [not (chooses or (error or "").startswith(NOT_RUN)) for error in errors]
        failed += sum(own)
        if not all(own):
            not_run[node.name] = len(own) - sum(own)
        places = places[own]
        errors = [error for error, its_own in zip(errors, own, strict=True) if its_own]
        statuses = rows["status"].take(pa.array(places)).to_pylist()
        kinds: dict[tuple[str, str], list[int]] = {}
        messages: dict[tuple[str, str], str] = {}
        for place, status, error in zip(places.tolist(), statuses, errors, strict=True):
            kind, where, message = read_error(status, error or "")
            kinds.setdefault((kind, where), []).append(place)
            messages.setdefault((kind, where), message)
        for (kind, where), members in kinds.items():
            hits = np.zeros(len(rows), np.bool_)
            hits[members] = True
            found = Cause(
                node.name,
                kind,
                where,
                messages[kind, where],
                len(members),
                tuple(numbers[members[:NAMED]].tolist()),
            )
            causes.append(_in_common(found, features, hits, hits | ~bad))
    causes.sort(key=lambda cause: -cause.count)
    return Failures(run.name, failed, total, tuple(causes), not_run)


def read_error(status: str, error: str) -> tuple[str, str, str]:
    """The kind of a failure, the place in the project where it happened, and its message."""
    if error.startswith(NOT_RUN):
        return "not run", "", error.removeprefix(NOT_RUN)
    frames = list(_FRAME.finditer(error))
    raised = _RAISED.search(error, frames[-1].end() if frames else 0)
    if status in ("timeout", "lost"):
        return status, "", error.partition("\n")[0]
    own = [frame for frame in frames if not _INSTALLED.search(frame["file"])] or frames
    where = f"{own[-1]['function']} ({posixpath.basename(own[-1]['file'])}:{own[-1]['line']})" if own else ""
    if raised is None:
        return status, where, error.strip().rpartition("\n")[2][:200]
    return raised["kind"], where, (raised["message"] or "")[:200]


# ---- what they have in common ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Split:
    """A condition, and which rows meet it."""

    gain: float
    text: str
    meets: Flags
    #: How many conditions were tried to find it.
    tried: int


#: Finds the best condition on one feature among some rows.
_Feature = Callable[[Flags, Flags], _Split | None]


def _features(rows: pa.Table, groups: Sequence[str]) -> dict[str, _Feature]:
    names = {name: name for name in groups} | {
        name: name.removeprefix("config_") for name in rows.column_names if name.startswith("config_")
    }
    names |= {name: name for name in ("host",) if name in rows.column_names}
    found: dict[str, _Feature] = {}
    for column, label in names.items():
        if column not in rows.column_names:
            continue
        kind = rows[column].type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            found[label] = _numeric(label, float_values(rows[column]), pa.types.is_integer(kind))
        else:
            found[label] = _listed(label, python_values(rows[column]))
    return found


def _in_common(cause: Cause, features: Mapping[str, _Feature], hits: Flags, considered: Flags) -> Cause:
    """The cause with the conditions that set its trials apart from those that succeeded."""
    total, count = int(considered.sum()), int(hits.sum())
    texts: list[str] = []
    inside, p_value = considered, 1.0
    for _ in range(CONDITIONS):
        splits = [split for feature in features.values() if (split := feature(hits, inside)) is not None]
        if not splits:
            break
        best = max(splits, key=lambda split: split.gain)
        meets = inside & best.meets
        tried = sum(split.tried for split in splits)
        chance = tried * fisher_exact(
            int((hits & meets).sum()), int(meets.sum()), int((hits & inside).sum()), int(inside.sum())
        )
        if chance > SIGNIFICANCE:
            break
        inside, p_value = meets, max(chance, p_value if texts else 0.0)
        texts.append(best.text)
    if not texts:
        return cause
    within, size = int((hits & inside).sum()), int(inside.sum())
    return Cause(
        cause.node,
        cause.kind,
        cause.place,
        cause.message,
        cause.count,
        cause.indices,
        tuple(texts),
        within,
        size,
        count - within,
        total - size,
        information_gain(within, size, count, total),
        p_value,
    )


def _numeric(label: str, values: npt.NDArray[np.float64], whole: bool) -> _Feature:
    def best(hits: Flags, inside: Flags) -> _Split | None:
        rows = np.flatnonzero(inside & np.isfinite(values))
        order = rows[np.argsort(values[rows], kind="stable")]
        ordered = values[order]
        cuts = np.flatnonzero(ordered[1:] > ordered[:-1]) + 1  # a condition may end before each of these
        if not len(cuts):
            return None
        below = np.cumsum(hits[order])[cuts - 1]
        n, k = len(order), int(hits[order].sum())
        gains = _gains(below, cuts, k, n)
        # Only conditions under which failures are more frequent than elsewhere say why.
        rate, above = below / cuts, (k - below) / (n - cuts)
        place = int(np.argmax(gains))
        if rate[place] == above[place]:
            return None
        low = rate[place] > above[place]
        bound = ordered[cuts[place] - 1] if low else ordered[cuts[place]]
        text = f"{label} {'≤' if low else '≥'} {int(bound) if whole else format(bound, '.6g')}"
        meets = values <= bound if low else values >= bound
        return _Split(float(gains[place]), text, meets & np.isfinite(values), 2 * len(cuts))

    return best


def _listed(label: str, values: Sequence[object]) -> _Feature:
    codes: dict[object, int] = {}
    coded = np.asarray([codes.setdefault(value, len(codes)) for value in values], np.int64)
    names = list(codes)

    def best(hits: Flags, inside: Flags) -> _Split | None:
        sizes = np.bincount(coded[inside], minlength=len(names))
        within = np.bincount(coded[inside & hits], minlength=len(names))
        n, k = int(sizes.sum()), int(within.sum())
        if (sizes > 0).sum() < 2:
            return None
        gains = np.where((sizes > 0) & (within * n > k * sizes), _gains(within, sizes, k, n), -1.0)
        place = int(np.argmax(gains))
        if gains[place] < 0:
            return None
        return _Split(float(gains[place]), f"{label} = {names[place]}", coded == place, int((sizes > 0).sum()))

    return best


def _gains(within: npt.NDArray[Any], sizes: npt.NDArray[Any], hits: int, total: int) -> npt.NDArray[np.float64]:
    """The information gain of many conditions at once."""
    outside = total - sizes
    after = sizes * _entropies(within, sizes) + outside * _entropies(hits - within, outside)
    whole = _entropies(np.asarray([hits]), np.asarray([total]))[0]
    found: npt.NDArray[np.float64] = whole - after / total
    return found


def _entropies(hits: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    p = np.divide(hits, sizes, out=np.zeros(len(hits)), where=sizes > 0)
    p = np.clip(p, 1e-300, 1.0)
    q = np.clip(1.0 - p, 1e-300, 1.0)
    found: npt.NDArray[np.float64] = -(p * np.log2(p) + q * np.log2(q))
    return found
