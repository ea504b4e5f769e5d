"""The README's snippets run as they stand, one after another, in an empty folder.

The first one, and the one on S3, start a Ray of their own, as they would for a user; the others join one that is there
(`RAY_ADDRESS`), since a start takes seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.seaweedfs import S3Server
from umbel.cluster.local.local_cluster import LocalCluster

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
#: Python or shell, and what the shell's commands print, if that is shown.
SNIPPET = re.compile(r"<!-- (tested|saved): [^>]*-->\n```(python|bash)\n(.*?)```(?:\n```text\n(.*?)```)?", re.DOTALL)
SNIPPETS = SNIPPET.findall(README)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray to join: what a program's environment needs for that."""
    with LocalCluster(1, dashboard=False) as started:
        yield started.environment


@pytest.fixture
def run_here(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in an empty folder, where `umbel` is this one."""
    ours = ("UMBEL_STORE", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.ray
def test_every_python_snippet_runs(
    tmp_path: Path,
    s3_server: S3Server,
    cluster: dict[str, str],
    run_here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert len(SNIPPETS) - len(_shell()) == README.count("```python")
    outputs: list[str] = []
    for kind, language, text, _ in SNIPPETS:
        if (kind, language) == ("tested", "python"):
            (tmp_path / "snippet.py").write_text(text)
            joined = cluster if outputs and "s3://" not in text else {}  # whose workers have no credentials
            outputs.append(run_here(sys.executable, "snippet.py", **s3_server.environment, **joined).stdout)
    quickstart, pipeline, fused, tuned, learned, on_s3, *tables, facts = outputs
    assert "north" in fused
    assert "south" in fused
    assert "borrowed_from" in learned
    assert on_s3.split("squares ")[-1].strip() == "[1, 4, 9]"
    assert pipeline.startswith("total 4")
    assert tuned.startswith("100 {")
    assert "'decay': 0}" in tuned
    for country in ("Austria", "Brazil", "Chile", "Denmark"):
        assert all(country in output for output in (quickstart, *tables))
    assert len(tables) == 3
    assert all(name in table for table in tables for name in ("quickstart", "pipeline"))
    assert facts.split() == ["done", "1000", "0"]


@pytest.mark.ray
def test_every_command_prints_what_is_shown(
    tmp_path: Path, cluster: dict[str, str], run_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (script,) = [text for kind, _, text, _ in SNIPPETS if kind == "saved"]
    (tmp_path / "forecast.py").write_text(script)
    for text, shown in _shell():
        done = run_here("bash", "-euc", text, COLUMNS="120", **cluster)
        printed = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
        for line in shown.splitlines():
            assert line in printed, "\n".join(printed)


def _shell() -> list[tuple[str, str]]:
    return [(text, shown) for _, language, text, shown in SNIPPETS if language == "bash"]


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_the_readme_names_every_command() -> None:
    from typer.main import get_command

    from umbel.cluster.cli.app import app

    section = README[README.index("## The command line") :].partition("\n## ")[0]
    named = re.findall(r"^umbel ([\w-]+)", section, re.MULTILINE)
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(named) == sorted(commands)
    assert all(f"umbel export {name}" in section for name in commands["export"].commands)
