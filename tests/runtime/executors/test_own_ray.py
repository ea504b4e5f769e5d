"""A Ray that a run starts for itself: who reaches it, and who can read its token."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from umbel.runtime.executors.own_ray import _keep_token_private

#: Runs a task as a user does, which says where the driver and all that it has started listen: its worker, too.
SCRIPT = """
import json
import os
import sys

import umbel


@umbel.task
def listeners(driver):
    import ray
    import psutil  # which Ray brings along

    driver = psutil.Process(driver)
    family = [driver, *driver.children(recursive=True)]
    here = {
        c.laddr.ip.removeprefix("::ffff:")
        for each in family
        for c in each.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    return [each.name() for each in family], [each.pid for each in family], os.getpid(), sorted(here)


run = umbel.run(listeners.bind(os.getpid()), store=sys.argv[1], name="listeners", progress="quiet")
print(json.dumps(run.value("listeners")))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home in which nothing is, and an environment that says nothing of Ray."""
    for name in list(os.environ):
        if name.startswith("RAY_A"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def readers(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.ray
def test_nobody_beyond_this_machine_reaches_it(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "listeners.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    names, pids, worker, addresses = json.loads(done.stdout.splitlines()[-1])
    assert {"gcs_server", "raylet"} <= set(names)
    assert worker in pids
    assert addresses == ["127.0.0.1"]
    assert readers(home / ".ray" / "auth_token") == 0o600


def test_a_token_is_made_that_only_the_user_reads(home: Path) -> None:
    _keep_token_private()
    path = home / ".ray" / "auth_token"
    token = path.read_text()
    assert len(token) == 64
    assert readers(path) == 0o600
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)  # as Ray makes it
    _keep_token_private()
    assert (path.read_text(), readers(path)) == (token, 0o600)


def test_two_that_start_at_once_have_one_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("the other's")
    monkeypatch.setattr(Path, "exists", lambda self: False)  # not yet, as it was looked for
    _keep_token_private()
    assert path.read_text() == "the other's"


def test_without_a_home_the_token_is_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that what is set is taken back
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    _keep_token_private()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/a/secret")])
def test_what_the_user_says_counts(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    _keep_token_private()
    assert not (home / ".ray").exists()
