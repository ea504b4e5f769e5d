"""Fan-outs and groups whose number only a task's result reveals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ray import tune

import umbel
from umbel.runtime.graph.nodes import Node
from umbel.runtime.planning.forecast import plan

SPACE = {"x": tune.uniform(0, 1)}
Go = Callable[..., umbel.Run]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(target: Any, name: str = "r", **options: Any) -> umbel.Run:
        return umbel.run(target, store=str(tmp_path), name=name, executor="inline", progress="quiet", **options)

    return run


@umbel.task
def split(text: str) -> list[str]:
    return text.split()


@umbel.task
def shout(word: str) -> str:
    return word.upper()


@umbel.task
def join(words: list[str]) -> str:
    return "-".join(words)


@umbel.task
def pair(left: object, right: object) -> str:
    return f"{left}{right}"


@umbel.task
def fail(_: object) -> list[str]:
    raise ValueError("no list today")


def trial(config: dict[str, Any], data: Any = None) -> float:
    return float(config["x"]) + len(str(data))


@umbel.task
def describe(best: umbel.Best) -> str:
    return f"{best.group['word']}:{best.trial}"


def test_a_fan_out_over_a_list_that_a_task_returns(go: Go) -> None:
    words = split.bind("a b c")
    shouted = shout.map(words.elements())
    run = go(join.bind(shouted))
    assert run.value(shouted) == ["A", "B", "C"]
    assert run.value("join") == "A-B-C"
    assert run.graph.nodes["shout"].size == 3


def test_fan_outs_follow_one_another_and_are_zipped(go: Go) -> None:
    words = split.bind("a b c")
    shouted = shout.map(words.elements())
    assert go(pair.map(shouted, words.elements())).value("pair") == ["Aa", "Bb", "Cc"]
    assert go(pair.map(shouted, "!"), "broadcast").value("pair") == ["A!", "B!", "C!"]


def test_an_empty_list_gives_an_empty_fan_out(go: Go) -> None:
    shouted = shout.map(split.bind("").elements())
    run = go(join.bind(shouted))
    assert run.value(shouted) == []
    assert run.value("join") == ""


@pytest.mark.parametrize(
    "values",
    [(1, 2), range(1, 3), np.array([1, 2]), pd.Series([1, 2], index=[7, 8]), pd.Index([1, 2]), pa.array([1, 2])],
)
def test_whatever_is_a_list_to_map_is_one_here(go: Go, values: Any) -> None:
    numbers = umbel.task(lambda: values).bind()
    assert go(pair.map(numbers.elements(), "!")).value("pair") == ["1!", "2!"]


def test_what_is_no_list_has_no_elements(go: Go) -> None:
    with pytest.raises(umbel.GraphError, match=r"(?s)'join' has no elements.*a str"):
        go(shout.map(join.bind(["a"]).elements()))


def test_a_list_that_failed_fails_what_needs_it_and_nothing_else(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    lost = shout.map(fail.bind(1).elements())
    total, fine = join.bind(lost), shout.bind("fine")
    run = go([total, fine])
    assert "'shout' not run: how many elements it has" in capsys.readouterr().err
    assert run.value(fine) == "FINE"
    failures = run.failures().to_pylist()
    assert [row["node"] for row in failures] == ["fail", "join"]
    assert "'fail', which it needs, failed" in failures[1]["error"]
    with pytest.raises(umbel.UmbelError, match="how many elements the node 'shout'"):
        run.value(lost)


def test_lengths_that_turn_out_to_differ_are_named(go: Go) -> None:
    with pytest.raises(umbel.GraphError, match="argument 1: 3, argument 2: 2"):
        go(pair.map(split.bind("a b c").elements(), [1, 2]))


def test_a_sweep_over_groups_found_at_run_time(go: Go) -> None:
    words = split.bind("a bb")
    sweep = umbel.sweep(
        trial, space=SPACE, over={"word": words, "n": [1, 2]}, data=pair.map(*umbel.product(words.elements(), [1, 2])),
        trials=3, metric="loss", name="s",
    )  # fmt: skip
    run = go(describe.map(sweep.best()))
    rows = run.trials().to_pylist()
    assert [(row["word"], row["n"]) for row in rows] == [(w, n) for w in ("a", "bb") for n in (1, 2) for _ in range(3)]
    assert run.best().column("word").to_pylist() == ["a", "a", "bb", "bb"]
    assert len(run.value("describe")) == 4  # type: ignore[arg-type]
    # The same trials as with the groups known before.
    known = umbel.sweep(
        trial, space=SPACE, over={"word": ["a", "bb"], "n": [1, 2]}, data=["a1", "a2", "bb1", "bb2"], trials=3,
        metric="loss", name="s",
    )  # fmt: skip
    same = go(known, "known").trials()
    for column in ("config_x", "metric_loss", "seed", "data", "key"):
        assert run.trials()[column].to_pylist() == same[column].to_pylist()


def test_the_items_of_a_list_as_the_data_of_groups(go: Go) -> None:
    words = split.bind("a bb")
    sweep = umbel.sweep(
        trial, space=SPACE, over={"word": words}, data=words.elements(), trials=2, metric="loss", name="s"
    )
    rows = go(sweep).trials().to_pylist()
    assert [int(row["metric_loss"]) for row in rows] == [1, 1, 2, 2]
    assert len({row["data"] for row in rows}) == 2


def test_data_that_turn_out_not_to_fit_the_groups(go: Go) -> None:
    sweep = umbel.sweep(
        trial, space=SPACE, over={"word": ["a", "b"]}, data=split.bind("a b c").elements(), trials=2, metric="loss"
    )
    with pytest.raises(umbel.GraphError, match="data: 3, groups: 2"):
        go(sweep)


def test_groups_must_be_plain_and_distinct(go: Go) -> None:
    sweep = umbel.sweep(trial, space=SPACE, over={"word": split.bind("a b a")}, trials=2, metric="loss")
    with pytest.raises(umbel.UsageError, match=r"(?s)'word' from 'split'.*duplicates"):
        go(sweep)
    nothing = umbel.sweep(trial, space=SPACE, over={"word": split.bind("")}, trials=2, metric="loss", name="n")
    with pytest.raises(umbel.UsageError, match="empty"):
        go(nothing, "nothing")


def test_groups_that_failed(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = umbel.sweep(trial, space=SPACE, over={"word": fail.bind(1)}, trials=2, metric="loss", name="s")
    run = go(umbel.task(len, name="count").bind(describe.map(sweep.best())))
    assert "'s', 's-best', 'describe' not run: how many elements they have" in capsys.readouterr().err
    assert run.trials().num_rows == 0
    assert [row["node"] for row in run.failures().to_pylist()] == ["fail", "count"]


def test_what_was_done_is_not_done_again(go: Go, tmp_path: Path) -> None:
    log = tmp_path / "calls"

    def note(word: str) -> str:
        with log.open("a") as file:
            file.write(f"{word}\n")
        return word

    def target() -> Node:
        noted = umbel.task(note)
        words = noted.map(split.bind("a b c d").elements())
        sweep = umbel.sweep(
            trial, space=SPACE, over={"word": join.bind(words)}, trials=2, metric="loss", name="s"
        )  # a text, not a list
        return describe.map(sweep.best())

    for _ in range(2):
        with pytest.raises(umbel.UsageError, match="not a list"):
            go(target())
    assert log.read_text().split() == ["a", "b", "c", "d"]


def test_a_finished_run_is_finished(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    def target() -> Node:
        return join.bind(shout.map(split.bind("a b").elements()))

    first = go(target())
    again = go(target())
    assert again.elements("shout").equals(first.elements("shout"))
    assert again.graph.nodes["shout"].size == 2


def test_only_the_first_factor_may_be_revealed(go: Go) -> None:
    words = split.bind("a b")
    assert go(pair.map(*umbel.product(words.elements(), [1, 2]))).value("pair") == ["a1", "a2", "b1", "b2"]
    fan_out = shout.map(words.elements())
    assert go(pair.map(*umbel.product(fan_out, [1, 2])), "f").value("pair") == ["A1", "A2", "B1", "B2"]
    with pytest.raises(umbel.GraphError, match="put it first"):
        umbel.product([1, 2], words.elements())


def test_misuse_is_named() -> None:
    words = split.bind("a b")
    with pytest.raises(umbel.GraphError, match="single call"):
        shout.bind(words.elements())
    with pytest.raises(umbel.UsageError, match="fan-out already"):
        shout.map(words.elements()).elements()
    with pytest.raises(umbel.UsageError, match=r"elements\(\)"):
        list(words)
    with pytest.raises(umbel.UsageError, match="only in a run"):
        len(shout.map(words.elements()))
    with pytest.raises(umbel.UsageError, match="are a fan-out"):
        umbel.sweep(trial, space=SPACE, over={"word": shout.map(["a"])}, trials=1, metric="loss")


def test_a_forecast_takes_the_sizes_from_an_earlier_run(go: Go) -> None:
    def target() -> Node:
        return join.bind(shout.map(split.bind("a b c").elements()))

    with pytest.raises(umbel.UsageError, match="decides how many elements"):
        plan(target(), nodes=1, seconds=1.0)
    forecast = plan(target(), nodes=1, run=go(target()))
    assert forecast.elements == 5


def test_a_run_that_has_not_come_so_far_can_be_read(go: Go, tmp_path: Path) -> None:
    @umbel.task(on_failure="stop")
    def stop(word: str) -> str:
        raise RuntimeError(word)

    sweep = umbel.sweep(
        trial, space=SPACE, over={"word": split.bind(stop.bind("x"))}, trials=2, metric="loss", name="s"
    )
    with pytest.raises(umbel.UmbelError, match="on_failure"):
        go([describe.map(sweep.best()), shout.map(["a"] * 100)])
    run = umbel.open_store(str(tmp_path)).run("r")
    assert run.trials().num_rows == 0
    assert run.graph.nodes["describe"].size is None
    assert "?" in run._repr_html_()
    with pytest.raises(umbel.UmbelError, match="not there yet"):
        run.value("describe")


def test_a_list_that_is_none_leaves_the_rest_to_go_on(go: Go, tmp_path: Path) -> None:
    fine = shout.map(["a", "b"])
    lost = join.bind(shout.map(join.bind(["x"]).elements()))
    with pytest.raises(umbel.GraphError, match="did not return a list"):
        go([lost, fine])
    run = umbel.open_store(str(tmp_path)).run("r")
    assert run.value(fine) == ["A", "B"]
    assert run.status == "failed"
    (failure,) = (row for row in run.failures().to_pylist() if row["node"] == lost.name)
    assert "did not return a list" in failure["error"]


def test_an_item_is_known_by_its_content(go: Go) -> None:
    def sweep(text: str) -> Any:
        words = split.bind(text)
        return umbel.sweep(
            trial, space=SPACE, over={"word": words}, data=words.elements(), trials=2, metric="loss", name="s"
        )

    go(sweep("a b"), "one")
    rows = go(sweep("b c a"), "two").trials().to_pylist()
    assert [row["reused_from"] is None for row in rows] == [False, False, True, True, False, False]
