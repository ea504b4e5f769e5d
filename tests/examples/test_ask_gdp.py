"""The script that asks the walk-through's server: what it says where none runs."""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_without_a_server_it_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    ask_gdp: Any = importlib.import_module("ask_gdp")
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setattr(sys, "argv", ["ask_gdp.py", "--url", url])
        with pytest.raises(SystemExit) as ended:
            ask_gdp.main()
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith(f"no server answers at {url}")
    assert "umbel serve growth" in err
    assert len(err.splitlines()) == 1
