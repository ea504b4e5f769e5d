"""The README's snippets run as they stand, one after another, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seaweedfs import S3Server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"<!-- tested: [^>]*-->\n```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.ray
def test_every_python_snippet_runs(tmp_path: Path, s3_server: S3Server) -> None:
    assert len(SNIPPETS) == README.count("```python")
    outputs = []
    server_environment = s3_server.environment
    for snippet in SNIPPETS:
        script = tmp_path / "snippet.py"
        script.write_text(snippet)
        environment = {key: value for key, value in os.environ.items() if key not in ("UMBEL_STORE", "RAY_ADDRESS")}
        environment |= server_environment
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    on_s3 = outputs.pop(1)
    assert on_s3.split("squares ")[-1].strip() == "[1, 4, 9]"
    for country in ("Austria", "Brazil", "Chile", "Denmark"):
        assert all(country in output for output in outputs[:3])
    assert outputs[3].split() == ["done", "1000", "0"]


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_the_commands_that_the_readme_names_exist() -> None:
    from typer.main import get_command

    from umbel.runtime.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^umbel (\w+)", README, re.MULTILINE))
    assert named <= set(commands)
    assert {"run", "ls", "show", "best", "failures"} <= named
