"""The snippets of docs/models.md run as they stand, in an empty folder, and print what is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import ROOT, SNIPPET

PAGE = (ROOT / "docs" / "models.md").read_text()


@pytest.mark.ray
def test_the_snippets_run(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "UMBEL_STORE"}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "COLUMNS": "160",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    printed = ""
    for kind, language, text, shown in SNIPPET.findall(PAGE):
        if kind == "saved":
            (tmp_path / "growth.py").write_text(text)
            continue
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        assert [line for line in shown.splitlines() if line not in lines] == []
    assert "['Austria', 'Brazil', 'Chile'] [102.0]" in printed
    assert "finer rates" in printed
    assert "to show how" in printed
