"""What is each object of a store called?

All names in one place, as functions, and the rule that the names which people choose must keep. It must not read or
write.

```
umbel.json                                format version
runs/<run-id>/run.json                    who, when, graph, environment
runs/<run-id>/owner/<n>.json              who writes the run: the highest number decides
runs/<run-id>/cancel/<token>.json         asks the owner with this token to stop
runs/<run-id>/trials/<sweep>/<n>.parquet  segments of trials
runs/<run-id>/values/<node>/<n>.parquet   segments of values
runs/<run-id>/output/<node>/<n>.parquet   segments of what elements printed
runs/<run-id>/checkpoints/<sweep>/<trial>/<attempt>-<n>-<id>   state of trials that save it; the last one is kept
runs/<run-id>/sittings/<time>-<id>.json   who carried it out, each time; when, where, in which environment
runs/<run-id>/workers/<host>-<id>.json    that a host has another environment than the driver
runs/<run-id>/tuner.pickle                what an umbel.Tuner was told
runs/<run-id>/end.json                    how it ended
code/<sha256>.zip                         the source that ran
code/<sha256>.diff                        what differed from the last commit
environments/<sha256>.json                what was installed
mentions/<run-id>~<time>.arrow             which digests a run that is done mentions, and where
mentions/index/<id>.parquet               many of these as one object, for stores whose answers take time
memo/<code>/<time>~<run-id>~<sweep>       a sweep of this code (or with studies of this identity) began; empty
artifacts/<sha256>                        models and large values, by content
artifacts/packs/<sha256>                  many small models, one after another
registry/<model>/versions/<n>.json        a version of a registered model
registry/<model>/aliases/<alias>/<n>.json where an alias points: the highest number decides
registry/<model>/predictions/<day>/<time>-<random>.parquet   what a served model answered
registry/<model>/outcomes/<day>/<time>-<random>.parquet      what turned out to be true
registry/<model>/profiles/<version>.json                     the training data of a version, in figures
registry/<model>/profiles/<version>-sampled.json             the same, as registering found them in the run
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from umbel.scheduler.errors import UsageError

__all__ = [
    "FORMAT_OBJECT",
    "FORMAT_VERSION",
    "LOG_KINDS",
    "MENTIONS",
    "MENTIONS_INDEX",
    "REGISTRY",
    "RUNS",
    "alias_folder",
    "alias_record",
    "aliases_folder",
    "artifact",
    "cancellation",
    "check_name",
    "checkpoints_folder",
    "code",
    "diff",
    "end",
    "environment",
    "is_name",
    "log_day",
    "log_folder",
    "log_object",
    "memo_folder",
    "memo_mark",
    "mentions",
    "numbered",
    "output_folder",
    "owner",
    "owner_folder",
    "pack",
    "parse_memo_mark",
    "parse_mentions",
    "profile",
    "record",
    "record_number",
    "run_folder",
    "segment",
    "segment_number",
    "sitting",
    "sittings_folder",
    "trials_folder",
    "tuner",
    "values_folder",
    "version_record",
    "versions_folder",
    "worker_note",
    "workers_folder",
]

#: Where the store's format version stands, and which one this code writes.
FORMAT_OBJECT = "umbel.json"
FORMAT_VERSION = 1
#: The folder of all runs.
RUNS = "runs"
#: The folder of all registered models.
REGISTRY = "registry"
#: The folders of what runs mention, and of its index.
MENTIONS = "mentions"
MENTIONS_INDEX = "mentions/index"
#: What is logged of a model that is served.
LOG_KINDS = ("predictions", "outcomes")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MENTIONS = re.compile(r"mentions/([A-Za-z0-9_][A-Za-z0-9._-]{0,99})~(\d+)\.arrow")
_RECORD = re.compile(r"(\d{8,})\.json")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_SEGMENT = re.compile(r"(\d{8,})\.parquet(\.corrupt(?:-\d+)?)?")


def run_folder(run_id: str) -> str:
    """The folder of a run."""
    return f"{RUNS}/{run_id}"


def record(run_id: str) -> str:
    """The object that says what a run is."""
    return f"{RUNS}/{run_id}/run.json"


def end(run_id: str) -> str:
    """The object that says how a run ended."""
    return f"{RUNS}/{run_id}/end.json"


def tuner(run_id: str) -> str:
    """The object that says what an `umbel.Tuner` was told."""
    return f"{RUNS}/{run_id}/tuner.pickle"


def workers_folder(run_id: str) -> str:
    """The folder of the notes on hosts whose environment differs from the driver's."""
    return f"{RUNS}/{run_id}/workers"


def worker_note(run_id: str, host: str, environment_digest: str) -> str:
    """One of these notes."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", host)[:100]
    return f"{RUNS}/{run_id}/workers/{name}-{environment_digest[:8]}.json"


def mentions(run_id: str, created: str) -> str:
    """The object that says which digests a run mentions; another run of its name, made later, has another.

    Args:
        run_id: the run.
        created: when it was made, ISO 8601.
    """
    return f"{MENTIONS}/{run_id}~{re.sub('[^0-9]', '', created)[:20]}.arrow"


def parse_mentions(path: str) -> tuple[str, str] | None:
    """The run and the time of such an object; None for any other."""
    match = _MENTIONS.fullmatch(path)
    return None if match is None else (match[1], match[2])


def owner_folder(run_id: str) -> str:
    """The folder of the chain of records that says who writes a run."""
    return f"{RUNS}/{run_id}/owner"


def owner(run_id: str, number: int) -> str:
    """One record of that chain."""
    return f"{RUNS}/{run_id}/owner/{number:08d}.json"


def cancellation(run_id: str, token: str) -> str:
    """The object that asks the owner with this token to stop."""
    return f"{RUNS}/{run_id}/cancel/{token}.json"


def trials_folder(run_id: str, sweep: str) -> str:
    """The folder of a sweep's segments."""
    return f"{RUNS}/{run_id}/trials/{sweep}"


def values_folder(run_id: str, node: str) -> str:
    """The folder of the segments of a node's values."""
    return f"{RUNS}/{run_id}/values/{node}"


def output_folder(run_id: str, node: str) -> str:
    """The folder of the segments of what a node's elements printed."""
    return f"{RUNS}/{run_id}/output/{node}"


def checkpoints_folder(run_id: str, sweep: str, trial: int) -> str:
    """The folder of the checkpoints of a trial."""
    return f"{RUNS}/{run_id}/checkpoints/{sweep}/{trial}"


def segment(folder: str, number: int) -> str:
    """A segment in its folder."""
    return f"{folder}/{number:08d}.parquet"


def segment_number(path: str) -> tuple[int, bool] | None:
    """The number of a segment, and whether it was set aside; None for any other object."""
    match = _SEGMENT.fullmatch(path.rpartition("/")[2])
    return None if match is None else (int(match[1]), match[2] is not None)


def numbered(paths: Iterable[str]) -> list[tuple[int, str]]:
    """The segments in place (not set aside) among some objects, in order of their numbers."""
    found = ((segment_number(path), path) for path in paths)
    return sorted((number[0], path) for number, path in found if number is not None and not number[1])


def memo_folder(code: str) -> str:
    """The folder of the marks of all sweeps of one code."""
    return f"memo/{code}"


def memo_mark(code: str, created: str, run_id: str, sweep: str) -> str:
    """The object that says that a sweep of this code began."""
    time = re.sub(r"[^0-9T]", "", created.partition("+")[0])  # digits of one length, so that they sort
    return f"memo/{code}/{time}~{run_id}~{sweep}"


def parse_memo_mark(path: str) -> tuple[str, str, str] | None:
    """When a sweep began, its run and its name, from the path of its mark; None: it is none."""
    parts = path.rpartition("/")[2].split("~")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(map(_NAME.fullmatch, parts[1:])) else None


def code(digest: str) -> str:
    """An archive of source code, by its content."""
    return f"code/{digest}.zip"


def diff(digest: str) -> str:
    """What a repository's files differed in from its last commit, by its content."""
    return f"code/{digest}.diff"


def environment(digest: str) -> str:
    """What was installed, by its content."""
    return f"environments/{digest}.json"


def sittings_folder(run_id: str) -> str:
    """The folder of the records of who carried the run out."""
    return f"{RUNS}/{run_id}/sittings"


def sitting(run_id: str, began: datetime, token: str) -> str:
    """One of these records; their names are in order of time."""
    return f"{RUNS}/{run_id}/sittings/{began:%Y%m%dT%H%M%S%f}-{token[:8]}.json"


def artifact(digest: str) -> str:
    """A blob, by its content."""
    return f"artifacts/{digest}"


def pack(digest: str) -> str:
    """A pack of small models, by its content."""
    return f"artifacts/packs/{digest}"


def versions_folder(model: str) -> str:
    """The folder of the versions of a registered model."""
    return f"{REGISTRY}/{model}/versions"


def version_record(model: str, number: int) -> str:
    """The object that says what a version of a registered model is."""
    return f"{REGISTRY}/{model}/versions/{number:08d}.json"


def aliases_folder(model: str) -> str:
    """The folder of the aliases of a registered model."""
    return f"{REGISTRY}/{model}/aliases"


def alias_folder(model: str, alias: str) -> str:
    """The folder of the records of where an alias pointed."""
    return f"{REGISTRY}/{model}/aliases/{alias}"


def alias_record(model: str, alias: str, number: int) -> str:
    """One of these records."""
    return f"{REGISTRY}/{model}/aliases/{alias}/{number:08d}.json"


def record_number(path: str) -> int | None:
    """The number of a version's or alias's record; None: it is no such record."""
    match = _RECORD.fullmatch(path.rpartition("/")[2])
    return None if match is None else int(match[1])


def log_folder(model: str, kind: str) -> str:
    """The folder of all that was logged of a served model; ``kind`` is one of `LOG_KINDS`."""
    return f"{REGISTRY}/{model}/{kind}"


def log_day(folder: str) -> bool:
    """Whether a folder's name is that of a day in such a folder."""
    return _DAY.fullmatch(folder) is not None


def log_object(model: str, kind: str, written: datetime, token: str) -> str:
    """One object of a log; their names are in order of time.

    Args:
        model: its name.
        kind: one of `LOG_KINDS`.
        written: when, UTC; no row in it is younger.
        token: makes the name the writer's own.
    """
    return f"{REGISTRY}/{model}/{kind}/{written:%Y-%m-%d}/{written:%Y%m%dT%H%M%S%f}-{token}.parquet"


def profile(model: str, version: int, *, sampled: bool = False) -> str:
    """The object that describes the training data of a version of a model.

    Args:
        model: its name.
        version: its number.
        sampled: the one that registering made of the run's data, rather than the one that somebody has given.
    """
    return f"{REGISTRY}/{model}/profiles/{version:08d}{'-sampled' if sampled else ''}.json"


def is_name(name: str) -> bool:
    """Whether `check_name` lets a name pass."""
    return _NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> None:
    """Refuse a name that could not stand in a path everywhere, unquoted.

    Args:
        kind: what it names, for the message: "run", "sweep", "node".
        name: 1 to 100 of ``A-Za-z0-9._-``, the first neither "." nor "-".

    Raises:
        UsageError: it can't be used; a name that could is suggested.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return
    suggestion = re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).lstrip(".-")[:100].rstrip("-")
    raise UsageError(
        f"this can't be the name of a {kind}",
        got=repr(name),
        expected="1 to 100 letters, digits, '.', '_' or '-', not starting with '.' or '-'",
        hint=f"call it {suggestion!r}" if suggestion else "choose another name",
    )
