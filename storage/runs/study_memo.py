"""What have earlier runs done of the study of a group? For searches that build upon results.

What an adaptive search suggests follows from what determines its studies (code, sampler, space, seed, …) and from the
results of the trials before. So of an earlier study under the same identity its beginning is of use, as far as each
trial was asked for when all before it had ended, and all ended well. Of each earlier run only places are kept in
memory; rows are read when they are wanted. It must not know samplers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord, SweepRecord
from umbel.storage.runs.memo import SegmentCache, earlier_sweeps, recorded_sweep, with_origin
from umbel.storage.runs.segment_format import unify
from umbel.storage.runs.segments import scan_segments
from umbel.storage.runs.trial_rows import OUT_OF_ORDER, WHOLE, metric_column
from umbel.storage.values.columns import contains, int_values, integers, python_values

__all__ = ["StudyMemo"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Earlier:
    """Where the usable beginnings of one earlier sweep's studies are."""

    run_id: str
    sweep: str
    #: By the values of the group keys: segment and row of the trials 0, 1, 2, …
    places: Mapping[tuple[object, ...], tuple[Ints, Ints]]
    group_names: tuple[str, ...]
    paths: tuple[str, ...]


class StudyMemo:
    """The studies of earlier runs that have the same identity as those of one sweep.

    Args:
        objects: the store.
        identity: stands for all that determines studies beside the group, its data and how many trials there are.
        run_id: the run that asks; its own trials are not looked at.
        metrics: what the sweep is judged by; trials that lack one don't count.
        keep: whose models the sweep keeps; sweeps that kept fewer don't count, since theirs would be missing.
    """

    def __init__(
        self, objects: ObjectStore, identity: str, run_id: str, metrics: Sequence[str], keep: str = "none"
    ) -> None:
        self._objects = objects
        self._keep = keep
        self._metrics = [metric_column(metric) for metric in metrics]
        self._unread = earlier_sweeps(objects, identity, run_id)
        self._earlier: list[_Earlier] = []
        self._segments = SegmentCache(objects)

    def __bool__(self) -> bool:
        return bool(self._earlier or self._unread)

    def find(self, group: Mapping[str, object], most: int) -> Iterator[pa.Table]:
        """Beginnings of a group's study, one an earlier run, the newest run first.

        Args:
            group: its keys and values.
            most: of how many trials at most.

        Returns:
            Rows as they were stored of the trials 0, 1, 2, … of the group, with a column ``reused_from``.

        Raises:
            StoreError: the store can't be read.
        """
        for earlier in self._all():
            place = earlier.places.get(tuple(group.get(name) for name in earlier.group_names))
            if place is not None and set(earlier.group_names) == set(group):
                rows = self._rows(earlier, place[0][:most], place[1][:most])
                if rows is not None:
                    yield rows

    def _all(self) -> Iterator[_Earlier]:
        yield from self._earlier
        while self._unread:
            _, run_id, sweep = self._unread.pop(0)
            found = self._read(run_id, sweep)
            if found is not None:
                self._earlier.append(found)
                yield found

    def _read(self, run_id: str, sweep: str) -> _Earlier | None:
        record = recorded_sweep(self._objects, run_id, sweep, self._keep)
        if record is None:
            return None
        names = GraphRecord({"graph": {"nodes": [record]}}).sweep(sweep)
        columns = ["trial", "status", *names.group_names, *self._metrics, OUT_OF_ORDER]
        paths: list[str] = []
        trials, usable, segments, rows, groups = [], [], [], [], []
        codes: dict[tuple[object, ...], int] = {}
        for segment in scan_segments(self._objects, layout.trials_folder(run_id, sweep), columns):
            table = segment.table
            if table is None:
                continue
            keys = [python_values(table[name]) for name in names.group_names if name in table.column_names]
            each = zip(*keys, strict=True) if keys else [()] * len(table)
            groups.append(np.asarray([codes.setdefault(key, len(codes)) for key in each], np.int64))
            trials.append(int_values(table["trial"]))
            usable.append(self._usable(table))
            segments.append(np.full(len(table), len(paths), np.int64))
            rows.append(np.arange(len(table)))
            paths.append(segment.path)
        if not paths:
            return None
        places = _beginnings(
            names,
            list(codes),
            np.concatenate(groups),
            np.concatenate(trials),
            np.concatenate(usable),
            np.stack([np.concatenate(segments), np.concatenate(rows)]),
        )
        return _Earlier(run_id, sweep, places, names.group_names, tuple(paths))

    def _usable(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        found = contains(table["status"], WHOLE)
        for name in self._metrics:
            found = found & (np.asarray(table[name].is_valid()) if name in table.column_names else False)
        if OUT_OF_ORDER in table.column_names:
            found = found & ~np.asarray(table[OUT_OF_ORDER].fill_null(False))
        return found

    def _rows(self, earlier: _Earlier, segments: Ints, rows: Ints) -> pa.Table | None:
        """The rows at these places, in this order; fewer if a segment is gone or spoilt since. None: none."""
        parts: list[pa.Table] = []
        cuts = np.flatnonzero(np.diff(segments)) + 1
        for which, places in zip(np.split(segments, cuts), np.split(rows, cuts), strict=True):
            table = self._segments.get(earlier.paths[int(which[0])]) if len(which) else None
            if table is None:
                break
            parts.append(table.take(integers(places)))
        return with_origin(unify(parts), earlier.run_id, earlier.sweep) if parts else None


def _beginnings(
    sweep: SweepRecord,
    groups: Sequence[tuple[object, ...]],
    group: Ints,
    trial: Ints,
    usable: npt.NDArray[np.bool_],
    places: npt.NDArray[np.int64],
) -> dict[tuple[object, ...], tuple[Ints, Ints]]:
    """By group the places of its trials 0, 1, 2, … as far as each is there once, and usable."""
    number = trial % sweep.trials
    order = np.lexsort((number, group))
    found: dict[tuple[object, ...], tuple[Ints, Ints]] = {}
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        # A trial that is there twice was run again when later ones had been asked for.
        single = np.append(np.diff(number[part]) > 0, True)
        good = usable[part] & single & (number[part] == np.arange(len(part)))
        count = len(part) if good.all() else int(np.argmin(good))
        if count:
            found[groups[int(group[part[0]])]] = places[0, part[:count]], places[1, part[:count]]
    return found
