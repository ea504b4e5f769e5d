"""What is said while replicas wait, and when the waiting is over."""

from __future__ import annotations

from dataclasses import replace

from umbel.cluster.serving.waiting import GIVE_UP_S, SAY_EVERY_S, SAY_ROOM_S, SAY_STARTING_S, Patience, Room

FULL = Room(holds=2, free={}, total={"CPU": 2.0, "GPU": 1.0}, is_asked_for=True, is_scaling=False)
LATER = 2 * SAY_EVERY_S


def said(room: Room, *, running: int = 0, replicas: int = 1, gpus: float = 0.0) -> str | None:
    needs = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    return Patience(needs, replicas, 0.0).tell(running, room, LATER)


def test_what_is_missing_is_said() -> None:
    assert said(FULL) == (
        "replicas wait for 1 CPU each; the cluster has 0 of 2 CPU free; they start when others free it, "
        "or an autoscaler starts nodes (Ctrl-C ends the waiting)"
    )
    both = said(replace(FULL, free={"CPU": 1.0, "GPU": 0.5}), running=1, replicas=3, gpus=1.0)
    assert "2 of 3 replicas wait for 1 CPU and 1 GPU each; the cluster has 1 of 2 CPU and 0.5 of 1 GPU free;" in str(
        both
    )
    assert "2 of 2 CPU free, on no node enough" in str(said(replace(FULL, free={"CPU": 2.0})))
    assert "its autoscaler is starting nodes" in str(said(replace(FULL, is_scaling=True)))
    assert "no node that is there could hold one, and none is being started" in str(said(replace(FULL, holds=0)))
    assert "its nodes hold 2 of 3 at most" in str(said(FULL, replicas=3))


def test_replicas_that_have_a_place_are_starting() -> None:
    placed = replace(FULL, is_asked_for=False)
    assert Patience({"CPU": 1.0}, 2, 0.0).tell(1, placed, SAY_STARTING_S - 1) is None
    assert "1 of 2 replicas are ready" in str(said(placed, running=1, replicas=2))
    assert "0 of 1 replicas are ready" in str(Patience({}, 1, 0.0).tell(0, FULL, LATER))  # others ask for nothing, too


def test_it_is_said_soon_and_once_and_what_changes_now_and_then() -> None:
    patience = Patience({"CPU": 1.0}, 2, 100.0)
    assert patience.tell(0, FULL, 100.0) is None
    first = 100.0 + SAY_ROOM_S
    assert patience.tell(0, FULL, first) is not None
    assert patience.tell(0, FULL, first + LATER) is None
    patience = Patience({"CPU": 1.0}, 2, 100.0)
    assert patience.tell(0, FULL, first) is not None
    assert patience.tell(1, FULL, first + SAY_EVERY_S - 1) is None
    assert patience.tell(1, FULL, first + SAY_EVERY_S) is not None


def test_it_waits_as_long_as_a_node_may_have_room_one_day() -> None:
    patience, nothing = Patience({"CPU": 8.0}, 1, 0.0), replace(FULL, holds=0)
    assert not patience.is_over(FULL, 1e6)
    assert not patience.is_over(nothing, 1e6 + GIVE_UP_S)
    assert not patience.is_over(replace(nothing, is_scaling=True), 1e6 + GIVE_UP_S + 1)
    assert not patience.is_over(nothing, 1e6 + 2 * GIVE_UP_S)
    assert patience.is_over(nothing, 1e6 + 2 * GIVE_UP_S + 2)
