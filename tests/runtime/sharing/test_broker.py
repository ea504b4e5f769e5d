"""The broker and a run's word with it, without Ray: what is forgotten, what others use, what is answered meanwhile."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from umbel.runtime.sharing import member as sharing_module
from umbel.runtime.sharing.broker import FORGET_S, LINGER_S, LISTEN_S, PATIENCE_S, Broker
from umbel.runtime.sharing.member import AHEAD, ANSWER_S, FAILING_S, SELDOM_S, START_AFTER_S, TELL_EVERY_S, Sharing
from umbel.runtime.sharing.share import Share
from umbel.scheduler.graph import ShapeId


class World:
    """A broker, its time, and the cluster that it sees."""

    def __init__(self, **total: float) -> None:
        self.now = 100.0
        self.total = total
        self.used_by_others: dict[str, float] = {}
        self.held: dict[str, int] = {}
        self.broker = Broker(self.look, lambda: self.now)
        self.now += LISTEN_S

    def look(self) -> tuple[dict[str, float], dict[str, float]]:
        ours = {"CPU": sum(self.held.values())}
        free = {n: a - ours.get(n, 0) - self.used_by_others.get(n, 0.0) for n, a in self.total.items()}
        return {**self.total, "node:10.0.0.1": 1.0, "object_store_memory": 5.0}, free

    def tell(self, run: str, wanted: int, held: int = 0, **options: Any) -> dict[str, Any]:
        self.held[run] = held
        return self.broker.tell(message(run, wanted, held, **options))


def message(run: str, wanted: int, held: int, starting: int = 0, **options: Any) -> dict[str, Any]:
    demands = [{"needs": {"CPU": 1.0}, "wanted": wanted, "held": held, "starting": starting}]
    about = {"tenant": run, "weight": 1.0, "priority": 0, "minimum": {}, "cap": {}, "name": run}
    return {"run": run, **about, **options, "demands": demands}


def test_who_is_alone_may_have_what_it_likes() -> None:
    world = World(CPU=8.0)
    assert world.tell("a", 99) == {"workers": None, "alone": True, "ahead": True}


def test_a_cap_holds_for_who_is_alone_too() -> None:
    assert World(CPU=8.0).tell("a", 99, cap={"CPU": 3})["workers"] == [3]


def test_two_share() -> None:
    world = World(CPU=9.0)
    world.tell("a", 99, 9)
    assert world.tell("b", 99, weight=2.0)["workers"] == [6]
    assert world.tell("a", 99, 9)["workers"] == [3]


def test_who_is_silent_is_forgotten() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99)
    world.tell("b", 99)
    world.now += FORGET_S + 0.1
    assert world.tell("b", 99)["alone"]


def test_who_leaves_is_forgotten_at_once() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99)
    world.tell("b", 99)
    world.broker.leave("a")
    world.broker.leave("a")
    assert world.tell("b", 99)["alone"]


def test_it_is_deserted_when_nobody_has_spoken_for_a_while() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99)
    world.now += LINGER_S
    assert not world.broker.deserted
    world.broker.view()  # who only looks on keeps nothing alive
    world.now += 0.1
    assert world.broker.deserted


def test_it_listens_first_after_its_start() -> None:
    world = World(CPU=8.0)
    world.now -= LISTEN_S
    assert world.tell("a", 99) == {"workers": None, "alone": False, "ahead": False}
    world.now += LISTEN_S
    assert world.tell("a", 99)["alone"]


def test_what_others_use_all_the_time_is_not_shared_out() -> None:
    world = World(CPU=8.0)
    world.used_by_others = {"CPU": 4.0}
    for _ in range(8):
        world.tell("a", 99, 2)
        answer = world.tell("b", 99, 2)
        world.now += 1.0
    assert answer["workers"] == [2]
    world.used_by_others = {}
    world.tell("a", 99, 2)
    assert world.tell("b", 99, 2)["workers"] == [4]


def test_a_moment_in_which_workers_end_changes_nothing() -> None:
    world = World(CPU=8.0)
    for moment in range(8):
        world.used_by_others = {"CPU": 2.0} if moment == 6 else {}
        world.tell("a", 99, 4)
        assert world.tell("b", 99, 4)["workers"] == [4]
        world.now += 1.0


def test_workers_that_take_long_to_start_are_no_others() -> None:
    world = World(CPU=8.0)
    world.used_by_others = {"CPU": 8.0}  # as it seems: they have their places
    for _ in range(10):
        world.tell("a", 99, starting=4)
        assert world.tell("b", 99, starting=6)["workers"] == [4]
        world.now += 1.0


def test_nobody_asks_for_more_than_there_is_while_one_waits_for_what_it_may_have() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99, 8)
    assert not world.tell("b", 99, 0)["ahead"]
    world.tell("a", 99, 4)
    assert world.tell("b", 99, 4)["ahead"]
    world.tell("b", 99, 3)
    for _ in range(int(PATIENCE_S) + 1):
        world.now += 1.0
        world.tell("a", 99, 4)
        answer = world.tell("b", 99, 3)
    assert answer["ahead"]  # it may be that what it may have will never come


def test_the_view() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99, 4, weight=2.0)
    world.tell("b", 1, 1)
    view = world.broker.view()
    assert view["capacity"] == view["total"] == {"CPU": 8.0}
    facts = [(run["tenant"], run["wants"], run["may_have"], run["holds"], run["share"]) for run in view["runs"]]
    assert facts == [("a", 99, 7, 4, 0.5), ("b", 1, 1, 1, 0.125)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": None},
        {"tenant": 3},
        {"tenant": "x" * 1000},
        {"weight": 0},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": "2"},
        {"priority": 0.5},
        {"minimum": []},
        {"minimum": {1: 2}},
        {"cap": {"CPU": float("inf")}},
        {"name": 7},
        {"host": None},
        {"pid": "1"},
        {"demands": None},
        {"demands": [7]},
        {"demands": [{"needs": {"CPU": 1.0}, "wanted": 1, "held": 0}]},  # it does not say what is starting
        {"demands": [{"needs": {"CPU": -1.0}, "wanted": 1, "held": 0, "starting": 0}]},
        {"demands": [{"needs": {"CPU": 1.0}, "wanted": True, "held": 0, "starting": 0}]},
        {"demands": [{"needs": {"CPU": 1.0}, "wanted": 1, "held": -1, "starting": 0}]},
    ],
)
def test_a_run_that_talks_nonsense_harms_nobody(wrong: dict[str, Any]) -> None:
    world = World(CPU=8.0)
    world.tell("a", 99)
    for name in ("a", "b"):  # one that is known, and one that is not
        with pytest.raises(ValueError):
            world.broker.tell({**message(name, 1, 1), **wrong})
    world.now += 2.0
    assert world.tell("a", 99)["alone"]
    assert [(run["name"], run["weight"], run["wants"]) for run in world.broker.view()["runs"]] == [("a", 1.0, 99)]


def test_a_run_that_says_less_of_itself_or_speaks_of_other_workers_is_heard() -> None:
    world = World(CPU=8.0)
    short = message("b", 2, 0)
    del short["name"]
    world.tell("a", 99)
    world.broker.tell(short)
    for count in (2, 3, 1):
        world.now += 1.0
        world.broker.tell({**short, "demands": short["demands"] * count})
        world.tell("a", 99)
    assert [(run["name"], run["host"]) for run in world.broker.view()["runs"]] == [("a", ""), ("b", "")]


def test_no_run_wants_so_much_that_the_others_wait() -> None:
    world = World(CPU=8.0)
    world.tell("a", 99)
    demands = [{"needs": needs, "wanted": 10**12, "held": 0, "starting": 0} for needs in ({}, {"CPU": 0.0}, {"CPU": 1})]
    assert world.broker.tell({**message("b", 0, 0), "demands": demands})["workers"][2] == 4


# ---- a run's word with it ----------------------------------------------------------------------------------

SHAPE = ShapeId(0)


class Remote:
    """An actor, as far as it is needed here."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.left: list[str] = []
        self.told: list[dict[str, Any]] = []

    @property
    def tell(self) -> Any:
        remote = self

        class Method:
            def remote(self, message: dict[str, Any]) -> Any:
                remote.told.append(message)
                future: Future[Any] = Future()
                remote.futures.append(future)

                class Ref:
                    def future(self) -> Future[Any]:
                        return future

                return Ref()

        return Method()

    @property
    def leave(self) -> Any:
        remote = self

        class Method:
            def remote(self, run: str) -> None:
                remote.left.append(run)

        return Method()


class Side:
    """A run's side, with actors that are made when it looks for one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.actors: list[Remote] = []
        self.woken = 0

        def start() -> Remote:
            self.actors.append(Remote())
            return self.actors[-1]

        def wake() -> None:
            self.woken += 1

        monkeypatch.setattr(sharing_module, "find_broker", lambda: None)
        monkeypatch.setattr(sharing_module, "start_broker", start)
        self.sharing = Sharing(Share("ada", weight=2.0), "run", {SHAPE: {"CPU": 1.0}}, wake, lambda: self.now)
        self.now = START_AFTER_S

    def tell(self, wanted: int, held: int) -> None:
        self.now += TELL_EVERY_S
        self.sharing.tell({SHAPE: wanted}, {SHAPE: held}, {SHAPE: 1})

    def bound(self, possible: int, wanted: int, *, given_up: bool = False) -> int:
        return self.sharing.bound(SHAPE, possible, wanted, given_up=given_up)


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Side:
    return Side(monkeypatch)


def test_it_asks_and_keeps_to_the_answer(side: Side) -> None:
    side.tell(8, 0)
    (actor,) = side.actors
    assert (actor.told[0]["tenant"], actor.told[0]["weight"]) == ("ada", 2.0)
    assert actor.told[0]["demands"] == [{"needs": {"CPU": 1.0}, "wanted": 8, "held": 0, "starting": 1}]
    assert side.bound(8, 8) == 8  # nobody has said anything yet
    actor.futures[0].set_result({"workers": [3], "alone": False, "ahead": False})
    assert (side.woken, side.sharing.news) == (1, True)
    assert side.bound(8, 8) == 3
    assert side.bound(2, 8) == 2


def test_a_short_run_starts_no_broker(side: Side) -> None:
    side.now = 0.0
    while side.now < START_AFTER_S - TELL_EVERY_S:
        side.tell(8, 0)
    assert not side.actors
    side.tell(8, 0)
    assert len(side.actors) == 1


def test_one_question_at_a_time(side: Side) -> None:
    side.tell(8, 0)
    side.tell(8, 0)
    assert len(side.actors[0].told) == 1


def test_workers_ahead_are_for_who_wants_more_and_has_what_it_may_have(side: Side) -> None:
    side.tell(8, 3)
    side.actors[0].futures[0].set_result({"workers": [3], "alone": False, "ahead": True})
    assert side.bound(20, 8) == 3 + AHEAD
    assert side.bound(20, 8, given_up=True) == 4
    assert side.bound(20, 3) == 3
    side.tell(8, 4)  # one of them has come, although there is no more for this run
    side.actors[0].futures[1].set_result({"workers": [3], "alone": False, "ahead": True})
    assert side.bound(20, 8) == 3


def test_a_broker_that_knows_nothing_yet_changes_nothing(side: Side) -> None:
    side.tell(8, 0)
    side.actors[0].futures[0].set_result({"workers": [3], "alone": False, "ahead": False})
    side.tell(8, 3)
    side.actors[0].futures[1].set_result({"workers": None, "alone": False, "ahead": False})
    assert side.bound(8, 8) == 3
    side.tell(8, 3)
    side.actors[0].futures[2].set_result({"workers": None, "alone": True, "ahead": True})
    assert side.bound(8, 8) == 8


def test_a_broker_that_dies_or_is_silent_is_looked_for_anew(side: Side) -> None:
    side.tell(8, 0)
    side.actors[0].futures[0].set_exception(RuntimeError("gone"))
    side.tell(8, 0)
    assert len(side.actors) == 2
    side.now += ANSWER_S
    side.tell(8, 0)
    assert len(side.actors) == 3
    side.actors[1].futures[0].set_result({"workers": [1], "alone": False, "ahead": False})  # too late
    assert side.bound(8, 8) == 8


def test_a_broker_that_can_not_live_is_looked_for_seldom(side: Side) -> None:
    for _ in range(400):
        side.tell(8, 0)
        if side.actors[-1].futures and not side.actors[-1].futures[-1].done():
            side.actors[-1].futures[-1].set_exception(RuntimeError("it can't import umbel"))
    looked = FAILING_S / TELL_EVERY_S
    assert looked < len(side.actors) < looked + 200 / SELDOM_S + 3
    side.now += SELDOM_S
    side.tell(8, 0)
    side.actors[-1].futures[0].set_result({"workers": [3], "alone": False, "ahead": False})
    side.tell(8, 0)
    side.actors[-1].futures[1].set_exception(RuntimeError("it dies, as may happen"))
    count = len(side.actors)
    side.tell(8, 0)
    assert len(side.actors) == count + 1


def test_it_says_when_it_ends(side: Side) -> None:
    side.sharing.leave()
    side.tell(8, 0)
    side.sharing.leave()
    assert side.actors[0].left == [side.actors[0].told[0]["run"]]
