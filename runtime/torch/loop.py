"""How does training go on, step by step, and which trials end early?

A trial that stops is copied to where the final weights are kept, at once; it is trained on beside the others, for
nothing, until enough have stopped that taking them out pays for copying the rest. It must not know where modules and
data come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from umbel.runtime.torch.data import Data, Minibatches
from umbel.runtime.torch.optim import Adam, Sgd
from umbel.runtime.torch.stack import Forward, Layout, Weights
from umbel.scheduler.errors import UsageError

__all__ = ["Checks", "Stop", "Training"]

#: Stopped trials are taken out when at most this share of a batch still trains.
COMPACT_SHARE = 0.75

#: Told (steps taken, trials that still train, their losses): which of these stop? A boolean each, or None.
Stop = Callable[[int, np.ndarray, np.ndarray], np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Checks:
    """When to look at losses, at which, and who says what is to stop."""

    every: int
    patience: int | None
    min_delta: float
    stop: Stop | None
    held: Data | None

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at."""
        return self.patience is not None or self.stop is not None or self.held is not None


class Training:
    """Trials on their way; `run` once.

    Args:
        forward: of all trials.
        layout: where the parameters are in the matrix of weights.
        weights: at the start; changed in place.
        data: to train on.
        batches: who chooses each step's rows; None: all rows.
        optimizer: for the rows of the matrix.
        checks: what ends trials early.
    """

    def __init__(
        self,
        forward: Forward,
        layout: Layout,
        weights: Weights,
        data: Data,
        batches: Minibatches | None,
        optimizer: Sgd | Adam,
        checks: Checks,
    ) -> None:
        self._forward, self._layout, self._optimizer, self._checks = forward, layout, optimizer, checks
        self._data, self._batches, self._held = data, batches, checks.held
        count, device = weights.flat.shape[0], weights.flat.device
        self._all, self._final = (
            weights,
            None if not checks.wanted else weights.select(torch.arange(count, device=device)),
        )
        self._now, self._leaves = weights, layout.leaves(weights.flat)
        #: The trial of each row that is still in the batch, and whether it still trains.
        self._trials, self._training = np.arange(count), np.ones(count, dtype=bool)
        self._best = torch.full((count,), torch.inf, dtype=weights.flat.dtype, device=device)
        self._waited = torch.zeros(count, dtype=torch.int64, device=device)

    def run(self, steps: int) -> tuple[Weights, np.ndarray, np.ndarray | None, np.ndarray]:
        """Train; returns the final weights, losses of steps, those of checks on held-out data, and steps taken."""
        count, checks = len(self._trials), self._checks
        history = torch.full((steps, count), torch.nan, dtype=self._best.dtype, device=self._best.device)
        checked = history.new_full((steps // checks.every if checks.held is not None else 0, count), torch.nan)
        taken, last = np.full(count, steps), steps
        at = slice(None)
        for step in range(steps):
            losses = self._step(step)
            history[step, at] = losses
            if not checks.wanted or (step + 1) % checks.every:
                continue
            if self._held is not None:
                losses = self._forward.losses(self._now, self._held.all())
                checked[step // checks.every, at] = losses
            stopping = self._stopping(step + 1, losses)
            if not stopping.any():
                continue
            taken[self._trials[stopping]] = step + 1
            self._keep(stopping)
            self._training &= ~stopping
            if not self._training.any():
                last = step + 1
                break
            if self._training.sum() <= COMPACT_SHARE * len(self._trials):
                self._compact()
                at = torch.from_numpy(self._trials).to(losses.device)
        self._keep(self._training)
        final = self._all if self._final is None else self._final
        return final, *_cut(history, checked, taken, last, checks), taken

    def _step(self, step: int) -> torch.Tensor:
        batch = self._data.all() if self._batches is None else self._batches.next(self._data)
        losses = self._forward.training_losses(self._now, self._leaves, batch, step)
        grads = torch.autograd.grad(
            losses.sum(), tuple(self._leaves.values()), allow_unused=True, materialize_grads=True
        )
        flat = self._now.flat
        with torch.no_grad():
            self._optimizer.step(flat, torch.cat([grad.reshape(len(flat), -1) for grad in grads], dim=1))
        return losses.detach()

    def _stopping(self, taken: int, losses: torch.Tensor) -> np.ndarray:
        """Which rows stop now, of those that still train."""
        checks = self._checks
        stopping = np.zeros(len(self._trials), dtype=bool)
        if checks.patience is not None:
            better = losses < self._best - checks.min_delta  # a NaN never is
            self._best = torch.where(better, losses, self._best)
            self._waited = torch.where(better, 0, self._waited + 1)
            stopping |= (self._waited >= checks.patience).cpu().numpy()
        if checks.stop is not None:
            asked = self._training & ~stopping
            said = checks.stop(taken, self._trials[asked], losses.cpu().numpy()[asked]) if asked.any() else None
            if said is not None:
                said = np.asarray(said)
                if said.shape != (asked.sum(),) or said.dtype != bool:
                    raise UsageError(
                        "stop did not say which trials stop",
                        got=f"{said.dtype} {said.shape}",
                        expected=f"{asked.sum()} booleans, or None",
                    )
                stopping[asked] = said
        return stopping & self._training

    def _keep(self, which: np.ndarray) -> None:
        """Copy these rows to the final weights."""
        if self._final is not None and which.any():
            device = self._now.flat.device
            at, rows = self._trials[which], np.flatnonzero(which)
            self._final.put(torch.from_numpy(at).to(device), self._now, torch.from_numpy(rows).to(device))

    def _compact(self) -> None:
        """Take out what has stopped."""
        rows = np.flatnonzero(self._training)
        kept = torch.from_numpy(rows).to(self._now.flat.device)
        self._now = self._now.select(kept)
        self._leaves = self._layout.leaves(self._now.flat)
        self._optimizer.select(kept, self._now.flat.dtype)
        self._data = self._data.select(kept)
        self._held = None if self._held is None else self._held.select(kept)
        if self._batches is not None:
            self._batches.select(rows)
        self._best, self._waited = self._best[kept], self._waited[kept]
        self._trials, self._training = self._trials[rows], self._training[rows]


def _cut(
    history: torch.Tensor, checked: torch.Tensor, taken: np.ndarray, last: int, checks: Checks
) -> tuple[np.ndarray, np.ndarray | None]:
    """Losses up to the last step, NaN where a trial had stopped."""
    losses = history[:last].cpu().numpy()
    losses[np.arange(last)[:, None] >= taken] = np.nan
    if checks.held is None:
        return losses, None
    held = checked[: last // checks.every].cpu().numpy()
    held[(np.arange(len(held))[:, None] + 1) * checks.every > taken] = np.nan
    return losses, held
