"""`make demo-s3`, smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo_s3 import main

pytestmark = pytest.mark.ray


def test_the_demo_runs_on_a_server_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chart = tmp_path / "gdp.png"
    small = ["--countries", "3", "--trials", "5", "--executor", "inline"]
    assert main([*small, "--chart", str(chart)]) == 0
    out, err = capfd.readouterr()
    assert chart.stat().st_size > 1000
    assert "everything is done already" in out + err
    assert "gdp   done" in out
