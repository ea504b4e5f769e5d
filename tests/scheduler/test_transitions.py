"""The table of transitions: well formed, and shown in the documentation. Random histories hold the engine to it."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.scheduler.architecture import DOCUMENT, with_generated_parts
from tests.scheduler.element_states import Watcher
from umbel.scheduler.engine import Engine
from umbel.scheduler.graph import Graph, NodeId, NodeSpec, ShapeId
from umbel.scheduler.protocol import Accept, Capacity, Command, Event, Grant, Reported, WorkerId, WorkerJoined
from umbel.scheduler.transitions import TRANSITIONS, State, command_table, event_table, path, state_diagram


def test_the_documentation_shows_what_the_code_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_generated_parts(text) == text, "run: python -m tests.scheduler.architecture"


def test_a_document_without_a_place_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="one place for the events"):
        with_generated_parts("nothing")


def test_every_event_and_command_is_told() -> None:
    for table, records in ((event_table(), get_args(Event)), (command_table(), get_args(Command))):
        assert all(f"| `{record.__name__}` | " in table for record in records)
        assert "|  |" not in table


def test_nothing_leaves_an_end_and_every_state_has_a_way_to_one() -> None:
    everything = {*get_args(Event), *get_args(Command)}
    ends = {State.DONE, State.FAILED}
    assert not [transition for transition in TRANSITIONS if transition.before in ends]
    for state in State:
        assert any(path(state, end, everything) is not None for end in ends)
        assert f"as {state.name.lower()}" in state_diagram()


def test_one_event_may_take_an_element_through_several_states() -> None:
    taken = path(State.WAITING, State.LEASED, {Reported, Accept, Grant})
    assert taken is not None
    assert [transition.after for transition in taken] == [State.PENDING, State.LEASED]
    assert path(State.WAITING, State.LEASED, {Reported}) is None


def test_a_change_that_is_not_in_the_table_is_noticed() -> None:
    engine = Engine(Graph([NodeSpec(NodeId(0), "trials", 1)]))
    engine.handle(Capacity(ShapeId(0), 1), 0.0)
    watcher = Watcher(engine)
    joined = WorkerJoined(WorkerId("w"), ShapeId(0))
    commands = engine.handle(joined, 0.0)
    with pytest.raises(AssertionError, match="from pending to leased"):
        watcher.observe(joined, [])  # the grant is kept from it
    watcher.observe(joined, commands)
