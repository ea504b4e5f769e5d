"""On which rows does each trial train: the same for all, or those of its group; all at once, or in minibatches?

Groups of unequal length are padded by copies of a row, and weights of zero take the padding out of every loss. It must
not know modules or optimizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from umbel.scheduler.errors import UsageError

__all__ = ["Batch", "Data", "Minibatches", "read_data", "read_groups", "to_tensor"]

_EXPECTED = "(X, y), arrays or tensors with as many rows; or a list of such pairs, one a group"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees."""

    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor
    #: One weight a row; None: all rows count alike.
    weights: torch.Tensor | None
    #: Whether the tensors have a leading axis of trials; otherwise all trials see the same.
    stacked: bool

    def first(self) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor | None]:
        """What the first trial sees."""
        if not self.stacked:
            return self.inputs, self.target, self.weights
        weights = None if self.weights is None else self.weights[0]
        return tuple(part[0] for part in self.inputs), self.target[0], weights


@dataclass(slots=True)
class Data:
    """The rows of all groups, and which group each trial has."""

    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor
    weights: torch.Tensor | None
    #: The group of each trial (int64); None: no axis of groups, all trials have the same rows.
    groups: torch.Tensor | None
    _all: Batch | None = None

    @property
    def rows(self) -> int:
        """Rows of a group, with padding."""
        return int(self.target.shape[0 if self.groups is None else 1])

    def select(self, kept: torch.Tensor) -> Data:
        """The data of these trials only."""
        return self if self.groups is None else Data(self.inputs, self.target, self.weights, self.groups[kept])

    def all(self) -> Batch:
        """Every row of every trial."""
        if self._all is None:
            if self.groups is None:
                self._all = Batch(self.inputs, self.target, self.weights, stacked=False)
            else:
                weights = None if self.weights is None else self.weights[self.groups]
                inputs = tuple(part[self.groups] for part in self.inputs)
                self._all = Batch(inputs, self.target[self.groups], weights, stacked=True)
        return self._all

    def take(self, rows: torch.Tensor, valid: torch.Tensor | None) -> Batch:
        """These rows of each trial (trials × rows); ``valid`` is zero where a row only fills up."""
        at: Any = rows if self.groups is None else (self.groups[:, None], rows)
        weights = None if self.weights is None else self.weights[at]
        if valid is not None:
            weights = valid if weights is None else weights * valid
        return Batch(tuple(part[at] for part in self.inputs), self.target[at], weights, stacked=True)


class Minibatches:
    """Each trial's own order of its rows: ``torch.randperm`` by a generator of its own, seeded by the trial's seed.

    An epoch of a trial is ``torch.randperm(n, generator=generator).split(batch_size)``, the last batch as short as it
    may be; rows of weight zero are not among the ``n``.
    """

    def __init__(self, data: Data, batch_size: int, seeds: Sequence[int]) -> None:
        self._size = batch_size
        self._usable = _usable_rows(data, len(seeds))
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._counts = np.array([len(usable) for usable in self._usable])
        self._order = np.zeros((len(seeds), int(self._counts.max())), dtype=np.int64)
        self._at = self._counts.copy()

    def next(self, data: Data) -> Batch:
        """The next batch of every trial; ``data`` must be those of the trials that are left."""
        for trial in np.flatnonzero(self._at >= self._counts):
            usable = self._usable[trial]
            order = torch.randperm(len(usable), generator=self._generators[trial]).numpy()
            self._order[trial, : len(usable)] = usable[order]
            self._at[trial] = 0
        width = min(self._size, int((self._counts - self._at).max()))
        places = self._at[:, None] + np.arange(width)
        valid = places < self._counts[:, None]
        rows = np.take_along_axis(self._order, np.minimum(places, self._counts[:, None] - 1), axis=1)
        self._at += self._size
        target = data.target
        weights = None
        if not valid.all():
            dtype = torch.float32 if data.weights is None else data.weights.dtype
            weights = torch.from_numpy(valid).to(target.device, dtype)
        return data.take(torch.from_numpy(rows).to(target.device), weights)

    def select(self, kept: np.ndarray) -> None:
        """Go on with these trials only."""
        self._usable = [self._usable[i] for i in kept]
        self._generators = [self._generators[i] for i in kept]
        self._counts, self._order, self._at = self._counts[kept], self._order[kept], self._at[kept]


def _usable_rows(data: Data, trials: int) -> list[np.ndarray]:
    if data.weights is None:
        return [np.arange(data.rows)] * trials
    weights = data.weights.cpu().numpy()
    if data.groups is None:
        return [np.flatnonzero(weights > 0)] * trials
    by_group = [np.flatnonzero(of_group > 0) for of_group in weights]
    return [by_group[group] for group in data.groups.tolist()]


def read_data(
    data: Any,
    groups: Sequence[int] | np.ndarray | None,
    weights: Any,
    trials: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    name: str = "data",
) -> Data:
    """Check data as `umbel.torch.fit_many` takes them, and bring them to a device.

    Raises:
        UsageError: they are not what is expected; what differs is named.
    """
    lengths: list[int] | None = None
    if isinstance(data, list):
        if weights is not None:
            raise UsageError(
                f"{name} is a list, whose padding makes the weights", got="weights=", expected="one of both"
            )
        parts, lengths = _pad(data, dtype, name)
        groups = np.arange(len(data)) if groups is None else groups
    elif isinstance(data, tuple) and len(data) > 1:
        parts = [to_tensor(part, dtype, name) for part in data]
    else:
        raise UsageError(f"{name} is not inputs and a target", got=type(data).__name__, expected=_EXPECTED)
    stacked = groups is not None
    lead = 2 if stacked else 1
    sizes = [tuple(part.shape[:lead]) for part in parts]
    if 0 in sizes[0] and len(set(sizes)) == 1:
        raise UsageError(f"{name} has no rows", got=str(tuple(parts[0].shape)), expected="at least one row")
    if any(part.ndim < lead for part in parts) or len(set(sizes)) > 1:
        raise UsageError(
            f"the arrays of {name} don't fit each other",
            got=", ".join(str(tuple(part.shape)) for part in parts),
            expected="the same groups and rows first in each" if stacked else "the same rows first in each",
            hint=None if stacked else "data sets of several groups need groups=, the group of each trial",
        )
    of_row = None if weights is None else to_tensor(weights, dtype, "weights").float()
    if lengths is not None and len(set(lengths)) > 1:
        of_row = (torch.arange(sizes[0][1]) < torch.tensor(lengths)[:, None]).float()
    of_trial = None if groups is None else read_groups(groups, trials, sizes[0][0])
    if of_row is not None:
        parts = _copied_over(parts, of_row, sizes[0], name)
        of_row = of_row.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    moved = [part.to(device) for part in parts]
    return Data(tuple(moved[:-1]), moved[-1], of_row, None if of_trial is None else of_trial.to(device))


def _pad(data: list[Any], dtype: torch.dtype, name: str) -> tuple[list[torch.Tensor], list[int]]:
    """Data sets of groups in one tensor a part, filled up with what `_copied_over` replaces, and their lengths."""
    if not data or not all(isinstance(pair, tuple) and len(pair) == len(data[0]) > 1 for pair in data):
        raise UsageError(
            f"{name} is not a list of pairs", got=type(data[0]).__name__ if data else "[]", expected=_EXPECTED
        )
    sets = [[to_tensor(part, dtype, name) for part in pair] for pair in data]
    for group, pair in enumerate(sets):
        shapes = [tuple(part.shape) for part in pair]
        first = [tuple(part.shape) for part in sets[0]]
        if len({shape[:1] for shape in shapes}) > 1 or [shape[1:] for shape in shapes] != [
            shape[1:] for shape in first
        ]:
            raise UsageError(
                f"the data of group {group} don't fit each other, or those of group 0",
                got=f"{shapes}, and {first} in group 0",
                expected="as many rows in each array of a group; the same further axes in all groups",
            )
    stack = torch.nn.utils.rnn.pad_sequence
    parts = [stack([pair[at] for pair in sets], batch_first=True) for at in range(len(sets[0]))]
    return parts, [len(pair[0]) for pair in sets]


def _copied_over(
    parts: list[torch.Tensor], weights: torch.Tensor, size: tuple[int, ...], name: str
) -> list[torch.Tensor]:
    if tuple(weights.shape) != size or not bool(torch.isfinite(weights).all() & (weights >= 0).all()):
        raise UsageError(
            f"the weights don't fit {name}",
            got=f"{tuple(weights.shape)}, from {float(weights.min()):g} to {float(weights.max()):g}",
            expected=f"{size}, finite and not below 0",
        )
    if not bool((weights > 0).any(dim=-1).all()):
        raise UsageError(f"a group of {name} has no row of weight above 0", expected="at least one row to train on")
    # Whatever stands in a row that doesn't count, a NaN for instance, must not reach a gradient by way of 0 · NaN. Nor
    # would zeros do: not every loss is finite there. So it becomes a copy of a row of its group that counts.
    counts = (weights > 0).cpu()
    rows = torch.where(counts, torch.arange(size[-1]), counts.int().argmax(dim=-1, keepdim=True))
    at: Any = rows if len(size) == 1 else (torch.arange(size[0])[:, None], rows)
    return [part[at] for part in parts]


def read_groups(groups: Any, trials: int, count: int) -> torch.Tensor:
    """The group of each trial, checked."""
    found = np.asarray(groups)
    if found.shape != (trials,) or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= count:
        raise UsageError(
            "groups does not say the group of each trial",
            got=f"{found.dtype} {found.shape}" + (f", {found.min()} to {found.max()}" if found.size else ""),
            expected=f"{trials} whole numbers from 0 to {count - 1}",
        )
    return torch.as_tensor(found.astype(np.int64))


def to_tensor(values: Any, dtype: torch.dtype, name: str) -> torch.Tensor:
    """A tensor; floating-point numbers in a given type, whole numbers as they are."""
    try:
        found = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
    except TypeError as error:
        raise UsageError(f"{name} has an array that is not numeric", got=str(error), expected="numbers") from None
    return found.detach().to(dtype) if found.is_floating_point() else found.detach()
