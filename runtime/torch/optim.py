"""How are the weights of many trials updated at once, each with its own hyperparameters?

The weights of all trials are one matrix, a row a trial, so an update is about ten operations however many tensors and
trials there are. The arithmetic is that of torch.optim's SGD, Adam (Kingma & Ba, ICLR 2015) and AdamW (Loshchilov &
Hutter, ICLR 2019), operation by operation but for the order of roundings. Training many models by operations that are
stacked across them is HFTA's idea (Wang et al., MLSys 2021). It must not know modules, losses or data.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

__all__ = ["Adam", "Sgd", "make_optimizer"]


def make_optimizer(name: str, columns: Mapping[str, np.ndarray], flat: torch.Tensor, *, compiled: bool) -> Sgd | Adam:
    """An optimizer for the rows of ``flat``, which it changes in place.

    Args:
        name: "sgd", "adam" or "adamw".
        columns: its hyperparameters as float64, one value a row.
        flat: the weights (trials × weights).
        compiled: whether updates go through ``torch.compile``.
    """
    device = flat.device
    hyper = {key: torch.as_tensor(value, dtype=torch.float64, device=device) for key, value in columns.items()}
    return (
        Sgd(hyper, flat, compiled=compiled) if name == "sgd" else Adam(hyper, flat, name == "adamw", compiled=compiled)
    )


class Sgd:
    """Gradient descent with momentum: ``buffer = momentum · buffer + grad; weights -= lr · buffer``."""

    def __init__(self, hyper: dict[str, torch.Tensor], flat: torch.Tensor, *, compiled: bool) -> None:
        self._hyper = hyper
        self._buffer = torch.zeros_like(flat) if bool(hyper["momentum"].any()) else None
        self._update = torch.compile(_sgd) if compiled else _sgd
        self._set_columns(flat.dtype)

    def _set_columns(self, dtype: torch.dtype) -> None:
        hyper = self._hyper
        self._decay = _column(hyper["weight_decay"], dtype) if bool(hyper["weight_decay"].any()) else None
        self._momentum, self._lr = _column(hyper["momentum"], dtype), _column(hyper["lr"], dtype)

    def step(self, flat: torch.Tensor, grad: torch.Tensor) -> None:
        """Change ``flat`` by its gradient, which may be overwritten."""
        self._update(flat, grad, self._buffer, self._decay, self._momentum, self._lr)

    def select(self, kept: torch.Tensor, dtype: torch.dtype) -> None:
        """Go on with these rows only."""
        self._hyper = {key: value[kept] for key, value in self._hyper.items()}
        self._buffer = None if self._buffer is None else self._buffer[kept]
        self._set_columns(dtype)


class Adam:
    """Adam, and AdamW if ``decoupled``: weight decay by the weights themselves, not by way of the gradient."""

    def __init__(self, hyper: dict[str, torch.Tensor], flat: torch.Tensor, decoupled: bool, *, compiled: bool) -> None:
        self._hyper, self._decoupled = hyper, decoupled
        self._mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)
        self._taken = 0
        self._update = torch.compile(_adam) if compiled else _adam
        self._set_columns(flat.dtype)

    def _set_columns(self, dtype: torch.dtype) -> None:
        hyper, decay = self._hyper, self._hyper["weight_decay"]
        self._shrink = self._decay = None
        if bool(decay.any()):
            if self._decoupled:
                self._shrink = _column(1 - hyper["lr"] * decay, dtype)
            else:
                self._decay = _column(decay, dtype)
        self._rise1, self._rise2 = _column(1 - hyper["beta1"], dtype), _column(1 - hyper["beta2"], dtype)
        self._eps = _column(hyper["eps"], dtype)

    def step(self, flat: torch.Tensor, grad: torch.Tensor) -> None:
        """Change ``flat`` by its gradient, which may be overwritten."""
        self._taken += 1
        hyper = self._hyper  # corrections of the means' bias in float64, as torch.optim has them
        pace = _column(-hyper["lr"] / (1 - hyper["beta1"] ** self._taken), flat.dtype)
        spread = _column((1 - hyper["beta2"] ** self._taken).rsqrt(), flat.dtype)
        state = (self._mean, self._square)
        self._update(flat, grad, *state, self._shrink, self._decay, self._rise1, self._rise2, self._eps, pace, spread)

    def select(self, kept: torch.Tensor, dtype: torch.dtype) -> None:
        """Go on with these rows only."""
        self._hyper = {key: value[kept] for key, value in self._hyper.items()}
        self._mean, self._square = self._mean[kept], self._square[kept]
        self._set_columns(dtype)


def _column(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype)[:, None]


def _sgd(
    flat: torch.Tensor,
    grad: torch.Tensor,
    buffer: torch.Tensor | None,
    decay: torch.Tensor | None,
    momentum: torch.Tensor,
    lr: torch.Tensor,
) -> None:
    if decay is not None:
        grad.addcmul_(flat, decay)
    if buffer is not None:
        grad = buffer.mul_(momentum).add_(grad)
    flat.addcmul_(grad, lr, value=-1)


def _adam(
    flat: torch.Tensor,
    grad: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    shrink: torch.Tensor | None,
    decay: torch.Tensor | None,
    rise1: torch.Tensor,
    rise2: torch.Tensor,
    eps: torch.Tensor,
    pace: torch.Tensor,
    spread: torch.Tensor,
) -> None:
    if shrink is not None:
        flat.mul_(shrink)
    if decay is not None:
        grad.addcmul_(flat, decay)
    mean.lerp_(grad, rise1)
    square.lerp_(grad.mul_(grad), rise2)
    flat.addcdiv_(mean * pace, square.sqrt().mul_(spread).add_(eps))
