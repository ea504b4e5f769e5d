"""What is sent to a cluster, attempt by attempt: a client that keeps what it is given stands for the cluster."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umbel.cluster.jobs import submission as job_submission
from umbel.cluster.jobs.installation import package_folder
from umbel.cluster.jobs.probe import MARK, package_digest
from umbel.cluster.jobs.request import parse_target
from umbel.cluster.jobs.submission import JobRequest, Submitted, attempts, find_job, submit
from umbel.scheduler.errors import ExecutorError, NotFoundError, UsageError

ADDRESS = "http://head:8265"


class State(str):
    """As Ray's `JobStatus`."""

    value = property(str)

    def is_terminal(self) -> bool:
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Cluster:
    """Jobs, of which only probes end by themselves."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.shipped: list[dict[str, Any]] = []
        self.has_umbel = False
        self.missing: list[str] = []
        self.stopped: list[str] = []
        #: Called just before a job is taken up: what happens at the same time.
        self.meanwhile: Callable[[], None] = lambda: None

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: Mapping[str, str] = {}
    ) -> None:
        probe = submission_id.startswith("umbel-probe-")
        if not probe:
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
        if submission_id in self.jobs:
            text = f"Job with submission_id {submission_id} already exists. Please use a different submission_id."
            raise RuntimeError(f"Request failed with status code 400: Traceback (most…\nValueError: {text}\n.")
        if not probe:
            with zipfile.ZipFile(runtime_env["working_dir"]) as archive:
                files = archive.namelist()
                modes = {Path(each.filename).name: each.external_attr >> 16 for each in archive.infolist()}
            modules = {Path(path).name: len(list(Path(path).rglob("*"))) for path in runtime_env.get("py_modules", [])}
            self.shipped.append(
                {
                    "files": files,
                    "modules": modules,
                    "modes": {name: modes[name] for name in ("fit.py", "run.sh") if name in modes},
                    "pip": runtime_env.get("pip"),
                }
            )
        self.jobs[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            entrypoint=entrypoint,
            status=State("SUCCEEDED" if probe else "RUNNING"),
            metadata=dict(metadata),
            runtime_env=runtime_env,
            start_time=len(self.jobs),
            driver_exit_code=0 if probe else None,
            message=None,
            error_type=None,
        )

    def get_job_info(self, job: str) -> Any:
        if job not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        return self.jobs[job]

    def get_job_logs(self, job: str) -> str:
        here = package_digest(package_folder())
        side = {"python": [3, 12], "ray": "2.60.0", "umbel": here if self.has_umbel else None, "missing": self.missing}
        return f"{MARK} {json.dumps(side)}\n"

    def delete_job(self, job: str) -> None:
        assert self.jobs[job].status.is_terminal()
        del self.jobs[job]

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        self.end(job, "STOPPED")
        return True

    def end(self, job: str, status: str = "FAILED") -> None:
        self.jobs[job].status = State(status)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(job_submission, "connect", lambda address: found)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "src" / "shop").mkdir(parents=True)
    for name in ("pyproject.toml", "fit.py", "src/shop/__init__.py", "src/shop/prices.py"):
        (tmp_path / name).write_text("")
    return tmp_path / "fit.py"


def ask(file: Path, said: list[str] | None = None, **options: Any) -> Submitted:
    request = JobRequest(parse_target(str(file)), **{"store": "s3://umbel/team", **options})
    return submit(request, ADDRESS, (said if said is not None else []).append)


def test_a_project_and_umbel_go_along(cluster: Cluster, file: Path) -> None:
    found = ask(file)
    assert (found.id, found.is_new) == ("fit-1", True)
    assert list(cluster.jobs) == ["fit-1"]  # the probe is removed
    job = cluster.jobs["fit-1"]
    assert job.entrypoint == "exec python -m umbel run fit.py --name fit"
    assert job.runtime_env["env_vars"] == {"UMBEL_STORE": "s3://umbel/team", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    (shipped,) = cluster.shipped
    assert shipped["files"] == ["fit.py", "pyproject.toml", "src/shop/__init__.py", "src/shop/prices.py"]
    assert shipped["modules"]["shop"] == 2
    assert shipped["modules"]["umbel"] > 100
    assert shipped["pip"] is None


def test_what_the_cluster_has_stays_and_what_it_lacks_is_installed(cluster: Cluster, file: Path) -> None:
    cluster.has_umbel, cluster.missing = True, ["optuna>=4.0"]
    said: list[str] = []
    ask(file, said, packages=["scikit-learn"])
    assert cluster.shipped[0]["modules"] == {"shop": 2}
    assert cluster.shipped[0]["pip"] == ["scikit-learn", "optuna>=4.0"]
    assert "umbel     the cluster has this one" in said
    assert "packages  the cluster lacks optuna>=4.0: installed there by pip" in said


@pytest.mark.parametrize("given", [{}, {"py_modules": [], "pip": [], "env_vars": None}])
def test_what_is_empty_is_not_sent(cluster: Cluster, tmp_path: Path, given: dict[str, Any]) -> None:
    (tmp_path / "fit.py").write_text("")
    cluster.has_umbel = True
    ask(tmp_path / "fit.py", runtime_env=given)
    assert set(cluster.jobs["fit-1"].runtime_env) == {"working_dir", "env_vars"}


def test_values_of_variables_are_never_told(cluster: Cluster, file: Path) -> None:
    said: list[str] = []
    given: dict[str, Any] = {"variables": {"PASSWORD": "sesame"}, "runtime_env": {"env_vars": {"OTHER": "sesame2"}}}
    ask(file, said, **given)
    assert cluster.jobs["fit-1"].runtime_env["env_vars"]["PASSWORD"] == "sesame"
    assert cluster.jobs["fit-1"].runtime_env["env_vars"]["OTHER"] == "sesame2"
    with pytest.raises(UsageError) as refused:
        ask(file, said, variables={"PASSWORD": "sesame3"})
    assert "sesame" not in "\n".join(said) + str(refused.value) + str(cluster.jobs["fit-1"].metadata)


@pytest.mark.parametrize("end", ["FAILED", "STOPPED", "SUCCEEDED"])
def test_what_has_ended_is_attempted_again(cluster: Cluster, file: Path, end: str) -> None:
    for number in (1, 2, 3):
        assert ask(file).id == f"fit-{number}"
        cluster.end(f"fit-{number}", end)
    assert ask(file, name="other").id == "other-1"
    assert [attempt.id for attempt in attempts(cluster, ADDRESS, "fit")] == ["fit-1", "fit-2", "fit-3"]
    assert find_job(cluster, ADDRESS, "fit") == "fit-3"
    assert find_job(cluster, ADDRESS, "fit-2") == "fit-2"
    with pytest.raises(NotFoundError) as unknown:
        find_job(cluster, ADDRESS, "none")
    assert unknown.value.expected == "one of fit, other"


def test_the_same_that_runs_is_found_and_another_is_refused(cluster: Cluster, file: Path) -> None:
    ask(file)
    again = ask(file)
    assert (again.id, again.is_new) == ("fit-1", False)
    for options, differs in (
        ({"args": ["--workers", "2"]}, "its command differs from"),
        ({"variables": {"A": "1"}}, "its variables differ from"),
        ({"store": "s3://umbel/other"}, "its variables differ from"),
    ):
        with pytest.raises(UsageError, match=differs):
            ask(file, **options)
    (file.parent / "helper.py").write_text("")
    with pytest.raises(UsageError, match="its files differ"):
        ask(file)
    assert list(cluster.jobs) == ["fit-1"]


def test_of_two_who_ask_at_once_both_get_the_same_job(cluster: Cluster, file: Path) -> None:
    others: list[Submitted] = []
    cluster.meanwhile = lambda: others.append(ask(file))
    mine = ask(file)
    assert (others[0].id, others[0].is_new) == ("fit-1", True)
    assert (mine.id, mine.is_new) == ("fit-1", False)
    assert list(cluster.jobs) == ["fit-1"]


def test_a_cluster_that_starts_nothing_is_said(cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_submission, "wait_until_ended", lambda *arguments: None)
    with pytest.raises(ExecutorError, match="has not started a small job"):
        ask(file, variables={"PASSWORD": "sesame"})
    assert not cluster.jobs  # it would keep the variables


def test_a_question_that_is_interrupted_leaves_nothing_behind(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[Any] = []

    def interrupted(client: Any, address: str, job: str, limit_s: float) -> None:
        waits.append(job)
        if len(waits) == 1:
            cluster.jobs[job].status = State("RUNNING")
            raise KeyboardInterrupt

    monkeypatch.setattr(job_submission, "wait_until_ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(file)
    assert cluster.stopped == waits[:1]
    assert not cluster.jobs


def test_arguments_are_told_without_credentials(cluster: Cluster, file: Path) -> None:
    said: list[str] = []
    ask(file, said, args=["--api-key", "sesame", "--lags=3"])
    assert said[-1] == "job       fit-1: python -m umbel run fit.py --name fit --api-key <redacted> --lags=3"


def test_whether_it_is_a_script_may_be_said(cluster: Cluster, file: Path) -> None:
    assert ask(file, script=True).command == "exec python fit.py"
    file.write_text("import umbel\numbel.run(1)\n")
    assert ask(file, name="other").command == "exec python fit.py"
    assert ask(file, name="graph", script=False).command == "exec python -m umbel run fit.py --name graph"
    with pytest.raises(UsageError, match="run as a whole"):
        ask(Path(f"{file}:graph"), script=True)


def test_who_asks_is_told_and_makes_no_difference(cluster: Cluster, file: Path) -> None:
    ask(file, asker={"UMBEL_USER": "ada", "UMBEL_SHARE": "weight=2"}, variables={"UMBEL_SHARE": "weight=3"})
    told = cluster.jobs["fit-1"].runtime_env["env_vars"]
    assert (told["UMBEL_USER"], told["UMBEL_SHARE"]) == ("ada", "weight=3")
    assert not ask(file, asker={"UMBEL_USER": "bob"}).is_new


def test_what_may_be_executed_here_may_be_there(cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = file.parent / "src" / "shop" / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o740)
    ask(file)
    assert cluster.shipped[0]["modes"] == {"fit.py": 0o644, "run.sh": 0o755}
