"""Which trials make a batch, and how many fit into one? Pure: no clock, no store, no functions of users.

Trials that share the values of the `by` names can be run as one. How many at once is learnt as batches are run: from
few to many as long as that pays, and fewer again where memory does not suffice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from umbel.scheduler.identity import canonical_json

__all__ = ["FIRST", "BatchSizes", "Fusion", "batch_key", "is_out_of_memory", "split", "together"]

#: Trials of the first batch, where the size adapts.
FIRST = 64
#: Batches don't grow beyond this.
MOST = 2**17
#: A batch of this share of the size says something about the size.
FULL = 0.75
#: Time a trial must fall to this share of the best before, lest a batch of twice the size be no gain.
FALLS = 0.95
#: … but others may have slowed down one batch, so as many as this must have failed to.
TRIES = 3
#: Seconds that a batch may take if the next one is to be twice as large.
LONG_S = 15.0

#: What it says in errors of libraries that have run out of memory: PyTorch on CUDA and on CPU, cuBLAS, JAX.
_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "resource_exhausted",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fusion:
    """How trials of a function are run as batches; see `umbel.fused`."""

    by: tuple[str, ...] = ()
    max_batch: int | Literal["auto"] = "auto"
    fuse_groups: bool = False


def batch_key(by: Sequence[str], config: Mapping[str, Any]) -> Hashable:
    """What trials share that are run as one."""
    return tuple(_plain(config[name]) for name in by)


def _plain(value: Any) -> Hashable:
    return value if isinstance(value, (str, int, float, type(None))) else canonical_json(value, repr)


class BatchSizes:
    """How many trials a batch may have on this worker.

    With "auto" the size doubles as long as a trial costs less time by that, compared with trials of the same key, and
    batches stay short. Where memory did not suffice for a key it stays below, for good.
    """

    def __init__(self, max_batch: int | Literal["auto"]) -> None:
        self._grows = max_batch == "auto"
        self._limit = FIRST if max_batch == "auto" else max_batch
        #: Batches of the present size that were no gain, in a row.
        self._misses = 0
        #: By key, the least seconds a trial so far, and as many as memory suffices for.
        self._best_s: dict[Hashable, float] = {}
        self._fits: dict[Hashable, int] = {}

    def limit(self, key: Hashable) -> int:
        """Trials of the next batch at most."""
        return min(self._limit, self._fits.get(key, self._limit))

    def ran(self, key: Hashable, count: int, seconds: float) -> None:
        """A batch went well."""
        each_s, best_s = seconds / count, self._best_s.get(key)
        self._best_s[key] = each_s if best_s is None else min(each_s, best_s)
        if not self._grows or count < FULL * self._limit:
            return
        if seconds > LONG_S:
            self._grows = False
        elif self._limit == FIRST or (best_s is not None and each_s <= FALLS * best_s):
            self._limit, self._misses = min(2 * self._limit, MOST), 0
        elif best_s is not None:
            self._misses += 1
            self._grows = self._misses < TRIES

    def out_of_memory(self, key: Hashable, count: int) -> None:
        """A batch of so many did not fit."""
        self._fits[key] = max(1, min(self._fits.get(key, count), count // 2))


def together(keys: Iterable[Hashable], sizes: BatchSizes) -> int:
    """How many trials from the first on are begun together: until there are enough of a key for the largest batch.

    Of keys of which fewer fit into memory there are several batches then.

    Args:
        keys: of the trials, in order.
        sizes: how many make a batch.
    """
    counts: dict[Hashable, int] = {}
    most = 0
    for place, key in enumerate(keys):
        if key not in counts:
            counts[key] = 0
            most = max(most, sizes.limit(key))
        counts[key] += 1
        if counts[key] > most:
            return place
    return sum(counts.values())


def split(trials: Sequence[T], parts: int = 2) -> list[Sequence[T]]:
    """A batch in parts of nearly equal size, in order."""
    size = -(-len(trials) // parts)
    return [trials[start : start + size] for start in range(0, len(trials), size)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, so that fewer trials might fit."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in text for each in _MEMORY_TEXTS)
