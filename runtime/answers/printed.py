"""What did an element of a run print, and if nothing: why?"""

from __future__ import annotations

from dataclasses import dataclass

from umbel.scheduler.errors import NotFoundError
from umbel.storage import layout
from umbel.storage.runs.run import Run

__all__ = ["Printed", "what_was_printed"]

#: Kinds of nodes that run a function.
_CALLING = ("sweep", "task", "map")


@dataclass(frozen=True, slots=True)
class Printed:
    """What an element printed."""

    #: The sweep or node that it is of.
    node: str
    text: str
    #: Why there is no text; None if there is some.
    note: str | None
    #: False: the element has not ended yet.
    ended: bool = True


def what_was_printed(run: Run, index: int, node: str | None = None) -> Printed:
    """What a trial of a sweep, or an element of a node, printed.

    Args:
        run: the run.
        index: of the trial or element.
        node: which sweep or node; None: the only sweep, or the only node.

    Raises:
        NotFoundError: there is no such node or element, or several nodes to choose from.

    Cost: reads what the node printed; if the element printed nothing, the status of all its elements too.
    """
    name = _only_node(run) if node is None else run.graph.node(node).name
    kind, size = run.graph.node(name).kind, run.graph.node(name).size
    if index < 0 or (size is not None and index >= size):
        raise NotFoundError(
            f"{name!r} of the run {run.name!r} has no {_word(kind)} {index}",
            expected=f"0 to {size - 1:,}" if size else "an index from 0 on",
        )
    text = run.output(index, name)
    if text:
        return Printed(name, text, None)
    who = f"{_word(kind)} {index} of {name}"
    rows = run.elements(name, ["status", "reused_from"] if kind == "sweep" else ["status"])
    at = rows[rows.column_names[0]].index(index).as_py()
    if at < 0:
        return Printed(name, "", f"{who} has not ended yet", ended=False)
    earlier = rows["reused_from"][at].as_py() if "reused_from" in rows.column_names else None
    if earlier:
        before, sweep, trial = earlier.rsplit("/", 2)
        note = f"{who} was not run here, but taken over: umbel logs {before} {trial} --node {sweep}"
        if not run.objects.exists(layout.record(before)):
            note = (
                f"{who} was not run here, but taken over from the run {before!r}, which is not in this store any more: "
                "what the trial printed went with it"
            )
        return Printed(name, "", note)
    return Printed(name, "", f"{who} printed nothing (it is {rows['status'][at].as_py()})")


def _word(kind: str) -> str:
    return "trial" if kind == "sweep" else "element"


def _only_node(run: Run) -> str:
    calling = [node.name for node in run.graph.nodes.values() if node.kind in _CALLING]
    chosen = run.sweeps or calling
    if len(chosen) == 1:
        return chosen[0]
    raise NotFoundError(
        f"the run {run.name!r} has several {'sweeps' if run.sweeps else 'nodes'}",
        expected="one of " + ", ".join(calling),
        hint=f"say which: --node {chosen[0] if chosen else 'NODE'}",
    )
