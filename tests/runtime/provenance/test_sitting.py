"""What a run records of who made it, where and with what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

import umbel
from tests.runtime.small_graphs import a_sweep, load, run
from umbel.runtime.provenance import sitting as provenance

GIT = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init")
    (folder / "model.py").write_text("lags = 3\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_a_clean_repository(project: Path) -> None:
    found = provenance.repository(project)
    assert found is not None
    assert found.commit is not None
    assert len(found.commit) == 40
    assert (found.branch, found.dirty, found.diff, found.remote) == ("main", False, b"", None)


def test_changes_are_kept_without_credentials(project: Path) -> None:
    (project / "model.py").write_text('lags = 4\npassword = "hunter2hunter2"\n')
    git(project, "remote", "add", "origin", "https://ada:hunter2hunter2@example.org/model.git")
    git(project, "checkout", "-b", "longer")
    found = provenance.repository(project)
    assert found is not None
    assert found.dirty
    assert found.branch == "longer"
    assert b"+lags = 4" in found.diff
    assert b"hunter2" not in found.diff
    assert found.remote == "https://example.org/model.git"


def test_a_long_diff_is_cut(project: Path) -> None:
    (project / "model.py").write_text("x = 1\n" * (provenance.DIFF_LIMIT_BYTES // 4))
    found = provenance.repository(project)
    assert found is not None
    assert found.truncated
    assert len(found.diff) <= provenance.DIFF_LIMIT_BYTES


def test_without_commits_or_branch(project: Path, tmp_path: Path) -> None:
    git(project, "checkout", "--detach")
    found = provenance.repository(project)
    assert found is not None
    assert found.branch is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init")
    assert provenance.repository(empty) == provenance.Repository(None, "main", False)


def test_without_a_repository_or_git(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.repository(tmp_path) is None
    assert provenance.repository(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.repository(project) is None


def test_a_git_that_does_not_answer_is_not_waited_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 100\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert provenance.repository(project, limit_s=0.2) is None


def test_a_run_says_who_made_it_and_who_resumed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = uuid4().hex
    job = {"metadata": {"job_submission_id": "raysubmit_1"}, "runtime_env": {"env_vars": {"A": planted}}}
    monkeypatch.setenv(provenance.RAY_JOB_VARIABLE, json.dumps(job))
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", planted, "--lags=3"])
    node = a_sweep(trials=5)
    first = run(node, tmp_path, budget={"trials": 1})
    if first.status != "done":
        run(node, tmp_path)
    run(node, tmp_path)  # nothing left to do: not a sitting
    found = umbel.open_store(str(tmp_path)).run("work")
    assert found.record["command"] == ["train.py", "--token", "<redacted>", "--lags=3"]
    assert found.record["job"] == "raysubmit_1"
    environment = found.environment()
    assert environment is not None
    assert environment["python"] == found.record["versions"]["python"]
    sittings = found.sittings()
    assert [sitting["environment"] for sitting in sittings] == [found.record["environment"]] * len(sittings)
    assert sittings == sorted(sittings, key=lambda sitting: str(sitting["began"]))
    assert len({sitting["token"] for sitting in sittings}) == len(sittings) >= 1
    assert len(list((tmp_path / "environments").iterdir())) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and planted.encode() in path.read_bytes()]


def test_equal_environments_are_stored_once(tmp_path: Path) -> None:
    run(load.bind("a"), tmp_path, name="one")
    run(load.bind("b"), tmp_path, name="two")
    assert len(list((tmp_path / "environments").iterdir())) == 1


def test_a_diff_is_stored_once_and_read_back(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "model.py").write_text("import umbel\n\n@umbel.task\ndef lags():\n    return 4\n")
    monkeypatch.syspath_prepend(str(project))
    import importlib

    model = importlib.import_module("model")
    try:
        found = run(model.lags.bind(), tmp_path / "store")
    finally:
        sys.modules.pop("model")
    assert found.record["git"]["dirty"]
    diff = found.code_diff()
    assert diff is not None
    assert "+    return 4" in diff
