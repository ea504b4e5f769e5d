"""Where each element of one node stands: waiting, pending, leased or done.

An element waits for its inputs, becomes pending, is leased to a worker, and ends as done (well or badly). State is a
few interval sets, so it grows with the holes and not with the elements. Knows neither workers nor time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from umbel.scheduler.graph import NodeId, NodeSpec
from umbel.scheduler.intervals import IntervalSet
from umbel.scheduler.lease_size import LeaseSizer

__all__ = ["NodeState", "Piece"]

#: Where elements build upon those before, a lease takes at most 1 / (this × workers) of what is pending.
FRESHNESS = 4


@dataclass(slots=True)
class Piece:
    """Pending elements with a history: tried before, or in flight when a worker died."""

    start: int
    stop: int
    attempt: int = 1
    #: How often a worker died while one of these elements was its only unreported one.
    deaths: int = 0
    #: Largest lease that may be cut from it; 0: no bound.
    cap: int = 0
    #: How many machines were lost in a row while one of these elements was in flight, without progress in between.
    losses: int = 0
    #: When the last of these was.
    lost_at: float = -inf

    @property
    def suspect(self) -> bool:
        """True if an element here may have killed a worker."""
        return self.cap > 0

    def __len__(self) -> int:
        return self.stop - self.start


class NodeState:
    """The state of one node's elements."""

    __slots__ = (
        "_in_pieces",
        "done",
        "failed",
        "fresh",
        "leased",
        "pieces",
        "queued",
        "recalling",
        "reported_finished",
        "satisfied",
        "size",
        "sized",
        "sizer",
        "spec",
        "unsizable",
        "waiting_retries",
        "whole_blocks",
    )

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        #: How many elements there are, once `sized`.
        self.size = spec.size
        self.sized = not spec.sized_later
        #: The failed element (node, element) because of which there are none; None: there is no such thing.
        self.unsizable: tuple[NodeId, int] | None = None
        #: For each input, the elements of this node for which it is there.
        self.satisfied = tuple(IntervalSet() for _ in spec.inputs)
        self.done = IntervalSet()
        #: The done elements that ended badly.
        self.failed = IntervalSet()
        #: Elements that are ready and about which `Recall` has not been answered.
        self.recalling = IntervalSet()
        #: Pending elements without a history.
        self.fresh = IntervalSet()
        #: Pending elements with one; suspects first.
        self.pieces: deque[Piece] = deque()
        self._in_pieces = 0
        #: Elements that wait out the pause before their next attempt, or for their turn in quarantine.
        self.waiting_retries = 0
        #: Elements granted and not reported.
        self.leased = 0
        self.sizer = LeaseSizer()
        #: Of a node in order: whether blocks are granted whole; None before the first grant.
        self.whole_blocks: bool | None = None
        #: True while the engine's queue of nodes with pending work holds this one.
        self.queued = False
        self.reported_finished = False

    @property
    def pending(self) -> int:
        """Elements that could be granted now."""
        return len(self.fresh) + self._in_pieces

    @property
    def has_pending(self) -> bool:
        """True if an element could be granted now."""
        return bool(self.fresh) or bool(self.pieces)

    @property
    def finished(self) -> bool:
        """True if every element has ended."""
        return self.sized and len(self.done) == self.size

    @property
    def outstanding(self) -> int:
        """Elements that are ready and have not ended."""
        return self.pending + self.waiting_retries + self.leased

    def satisfy(self, slot: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Input ``slot`` is there for ``[start, stop)``; returns the elements that are now ready."""
        ready = list(self.satisfied[slot].gaps(start, stop))
        self.satisfied[slot].add(start, stop)
        for other, held in enumerate(self.satisfied):
            if other != slot:
                ready = [part for a, b in ready for part in held.within(a, b)]
        return [part for a, b in ready for part in self.done.gaps(a, b)]

    def put_back(self, piece: Piece) -> None:
        """Make a piece pending again."""
        if len(piece) <= 0:
            return
        if piece.attempt == 1 and piece.deaths == piece.cap == piece.losses == 0:
            self.fresh.add(piece.start, piece.stop)
            return
        self._in_pieces += len(piece)
        if piece.suspect:
            self.pieces.appendleft(piece)
        else:
            last = self.pieces[-1] if self.pieces else None
            same = (piece.attempt, piece.losses, piece.start)
            if last and not last.suspect and (last.attempt, last.losses, last.stop) == same:
                last.lost_at = max(last.lost_at, piece.lost_at)
                last.stop = piece.stop  # neighbours that failed alike are one piece again
            else:
                self.pieces.append(piece)

    def take(self, workers: int, cursor: int | None, *, suspects: bool, most: int | None = None) -> Piece | None:
        """Cut the next lease's elements out of what is pending.

        Args:
            workers: how many workers share this node.
            cursor: where the asking worker's last lease of this node ended: it continues in the same block if it can.
            suspects: whether it may be given elements that may kill its worker.
            most: how many elements at most, at least 1; None: without bound.
        """
        size = self.sizer.size(self.pending, workers, self.spec.batched)
        if self.spec.in_order:
            size = self._size_in_order(size, workers)
        if most is not None:
            size = min(size, most)
        if self.pieces and (suspects or not self.pieces[0].suspect):
            piece = self.pieces[0]
            size = min(size, piece.cap or size)
            taken = replace(piece, stop=min(piece.start + size, piece.stop))
            piece.start = taken.stop
            self._in_pieces -= len(taken)
            if not len(piece):
                self.pieces.popleft()
            return taken
        if not self.fresh:
            return None
        start, limit = self._place_in_order() if self.spec.in_order else self._fresh_place(cursor)
        if self.spec.batched is not None:
            size = self._to_block_end(start, size)
        taken = Piece(start, min(start + size, limit))
        self.fresh.remove(taken.start, taken.stop)
        return taken

    def _to_block_end(self, start: int, size: int) -> int:
        """The size at which a lease ends with a block, if it is longer than one."""
        block = self.spec.affinity_block
        stop = (start + size) // block * block if block else 0
        return stop - start if stop > start else size

    def _size_in_order(self, size: int, workers: int) -> int:
        """A whole block while there are enough for all; else few elements, so that later ones know of earlier ones."""
        block = self.spec.affinity_block
        if self.whole_blocks is None:
            self.whole_blocks = self.spec.whole_blocks or self.size // block >= workers
        return block if self.whole_blocks else max(1, min(size, self.pending // (FRESHNESS * workers)))

    def _place_in_order(self) -> tuple[int, int]:
        """Where to cut fresh elements: the next block, or what is left of the block that has come least far."""
        block = self.spec.affinity_block
        start, stop = self.fresh.first()
        if not self.whole_blocks:
            starts = ((at, b) for a, b in self.fresh for at in (a, *range((a // block + 1) * block, b, block)))
            start, stop = min(starts, key=lambda part: part[0] % block)
        return start, min(stop, (start // block + 1) * block)

    def _fresh_place(self, cursor: int | None) -> tuple[int, int]:
        """Where to cut fresh elements: on in the worker's block, else at a block nobody has begun, else anywhere."""
        block = self.spec.affinity_block
        if block:
            if cursor is not None and cursor % block:
                held = self.fresh.around(cursor)
                if held:
                    return cursor, held[1]
            for start, stop in self.fresh.from_the_end():
                untouched = -(-start // block) * block
                if untouched < stop:
                    return untouched, stop
        return self.fresh.first()

    def pending_parts(self) -> Iterator[tuple[int, int]]:
        """All pending elements, in no order; for checks."""
        yield from self.fresh
        for piece in self.pieces:
            yield piece.start, piece.stop
