"""Whether a run in the store is the same as the one asked for: only then can it be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.scheduler.errors import ResumeMismatchError

__all__ = ["check_same", "graph_differences"]


def check_same(run_id: str, record: Mapping[str, Any], graph: Sequence[Mapping[str, Any]]) -> None:
    """Compare a run's record with the graph to be run.

    Raises:
        ResumeMismatchError: they differ; says in what, and offers a new name.
    """
    differences = graph_differences(record.get("graph", {}).get("nodes", []), graph, code=True)
    if differences:
        shown = "; ".join(differences[:6]) + (f"; and {len(differences) - 6} more" if len(differences) > 6 else "")
        raise ResumeMismatchError(
            f"a run named {run_id!r} exists and differs from this one",
            got=shown,
            expected="the same graph, space and code, so that what is done can be kept",
            hint=f"give this one a new name, {_next_name(run_id)!r} for example, or undo the change",
        )


def graph_differences(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], *, code: bool = False
) -> list[str]:
    """In what two graphs differ, as run.json describes them, a line each.

    Args:
        old: the nodes of one.
        new: the nodes of the other.
        code: the code too.
    """
    before, after = {node["name"]: node for node in old}, {node["name"]: node for node in new}
    found = [f"node {name!r} is gone" for name in before if name not in after]
    found += [f"node {name!r} is new" for name in after if name not in before]
    for name, node in before.items():
        if name in after:
            found += _node_differences(name, node, after[name], code)
    return found


def _node_differences(name: str, old: Mapping[str, Any], new: Mapping[str, Any], code: bool) -> list[str]:
    found: list[str] = []
    if code and old.get("code") != new.get("code"):
        found.append(f"the code of {name!r} ({_code_parts(old, new)})")
    for key in ("kind", "size", "top", "inputs"):
        if old.get(key) != new.get(key):
            found.append(f"{key} of {name!r} was {_short(old.get(key))}, is {_short(new.get(key))}")
    found += _argument_differences(name, old, new)
    old_sweep, new_sweep = old.get("sweep") or {}, new.get("sweep") or {}
    for key in sorted({*old_sweep, *new_sweep} - {"keep", "budget"}):  # these change no result of a trial
        if old_sweep.get(key) != new_sweep.get(key):
            was, now = old_sweep.get(key), new_sweep.get(key)
            found.append(f"{key} of sweep {name!r} {_change(key, was, now)}")
    return found


def _argument_differences(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = old.get("arguments") or [], new.get("arguments") or []
    if len(before) != len(after):
        return [f"the number of arguments of {name!r} was {len(before)}, is {len(after)}"]
    found: list[str] = []
    for position, (was, now) in enumerate(zip(before, after, strict=True), 1):
        labels = [f"argument {each.get('name') or position!r}" for each in (was, now)]
        label = f"the data of {name!r}" if new.get("kind") == "sweep" else f"{labels[0]} of {name!r}"
        if labels[0] != labels[1]:
            found.append(f"{label} is {labels[1]} now")
        elif (was.get("node"), was.get("kind")) != (now.get("node"), now.get("kind")):
            found.append(f"{label} was {_origin(was)}, is {_origin(now)}")
        elif was.get("digest") != now.get("digest"):
            found.append(f"{label} has another value")
    return found


def _origin(argument: Mapping[str, Any]) -> str:
    forms = {"each": "one value an element", "one": "one value for all", "all": "a whole list"}
    source = f" of node {argument['node']!r}" if argument.get("node") is not None else ""
    return forms.get(str(argument.get("kind")), "unknown") + source


def _change(key: str, was: Any, now: Any) -> str:
    if key == "groups" and isinstance(was, list) and isinstance(now, list):
        gone = [group for group in was if group not in now]
        added = [group for group in now if group not in was]
        parts = [f"{len(gone)} gone: {_short(gone)}"] if gone else []
        parts += [f"{len(added)} new: {_short(added)}"] if added else []
        return f"differ ({', '.join(parts) or 'in their order'})"
    if key == "space" and isinstance(was, dict) and isinstance(now, dict):
        return f"differs ({_space_change(was, now)})"
    return f"was {_short(was)}, is {_short(now)}"


def _space_change(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = _dimensions(was), _dimensions(now)
    found = [f"{name} is gone" for name in before if name not in after]
    found += [f"{name} is new" for name in after if name not in before]
    for name, domain in before.items():
        if name in after and after[name] != domain:
            found.append(f"{name} was {_short(domain)}, is {_short(after[name])}")
    return ", ".join(found[:3]) + (f", and {len(found) - 3} more" if len(found) > 3 else "") or "in its order"


def _dimensions(space: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    dimensions: list[dict[str, Any]] = space.get("dimensions") or []
    return {".".join(each["path"]): {key: each[key] for key in each if key != "path"} for each in dimensions}


def _code_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = old.get("code_parts") or {}, new.get("code_parts") or {}
    names = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    return "changed: " + (", ".join(names[:5]) or "unknown")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _next_name(run_id: str) -> str:
    stem, _, number = run_id.rpartition("-")
    return f"{stem}-{int(number) + 1}" if stem and number.isdecimal() else f"{run_id}-2"
