"""`umbel gc` and `umbel compact`, as a user types them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.runtime.cli import app as cli
from umbel.storage.garbage import find_garbage
from umbel.storage.runs.ownership import Ownership
from umbel.storage.values.artifacts import put_artifact
from umbel.storage.values.codecs import encode

Command = Callable[..., tuple[int, str, str]]


def small(config: dict[str, Any]) -> umbel.Result:
    return umbel.Result({"loss": config["x"]}, model=[config["x"]])


@pytest.fixture
def store(tmp_path: Path) -> umbel.Store:
    """A store with a run of several segments, and with a model that nothing needs."""
    sweep = umbel.sweep(small, space={"x": [3, 1, 2]}, search="grid", metric="loss", keep="all", name="s")
    for trials in (1, 2, 3):
        budget = {"trials": trials}
        umbel.run(sweep, store=str(tmp_path), name="job", executor="inline", progress="quiet", budget=budget)
    store = umbel.open_store(str(tmp_path))
    put_artifact(store.objects, encode("lost"))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))
    return store


@pytest.fixture
def command(store: umbel.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; gives status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments, "--store", store.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


def test_gc_lists_and_then_removes(store: umbel.Store, command: Command) -> None:
    before = store.objects.list(recursive=True)
    code, out, _ = command("gc")
    assert code == 0
    assert "model or value" in out
    assert "--delete" in out
    assert store.objects.list(recursive=True) == before
    found = json.loads(command("gc", "--json")[1])
    assert (found["deleted"], len(found["items"])) == (False, 1)
    code, out, _ = command("gc", "--delete")
    assert code == 0
    assert "removed" in out
    assert sorted({*before} - {*store.objects.list(recursive=True)}) == [found["items"][0]["path"]]
    assert "nothing to remove" in command("gc", "--delete")[1]
    run = store.run("job")
    assert [run.load_model(row["model"]) for row in run.models().to_pylist()] == [[3], [1], [2]]


def test_compact(store: umbel.Store, command: Command) -> None:
    trials = store.run("job").trials()
    code, out, _ = command("compact", "job")
    assert (code, "3 segments" in out, "are 1 " in out) == (0, True, True)
    assert store.run("job").trials() == trials
    assert json.loads(command("compact", "job", "--json")[1])["segments_after"] == 1
    assert command("compact", "other")[0] == 2


def test_compact_refuses_a_run_that_goes_on(store: umbel.Store, command: Command) -> None:
    Ownership.acquire(store.objects, "job")
    code, _, err = command("compact", "job")
    assert code == 1
    assert "RunHeldError" in err
    assert "job" in command("gc")[1]


def test_nothing_that_a_run_needs_is_garbage(tmp_path: Path) -> None:
    @umbel.task
    def load(group: str) -> np.ndarray:
        return np.full(20_000, float(len(group)))

    def trial(config: dict[str, Any], data: np.ndarray) -> umbel.Result:
        return umbel.Result({"loss": config["x"] + data[0]}, model=[config["x"]] * config["size"])

    groups = ["a", "bb"]
    space = {"x": [1, 2], "size": [1, 400_000]}
    given: dict[str, Any] = {"space": space, "search": "grid", "over": {"g": groups}, "metric": "loss", "keep": "all"}
    here = umbel.sweep(trial, data=[np.full(20_000, 1.0), np.full(20_000, 2.0)], name="here", **given)
    there = umbel.sweep(trial, data=load.map(groups), name="there", **given)
    done = umbel.run([here, there.best()], store=str(tmp_path), name="all", executor="inline", progress="quiet")
    objects = umbel.open_store(str(tmp_path)).objects
    found = find_garbage(objects, grace=timedelta(0), now=datetime.now(UTC) + timedelta(days=2))
    assert found.items == ()
    assert len(objects.list("artifacts", recursive=True)) > 5
    for row in done.models().to_pylist():
        assert len(done.load_model(row["model"])) in (1, 400_000)  # type: ignore[arg-type]
