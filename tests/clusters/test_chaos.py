"""Everything is killed that can be, again and again, and the tables are none the worse for it.

``UMBEL_CHAOS_SEED`` repeats what happened with a seed, and ``UMBEL_CHAOS_MINUTES`` has rounds with new seeds begin for
that long. Which trials a kill hits depends on the machine's pace, so a seed repeats the kind of thing, not the thing.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.clusters.chaos_graph import GROUPS, TRIALS
from tests.clusters.chaos_tables import assert_equal, assert_written_once, attempts
from tests.clusters.namespace import require_namespaces, run_in_namespace

MINUTES = float(os.environ.get("UMBEL_CHAOS_MINUTES", "0"))
#: A round takes one to two minutes on two idle cores.
LIMIT_S = 60 * MINUTES + 600
pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def rounds(folder: Path) -> Any:
    """What was done to which runs."""
    require_namespaces()
    seed = os.environ.get("UMBEL_CHAOS_SEED") or str(secrets.randbelow(10**6))
    print(f"chaos: UMBEL_CHAOS_SEED={seed}")
    told = run_in_namespace(Path(__file__).with_name("chaos_driver.py"), folder, seed, str(MINUTES), timeout_s=LIMIT_S)
    for each in told:
        print(f"chaos: seed {each['seed']}, {each['trials begun']:,} trials begun", *each["events"], sep="\n  ")
    return told


@pytest.fixture(scope="module")
def runs(rounds: Any) -> list[umbel.Run]:
    return [umbel.open_store(each["store"]).run("chaos") for each in rounds]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, rounds: Any) -> umbel.Run:
    """The same graph, run in one process in which nothing happened."""
    return umbel.open_store(str(folder / "undisturbed")).run("chaos")


def test_what_was_to_happen_has_happened(rounds: Any) -> None:
    for each in rounds:
        assert (each["driver killed"], each["node lost"], each["node drained"]) == (3, 1, 1)
        assert each["workers killed"] > 5
        assert each["broker killed"] > 0
        assert each["trials begun"] > GROUPS * TRIALS  # some had to be run again


def test_tables_equal_those_of_an_undisturbed_run(runs: list[umbel.Run], undisturbed: umbel.Run) -> None:
    assert undisturbed.trials().num_rows == GROUPS * TRIALS
    for run in runs:
        assert_equal(run, undisturbed)


def test_no_row_was_written_twice(rounds: Any) -> None:
    for each in rounds:
        assert_written_once(Path(each["store"]), TRIALS)


def test_no_death_used_up_an_attempt(runs: list[umbel.Run]) -> None:
    for run in runs:
        assert attempts(run) == {1}


def test_nothing_is_left_behind(rounds: Any) -> None:
    for each in rounds:
        assert each["left behind"] == {"processes": [], "actors": []}
