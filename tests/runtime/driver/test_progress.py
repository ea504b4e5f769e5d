"""`umbel.runtime.driver.progress`: what is shown where, how often, and how wide."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.runtime.driver.progress import (
    Progress,
    Snapshot,
    _fit,
    format_count,
    make_progress,
)
from umbel.scheduler.errors import UsageError


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Stream(io.StringIO):
    """A stream that says whether it is a terminal, and counts what is drawn."""

    encoding = "utf-8"

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def taken(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def at(done: int, *, failed: int = 0, total: int = 20_020, **others: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "running": 2,
        "workers": 2,
        "rate_per_s": 1234.5,
        "eta_s": 12.0,
        "elapsed_s": 5.0,
        "best": "mase 0.512 (country=NOR)",
        "stage": "backtest",
    }
    return Snapshot(done=done, total=total, failed=failed, **{**fields, **others})


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


# ---- which one ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", None, True])
@pytest.mark.parametrize(
    ("terminal", "term", "expected"), [(True, "xterm", "_Bar"), (True, "dumb", "_Plain"), (False, "xterm", "_Plain")]
)
def test_auto_draws_a_bar_only_on_a_terminal_that_can_show_it(
    kind: Any, terminal: bool, term: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(make_progress(kind, Stream(terminal=terminal))).__name__ == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [("bar", "_Bar"), ("plain", "_Plain"), ("quiet", "_Quiet"), (False, "_Quiet")]
)
def test_what_is_asked_for_is_made_wherever_the_output_goes(kind: Any, expected: str) -> None:
    for terminal in (True, False):
        assert type(make_progress(kind, Stream(terminal=terminal))).__name__ == expected


@pytest.mark.parametrize("kind", ["bars", "", 3, ["auto"]])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    with pytest.raises(UsageError) as caught:
        make_progress(kind)
    assert '"auto", "bar", "plain", "quiet"' in (caught.value.expected or "")


def test_rich_is_not_imported_before_a_bar_is_drawn() -> None:
    check = "import sys, umbel.runtime.driver.progress as p; p.make_progress('bar'); p.make_progress('plain'); "
    check += "sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60, check=False).returncode == 0


# ---- lines -------------------------------------------------------------------------------------------------


def test_lines_come_at_intervals_that_grow() -> None:
    clock, stream = Clock(), Stream()
    progress = make_progress("plain", stream, clock)
    progress.start("gdp", "file:///store", 20_020, 3_000)
    assert stream.taken() == "run gdp in store file:///store: 20,020 in all, 3,000 done before: 17,020 to do\n"
    shown: list[float] = []
    for _ in range(3000):
        clock.now += 0.5
        progress.update(at(10_000))
        if stream.taken():
            shown.append(clock.now - 100)
    assert shown[:9] == [2, 7, 17, 47, 107, 227, 527, 827, 1127]


def test_a_line_says_all() -> None:
    clock, stream = Clock(), Stream()
    progress = make_progress("plain", stream, clock)
    progress.start("gdp", "file:///store", 20_020, 0)
    stream.taken()
    clock.now += 3
    progress.update(at(12_345, failed=12))
    assert stream.taken() == (
        "12,345/20,020 done (61.6%), 1,234/s, 12 s left, 12 failed, 2 workers, best mase 0.512 (country=NOR)\n"
    )
    progress.message("a worker was lost")
    progress.warn("a segment was set aside")
    progress.finish("done: 20,020 in 16 s")
    assert stream.taken() == "a worker was lost\nwarning: a segment was set aside\ndone: 20,020 in 16 s\n"


def test_unknown_things_are_left_out_of_a_line() -> None:
    clock, stream = Clock(), Stream()
    progress = make_progress("plain", stream, clock)
    progress.start("gdp", "memory://", 10, 0)
    stream.taken()
    clock.now += 3
    progress.update(at(0, total=10, rate_per_s=None, eta_s=None, workers=0, best=None, stage=None))
    assert stream.taken() == "0/10 done (0.0%)\n"


def test_a_total_that_will_grow_is_told_as_such() -> None:
    stream, clock = Stream(), Clock()
    progress = make_progress("plain", stream, clock)
    progress.start("gdp", "store", 2, 0, growing=True)
    clock.now += 3
    progress.update(at(0, total=2, growing=True))
    first, second = stream.taken().splitlines()
    assert first == "run gdp in store store: 2 to do, and what these reveal"
    assert second.startswith("0/2 so far done, ")
    assert "%" not in second
    assert "left" not in second
    assert next(place for place, _ in _fit(at(0, total=2, growing=True), 100, plain_letters=True)) == "count"


def test_quiet_says_nothing_but_warnings() -> None:
    stream = Stream()
    progress = make_progress("quiet", stream, Clock())
    progress.start("gdp", "memory://", 10, 0)
    progress.update(at(3))
    progress.message("hello")
    progress.warn("careful")
    progress.finish("done")
    assert stream.taken() == "warning: careful\n"


# ---- the bar -----------------------------------------------------------------------------------------------


def test_the_bar_is_drawn_at_most_five_times_a_second() -> None:
    clock, stream = Clock(), Stream(terminal=True)
    progress = make_progress("bar", stream, clock)
    progress.start("gdp", "file:///store", 20_020, 0)
    stream.taken()
    drawn = 0
    for step in range(1000):
        clock.now += 0.01
        progress.update(at(step))
        drawn += bool(stream.taken())
    assert 45 <= drawn <= 51
    progress.finish("done")


def test_the_bar_shows_counts_failures_in_red_and_the_best() -> None:
    clock, stream = Clock(), Stream(terminal=True)
    progress = make_progress("bar", stream, clock)
    progress.start("gdp", "file:///store", 20_020, 0)
    progress.update(at(12_345))
    text = stream.taken()
    assert "failed" not in text
    assert without_codes(text).splitlines()[0] == "run gdp in store file:///store: 20,020 to do"
    clock.now += 1
    progress.update(at(12_345, failed=12))
    text = stream.taken()
    assert "\x1b[31m12 failed\x1b[0m" in text
    line, below = without_codes(text).strip().splitlines()
    assert re.fullmatch(r"12,345/20,020  ━+─+  61\.6%  1,234/s  12 s left  12 failed  2 workers", line)
    assert below == "backtest  best mase 0.512 (country=NOR)"
    progress.finish("done: all")
    assert without_codes(stream.taken()).splitlines()[-1] == "done: all"


def test_messages_stand_above_the_bar_as_they_were_written() -> None:
    clock, stream = Clock(), Stream(terminal=True)
    progress = make_progress("bar", stream, clock)
    progress.start("gdp", "file:///store", 100, 0)
    progress.update(at(50, total=100))
    stream.taken()
    long = "s3://bucket/" + "x" * 150 + " [red]not markup[/red] :smile:"
    progress.warn(long)
    lines = without_codes(stream.taken()).strip().splitlines()
    assert lines[0].endswith(f"warning: {long}")
    assert lines[1].startswith("50/100")
    progress.finish("")


def test_the_last_state_stays_on_the_screen() -> None:
    clock, stream = Clock(), Stream(terminal=True)
    progress = make_progress("bar", stream, clock)
    progress.start("gdp", "file:///store", 100, 0)
    progress.update(at(0, total=100))
    progress.update(at(100, total=100))  # too soon to be drawn by itself
    stream.taken()
    progress.finish("done: 100 in 5.0 s")
    progress.finish("again")
    text = without_codes(stream.taken())
    assert "100/100" in text
    assert "in 5.0 s" in text
    assert text.endswith("done: 100 in 5.0 s\nagain\n")
    progress.update(at(100, total=100))
    assert stream.taken() == ""


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Stream(terminal=True)
    progress = make_progress("bar", stream, Clock())
    progress.start("gdp", "file:///store", 100, 0)
    progress.update(at(50, total=100, failed=2))
    progress.warn("careful")
    progress.finish("done")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", stream.taken())


@pytest.mark.parametrize("columns", [1, 8, 15, 20, 30, 45, 60, 80, 200])
def test_a_narrow_terminal_gets_one_line_that_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Stream(terminal=True)
    progress = make_progress("bar", stream, Clock())
    progress.start("gdp", "file:///store", 20_020, 0)
    stream.taken()
    progress.update(at(12_345, failed=12, best="x" * 300))
    lines = without_codes(stream.taken()).splitlines()
    assert all(len(line) <= columns for line in lines)
    assert len([line for line in lines if line.strip()]) <= 2
    progress.finish("")


def test_names_from_data_can_not_move_the_cursor() -> None:
    stream = Stream(terminal=True)
    progress = make_progress("bar", stream, Clock())
    progress.start("gdp", "file:///store", 10, 0)
    stream.taken()
    progress.update(at(5, total=10, best="loss 1 (name=\x1b[2J\nevil\r)"))
    text = stream.taken()
    assert "\x1b[2J" not in text
    assert len([line for line in without_codes(text).splitlines() if line.strip()]) == 2
    progress.finish("")


def test_letters_that_the_terminal_does_not_know_are_replaced() -> None:
    class Ascii(Stream):
        encoding = "ascii"

        def write(self, text: str) -> int:
            text.encode("ascii")
            return super().write(text)

    for kind in ("bar", "plain"):
        clock, stream = Clock(), Ascii(terminal=True)
        progress = make_progress(kind, stream, clock)
        progress.start("gdp", "file:///Größe", 10, 0)
        clock.now += 5
        progress.update(at(5, total=10, best="loss 1 (name=Ülm)"))
        progress.message("naïve")
        progress.finish("done ✓")
        text = without_codes(stream.taken())
        assert "5/10" in text
        assert "na\\xefve" in text
        assert "done \\u2713" in text


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(10, 300),
    st.none() | st.floats(1e-6, 1e9),
    st.none() | st.floats(0, 1e9),
    st.booleans(),
)
def test_a_line_always_fits_if_its_counts_do(
    done: int, more: int, failed: int, width: int, rate: float | None, eta: float | None, plain_letters: bool
) -> None:
    total = done + more
    snapshot = at(done, total=total, failed=failed, rate_per_s=rate, eta_s=eta)
    pieces = _fit(snapshot, width, plain_letters=plain_letters)
    line = "  ".join(text for _, text in pieces)
    count = f"{format_count(done)}/{format_count(total)}"
    assert line.startswith(count)
    assert len(line) <= max(width, len(count))
    assert ("100.0%" in line) <= (done == total)


# ---- streams that break ------------------------------------------------------------------------------------


def _drive(progress: Progress, clock: Clock) -> None:
    progress.start("gdp", "file:///store", 10, 0)
    for done in range(10):
        clock.now += 20
        progress.update(at(done, total=10))
    progress.message("m")
    progress.warn("w")
    progress.finish("done")


@pytest.mark.parametrize("kind", ["bar", "plain", "quiet", "auto"])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "gone"), None])
def test_a_stream_that_breaks_does_not_end_the_run(kind: str, error: Exception | None) -> None:
    class Broken(Stream):
        def write(self, text: str) -> int:
            if error is not None:
                raise error
            return super().write(text)

    clock, stream = Clock(), Broken(terminal=True)
    if error is None:
        stream.close()
        stream.isatty = lambda: True  # type: ignore[method-assign]
    _drive(make_progress(kind, stream, clock), clock)


@pytest.mark.parametrize("kind", ["bar", "plain", "quiet"])
def test_calls_out_of_order_are_harmless(kind: str) -> None:
    clock, stream = Clock(), Stream(terminal=True)
    progress = make_progress(kind, stream, clock)
    progress.finish("")
    progress.update(at(1))
    progress.message("m")
    _drive(progress, clock)
    _drive(progress, clock)


# ---- a real terminal ---------------------------------------------------------------------------------------

DRIVER = """
import sys
from umbel.runtime.driver.progress import Snapshot, make_progress
now = [0.0]
progress = make_progress("auto", clock=lambda: now[0])
progress.start("gdp", "file:///store", 100, 0)
for done in range(0, 101, 10):
    now[0] += 0.3
    progress.update(Snapshot(done, 100, 0, 1, 2, 10.0, 5.0, 1.0, None, None))
    if done == 50:
        print("printed by the user")
progress.finish("done: 100")
print(type(progress).__name__)
"""


def _on_a_terminal(stdout_too: bool) -> tuple[str, str]:
    """Run the driver with a terminal as standard error; returns what the terminal and a pipe received."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=slave,
        stdout=slave if stdout_too else subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "COLUMNS": "60"},
        text=True,
    )
    os.close(slave)
    received = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        received += part
    piped = process.stdout.read() if process.stdout is not None else ""
    assert process.wait(timeout=60) == 0
    os.close(master)
    return received.decode(), piped


def test_on_a_terminal_what_is_printed_stands_above_the_bar() -> None:
    terminal, _ = _on_a_terminal(stdout_too=True)
    assert terminal.count("printed by the user") == 1
    assert "\x1b[2K" in terminal  # lines are redrawn in place
    lines = [line for line in without_codes(terminal).replace("\r\n", "\n").split("\n") if line]
    assert lines[-2:] == ["done: 100", "_Bar"]
    assert "100/100" in lines[-3]
    assert "\x1b[?25l" not in terminal or terminal.rindex("\x1b[?25h") > terminal.rindex("\x1b[?25l")


def test_what_is_printed_into_a_pipe_gets_there_though_a_bar_is_shown() -> None:
    terminal, piped = _on_a_terminal(stdout_too=False)
    assert piped == "printed by the user\n_Bar\n"
    assert "printed by the user" not in terminal
    assert "100/100" in terminal


# ---- notebooks ---------------------------------------------------------------------------------------------


class Displays:
    """Stands in for IPython: one list of contents for each display."""

    def __init__(self) -> None:
        self.shown: list[list[dict[str, str]]] = []

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool = False) -> Any:
        assert raw
        contents = [content]
        self.shown.append(contents)

        def update(content: dict[str, str], *, raw: bool) -> None:
            assert raw
            contents.append(content)

        return SimpleNamespace(update=update) if display_id else None


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Displays:
    displays = Displays()
    module = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=displays.display))
    return displays


def test_a_notebook_has_one_display_that_is_updated(notebook: Displays) -> None:
    clock, stream = Clock(), Stream()
    progress = make_progress(None, stream, clock)
    progress.start("gdp", "file:///store", 100, 0)
    for done in range(101):
        clock.now += 0.1
        progress.update(at(done, total=100, failed=done // 50, best="loss <1>"))
    progress.warn("careful")
    progress.finish("done: 100")
    start, bar, warning, end = notebook.shown
    assert start == [{"text/plain": "run gdp in store file:///store: 100 to do"}]
    assert 17 <= len(bar) <= 22
    assert bar[-1]["text/plain"].startswith("100/100")
    assert '<span style="color:red">2 failed</span>' in bar[-1]["text/html"]
    assert "best loss &lt;1&gt;" in bar[-1]["text/html"]
    assert warning == [{"text/plain": "warning: careful"}]
    assert end == [{"text/plain": "done: 100"}]
    assert stream.taken() == ""


def test_ipython_in_a_terminal_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=SimpleNamespace))
    assert type(make_progress("auto", Stream(terminal=True))).__name__ == "_Bar"
