"""The script for sbatch, run by a real Slurm of one node."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.slurm_site import CPUS, slurm_site
from umbel.cluster.config.file import from_table
from umbel.cluster.manifests.slurm import slurm_script
from umbel.scheduler.errors import UsageError
from umbel.storage.store import open_store

GRAPH = """
import os
import time
from pathlib import Path

import ray

import umbel

HERE = Path(__file__).parent


def trial(config):
    resources = ray.cluster_resources() if ray.is_initialized() else {}
    (HERE / "began").touch()
    end = time.monotonic() + 60
    while config["x"] and not (HERE / "go").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return {"loss": config["x"], "gpus": resources.get("GPU", 0), "cpus": resources.get("CPU", 0)}


graph = umbel.sweep(umbel.task(trial, cpus=1), space={"x": [0, 1]}, search="grid", metric="loss")
"""
DEADLINE_S = 150.0


def table(**slurm: Any) -> dict[str, Any]:
    return {"slurm": {"cpus": CPUS, "time": "10", **slurm}, "job": {"target": "job.py:graph", "run": "gdp"}}


@pytest.mark.parametrize("slurm", [{}, {"nodes": 4, "gpus": 2, "gpu_type": "a100"}, {"setup": ["module load x"]}])
def test_the_script_is_good_shell(slurm: dict[str, Any]) -> None:
    script = slurm_script(from_table(table(**slurm)))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    head, _, _ = script.partition("set -euo pipefail")
    assert all(line.startswith("#") for line in head.splitlines())


def test_an_allocation_is_asked_for() -> None:
    slurm = {"nodes": 4, "gpus": 2, "gpu_type": "a100", "memory": "64G", "partition": "gpu", "account": "a", "qos": "q"}
    script = slurm_script(from_table(table(**slurm, requeue=False)))
    for directive in (
        "job-name=gdp",
        "nodes=4",
        "ntasks-per-node=1",
        f"cpus-per-task={CPUS}",
        "gpus-per-node=a100:2",
        "mem=64G",
        "partition=gpu",
        "account=a",
        "qos=q",
        "no-requeue",
    ):
        assert f"#SBATCH --{directive}\n" in script
    assert "scontrol requeue" not in script


def test_what_a_job_says_counts_under_slurm_too() -> None:
    job = {"target": "job.py:graph", "deadline_s": 600, "args": ["--workers", "4"]}
    assert "  attend umbel run job.py:graph --name job --deadline 600 --workers 4\n" in slurm_script(
        from_table(table() | {"job": job})
    )


@pytest.mark.parametrize(("arrives", "status"), [("before", 130), ("during", 3), ("never", 4)])
def test_commands_are_asked_to_end_when_time_is_up(tmp_path: Path, arrives: str, status: int) -> None:
    (tmp_path / "command").write_text(
        "trap 'exit 3' INT\n[ $1 = never ] && exit 4\nkill -USR1 $PPID\nwhile :; do sleep 0.02; done\n"
    )
    script = slurm_script(from_table(table()))
    shell = script[script.index("out_of_time=\n") :].partition("# Ports that are free")[0]
    before = "kill -USR1 $$\n" if arrives == "before" else ""
    shell += f"set -meu\n{before}attend bash {tmp_path / 'command'} {arrives}\nexit $status\n"
    assert subprocess.run(["bash", "-c", shell], check=False, timeout=60).returncode == status


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"slurm": None}, "needs an allocation"),
        ({"job": None}, "what to run"),
        ({"job": {"target": "job.py", "working_dir": "s3://b/p.zip"}}, "runs in the folder"),
    ],
)
def test_what_is_missing_is_told(wrong: dict[str, Any], said: str) -> None:
    given = {key: value for key, value in (table() | wrong).items() if value is not None}
    with pytest.raises(UsageError, match=said):
        slurm_script(from_table(given))


@pytest.fixture(scope="module")
def site() -> Iterator[dict[str, str]]:
    with slurm_site() as environment:
        yield environment


@pytest.fixture
def slurm(site: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs one of Slurm's commands in a folder with a graph; gives what it prints. No job outlives the test."""
    (tmp_path / "job.py").write_text(GRAPH)
    # the command `umbel` of this very checkout
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "umbel").write_text(f"#!{sys.executable}\nfrom umbel.cluster.cli.app import main\nmain()\n")
    (tmp_path / "bin" / "umbel").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | site
    environment["PATH"] = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{environment['PATH']}"

    def run(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    run("scancel", "--me")
    end = time.monotonic() + DEADLINE_S
    while queued := run("squeue", "--noheader"):
        assert time.monotonic() < end, queued
        time.sleep(0.1)


def until(found: Callable[[], object], slurm: Callable[..., str], job: str, folder: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while not found():
        logs = "\n".join(log.read_text() for log in folder.glob("*.log"))
        assert time.monotonic() < end, slurm("scontrol", "show", "job", job) + logs
        time.sleep(0.1)


def assert_whole(slurm: Callable[..., str], job: str, folder: Path, gpus: int) -> None:
    """All trials are there and had the whole allocation, and Ray has left nothing behind."""
    trials = open_store(str(folder / "umbel-store")).run("gdp").trials()
    assert trials["status"].to_pylist() == ["ok", "ok"]
    assert set(trials["metric_cpus"].to_pylist()) == {CPUS}
    assert set(trials["metric_gpus"].to_pylist()) == {gpus}
    left = (folder / f"ray-{job}.log").read_text()
    until(lambda: not [each for each in Path("/tmp").glob("ray-??????") if str(each) in left], slurm, job, folder)


@pytest.mark.ray
def test_a_job_runs_on_the_whole_allocation(slurm: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(slurm_script(from_table(table(partition="gpu", gpus=1))))
    (tmp_path / "go").touch()
    job = slurm("sbatch", "--parsable", "job.sh").strip()
    until(lambda: "JobState=COMPLETED" in slurm("scontrol", "show", "job", job), slurm, job, tmp_path)
    assert_whole(slurm, job, tmp_path, gpus=1)


@pytest.mark.ray
def test_a_job_out_of_time_is_queued_again_and_goes_on(slurm: Callable[..., str], tmp_path: Path) -> None:
    # a step of the user's own comes first, so that Ray's is not the step 0; and setting up takes until time is up
    setup = ("srun --ntasks=1 true", "touch setting-up", "until [ -e set-up ]; do sleep 0.1; done")
    (tmp_path / "job.sh").write_text(slurm_script(from_table(table(partition="cpu", setup=list(setup)))))
    job = slurm("sbatch", "--parsable", "job.sh").strip()

    def runs_out_of_time(sign: str, restarts: int) -> None:
        until((tmp_path / sign).exists, slurm, job, tmp_path)
        slurm("scancel", "--batch", "--signal=USR1", job)  # what Slurm sends shortly before the time limit
        (tmp_path / "set-up").touch()
        until(lambda: f"Restarts={restarts}" in slurm("scontrol", "show", "job", job), slurm, job, tmp_path)
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would let it wait for a while

    runs_out_of_time("setting-up", 1)
    runs_out_of_time("began", 2)
    (tmp_path / "go").touch()
    until(lambda: "JobState=COMPLETED" in slurm("scontrol", "show", "job", job), slurm, job, tmp_path)
    assert "1 done before" in (tmp_path / f"gdp-{job}.log").read_text()
    assert_whole(slurm, job, tmp_path, gpus=0)
