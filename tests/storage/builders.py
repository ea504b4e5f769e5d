"""Torch modules of a project that is installed, marked and not."""

from __future__ import annotations

import torch

from umbel.torch import builder


@builder
class Net(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, *, depth: int = 1) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Deeper(Net):
    """A subclass, which is not marked."""


@builder
def tied(size: int) -> torch.nn.Module:
    first, second = torch.nn.Linear(size, size), torch.nn.Linear(size, size)
    second.weight = first.weight
    return torch.nn.Sequential(first, second)


def unmarked(size: int) -> torch.nn.Module:
    return torch.nn.Linear(size, size)


@builder
def of_config(config: dict[str, int]) -> torch.nn.Module:
    return torch.nn.Linear(config["size"], 1)
