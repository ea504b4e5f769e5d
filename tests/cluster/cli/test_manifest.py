"""`umbel manifest …`, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from umbel.cluster.cli import app as cli

PROJECT = """
[tool.umbel.cluster]
name = "gdp"
store = "s3://bucket/umbel"

[tool.umbel.cluster.groups.cpu]
min = 1
max = 20
cpus = 16
memory = "64Gi"

[tool.umbel.cluster.groups.gpu]
max = 4
cpus = 8
memory = "32Gi"
gpus = 1
accelerator = "L4"
spot = true

[tool.umbel.cluster.job]
target = "examples/gdp.py:graph"
deadline_s = 3600
retries = 1
ttl_s = 0
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def umbel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in a folder with a project; gives status, standard output and standard error."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "gdp.py").write_text("graph = 1\n")
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return command


def test_a_job_is_written_and_read_back(umbel: Command, tmp_path: Path) -> None:
    status, out, err = umbel("manifest", "job", "--set", "image=team/gdp:2.60.0-1")
    assert (status, err) == (0, "")
    spec = yaml.safe_load(out)["spec"]
    assert spec["entrypoint"] == "umbel run examples/gdp.py:graph --name gdp --store s3://bucket/umbel"
    assert spec["backoffLimit"] == 1
    assert umbel("manifest", "job", "-o", "job.yaml")[1] == ""
    (tmp_path / "job.yaml").write_text((tmp_path / "job.yaml").read_text().replace("maxReplicas: 20", "maxReplicas: 9"))
    status, out, err = umbel("manifest", "read", "job.yaml")
    assert (status, err) == (0, "")
    wanted = tomllib.loads(PROJECT)
    wanted["tool"]["umbel"]["cluster"]["groups"]["cpu"]["max"] = 9
    assert tomllib.loads(out) == wanted


def test_what_a_setting_can_not_say_is_told(umbel: Command, tmp_path: Path) -> None:
    umbel("manifest", "job", "-o", "job.yaml")
    text = (tmp_path / "job.yaml").read_text().replace("upscalingMode: Default", "upscalingMode: Aggressive")
    (tmp_path / "job.yaml").write_text(text)
    assert "upscalingMode" in umbel("manifest", "read", "job.yaml")[2]


def test_a_registered_model_is_served_by_its_name(umbel: Command) -> None:
    status, out, _ = umbel("manifest", "service", "--set", "service.args={model='growth',token_env='TOKEN'}")
    assert status == 0
    (application,) = yaml.safe_load(yaml.safe_load(out)["spec"]["serveConfigV2"])["applications"]
    assert application["import_path"] == "umbel.cluster.serving.app_builder:build"
    assert application["args"] == {"model": "growth", "token_env": "TOKEN"}


def test_the_image_without_umbel_is_warned_of(umbel: Command) -> None:
    assert "has neither Umbel nor the project" in umbel("manifest", "job")[2]
    assert umbel("manifest", "cluster")[2] == ""


def test_the_commit_is_a_label(umbel: Command, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    labels = yaml.safe_load(umbel("manifest", "job")[1])["metadata"]["labels"]
    assert labels["umbel/commit"] == commit
    assert "umbel/uncommitted-changes" not in labels
    assert labels["umbel/run"] == "gdp"


def test_the_code_is_an_annotation(umbel: Command, tmp_path: Path) -> None:
    def code() -> str | None:
        found: str | None = (
            yaml.safe_load(umbel("manifest", "job")[1])["metadata"].get("annotations", {}).get("umbel/code")
        )
        return found

    before = code()
    assert before is not None
    assert re.fullmatch("[0-9a-f]{32}", before)
    assert code() == before
    (tmp_path / "helper.py").write_text("")
    assert code() not in (before, None)


def test_explain_gives_bounds(umbel: Command) -> None:
    status, out, _ = umbel("manifest", "explain", "job", "--price", "1", "--price", "gpu=2.5", "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["total"]["nodes"] == [2, 25]
    assert plan["total"]["cpus"] == [16, 352]
    assert plan["total"]["gpus"] == [0, 4]
    assert plan["total"]["hourly"] == [2.0, 31.0]
    assert plan["most"] == 62.0
    status, out, _ = umbel("manifest", "explain", "job")
    assert status == 0
    assert "16 to 352" in out
    assert "as 'gdp' into s3://bucket/umbel, up to 2 times" in out
    assert "?" in out


def test_explain_knows_what_is_meant(umbel: Command) -> None:
    for settings, kind in (
        ([], "job"),
        (['cron={schedule="0 3 * * *",run="n-%d"}'], "cron"),
        (["slurm.cpus=4"], "job"),
        (["slurm.cpus=4", "groups={}"], "slurm"),
    ):
        options = [option for setting in settings for option in ("--set", setting)]
        status, out, err = umbel("manifest", "explain", "--json", *options)
        assert (status, err) == (0, "")
        assert json.loads(out)["kind"] == kind


def test_explain_bounds_an_allocation(umbel: Command) -> None:
    allocation = ["--set", "slurm={nodes=2,cpus=16,gpus=4,time='06:00:00',requeue=false}"]
    status, out, _ = umbel("manifest", "explain", "slurm", "--price", "3", "--json", *allocation)
    assert status == 0
    plan = json.loads(out)
    assert [plan["total"][name] for name in ("nodes", "cpus", "gpus", "hourly")] == [[2, 2], [32, 32], [8, 8], [6, 6]]
    assert plan["most"] == 36
    status, out, _ = umbel("manifest", "explain", "slurm", "--price", "3", *allocation, "--set", "slurm.requeue=true")
    assert status == 0
    assert "is queued again until it is done, each time for 36.00 at most" in out
    assert umbel("manifest", "explain", "slurm")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "slurm", "--set", "slurm.cpus=1", "--price", "cpu=3"], "unknown group in a price"),
        (["cluster", "--set", "imag=x"], "did you mean image"),
        (["cluster", "--config", "nothing.toml"], "can't be read"),
        (["service"], "needs a model, or an application"),
        (["explain", "pod"], "unknown kind of manifest"),
        (["explain", "job", "--price", "x"], "no price"),
        (["explain", "job", "--price", "cpuu=3"], "did you mean cpu"),
        (["read", "nothing.yaml"], "can't be read"),
        (["read", "pyproject.toml"], "is no YAML"),
        (["job", "-o", "nowhere/job.yaml"], "can't be written"),
    ],
)
def test_mistakes_get_a_message_and_status_2(umbel: Command, arguments: list[str], said: str) -> None:
    status, out, err = umbel("manifest", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_the_image_has_the_projects_packages_and_requirements(umbel: Command, tmp_path: Path) -> None:
    _, out, _ = umbel("manifest", "image")
    assert out.endswith("ENV PYTHONPATH=/home/ray/project\n")
    assert "COPY --chown=1000:100 pyproject.toml ./" in out
    assert "requirements.txt ./" not in out
    (line,) = (line for line in out.splitlines() if "tomllib" in line)
    (tmp_path / "pyproject.toml").write_text(PROJECT + '[project]\nname = "x"\ndependencies = ["a>=1", "b"]\n')
    command = line.removeprefix("RUN python ").partition(" > ")[0]
    told = subprocess.run(["bash", "-c", f"{sys.executable} {command}"], check=True, capture_output=True, text=True)
    assert told.stdout.split() == ["a>=1", "b"]
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "__init__.py").touch()
    (tmp_path / "requirements.txt").touch()
    _, out, _ = umbel("manifest", "image")
    assert out.endswith("ENV PYTHONPATH=/home/ray/project:/home/ray/project/src\n")
    assert "COPY --chown=1000:100 requirements.txt ./\nRUN pip install --no-cache-dir -r requirements.txt" in out


@pytest.mark.parametrize("kind", ["job", "slurm"])
def test_what_is_to_run_is_looked_for(umbel: Command, tmp_path: Path, kind: str) -> None:
    def said(target: str, *more: str) -> str:
        status, _, err = umbel("manifest", kind, "--set", "slurm.cpus=2", "--set", f"job.target={target}", *more)
        assert status == (2 if "UsageError" in err else 0)
        return err

    assert "there is no such file" in said("missing.py")
    assert "did you mean graph?" in said("examples/gdp.py:grahp")
    assert "UsageError" not in said("examples/gdp.py:graph")
    assert "UsageError" not in said("/home/ray/project/gdp.py:graph")
    (tmp_path / "examples" / "gdp.py").write_text("if True:\n    from x import *\n")
    assert "UsageError" not in said("examples/gdp.py:any")


def test_the_image_builds_on_rays_own(umbel: Command, tmp_path: Path) -> None:
    status, out, _ = umbel("manifest", "image")
    assert status == 0
    assert "ARG BASE=rayproject/ray:2.60.0-py311-gpu\n" in out
    assert "[s3]" in out
    assert "-t NAME:TAG ." in out
    for line in out.splitlines():
        if line.startswith("RUN "):
            subprocess.run(["bash", "-n", "-c", line.removeprefix("RUN ")], check=True)
    _, out, _ = umbel("manifest", "image", "--set", "image=team/gdp:v3", "--set", 'ray_version="2.60.1"')
    assert "ARG BASE=rayproject/ray:2.60.1-py311-gpu\n" in out
    assert "-t team/gdp:v3 ." in out


@pytest.mark.parametrize("arguments", [["-h"], ["manifest", "-h"]])
def test_the_help_names_the_section(umbel: Command, arguments: list[str]) -> None:
    assert "[tool.umbel.cluster]" in " ".join(umbel(*arguments)[1].replace("│", " ").split())
