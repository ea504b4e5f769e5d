"""What trials print is kept with the run, bounded, and found again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.runtime.leases.lease_report import REPORT_OUTPUT_LIMIT, bounded
from umbel.runtime.leases.output import TAIL_BYTES, Tail, capture, kept


@given(st.lists(st.text(max_size=30)), st.integers(1, 40))
def test_a_tail_is_the_end_of_what_was_written(pieces: list[str], limit: int) -> None:
    tail = Tail(limit)
    for piece in pieces:
        tail.write(piece)
    whole = "".join(pieces)
    taken = tail.take() or ""
    if len(whole) <= limit:
        assert taken == whole
    else:
        said, _, text = taken.partition("\n")
        assert text == whole[-limit:]
        assert f"{len(whole) - limit:,} characters" in said
    assert tail.take() is None


def test_a_tail_stays_small_whatever_is_written() -> None:
    tail = Tail()
    for _ in range(1000):
        tail.write("x" * 100_000)
        tail.write("y")
    assert sum(map(len, tail._pieces)) <= 2 * TAIL_BYTES


def test_only_threads_with_a_tail_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    with capture(pass_on=False):
        print("before")
        kept.tail = Tail()
        print("inside")
        print("error", file=sys.stderr)
        text = kept.tail.take()
        kept.tail = None
    assert text == "inside\nerror\n"
    assert capsys.readouterr().out == "before\n"


def test_a_report_carries_a_bounded_amount() -> None:
    output = [(i, 1, "x" * 8000) for i in range(1000)]
    held = bounded(output)
    assert sum(len(text) for _, _, text in held) <= REPORT_OUTPUT_LIMIT + 100
    assert held[-1] == output[-1]
    assert "printed too much" in held[0][2]
    assert bounded(output[:3]) == tuple(output[:3])


def chatty(config: dict[str, Any]) -> float:
    context = umbel.trial()
    if config["x"] == 1:
        return 1.0
    print(f"trial {context.index}, attempt {context.attempt}")
    if config["x"] == 2:
        raise ValueError("no")
    return float(config["x"])


def test_output_is_found_by_trial(tmp_path: Path) -> None:
    task = umbel.task(retries=1)(chatty)
    sweep = umbel.sweep(task, space={"x": [0, 1, 2]}, search="grid", metric="m")
    run = umbel.run(sweep, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert run.output(0) == "trial 0, attempt 1\n"
    assert run.output(1) == ""
    assert run.output(2) == "--- attempt 1 ---\ntrial 2, attempt 1\n--- attempt 2 ---\ntrial 2, attempt 2\n"
    assert run.output(0, sweep) == run.output(0, "chatty") == run.output(0)
    with pytest.raises(umbel.NotFoundError):
        run.output(0, "other")


@umbel.task
def shout(text: str) -> int:
    print(text.upper())
    return len(text)


def test_tasks_are_heard_too(tmp_path: Path) -> None:
    node = shout.map(["a", "bc"])
    run = umbel.run(node, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert run.output(1, node) == "BC\n"
    assert run.value(node) == [1, 2]


def test_trials_that_print_nothing_cost_no_objects(tmp_path: Path) -> None:
    sweep = umbel.sweep(chatty, space={"x": 1}, trials=3, metric="m")
    umbel.run(sweep, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert not (tmp_path / "runs" / "r" / "output").exists()


def slow_and_chatty(config: dict[str, Any]) -> float:
    print("before the end")
    import time

    time.sleep(60)
    return 1.0


@pytest.mark.ray
def test_what_a_trial_printed_before_its_time_was_up_is_kept(tmp_path: Path) -> None:
    task = umbel.task(timeout_s=1.0)(slow_and_chatty)
    sweep = umbel.sweep(task, space={"x": [1]}, trials=1, metric="m", name="s")
    run = umbel.run(sweep, store=str(tmp_path), name="r", workers=1, progress="quiet")
    assert run.trials()["status"].to_pylist() == ["timeout"]
    assert "before the end" in run.output(0)
