"""How does the user see a run advance? A bar on a terminal, lines in a log, one display in a notebook, or nothing.

`make_progress` chooses. Nothing runs in the background and nothing is drawn more than five times a second: the cores
are busy with the user's work. A stream that breaks (a closed pipe, a terminal that hung up) silences the progress and
never ends a run. It must not know where the numbers come from, nor decide anything about the run.
"""

from __future__ import annotations

import atexit
import html
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from umbel.runtime.driver.rates import RateMeter, format_count, format_duration, format_rate
from umbel.scheduler.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["Progress", "RateMeter", "Snapshot", "format_count", "format_duration", "make_progress"]

Kind = Literal["auto", "bar", "plain", "quiet"]
Clock = Callable[[], float]

_KINDS = ("auto", "bar", "plain", "quiet")
_BAR_EVERY_S = 0.2
_NOTEBOOK_EVERY_S = 0.5
_PLAIN_AFTER_S = (2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_PLAIN_LAST_S = 300.0
_BAR_WIDTHS = (6, 40)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands."""

    done: int
    total: int
    #: Of those done, how many did not succeed.
    failed: int
    #: How many run at this moment.
    running: int
    workers: int
    rate_per_s: float | None
    eta_s: float | None
    elapsed_s: float
    #: The best trial so far, as text: ``"mase 0.512 (country=NOR)"``.
    best: str | None
    #: The node that is being worked on.
    stage: str | None
    #: True: how many there are in all is not known yet; ``total`` counts those that are.
    growing: bool = False


class Progress(Protocol):
    """What a run tells about itself; to be called from one thread. No method raises."""

    def start(self, run_id: str, store_url: str, total: int, resumed: int, *, growing: bool = False) -> None:
        """The run begins; ``resumed`` of ``total`` were done before. ``growing``: there will be more than that."""

    def update(self, snapshot: Snapshot) -> None:
        """The run stands here now. Cheap when called too often: most calls draw nothing."""

    def message(self, text: str) -> None:
        """Something that the user should read."""

    def warn(self, text: str) -> None:
        """Something that the user must read."""

    def finish(self, text: str) -> None:
        """The run has ended, and how."""


def make_progress(
    kind: Kind | str | bool | None, stream: TextIO | None = None, clock: Clock = time.monotonic
) -> Progress:
    """Choose how progress is shown.

    Args:
        kind: ``"auto"`` (also None and True): a display in a notebook, a bar on a terminal, else lines. ``"bar"``,
            ``"plain"``: these, wherever the output goes. ``"quiet"`` (also False): warnings only.
        stream: where to; standard error if None.
        clock: seconds that only grow.

    Raises:
        UsageError: an unknown kind.
    """
    stream = sys.stderr if stream is None else stream
    if kind is None or kind is True:
        kind = "auto"
    if kind is False:
        kind = "quiet"
    if kind not in _KINDS:
        raise UsageError(
            "unknown kind of progress",
            got=kind,
            expected="one of " + ", ".join(f'"{each}"' for each in _KINDS) + ", or True or False",
        )
    if kind == "auto":
        if _in_notebook():
            return _Notebook(stream, clock)
        kind = "bar" if _is_terminal(stream) else "plain"
    if kind == "bar":
        return _Bar(stream, clock)
    return _Plain(stream, clock) if kind == "plain" else _Quiet(stream, clock)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    except ValueError:  # a closed stream
        return False


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


# ---- what a line says ---------------------------------------------------------------------------------------

#: The pieces of a progress line in the order of their places.
_PLACES = ("count", "bar", "percent", "rate", "time", "failed", "workers")


def _pieces(snapshot: Snapshot) -> dict[str, str]:
    """The pieces of a progress line, the most important first: a narrow terminal shows only the first ones."""
    share = snapshot.done / snapshot.total if snapshot.total else 1.0
    so_far = " so far" if snapshot.growing else ""
    pieces = {"count": f"{format_count(snapshot.done)}/{format_count(snapshot.total)}{so_far}"}
    if snapshot.failed:
        pieces["failed"] = f"{format_count(snapshot.failed)} failed"
    if not snapshot.growing:
        pieces["percent"] = f"{math.floor(share * 1000) / 10:.1f}%"  # 100.0% means all
    if snapshot.growing:
        pieces["time"] = format_duration(snapshot.elapsed_s)
    elif snapshot.done >= snapshot.total:
        pieces["time"] = f"in {format_duration(snapshot.elapsed_s)}"
    elif snapshot.eta_s is not None:
        pieces["time"] = f"{format_duration(snapshot.eta_s)} left"
    if snapshot.rate_per_s is not None:
        pieces["rate"] = format_rate(snapshot.rate_per_s)
    if snapshot.workers:
        pieces["workers"] = f"{format_count(snapshot.workers)} worker{'s' if snapshot.workers != 1 else ''}"
    return pieces


def _fit(snapshot: Snapshot, width: int, *, plain_letters: bool) -> list[tuple[str, str]]:
    """The (place, text) pieces of a line at most ``width`` wide, in order; a bar fills what is left over."""
    gap = 2
    chosen: dict[str, str] = {}
    room = width
    for place, text in _pieces(snapshot).items():
        needed = len(text) + (gap if chosen else 0)
        if needed <= room or not chosen:
            chosen[place] = text
            room -= needed
    length = min(room - gap, _BAR_WIDTHS[1])
    if length >= _BAR_WIDTHS[0] and not snapshot.growing:
        full = length if not snapshot.total else length * min(snapshot.done, snapshot.total) // snapshot.total
        heavy, light = ("#", "-") if plain_letters else ("━", "─")
        chosen["bar"] = heavy * full + light * (length - full)
    return [(place, chosen[place]) for place in _PLACES if place in chosen]


def _second_line(snapshot: Snapshot) -> str:
    shown = (snapshot.stage, f"best {snapshot.best}" if snapshot.best is not None else None)
    return _one_line("  ".join(text for text in shown if text is not None))


def _one_line(text: str) -> str:
    """Names of groups come from data: what they hold must not move the cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


# ---- the ways to show it -----------------------------------------------------------------------------------


class _Quiet:
    """Warnings only. Also the ground that the others stand on."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._broken = False

    def start(self, run_id: str, store_url: str, total: int, resumed: int, *, growing: bool = False) -> None:
        """Nothing is shown."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing is shown."""

    def message(self, text: str) -> None:
        """Nothing is shown."""

    def warn(self, text: str) -> None:
        self._line(f"warning: {text}", "yellow")

    def finish(self, text: str) -> None:
        """Nothing is shown."""

    @contextmanager
    def _unbreakable(self) -> Iterator[None]:
        """Output that can't be written must not end a run."""
        try:
            yield
        except (OSError, ValueError):
            self._broken = True

    def _line(self, text: str, style: str = "") -> None:
        with self._unbreakable():
            if not self._broken:
                self._write(self._encodable(text), style)

    def _write(self, text: str, style: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


class _Plain(_Quiet):
    """Lines, at intervals that grow: short runs say little, long ones don't fill the log."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        super().__init__(stream, clock)
        self._intervals = chain(_PLAIN_AFTER_S, repeat(_PLAIN_LAST_S))
        self._due = math.inf

    def start(self, run_id: str, store_url: str, total: int, resumed: int, *, growing: bool = False) -> None:
        more = ", and what these reveal" if growing else ""
        before = f"{format_count(total)} in all, {format_count(resumed)} done before: " if resumed else ""
        self._line(f"run {run_id} in store {store_url}: {before}{format_count(total - resumed)} to do{more}")
        self._due = self._clock() + next(self._intervals)

    def update(self, snapshot: Snapshot) -> None:
        if self._clock() >= self._due:
            self._show(snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        pieces = _pieces(snapshot)
        pieces["count"] += f" done ({pieces.pop('percent')})" if "percent" in pieces else " done"
        if snapshot.best is not None:
            pieces["best"] = f"best {_one_line(snapshot.best)}"
        self._line(", ".join(pieces[place] for place in (*_PLACES, "best") if place in pieces))
        self._due = self._clock() + next(self._intervals)

    def message(self, text: str) -> None:
        self._line(text)

    def finish(self, text: str) -> None:
        self._due = math.inf
        self._line(text)


class _Bar(_Plain):
    """A bar that stays at the bottom of the terminal, with messages and what the user prints above it."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        super().__init__(stream, clock)
        self._intervals = chain((0.0,), repeat(_BAR_EVERY_S))
        self._console: Console | None = None
        self._live: Live | None = None
        self._last: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        super().update(snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        self._due = self._clock() + next(self._intervals)
        with self._unbreakable():
            if not self._broken:
                self._draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._open(),
                auto_refresh=False,  # no thread of its own
                redirect_stdout=_is_terminal(sys.stdout),  # what goes to a file or pipe must still get there
                redirect_stderr=_is_terminal(sys.stderr),
            )
            atexit.register(self._close)
            self._live.start()
            self._open().show_cursor(True)  # a killed run must not leave a terminal without one
        self._live.update(self._text(snapshot), refresh=True)

    def _text(self, snapshot: Snapshot) -> Text:
        from rich.text import Text

        console = self._open()
        styles = {"bar": "green" if snapshot.done >= snapshot.total else "cyan", "failed": "red"}
        text = Text(no_wrap=True, overflow="crop")
        width = console.width - 1  # a full last column makes some terminals wrap
        plain_letters = console.options.ascii_only or console.legacy_windows
        for place, piece in _fit(snapshot, width, plain_letters=plain_letters):
            text.append("  " if text else "").append(piece, style=styles.get(place))
        if below := self._encodable(_second_line(snapshot)):
            text.append("\n").append(below, style="dim")
        return text

    def _open(self) -> Console:
        if self._console is None:
            from rich.console import Console

            class Terminal(Console):
                def on_broken_pipe(self) -> None:
                    raise  # noqa: PLE0704 - Rich calls this while it handles the error, and would end the process

            self._console = Terminal(file=self._stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        return self._console

    def _write(self, text: str, style: str) -> None:
        from rich.text import Text

        self._open().print(Text(text, style=style), soft_wrap=True)  # a style for `print` would colour the bar too

    def _close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(self._close)
            with self._unbreakable():
                live.stop()

    def finish(self, text: str) -> None:
        if self._live is not None and self._last is not None:
            self._show(self._last)
        self._close()
        super().finish(text)


class _Notebook(_Plain):
    """One display that is updated in place; messages stand in the order in which they came."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        super().__init__(stream, clock)
        self._intervals = chain((0.0,), repeat(_NOTEBOOK_EVERY_S))
        self._display: Callable[..., Any] = importlib.import_module("IPython.display").display
        self._handle: Any = None
        self._last: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        super().update(snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        self._due = self._clock() + next(self._intervals)
        pieces = _fit(snapshot, 100, plain_letters=False)
        below = _second_line(snapshot)
        rich = "  ".join(
            f'<span style="color:red">{text}</span>' if place == "failed" else text for place, text in pieces
        )
        content = {
            "text/plain": "  ".join(text for _, text in pieces) + (f"\n{below}" if below else ""),
            "text/html": f"<pre>{rich}\n{html.escape(below)}</pre>",
        }
        with self._unbreakable():
            if self._handle is None:
                self._handle = self._display(content, raw=True, display_id=True)
            elif not self._broken:
                self._handle.update(content, raw=True)

    def _write(self, text: str, style: str) -> None:
        self._display({"text/plain": text}, raw=True)

    def finish(self, text: str) -> None:
        if self._last is not None:
            self._show(self._last)
        super().finish(text)
