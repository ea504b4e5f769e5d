"""Cross products of lists and fan-outs."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

import umbel


@umbel.task
def name(number: int) -> str:
    return f"n{number}"


@umbel.task
def join(left: str, middle: int, right: str) -> str:
    return f"{left}-{middle}-{right}"


def test_every_combination_the_last_changing_fastest(tmp_path: Path) -> None:
    left, right = name.map([1, 2]), name.map(range(3))
    node = join.map(*umbel.product(left, [10, 20], right))
    run = umbel.run(node, store=str(tmp_path), name="r", executor="inline", progress=False)
    expected = [f"{a}-{b}-{c}" for a, b, c in product(["n1", "n2"], [10, 20], ["n0", "n1", "n2"])]
    assert run.value(node) == expected


def test_an_empty_factor_gives_no_combinations(tmp_path: Path) -> None:
    node = join.map(*umbel.product(name.map([1]), [], ["x"]))
    run = umbel.run(node, store=str(tmp_path), name="r", executor="inline", progress=False)
    assert run.value(node) == []


def test_a_factor_must_be_a_list() -> None:
    with pytest.raises(umbel.GraphError, match="factor 2"):
        umbel.product([1, 2], "text")
    with pytest.raises(umbel.GraphError, match="factor 1"):
        umbel.product(name.bind(1))
    with pytest.raises(umbel.GraphError, match="no factors"):
        umbel.product()


def test_a_product_is_not_zipped_with_another_length() -> None:
    with pytest.raises(umbel.GraphError, match="different lengths"):
        join.map(*umbel.product([1, 2], [3, 4]), [1, 2])
