"""What signals do to `umbel serve`, without Ray."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from umbel.cluster.cli.serve import _told_to_stop, serve_model


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_ends_it_with_one_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def starting(*args: Any, **options: Any) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise RuntimeError("what a library makes of it") from None

    monkeypatch.setattr("umbel.cluster.serving.serve.serve", starting)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a shell starts by &
    try:
        with pytest.raises(typer.Exit) as ended:
            serve_model("gdp", store=str(tmp_path))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.exit_code == 128 + number
    assert "interrupted before it answered" in capsys.readouterr().err


def test_rays_own_handler_counts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def starting(*args: Any, **options: Any) -> None:
        raise SystemExit(15)

    monkeypatch.setattr("umbel.cluster.serving.serve.serve", starting)
    with pytest.raises(typer.Exit) as ended:
        serve_model("gdp", store=str(tmp_path))
    assert ended.value.exit_code == 128 + signal.SIGTERM


def test_while_it_serves_the_first_signal_asks_and_the_second_interrupts() -> None:
    with _told_to_stop() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray takes it
        stop.begin_to_serve()
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
