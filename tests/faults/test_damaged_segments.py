"""Segments that are cut short, overwritten or bent by a bit: named, set aside, and what they held is run again."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray import tune

import umbel
from tests.faults.processes import same_but_where_and_when

TRIALS = 90
#: Trials that wait, at first, until so many segments are written: so that there are several.
HALTS = {30: 1, 60: 2}


@umbel.task
def load(group: str) -> str:
    note("load", group)
    return group * 10


def trial(config: dict[str, Any], data: str) -> float:
    this = umbel.trial()
    note("trial", str(this.index))
    end = time.monotonic() + 20
    wanted = HALTS.get(this.index, 0) if "UMBEL_TEST_HALT" in os.environ else 0
    while len(segments(store(), "trials/search")) < wanted and time.monotonic() < end:
        time.sleep(0.02)
    return float(config["alpha"]) + len(data)


def store() -> Path:
    """Where the run lies: not an argument of the trials, so that copies of the run can be resumed."""
    return Path(os.environ["UMBEL_TEST_STORE"])


def note(kind: str, text: str) -> None:
    with (store() / f"{kind}.log").open("a") as file:
        file.write(text + "\n")


def noted(kind: str) -> list[str]:
    file = store() / f"{kind}.log"
    return file.read_text().splitlines() if file.exists() else []


def segments(folder: Path, of: str) -> list[Path]:
    return sorted((folder / "runs" / "work" / of).glob("*.parquet"))


def run() -> umbel.Run:
    groups = ["a", "b", "c"]
    space = {"alpha": tune.uniform(0, 1)}
    data = load.map(groups)
    sweep = umbel.sweep(
        trial, space=space, over={"group": groups}, data=data, trials=TRIALS // 3, metric="loss", name="search"
    )
    return umbel.run(sweep.best(), store=str(store()), name="work", executor="inline", progress="plain")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished run of several segments."""
    folder = tmp_path_factory.mktemp("finished") / "store"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMBEL_TEST_STORE", str(folder))
        patch.setenv("UMBEL_TEST_HALT", "yes")
        assert run().status == "done"
    assert len(segments(folder, "trials/search")) >= 3  # more where the machine is slow: what waits long is written
    for log in folder.glob("*.log"):
        log.unlink()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that store, to be damaged and resumed."""
    folder = tmp_path / "store"
    shutil.copytree(finished, folder)
    monkeypatch.setenv("UMBEL_TEST_STORE", str(folder))
    return folder


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def flip(place: float) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        position = int((len(data) - 1) * place)
        return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]

    return damage


DAMAGES = {
    "emptied": cut(0),
    "cut in half": cut(0.5),
    "without its last byte": lambda data: data[:-1],
    "with a byte too many": lambda data: data + b"\0",
    "garbage": lambda data: random.Random(7).randbytes(len(data)),
    "garbage inside": lambda data: data[:8] + random.Random(7).randbytes(len(data) - 16) + data[-8:],
    **{f"a bit at {place}": flip(place) for place in (0.0, 0.1, 0.4, 0.6, 0.8, 0.95, 1.0)},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_damaged_trials(copied: Path, damage: str, position: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = umbel.open_store(str(copied)).run("work").trials()
    path = segments(copied, "trials/search")[position]
    held = [str(trial) for trial in pa.parquet.read_table(path).column("trial").to_pylist()]
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    kept = {other: other.read_bytes() for other in segments(copied, "trials/search") if other != path}
    with pytest.warns(UserWarning, match=rf"1 damaged segment .*{path.name}"):
        umbel.open_store(str(copied)).run("work").trials()
    resumed = run()
    name = str(path.relative_to(copied))
    said = capsys.readouterr().err
    assert f"warning: {name} is damaged (" in said
    assert f"set aside as {name}.corrupt, what it held is run again" in said
    assert path.with_name(f"{path.name}.corrupt").exists()
    assert sorted(noted("trial")) == sorted(held)
    assert noted("load") == []
    assert {other: other.read_bytes() for other in kept} == kept
    assert resumed.status == "done"
    assert same_but_where_and_when(resumed.trials(), before)


def test_damaged_values(copied: Path) -> None:
    before = umbel.open_store(str(copied)).run("work")
    for node in ("load", "search-best"):
        for path in segments(copied, f"values/{node}"):
            path.write_bytes(DAMAGES["cut in half"](path.read_bytes()))
    resumed = run()
    assert noted("load") == ["a", "b", "c"]
    assert noted("trial") == []
    assert resumed.trials().equals(before.trials())
    assert [best.trial for best in resumed.value("search-best")] == resumed.best().column("trial").to_pylist()  # type: ignore[attr-defined]


def test_all_segments_damaged_again_and_again(copied: Path) -> None:
    before = umbel.open_store(str(copied)).run("work").trials()
    damaged: list[str] = []
    for times in (1, 2):
        for path in segments(copied, "trials/search"):
            path.write_bytes(b"")
            damaged.append(path.name)
        assert same_but_where_and_when(run().trials(), before)
        assert len(noted("trial")) == times * TRIALS
    written = [path.name for path in segments(copied, "trials/search")]
    assert damaged + written == [f"{n:08}.parquet" for n in range(len(damaged) + len(written))]
    aside = (copied / "runs" / "work" / "trials" / "search").glob("*.corrupt")
    assert sorted(path.name for path in aside) == [f"{name}.corrupt" for name in damaged]
