"""Jobs on a real cluster: submitted from another folder, detached from, killed, stopped, submitted again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from tests.cluster.job_cluster import BIN, Head, running_head, start
from tests.faults.processes import until
from umbel.scheduler.errors import NotFoundError
from umbel.storage.store import open_store

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]
#: Trials from this one on wait until they are told to go on.
WAITING = 6
TRIALS = 16
PROJECT = {
    "pyproject.toml": "",
    ".gitignore": "*.secret\n",
    "token.secret": "sesame",
    "src/shop/__init__.py": "FACTOR = 2\n",
    "jobs/helper.py": """
import os
import time
from pathlib import Path

def wait_for(path):
    while not path.exists():
        time.sleep(0.02)

def note(folder, name, text):
    with open(folder / name, "a") as stream:
        stream.write(f"{text}\\n")
""",
    "jobs/search.py": f"""
import os
from pathlib import Path

import helper
import shop
import umbel

def trial(config):
    folder = Path(os.environ["NOTES"])
    helper.note(folder, "started", config["x"])
    if config["x"] >= {WAITING}:
        helper.wait_for(folder / "go")
    helper.note(folder, "ended", config["x"])
    return {{"loss": config["x"] * shop.FACTOR}}

shipped = not Path("token.secret").exists()
print("secret left behind:", shipped, "umbel from:", umbel.__file__)
graph = umbel.sweep(trial, space={{"x": list(range({TRIALS}))}}, search="grid", metric="loss")
""",
}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as found:
        yield found


def numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_job_is_detached_from_killed_stopped_and_goes_on(head: Head, tmp_path: Path) -> None:
    project, notes, elsewhere = tmp_path / "project", tmp_path / "notes", tmp_path / "elsewhere"
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    notes.mkdir()
    # The cluster has another Umbel, which does not even work: ours is to come before it.
    another = tmp_path / "another" / "umbel"
    another.mkdir(parents=True)
    (another / "__init__.py").write_text("raise ImportError('this is not the one')\n")
    store = tmp_path / "store"
    user = {**head.user, "NOTES": str(notes), "PASSWORD": "open-sesame", "RAY_API_SERVER_ADDRESS": head.address}
    user["UMBEL_USER"] = "ada"  # who types the commands; the cluster runs as somebody else
    submit = ["submit", str(project / "jobs" / "search.py"), "--store", str(store), "--env", "NOTES"]
    submit += ["--env", "PASSWORD", "--env", f"PYTHONPATH={another.parent}"]

    def durable() -> int:
        try:
            return len(open_store(str(store)).run("search").trials())
        except (NotFoundError, FileNotFoundError):
            return 0

    # The first attempt is followed; Ctrl-C detaches, and the job goes on.
    first = start(elsewhere, user, *submit)
    until(lambda: durable() == WAITING or first.process.poll() is not None, "the first trials are durable")
    assert "Running entrypoint for job search-1" in first.said, first.said
    first.process.send_signal(signal.SIGINT)
    assert first.wait() == 130
    assert f"umbel attach search-1 --address {head.address}" in first.said
    assert "umbel     goes along" in first.said
    assert "secret left behind: True" in first.said
    assert "open-sesame" not in first.said

    # The same again finds it running. It is killed half way: "try again".
    again = start(elsewhere, user, *submit)
    until(lambda: "Running entrypoint" in again.said or again.process.poll() is not None, "it is followed")
    assert "search-1 is this one, and is running already" in again.said, again.said
    other = start(elsewhere, user, *submit, "--", "--workers", "1")
    assert other.wait() == 2
    assert "another job of this name is running: its command differs" in other.said
    os.kill(int(open_store(str(store)).run("search").record["pid"]), signal.SIGKILL)
    assert again.wait() == 75, again.said
    assert "search-1: ended by signal 9; the same command again goes on with it" in again.said

    # The second attempt is stopped in good order.
    second = start(elsewhere, user, *submit, "--no-follow")
    assert second.wait() == 0, second.said
    assert second.said.endswith("search-2\n")
    until(lambda: len(numbers(notes / "started")) > len(set(numbers(notes / "started"))), "trials start again")
    stopped = start(elsewhere, user, "stop", "search")
    assert stopped.wait() == 0, stopped.said
    assert "search-2: stopped; the same command again goes on with it" in stopped.said
    assert open_store(str(store)).run("search").status == "interrupted"

    # The third, which two ask for at once, goes on to the end.
    both = [start(elsewhere, user, *submit, "--no-follow") for _ in range(2)]
    for command in both:
        assert command.wait() == 0, command.said
        assert command.said.endswith("search-3\n")
    (notes / "go").touch()
    third = start(elsewhere, user, "attach", "search")
    assert third.wait() == 0, third.said
    assert third.said.endswith("search-3: done\n")
    run = open_store(str(store)).run("search")
    assert run.status == "done"
    trials = run.trials()
    assert sorted(trials["metric_loss"].to_pylist()) == [2 * x for x in range(TRIALS)]
    assert run.record["job"] == "search-1"
    assert run.record["user"] == "ada"
    # What had ended before the kill ran once; nothing ended twice.
    assert sorted(numbers(notes / "ended")) == list(range(TRIALS))
    assert all(numbers(notes / "started").count(x) == 1 for x in range(WAITING))

    listed = start(elsewhere, user, "jobs", "--json")
    assert listed.wait() == 0
    rows = json.loads(listed.said)
    assert [(row["job"], row["exit"]) for row in rows[:1]] == [("search-1", 75)]
    assert [row["job"] for row in rows] == ["search-1", "search-2", "search-3"]
    assert {row["user"] for row in rows} == {"ada"}
    assert "open-sesame" not in listed.said


def test_a_file_alone_runs_on_a_cluster_that_has_this_umbel(head: Head, tmp_path: Path) -> None:
    """Nothing but the file goes along: the runtime_env has no modules at all."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "alone.py").write_text("import sys\nprint('arguments', sys.argv[1:])\n")
    # Where this Umbel is imported from, as an installed one would be found.
    here = f"PYTHONPATH={Path(umbel.__file__).parents[1]}"
    options = ["--address", head.address, "--script", "--env", here]
    done = start(elsewhere, head.user, "submit", "alone.py", *options, "--", "one")
    assert done.wait() == 0, done.said
    assert "umbel     the cluster has this one" in done.said
    assert "arguments ['one']" in done.said


def test_ray_job_submit_runs_the_example(head: Head, tmp_path: Path) -> None:
    arguments = ["--countries", "3", "--trials", "4", "--store", str(tmp_path / "store")]
    options = ["--address", head.address, "--working-dir", "."]
    done = subprocess.run(
        [BIN / "ray", "job", "submit", *options, "--", "python", "examples/gdp.py", *arguments],
        env=head.user,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = open_store(str(tmp_path / "store")).run("gdp")
    assert run.status == "done"
    assert run.trials().num_rows == 12


@pytest.mark.parametrize(
    ("token", "said"),
    [("f" * 64, "the cluster refuses the token"), (None, "the cluster asks for a token, and none was sent")],
)
def test_without_the_right_token_nothing_is_done(head: Head, tmp_path: Path, token: str | None, said: str) -> None:
    user = {**head.user, "HOME": str(tmp_path)}
    del user["RAY_AUTH_TOKEN"]
    if token is None:
        user["RAY_AUTH_MODE"] = "disabled"
    else:
        (tmp_path / "token").write_text(token)
        user["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    command = start(tmp_path / "elsewhere", user, "jobs", "--address", head.address)
    assert command.wait() == 2
    assert said in command.said
    assert "Traceback" not in command.said
    assert "f" * 64 not in command.said


def test_token_authentication_without_a_token_is_said(head: Head, tmp_path: Path) -> None:
    user = {name: value for name, value in head.user.items() if name != "RAY_AUTH_TOKEN"} | {"HOME": str(tmp_path)}
    command = start(tmp_path / "elsewhere", user, "jobs", "--address", head.address)
    assert command.wait() == 2, command.said
    assert "token authentication is on, but there is no token" in command.said
    assert "Traceback" not in command.said


def test_a_job_that_is_not_there(head: Head, tmp_path: Path) -> None:
    command = start(tmp_path / "elsewhere", head.user, "attach", "none", "--address", head.address)
    assert command.wait() == 2
    assert "NotFoundError: the cluster has no such job" in command.said
