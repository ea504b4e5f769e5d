"""Is what stands in a run's run.json and end.json what it should be?

They are read by people's scripts, other versions and other machines, and may have been written by them; so types are
checked once, where they are read, and all that comes after may rely on them. Fields that are not known here are left
alone. It must not know what the fields are for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel.scheduler.errors import StoreCorruptError, StoreError
from umbel.storage import layout
from umbel.storage.documents import read_document
from umbel.storage.objects.interface import ObjectStore

__all__ = ["check_version", "read_end", "read_run_record"]

#: More elements than any run has; a larger number is a mistake that would take all memory.
_MOST = 2**32
#: Says what is wrong with a value, or None.
_Check = Callable[[Any], str | None]


def read_run_record(objects: ObjectStore, run_id: str) -> dict[str, Any] | None:
    """What run.json says; None: there is no such run.

    Raises:
        StoreCorruptError: it is not what a run.json is; says where.
        StoreError: a newer Umbel wrote it.
    """
    record = read_document(objects, layout.record(run_id))
    if record is None:
        return None
    check_version(record.get("format", layout.FORMAT_VERSION), f"the run {run_id!r} in the store {objects.url}")
    wrong = _RUN(record)
    if wrong is None and record["id"] != run_id:
        wrong = f"id: {record['id']!r} in the folder of {run_id!r}"
    if wrong is None:
        wrong = _dangling((record.get("graph") or {}).get("nodes") or [])
    _refuse(wrong, layout.record(run_id), objects)
    return record


def read_end(objects: ObjectStore, run_id: str) -> dict[str, Any] | None:
    """What end.json says; None: the run has not ended, or died.

    Raises:
        StoreCorruptError: it is not what an end.json is; says where.
    """
    end = read_document(objects, layout.end(run_id))
    if end is not None:
        _refuse(_END(end), layout.end(run_id), objects)
    return end


def check_version(version: object, what: str) -> None:
    """Refuse a format that a newer Umbel wrote, or that is none.

    Raises:
        StoreCorruptError: it is no version.
        StoreError: it is newer than this code knows.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise StoreCorruptError(f"{what} can't be read", got=f"format {version!r}", expected="a version: 1 or more")
    if version > layout.FORMAT_VERSION:
        raise StoreError(
            f"{what} was written by a newer version of Umbel",
            got=f"format {version}",
            expected=f"at most {layout.FORMAT_VERSION}",
            hint="pip install --upgrade umbel",
        )


def _refuse(wrong: str | None, path: str, objects: ObjectStore) -> None:
    if wrong is not None:
        raise StoreCorruptError(
            f"{path} in the store {objects.url} can't be read",
            got=wrong,
            expected="what Umbel writes there",
            hint="restore it from a copy; delete the folder that it stands in only if nobody needs what is in there",
        )


def _dangling(nodes: list[dict[str, Any]]) -> str | None:
    """Nodes of one name, or inputs that are no nodes before them."""
    known: set[str] = set()
    for node in nodes:
        arguments = [argument.get("node") for argument in node.get("arguments") or ()]
        for name in (*(node.get("inputs") or ()), *arguments):
            if name is not None and name not in known:
                return f"graph.nodes: {node['name']!r} takes {name!r}, which is no node before it"
        if node["name"] in known:
            return f"graph.nodes: two of the name {node['name']!r}"
        known.add(node["name"])
    return None


# ---- checks ----------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{value!r} is no text"


def _count(least: int) -> _Check:
    def check(value: Any) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST
        return None if whole else f"{value!r} is no whole number from {least} to {_MOST}"

    return check


def _plain(value: Any) -> str | None:
    return f"{value!r} is no plain value" if isinstance(value, (dict, list)) else None


def _or_null(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _one_of(*allowed: str) -> _Check:
    return lambda value: None if value in allowed else f"{value!r} is none of {', '.join(allowed)}"


def _many(check: _Check) -> _Check:
    def check_all(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"{value!r} is no list"
        found = ((place, check(item)) for place, item in enumerate(value))
        return next((f"[{place}] {wrong}" for place, wrong in found if wrong is not None), None)

    return check_all


def _one_or_more(check: _Check) -> _Check:
    """What stands alone, or several of in a list."""
    many = _many(check)

    def check_each(value: Any) -> str | None:
        if not isinstance(value, list):
            return check(value)
        return many(value) if len(value) > 1 else f"{value!r} is no list of several"

    return check_each


def _all_of(check: _Check) -> _Check:
    def check_all(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"{value!r} is no object"
        found = ((key, check(item)) for key, item in value.items())
        return next((f"{key}: {wrong}" for key, wrong in found if wrong is not None), None)

    return check_all


def _fields(known: Mapping[str, _Check], required: tuple[str, ...] = ()) -> _Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"{value!r} is no object"
        for name in required:
            if name not in value:
                return f"{name} is missing"
        found = ((name, known[name](value[name])) for name in value if name in known)
        return next((f"{name}: {wrong}" for name, wrong in found if wrong is not None), None)

    return check


def _sweep(value: Any) -> str | None:
    wrong = _SWEEP_FIELDS(value)
    if wrong is not None:
        return wrong
    width = len(value.get("group_names") or ())
    if any(len(group) != width for group in value.get("groups") or ()):
        return f"groups: not all have {width} values"
    if _several(value["metric"]) != _several(value["mode"]):
        return "mode: not one a metric"
    if len(value.get("axes") or ()) not in (0, width):
        return f"axes: not {width}"
    return None


def _several(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


_AXIS = _fields({"node": _or_null(_text), "values": _or_null(_many(_plain))})
_SWEEP_FIELDS = _fields(
    {
        "group_names": _or_null(_many(_text)),
        "groups": _or_null(_many(_many(_plain))),
        "trials": _count(1),
        "metric": _one_or_more(_text),
        "mode": _one_or_more(_one_of("min", "max")),
        "axes": _or_null(_many(_AXIS)),
    },
    required=("trials", "metric", "mode"),
)
_ARGUMENT = _fields(
    {
        "name": _or_null(_text),
        "kind": _text,
        "repeat": _count(1),
        "node": _or_null(_text),
        "digest": _or_null(_text),
    },
    required=("kind",),
)
_NODE_FIELDS = _fields(
    {
        "name": _text,
        "kind": _text,
        "size": _or_null(_count(0)),
        "inputs": _or_null(_many(_text)),
        "arguments": _or_null(_many(_ARGUMENT)),
        "code": _or_null(_text),
        "code_parts": _or_null(_all_of(_text)),
        "sweep": _or_null(_sweep),
        "top": _or_null(_count(1)),
    },
    required=("name", "kind"),
)


def _node(value: Any) -> str | None:
    wrong = _NODE_FIELDS(value)
    sweep = None if wrong is not None else value.get("sweep")
    if sweep is None or sweep.get("axes") is not None or value.get("size") is None:
        return wrong
    size = max(1, len(sweep.get("groups") or ())) * sweep["trials"]
    return None if value["size"] == size else f"size: {value['size']}, but its groups have {size} trials together"


_RUN = _fields(
    {
        "id": _text,
        "name": _text,
        "created": _text,
        "user": _text,
        "host": _text,
        "command": _or_null(_many(_text)),
        "versions": _or_null(_all_of(_plain)),
        "graph": _or_null(_fields({"nodes": _or_null(_many(_node))})),
        "targets": _or_null(_many(_text)),
        "environment": _or_null(_text),
        "source": _or_null(_text),
        "git": _or_null(_fields({"commit": _or_null(_text), "branch": _or_null(_text), "diff": _or_null(_text)})),
    },
    required=("id",),
)
_END = _fields(
    {
        "status": _text,
        "sizes": _or_null(_all_of(_or_null(_count(0)))),
        "counts": _or_null(_all_of(_plain)),
    }
)
