"""Copies of large values: used while they live, not missed when they are gone, and not without bound."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import umbel
from umbel.runtime.leases.shared_memory import SharedCopies
from umbel.scheduler.graph import NodeId

#: Items of an array that is too large to travel in messages.
LARGE = 100_000
FIRST, SECOND = NodeId(0), NodeId(1)


def test_the_oldest_copies_are_given_up_first() -> None:
    copies = SharedCopies()
    copies.add(FIRST, 0, "unused", 1)
    assert copies.get(FIRST, 0) is None  # there is no Ray yet
    copies.limit_bytes = 10
    for element in range(3):
        copies.add(FIRST, element, f"copy {element}", 4)
    assert [copies.get(FIRST, element) for element in range(3)] == [None, "copy 1", "copy 2"]
    copies.add(FIRST, 1, "another", 4)
    copies.add(SECOND, 0, "second", 4)
    assert [copies.get(FIRST, element) for element in range(3)] == [None, "another", None]
    copies.drop(FIRST)
    assert copies.get(FIRST, 1) is None
    assert copies.get(SECOND, 0) == "second"
    copies.add(SECOND, 1, "too large", 11)
    assert copies.get(SECOND, 1) is None


@umbel.task(priority=1)
def array(seed: int, artifacts: str) -> npt.NDArray[np.float64]:
    """Makes a large value, and away with all that were stored before."""
    if artifacts:
        for path in Path(artifacts).iterdir():
            path.unlink()
    return np.full(LARGE, float(seed))


@umbel.task(cpus=0.5)
def firsts(arrays: list[npt.NDArray[np.float64]], read: str) -> list[float]:
    Path(read).touch()
    return [float(values[0]) for values in arrays]


@umbel.task
def stay_until(read: str) -> None:
    """Keeps the worker that made the arrays: with it their copies would go."""
    deadline = time.monotonic() + 120
    while not Path(read).exists():
        assert time.monotonic() < deadline, "nobody reads the arrays"
        time.sleep(0.01)


@umbel.task(cpus=0.5)
def first_of(values: list[float], other: None) -> list[float]:
    return values


@umbel.task(cpus=2)
def firsts_with_all_processors(arrays: list[npt.NDArray[np.float64]]) -> list[float]:
    return [float(values[0]) for values in arrays]


@pytest.mark.ray
def test_a_copy_saves_the_way_through_the_store(two_processors: None, tmp_path: Path) -> None:
    artifacts, read = tmp_path / "artifacts", str(tmp_path / "read")
    artifacts.mkdir()
    node = first_of.bind(firsts.bind(array.map([1, 2, 3], str(artifacts)), read), stay_until.bind(read))
    run = umbel.run(node, store=str(tmp_path), name="r", workers=1, progress="quiet")
    assert run.value(node) == [1.0, 2.0, 3.0]
    assert len(list(artifacts.iterdir())) == 1  # so there was nothing else to read the others from


@pytest.mark.ray
def test_a_copy_that_is_gone_is_not_missed(two_processors: None, tmp_path: Path) -> None:
    arrays = array.map([1, 2, 3], "")
    node = firsts_with_all_processors.bind(arrays)  # which needs the room of the workers that made them
    run = umbel.run(node, store=str(tmp_path), name="r", progress="quiet")
    assert run.value(node) == [1.0, 2.0, 3.0]
    made, used = (set(run.elements(each)["worker"].to_pylist()) for each in (arrays, node))
    assert not made & used
