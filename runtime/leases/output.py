"""What a trial prints: kept with the run, the end of it if it is much, and kept from flooding anyone.

`capture()` replaces ``sys.stdout`` and ``sys.stderr`` by streams that keep what one thread writes while it runs an
element; what others write passes through. Credentials that are known are taken out of what is kept. What programs
started by the trial, or C libraries, write to the process's own descriptors is not seen here; under Ray it stands in
the worker's log files.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any, TextIO

from umbel.runtime.provenance.credentials import known

__all__ = ["TAIL_BYTES", "Tail", "capture", "kept"]

#: Bytes of an element's output that are kept: its end, where the reason of a failure stands.
TAIL_BYTES = 8 * 1024


class Tail:
    """The end of a text that is written piece by piece, in bounded memory whatever is written."""

    __slots__ = ("_limit", "_pieces", "_size", "dropped")

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._size = 0
        #: Characters that were written before the part that is kept.
        self.dropped = 0

    def write(self, text: str) -> None:
        """Add to the end."""
        if len(text) > self._limit:
            self.dropped += self._size + len(text) - self._limit
            self._pieces.clear()
            self._size = 0
            text = text[-self._limit :]
        self._pieces.append(text)
        self._size += len(text)
        while self._size - len(self._pieces[0]) >= self._limit:
            gone = self._pieces.popleft()
            self._size -= len(gone)
            self.dropped += len(gone)

    def take(self) -> str | None:
        """What is kept, or None if nothing was written; forgets it."""
        if not self._pieces:
            return None
        text = known.scrub("".join(self._pieces))
        cut = max(0, len(text) - self._limit)
        dropped = self.dropped + cut
        self._pieces.clear()
        self._size = self.dropped = 0
        return f"… {dropped:,} characters before this were not kept\n{text[cut:]}" if dropped else text

    def __bool__(self) -> bool:
        return bool(self._pieces)


class _Kept(threading.local):
    #: Where this thread's output is kept; None: it is not.
    tail: Tail | None = None


kept = _Kept()


class _Stream:
    """A text stream that keeps what threads with a tail write, and passes everything on if asked to."""

    def __init__(self, stream: TextIO, pass_on: bool) -> None:
        self._stream = stream
        self._pass_on = pass_on

    def write(self, text: str) -> int:
        tail = kept.tail
        if tail is not None:
            tail.write(text)
            if not self._pass_on:
                return len(text)
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


class capture:
    """While inside, keep what threads that have a tail print.

    Args:
        pass_on: also let it through, as for code that runs before the user's eyes.
    """

    def __init__(self, *, pass_on: bool) -> None:
        self._pass_on = pass_on
        self._before: tuple[TextIO, TextIO] | None = None

    def __enter__(self) -> capture:
        self._before = (sys.stdout, sys.stderr)
        sys.stdout = _Stream(sys.stdout, self._pass_on)
        sys.stderr = _Stream(sys.stderr, self._pass_on)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._before is not None
        sys.stdout, sys.stderr = self._before
