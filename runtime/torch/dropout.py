"""How does dropout work in fused trials: each trial with its own rate, and its own random numbers?

Random numbers of a generator that all trials share would make a trial's result depend on who else is in its batch. Here
a unit is dropped by a hash of (the trial's seed, the step, the dropout module, the unit's place), so a trial drops the
same units alone, in any batch, and on any device. They are not the numbers that torch.nn.Dropout would draw, so
training with dropout agrees with plain torch in distribution only.

The hash is two rounds of xorshift and multiply on 32 bits with a constant that T. Mueller found ("What integer hash
function are good that accepts an integer hash key?", Stack Overflow, 2012; rated by C. Wellons, hash-prospector, 2018).
It must not know how trials are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["TrialDropout", "Units", "dropout_keys", "trial_keys"]

_GOLDEN = -0x61C88647  # 2^32 / golden ratio, odd, as a signed number
_ROUNDS, _LAST = ((16, 0x45D9F3B), (16, 0x45D9F3B)), 16
_ALL = 0xFFFFFFFF


class Units:
    """What the dropout modules of one stacked module share while it runs: this trial's rates and keys."""

    __slots__ = ("calls", "keys", "rates")

    def __init__(self) -> None:
        #: A rate a dropout module; None: nothing is dropped.
        self.rates: torch.Tensor | None = None
        #: A key a dropout module, for this step (int32).
        self.keys: torch.Tensor | None = None
        #: How many dropouts this forward pass has done: a module may be applied more than once.
        self.calls = 0

    def begin(self, rates: torch.Tensor | None, keys: torch.Tensor | None) -> None:
        """Before a forward pass."""
        self.rates, self.keys, self.calls = rates, keys, 0


class TrialDropout(torch.nn.Module):  # type: ignore[misc]
    """Stands in for a ``torch.nn.Dropout`` in the module that all trials share."""

    def __init__(self, place: int, units: Units) -> None:
        super().__init__()
        self.place, self.units = place, units

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop units while training."""
        units = self.units
        if not self.training or units.rates is None or units.keys is None:
            return values
        rate, count = units.rates[self.place], math.prod(values.shape)
        at = torch.arange(units.calls * count, (units.calls + 1) * count, dtype=torch.int32, device=values.device)
        units.calls += 1
        bits = _hash(at.reshape(values.shape), units.keys[self.place])
        # bits are uniform over the signed 32-bit numbers: kept with probability 1 - rate
        threshold = (rate.double() * 2.0**32 - 2.0**31).clamp(max=2.0**31 - 1).to(torch.int32)
        scale = torch.where(rate < 1, 1 / (1 - rate), 0).to(values.dtype)
        return values * ((bits >= threshold).to(values.dtype) * scale)  # faster than where, forwards and backwards


def trial_keys(seeds: Sequence[int]) -> np.ndarray:
    """A 32-bit key for each trial, from its whole seed."""
    return np.array(
        [np.random.SeedSequence(seed % 2**64).generate_state(1)[0] for seed in seeds], dtype=np.uint32
    ).view(np.int32)


def dropout_keys(keys: torch.Tensor, step: int, count: int) -> torch.Tensor:
    """A key for each trial and each of ``count`` dropout modules at a step (trials × modules, int32)."""
    places = torch.arange(step * count, (step + 1) * count, dtype=torch.int32, device=keys.device)
    return _hash(places, _hash(keys, keys.new_zeros(()))[:, None])


def _hash(numbers: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """32 bits (int32) from a number and a key."""
    if torch.compiler.is_compiling():  # where int32 may not overflow: in C++ that means nothing
        bits = (numbers.long() * _GOLDEN + key) & _ALL
        for shift, factor in _ROUNDS:
            bits = ((bits ^ (bits >> shift)) * factor) & _ALL
        return (bits ^ (bits >> _LAST)).to(torch.int32)
    bits = numbers * _GOLDEN + key
    for shift, factor in _ROUNDS:  # in place: new memory would cost more than the arithmetic
        bits.bitwise_xor_((bits >> shift).bitwise_and_(_ALL >> shift)).mul_(factor)
    return bits.bitwise_xor_((bits >> _LAST).bitwise_and_(_ALL >> _LAST))
