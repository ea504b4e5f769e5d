"""One trial trained by a plain torch.optim loop: what fused trials are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
HYPER = ("lr", "weight_decay", "betas", "momentum", "eps")


@dataclass
class Alone:
    module: nn.Module
    history: list[float]
    loss: float
    steps: int
    validation: list[float]


def train_alone(
    make_module: Callable[[dict[str, Any]], nn.Module],
    data: tuple[torch.Tensor, ...],
    config: dict[str, Any],
    loss: Callable[..., torch.Tensor],
    optimizer: str,
    steps: int,
    *,
    batch_size: int | None = None,
    patience: int | None = None,
    check_every: int = 1,
    validation: tuple[torch.Tensor, ...] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Alone:
    *inputs, target = (part.to(dtype) if part.is_floating_point() else part for part in data)
    torch.manual_seed(config.get("seed", 0))
    module = make_module(config).to(dtype).train()
    trained = [p for p in module.parameters() if p.requires_grad]
    chosen = OPTIMIZERS[optimizer](trained, **{key: config[key] for key in HYPER if key in config})
    order = torch.Generator().manual_seed(config.get("seed", 0))
    batches: list[torch.Tensor] = []
    history, checked, best, waited, taken = [], [], float("inf"), 0, 0
    for taken in range(1, steps + 1):
        if not batches:
            rows = torch.arange(len(target))
            batches = (
                [rows] if batch_size is None else list(torch.randperm(len(target), generator=order).split(batch_size))
            )
        at = batches.pop(0)
        chosen.zero_grad()
        value = loss(module(*(part[at] for part in inputs)), target[at])
        value.backward()
        chosen.step()
        history.append(value.item())
        if taken % check_every:
            continue
        monitored = history[-1]
        if validation is not None:
            monitored = evaluate(module, validation, loss, dtype)
            checked.append(monitored)
        best, waited = (monitored, 0) if monitored < best else (best, waited + 1)
        if patience is not None and waited >= patience:
            break
    return Alone(module, history, evaluate(module, data, loss, dtype), taken, checked)


def evaluate(
    module: nn.Module, data: tuple[torch.Tensor, ...], loss: Callable[..., torch.Tensor], dtype: torch.dtype
) -> float:
    *inputs, target = (part.to(dtype) if part.is_floating_point() else part for part in data)
    module.eval()
    with torch.no_grad():
        value = float(loss(module(*inputs), target))
    module.train()
    return value
