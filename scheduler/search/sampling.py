"""What config and seed does trial number t of a group have? A pure function of (seed, sweep, group, t).

Random numbers come from Philox, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011): block number c of the stream with key k is a hash of (k, c), so any trial can be made anywhere, in
any order, without the ones before it. The key is a hash of the seed and the sweep's name. A block's counter has four
64-bit words:

===== =============================================================================
word  holds
===== =============================================================================
0     configs: trial * blocks a trial + block; seeds: trial // 4 (4 numbers a block)
1     a hash of the group's canonical keys
2     the stream: 0 for configs, 1 for seeds
3     0
===== =============================================================================

So a range of trials is a contiguous range of counters, read by one call. It follows that any split of a range gives
the same trials; that widening 100 trials to 200 keeps the first 100; and that a group's trials depend on no other
group. Dimensions take their numbers in the order of their names, so the order in which a space is written does not
matter to random search; constants take none.

This module must not know which worker asks, how long a trial takes, or what its result was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from umbel.scheduler.errors import InternalError, SpaceError
from umbel.scheduler.search.domains import (
    Choice,
    Column,
    Constant,
    Derived,
    Domain,
    Grid,
    Indices,
    NotDrawnYetError,
    typed_column,
)
from umbel.scheduler.search.elementary import Floats
from umbel.scheduler.search.space import Path, Space, column_name, dimension_name

__all__ = ["MAX_TRIALS", "SEARCHES", "Search", "TrialBatch", "TrialSource", "rounds_of_grid", "validate_search"]

Search: TypeAlias = Literal["random", "grid", "tune"]

#: The searches that need no results to choose the next trial.
SEARCHES: Final[tuple[str, ...]] = get_args(Search)

#: Trials a group: with as many as 8 million groups, indices of a sweep's trials still fit 64 bits.
MAX_TRIALS: Final = 2**40

_CONFIG_STREAM: Final = 0
_SEED_STREAM: Final = 1
_WORDS_PER_BLOCK: Final = 4
_SEED_BITS: Final = 31
_SHARE_BITS: Final = 52  # so that the middle of every cell is a float, and none is 0 or 1

#: They take no random numbers.
_NOT_DRAWN: Final = (Constant, Derived, Grid)

_NO_KEYS: Final[Mapping[str, object]] = MappingProxyType({})

_FOR_EXAMPLE: Final = "for example trials=100, for a hundred in each group"


def validate_search(space: Space, search: str, trials: int | None) -> int:
    """How many trials a group has, once it is sure that this search can walk this space.

    Args:
        space: what to search.
        search: one of :data:`SEARCHES`.
        trials: trials a group; None means the whole grid.

    Raises:
        SpaceError: an unknown search; a continuous dimension on a grid, or a ``grid_search`` dimension in random
            search, named; no number of trials for random search; fewer than one trial, or more than the grid has.
    """
    if search not in SEARCHES:
        raise SpaceError(
            "there is no such search",
            got=repr(search),
            expected=" or ".join(repr(name) for name in SEARCHES),
            hint='search="random" suits every space',
        )
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, (int, np.integer))):
        raise SpaceError(
            "trials is not a whole number", got=repr(trials), expected="an integer of 1 or more", hint=_FOR_EXAMPLE
        )
    if trials is not None and trials < 1:
        raise SpaceError(
            "there must be at least one trial", got=f"trials={trials}", expected="trials >= 1", hint=_FOR_EXAMPLE
        )
    wanted = _grid_trials(space, trials) if search == "grid" else _random_trials(space, search, trials)
    if wanted > MAX_TRIALS:
        raise SpaceError(
            "there are too many trials",
            got=f"{wanted} trials a group",
            expected=f"at most {MAX_TRIALS}",
            hint="search fewer values, or give a smaller number of trials",
        )
    return wanted


def rounds_of_grid(space: Space, rounds: int) -> int:
    """How many trials ``rounds`` rounds through a space's ``grid_search`` dimensions are: Tune's ``num_samples``."""
    return rounds * math.prod(len(domain.values) for _, domain in space.dimensions if isinstance(domain, Grid))


def _random_trials(space: Space, search: str, trials: int | None) -> int:
    for path, domain in space.dimensions:
        if isinstance(domain, Grid) and search == "random":
            raise SpaceError(
                "random search can't walk a grid dimension",
                got=f"dimension {dimension_name(path)!r}: grid_search over {len(domain.values)} values",
                expected="domains to draw from",
                hint='use search="grid"; or search="tune", which draws the others anew for each point of the grid; or '
                "tune.choice instead of tune.grid_search",
            )
    if trials is None:
        raise SpaceError(
            "random search needs a number of trials",
            got="trials=None",
            expected="trials >= 1",
            hint=_FOR_EXAMPLE,
        )
    return int(trials)


def _grid_trials(space: Space, trials: int | None) -> int:
    size = space.grid_size()
    if trials is not None and trials > size:
        raise SpaceError(
            "there are more trials than the grid has points",
            got=f"trials={trials}, with {size} points",
            expected=f"trials <= {size}",
            hint='leave trials out to walk the whole grid, or use search="random"',
        )
    return size if trials is None else int(trials)


@dataclass(frozen=True, slots=True, eq=False)
class TrialBatch:
    """The configs and seeds of consecutive trials of one group, as columns."""

    space: Space
    #: By column name, in the space's order: a float64, int64 or bool array, or a list. Not to be changed.
    columns: dict[str, Column]
    #: One a trial, 0 <= seed < 2**31 (what every library takes), independent of the config.
    seeds: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seeds)

    def configs(self, extra: Mapping[str, object] = _NO_KEYS) -> list[dict[str, object]]:
        """One config a trial, nested as the space is, with plain Python values.

        Args:
            extra: the group's keys and values, merged into every config's top level.

        Returns:
            Dicts that share nothing mutable with one another, so that a trial that changes its config harms no other.

        Raises:
            SpaceError: a name is both in the space and in ``extra``.

        Cost: about 0.5 microseconds a trial with four dimensions and a group key, if nothing is nested.
        """
        tree: dict[str, Any] = {}
        for (path, domain), column in zip(self.space.dimensions, self.columns.values(), strict=True):
            branch = tree
            for key in path[:-1]:
                branch = branch.setdefault(key, {})
            branch[path[-1]] = _cells(domain, column)
        for name, value in extra.items():
            if name in tree:
                raise SpaceError(
                    "a name is both a group key and in the search space",
                    got=repr(name),
                    expected="each name of a config once",
                    hint="rename it in space= or in over=",
                )
            tree[name] = [_fresh(value) for _ in range(len(self))] if _is_container(value) else repeat(value)
        return _rows(tree)


def _rows(tree: Mapping[str, Any]) -> list[dict[str, object]]:
    """From a dict of columns, nested, to a list of dicts, nested."""
    names = tuple(tree)
    columns = [_rows(branch) if isinstance(branch, dict) else branch for branch in tree.values()]
    return [dict(zip(names, row, strict=False)) for row in zip(*columns, strict=False)]


def _cells(domain: Domain, column: Column) -> list[object]:
    if isinstance(column, np.ndarray):
        return cast("list[object]", column.tolist())
    values = domain.values if isinstance(domain, Choice) else column if isinstance(domain, Derived) else column[:1]
    return [_fresh(value) for value in column] if any(map(_is_container, values)) else column


def _is_container(value: object) -> bool:
    return isinstance(value, (list, dict, set, tuple, bytearray))


def _fresh(value: object) -> object:
    """A copy of nested containers; what they hold is shared (a deep copy of a model or a lock would fail or cost)."""
    if type(value) is list:
        return [_fresh(member) for member in value]
    if type(value) is tuple:
        return tuple(_fresh(member) for member in value)
    if type(value) is dict:
        return {key: _fresh(member) for key, member in value.items()}
    if isinstance(value, (list, dict, set, bytearray)):
        return copy(value)
    return value


@dataclass(frozen=True, slots=True)
class TrialSource:
    """The trials of every group of one sweep. Small, immutable, picklable: workers get it once and make their configs.

    Raises:
        SpaceError: as :func:`validate_search`, and for a seed that is no integer.
    """

    space: Space
    search: Search
    #: Any integer, negative ones too.
    seed: int
    #: The sweep's name: two sweeps with the same seed draw different trials.
    sweep: str
    #: Trials a group.
    trials: int
    _key: int = field(init=False, repr=False, compare=False)
    #: For each dimension, which of a trial's random words it takes; None for constants.
    _word_of: tuple[int | None, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise SpaceError("the seed is not an integer", got=repr(self.seed), expected="an integer")
        seed = int(self.seed)
        object.__setattr__(self, "trials", validate_search(self.space, self.search, self.trials))
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "_key", _hash(f"{seed} {self.sweep}", bits=128))
        drawn = sorted(path for path, domain in self.space.dimensions if not isinstance(domain, _NOT_DRAWN))
        word_of = {path: word for word, path in enumerate(drawn)}
        object.__setattr__(self, "_word_of", tuple(word_of.get(path) for path, _ in self.space.dimensions))

    def batch(self, group_key: str, start: int, stop: int) -> TrialBatch:
        """Trials start to stop (exclusive) of one group; equal however the range is split.

        Args:
            group_key: the group's canonical text, from ``umbel.scheduler.identity.group_key``.
            start: index of the first trial in the group.
            stop: one past the last, at most ``trials``.

        Cost: about 90 microseconds a call and 0.1 a trial, with four dimensions.
        """
        if not 0 <= start <= stop <= self.trials:
            raise InternalError(
                "a range of trials lies outside its group",
                got=f"[{start}, {stop})",
                expected=f"within [0, {self.trials})",
            )
        group = _hash(group_key, bits=64)
        columns = self._grid(start, stop) if self.search == "grid" else self._random(group, start, stop)
        words = self._words(_SEED_STREAM, group, start, stop - start)
        seeds = (words >> np.uint64(64 - _SEED_BITS)).astype(np.int64)
        batch = TrialBatch(self.space, dict(zip(self.space.column_names, columns, strict=True)), seeds)
        derived = [(path, domain) for path, domain in self.space.dimensions if isinstance(domain, Derived)]
        if derived:
            rows = zip(batch.configs(), seeds.tolist(), strict=True)
            values = [_derive(config, seed, derived) for config, seed in rows]
            for path, _ in derived:
                batch.columns[column_name(path)] = typed_column([each[path] for each in values])
        return batch

    def _random(self, group: int, start: int, stop: int) -> list[Column]:
        count = stop - start
        drawn = sum(word is not None for word in self._word_of)
        per_trial = -(-drawn // _WORDS_PER_BLOCK) * _WORDS_PER_BLOCK
        words = self._words(_CONFIG_STREAM, group, start * per_trial, count * per_trial)
        # The middles of 2**52 cells of (0, 1): exact, and never 0 or 1.
        shares: Floats = ((words >> np.uint64(64 - _SHARE_BITS)).astype(np.float64) + 0.5) * 2.0**-_SHARE_BITS
        by_word = shares.reshape(count, per_trial).T
        everywhere_first: Indices = np.zeros(count, dtype=np.int64)
        places = self._rounds(start, stop) if self.search == "tune" else {}
        return [
            domain.from_uniform(by_word[word])
            if word is not None
            else domain.from_index(places.get(path, everywhere_first))
            for (path, domain), word in zip(self.space.dimensions, self._word_of, strict=True)
        ]

    def _rounds(self, start: int, stop: int) -> dict[Path, Indices]:
        """The trials' places on each ``grid_search`` dimension, the first of them by name changing fastest."""
        rest: Indices = np.arange(start, stop, dtype=np.int64)
        places: dict[Path, Indices] = {}
        grids = {path: domain.count for path, domain in self.space.dimensions if isinstance(domain, Grid)}
        for path in sorted(grids):
            rest, places[path] = np.divmod(rest, grids[path])
        return places

    def _grid(self, start: int, stop: int) -> list[Column]:
        """The digits of the trial indices in the mixed radix of the dimensions' counts, the last one fastest."""
        rest: Indices = np.arange(start, stop, dtype=np.int64)
        columns: list[Column] = []
        counts = self.space.grid_counts()
        for (_, domain), count in zip(reversed(self.space.dimensions), reversed(counts), strict=True):
            rest, digit = np.divmod(rest, count)
            columns.append(domain.from_index(digit))
        columns.reverse()
        return columns

    def _words(self, stream: int, group: int, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Words [first, first + count) of a group's stream."""
        block, skipped = divmod(first, _WORDS_PER_BLOCK)
        # NumPy's Philox adds one to the counter before it makes a block, so its first block is numbered block + 1.
        generator = np.random.Philox(key=self._key, counter=np.array([block, group, stream, 0], dtype=np.uint64))
        return generator.random_raw(skipped + count)[skipped:]


def _derive(config: dict[str, object], seed: int, derived: list[tuple[Path, Derived]]) -> dict[Path, object]:
    """The values that follow from a trial's others, which are added to its config, in whatever order they need."""
    found: dict[Path, object] = {}
    while len(found) < len(derived):
        before = len(found)
        for path, domain in derived:
            if path in found:
                continue
            try:
                found[path] = domain.function(config, _hash(f"{seed} {dimension_name(path)}", bits=32))
            except NotDrawnYetError:
                continue
            except Exception as error:
                raise SpaceError(
                    f"dimension {dimension_name(path)!r}: its function can't compute the value of a trial",
                    got=f"{type(error).__name__}: {error}",
                    expected="a value for every config of this space",
                ) from error
            branch: Any = config
            for key in path[:-1]:
                branch = branch[key]
            branch[path[-1]] = found[path]
        if len(found) == before:
            open_ = [dimension_name(path) for path, _ in derived if path not in found]
            raise SpaceError(
                "values that follow from one another in a circle can't be computed",
                got=", ".join(open_),
                expected="functions of which at least one needs none of the others",
            )
    return found


def _hash(text: str, *, bits: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=bits // 8).digest(), "big")
