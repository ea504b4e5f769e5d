"""What the driver hands on of trials at their rungs: to whom, once, and how much."""

from __future__ import annotations

from typing import Any

import pytest
from ray import tune

import umbel
from umbel.runtime.driver.plan import make_plan
from umbel.runtime.search import rungs
from umbel.runtime.search.rungs import RungBook
from umbel.scheduler.graph import NodeId
from umbel.scheduler.protocol import Lease, LeaseId, WorkerId
from umbel.scheduler.search.pruning import Record

NODE = NodeId(0)
ANNE, BERT = WorkerId("anne"), WorkerId("bert")


def a_book(**options: Any) -> RungBook:
    """Of a sweep of three groups of ten."""
    sweep = umbel.sweep(
        lambda config: 1.0,
        space={"x": tune.uniform(0, 1)},
        over={"group": ["a", "b", "c"]},
        trials=10,
        metric="loss",
        **({"prune": "asha"} | options),
    )
    return RungBook(make_plan(sweep).programs)


def lease(start: int, stop: int) -> Lease:
    return Lease(LeaseId(start), NODE, start, stop)


def record(trial: int, value: float = 0.5, rank: float | None = None) -> Record:
    return Record(trial, 0, 1, value, rank)


def told(book: RungBook, worker: WorkerId) -> list[int]:
    return [each.trial for news in book.news(worker) for each in news.records]


def test_workers_hear_of_their_groups_once_and_never_of_themselves() -> None:
    book = a_book()
    book.granted(ANNE, lease(0, 5))
    book.granted(BERT, lease(5, 12))
    book.note(NODE, ANNE, [record(0), record(1)])
    book.note(NODE, BERT, [record(5), record(11)])
    assert told(book, ANNE) == [5]
    assert told(book, BERT) == [0, 1]
    assert told(book, ANNE) == told(book, BERT) == []
    book.note(NODE, ANNE, [record(0), record(2)])  # trial 0 once more, as it was
    assert told(book, BERT) == [2]


def test_who_gets_a_group_later_hears_all_of_it() -> None:
    book = a_book()
    book.granted(ANNE, lease(0, 5))
    book.note(NODE, ANNE, [record(0)])
    assert told(book, BERT) == []
    book.granted(BERT, lease(5, 10))
    assert told(book, BERT) == [0]
    book.granted(BERT, lease(20, 25))
    book.granted(BERT, lease(25, 30))  # its leases in the first group are long done
    book.note(NODE, ANNE, [record(1), record(20)])
    assert told(book, BERT) == [20]


def test_a_trial_that_says_something_else_the_second_time_is_passed_on() -> None:
    book = a_book()
    book.granted(BERT, lease(0, 10))
    book.note(NODE, ANNE, [record(0, 0.5)])
    book.note(NODE, ANNE, [record(0, 0.4)])
    assert told(book, BERT) == [0, 0]


def test_across_groups_everybody_hears_of_everybody() -> None:
    book = a_book(prune_across=True)
    book.granted(BERT, lease(0, 5))
    book.note(NODE, ANNE, [record(10, rank=0.5), record(29, rank=0.5)])
    assert told(book, BERT) == [10, 29]


def test_no_more_is_passed_on_than_moves_a_cutoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "PASSED_ON", 3)
    monkeypatch.setattr(rungs, "MESSAGE", 2)
    book = a_book()
    book.granted(BERT, lease(0, 20))
    book.note(NODE, ANNE, [record(trial) for trial in range(12)])
    assert told(book, BERT) == [0, 1, 10, 11]
    assert told(book, BERT) == [2]
    assert told(book, BERT) == []


def test_a_worker_that_is_gone_is_forgotten() -> None:
    book = a_book()
    book.granted(BERT, lease(0, 10))
    book.note(NODE, ANNE, [record(0)])
    assert told(book, BERT) == [0]
    book.forget(BERT)
    assert told(book, BERT) == []
    book.granted(BERT, lease(0, 10))
    assert told(book, BERT) == [0]


def test_sweeps_that_do_not_prune_are_left_aside() -> None:
    book = a_book(prune=None)
    assert NODE not in book
    book.granted(ANNE, lease(0, 5))
    book.note(NODE, BERT, [record(0)])
    assert told(book, ANNE) == []
    assert book.silent() == []
