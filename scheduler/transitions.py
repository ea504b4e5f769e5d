"""Which states does an element go through, and what moves it from one to the next?

The table says it, and `docs/architecture.md` shows it. The engine does not run by the table: elements are ranges, and
most of them never have a state of their own. The tests of random histories hold it to the table instead: every change
of every element must be in it, and everything in it must happen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import get_args

from umbel.scheduler.protocol import (
    Accept,
    Capacity,
    Command,
    Evaluate,
    Evaluated,
    Event,
    FailElements,
    Grant,
    LoseElement,
    Recall,
    Recalled,
    Reported,
    Sized,
    Unsizable,
    WorkerLost,
)

__all__ = ["TRANSITIONS", "State", "Transition", "command_table", "event_table", "path", "state_diagram"]

#: The class of an event or of a command.
Cause = type[Event] | type[Command]
#: Whatever the engine is told: time has passed by then.
ANY: tuple[Cause, ...] = get_args(Event)
#: An element ended that others wait for, or it is known now how many there are.
INPUTS: tuple[Cause, ...] = (Reported, Evaluated, Recalled, WorkerLost, Sized, Unsizable)


class State(Enum):
    """Where an element stands."""

    #: An input is missing.
    WAITING = "waiting"
    #: Its inputs are there, and it is looked up whether an earlier run has its result.
    RECALLING = "looked up"
    #: It could be granted.
    PENDING = "pending"
    #: A worker has it, in a lease that is running or waits to.
    LEASED = "leased"
    #: A straggler: two workers have it, and the first word counts.
    TWICE = "leased twice"
    #: It failed, and waits for its next attempt.
    BACKING_OFF = "backing off"
    #: It may have taken its machine down again and again, and waits for its turn.
    QUARANTINED = "quarantined"
    #: The driver evaluates it.
    EVALUATED = "with the driver"
    #: It ended well.
    DONE = "done"
    #: It ended badly: it failed, was lost with its workers, or needs one that did.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state."""

    before: State
    after: State
    #: Events that do it, or commands that come with it: any of them.
    by: tuple[Cause, ...]
    #: What happens, in a few words.
    why: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(State.WAITING, State.PENDING, INPUTS, "inputs are there"),
    Transition(State.WAITING, State.RECALLING, (Recall,), "inputs are there, and perhaps it need not run"),
    Transition(State.RECALLING, State.PENDING, (Recalled,), "no run has it, and it is to run"),
    Transition(State.RECALLING, State.DONE, (Recalled,), "an earlier run has it, or it is not to run"),
    Transition(State.WAITING, State.EVALUATED, (Evaluate,), "inputs are there, and the driver is to evaluate it"),
    Transition(State.WAITING, State.FAILED, (FailElements,), "an input failed that it needs"),
    Transition(State.EVALUATED, State.DONE, (Evaluated,), "evaluated"),
    Transition(State.EVALUATED, State.FAILED, (Evaluated,), "nothing to choose from, or it raised"),
    Transition(State.PENDING, State.LEASED, (Grant,), "granted"),
    Transition(State.LEASED, State.DONE, (Accept,), "reported"),
    Transition(State.LEASED, State.FAILED, (Accept,), "reported as failed for good"),
    Transition(State.LEASED, State.BACKING_OFF, (Reported,), "reported as to be retried"),
    Transition(
        State.LEASED, State.PENDING, (Reported, WorkerLost, Capacity), "revoked before it began, or its worker is gone"
    ),
    Transition(State.LEASED, State.QUARANTINED, (WorkerLost, Capacity), "its machine is gone, many times in a row"),
    Transition(State.LEASED, State.FAILED, (LoseElement,), "its worker is gone, and it is to blame"),
    Transition(State.LEASED, State.TWICE, (Grant,), "a straggler, and a worker is idle"),
    Transition(State.TWICE, State.LEASED, (Reported, WorkerLost, Capacity), "one of two fails, or is gone"),
    Transition(State.TWICE, State.DONE, (Accept,), "the first word"),
    Transition(State.TWICE, State.FAILED, (Accept,), "the first word: failed for good"),
    Transition(State.BACKING_OFF, State.PENDING, ANY, "the pause is over"),
    Transition(State.QUARANTINED, State.PENDING, ANY, "its turn"),
)


def path(before: State, after: State, causes: Collection[Cause]) -> tuple[Transition, ...] | None:
    """The fewest transitions that lead from one state to another by these causes; None: there is no way.

    One event can have an element take several: a report makes it ready, and it is granted at once.
    """
    ways: deque[tuple[State, tuple[Transition, ...]]] = deque([(before, ())])
    seen = {before}
    while ways:
        at, taken = ways.popleft()
        if at is after:
            return taken
        for transition in TRANSITIONS:
            if transition.before is at and transition.after not in seen and any(c in causes for c in transition.by):
                seen.add(transition.after)
                ways.append((transition.after, (*taken, transition)))
    return None


def state_diagram() -> str:
    """The table as a Mermaid state diagram."""
    ids = {state: state.name.lower() for state in State}
    lines = ["stateDiagram-v2", *(f'    state "{state.value}" as {ids[state]}' for state in State)]
    lines += [f"    [*] --> {ids[State.WAITING]}", f"    [*] --> {ids[State.PENDING]}: it has no inputs"]
    for transition in TRANSITIONS:
        names = "any event" if transition.by == ANY else ", ".join(cause.__name__ for cause in transition.by)
        lines.append(f"    {ids[transition.before]} --> {ids[transition.after]}: {transition.why} ({names})")
    lines += [f"    {ids[state]} --> [*]" for state in (State.DONE, State.FAILED)]
    return "\n".join(lines)


def event_table() -> str:
    """All events of the protocol, as a Markdown table."""
    return _table("event", get_args(Event))


def command_table() -> str:
    """All commands of the protocol, as a Markdown table."""
    return _table("command", get_args(Command))


def _table(title: str, records: Iterable[type]) -> str:
    rows = [f"| {title} | says |", "|---|---|"]
    for record in records:
        said = (record.__doc__ or "").strip().split("\n\n")[0]
        rows.append(f"| `{record.__name__}` | {' '.join(said.split())} |")
    return "\n".join(rows)
