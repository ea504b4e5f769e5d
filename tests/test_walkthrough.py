"""The README's way from winners to production runs as it stands, on fewer countries and another port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- walked: [^>]*-->\n```bash\n(.*?)```", re.DOTALL)
SMALLER = "--countries 12 --executor inline"


def _script(port: int) -> str:
    (text,) = BLOCK.findall((ROOT / "README.md").read_text())
    text, found = re.subn(r"^source .*\n", f"python examples/gdp.py --trials 20 {SMALLER}\n", text, flags=re.MULTILINE)
    text, more = re.subn(r"gdp\.py --trials 130", f"gdp.py --trials 40 {SMALLER}", text)
    text, servers = re.subn(r"umbel serve growth", f"umbel serve growth --port {port}", text)
    assert found == more == servers == 1
    text = text.replace("ask_gdp.py", f"ask_gdp.py --url http://localhost:{port}")
    # The shell of a user has job control, so that what runs in the background hears an interrupt.
    return f"set -meu\n{text.replace('localhost:8000', f'localhost:{port}')}wait $!\n"


@pytest.mark.ray
def test_from_winners_to_production_and_back(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {key: value for key, value in os.environ.items() if key not in ("UMBEL_STORE", "RAY_ADDRESS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    done = subprocess.run(
        ["bash", "-c", _script(port)],
        cwd=tmp_path,
        env={**environment, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for line in (
        "growth: champion is version 1",
        "growth: challenger is version 2",
        "72 forecasts asked for, and their outcomes recorded",
        "not yet",
        "growth: champion is version 3, was version 1",
        "growth: champion is version 1, was version 3",
    ):
        assert line in said, said
    assert re.search(r'"outputs":\[[^]]+\],"version":[12]', said), said
