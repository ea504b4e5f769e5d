"""How does an embedding with a `padding_idx` train under vmap? By keeping gradients from the row of the padding itself.

torch's rule for vmap lays the embeddings of all trials one behind the other where trials look up rows of their own, and
forgets to move `padding_idx` along (torch 2.13), so that the padding would train in all trials but the first. It must
not know trials.
"""

from __future__ import annotations

import functools

import torch

__all__ = ["keep_padding_still"]


def keep_padding_still(module: torch.nn.Module) -> None:
    """Change the embeddings of a module in place; what they give stays the same.

    An embedding with a forward function of its own is left alone.
    """
    for part in module.modules():
        own = type(part).forward is not torch.nn.Embedding.forward
        if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None and not own:
            part.forward = functools.partial(_forward, part)


def _forward(part: torch.nn.Embedding, index: torch.Tensor) -> torch.Tensor:
    found = torch.nn.functional.embedding(
        index, part.weight, None, part.max_norm, part.norm_type, part.scale_grad_by_freq, part.sparse
    )
    return torch.where((index == part.padding_idx).unsqueeze(-1), found.detach(), found)
