"""Whether a cluster has this Umbel, and the Umbel that goes along if not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import umbel
from umbel.cluster.jobs.installation import package_folder, probe_command, read_answer, requirements, stage_umbel
from umbel.cluster.jobs.probe import MARK, package_digest, package_files
from umbel.scheduler.errors import ExecutorError, UsageError

ROOT = Path(__file__).parents[3]


def normally_installed(folder: Path) -> Path:
    """The package as pip would put it into site-packages: with real folders where the source has links."""
    package = folder / "site-packages" / "umbel"
    shutil.copytree(ROOT / "src" / "umbel", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "runtime" / "__pycache__").mkdir()
    (package / "runtime" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"compiled")
    return package


def answer(path: Path | None, *, python: str = sys.executable) -> str:
    """What the command answers where this is on the path."""
    command = [python, *probe_command()[1:]]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd="/").stdout


def test_a_package_is_the_same_however_it_is_installed(tmp_path: Path) -> None:
    package = normally_installed(tmp_path)
    assert package_files(package) == package_files(package_folder())
    assert package_digest(package) == package_digest(package_folder())
    (package / "runtime" / "driver" / "run.py").open("a").write("\n")
    assert package_digest(package) != package_digest(package_folder())


def test_the_requirements_are_those_of_an_installation_without_extras() -> None:
    named = {re.split(r"[<>=\[; ]", text)[0] for text in requirements()}
    assert {"numpy", "optuna", "pyarrow", "ray"} <= named
    assert not {"torch", "pytest", "s3fs"} & named


def test_a_cluster_with_this_umbel_is_recognised(tmp_path: Path) -> None:
    package = normally_installed(tmp_path)
    side = read_answer("noise\n" + answer(package.parent) + "more noise\n")
    assert side.has_umbel
    assert side.python == sys.version_info[:2]
    assert side.missing == ()
    assert side.ray is not None


def test_a_cluster_with_another_umbel_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "umbel").mkdir()
    (tmp_path / "umbel" / "__init__.py").write_text("raise ImportError('another')")
    assert not read_answer(answer(tmp_path)).has_umbel


def test_requirements_that_are_missing_are_named() -> None:
    code = probe_command()[2]
    asked = json.dumps(
        [
            "numpy>=1.26",
            "numpy>=999",
            "no-such-package>=1",
            "absent; python_version < '3'",
            "ray<1",
            "ray[default,tune]",
        ]
    )
    said = subprocess.run([sys.executable, "-c", code, asked], capture_output=True, text=True, check=True).stdout
    assert json.loads(said.removeprefix(MARK))["missing"] == ["numpy>=999", "no-such-package>=1"]


def test_what_goes_along_runs_by_itself(tmp_path: Path) -> None:
    package, metadata = stage_umbel(tmp_path)
    assert package_digest(package) == package_digest(package_folder())
    assert (package / "__main__.py").is_file()
    assert not list(package.rglob("*.pyc"))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import umbel, importlib.metadata as m; print(umbel.__file__, m.version('umbel'))"
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd="/")
    assert said.stdout.split() == [str(package / "__init__.py"), metadata.name.split("-")[1].removesuffix(".dist")]
    helped = subprocess.run([sys.executable, "-m", "umbel", "ls", "--help"], env=env, capture_output=True, check=True)
    assert b"runs of a store" in helped.stdout
    assert package_folder() == Path(umbel.__file__).parent


@pytest.mark.parametrize("log", ["", "sh: 1: python: not found\n", f"{MARK} no\n", f'{MARK} {{"python": [3, 11]}}'])
def test_no_answer_is_said_with_what_came_instead(log: str) -> None:
    with pytest.raises(ExecutorError, match="did not answer") as refused:
        read_answer(log)
    assert refused.value.got == (log.strip() or "no output")


@pytest.mark.parametrize(("python", "ray", "said"), [([3, 9], "2.60.0", "Python 3.9, Ray"), ([3, 12], None, "no Ray")])
def test_a_python_that_can_not_run_umbel_is_refused(python: list[int], ray: str | None, said: str) -> None:
    with pytest.raises(UsageError, match="can't run Umbel") as refused:
        read_answer(f"{MARK} {json.dumps({'python': python, 'ray': ray, 'umbel': None, 'missing': []})}")
    assert said in str(refused.value.got)


def test_requirements_of_extras_are_looked_at_too(tmp_path: Path) -> None:
    described = tmp_path / "thing-1.0.dist-info"
    described.mkdir()
    wanted = ["numpy", "absent>=2; extra == 'x'", "other; extra == 'y'", "gone; python_version < '3' and extra == 'x'"]
    lines = ["Metadata-Version: 2.1", "Name: thing", "Version: 1.0", *(f"Requires-Dist: {text}" for text in wanted)]
    (described / "METADATA").write_text("\n".join(lines) + "\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", probe_command()[2], json.dumps(["thing[x]>=1"])]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(said.removeprefix(MARK))["missing"] == ["absent>=2"]
