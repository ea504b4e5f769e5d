"""Can this module, with this loss and these data, be trained as one with others; and if not, whose fault is it?

Tried out on two rows before the first step, so that what the user meets is one error that says what to change. It must
not know how training goes on.
"""

from __future__ import annotations

import copy
import traceback

import torch

from umbel.runtime.torch.data import Data
from umbel.runtime.torch.stack import Forward, Layout, Loss, Weights, weighted_loss
from umbel.scheduler.errors import UsageError

__all__ = ["check_fit"]

_FUNCTIONS = torch.nn.functional
_BY_ELEMENT: tuple[object, ...] = (
    *(_FUNCTIONS.mse_loss, _FUNCTIONS.l1_loss, _FUNCTIONS.huber_loss, _FUNCTIONS.smooth_l1_loss),
    _FUNCTIONS.binary_cross_entropy_with_logits,
)
_BY_ELEMENT_CLASSES = (
    *(torch.nn.MSELoss, torch.nn.L1Loss, torch.nn.HuberLoss, torch.nn.SmoothL1Loss),
    torch.nn.BCEWithLogitsLoss,
)


def check_fit(
    module: torch.nn.Module, loss: Loss, forward: Forward, layout: Layout, weights: Weights, data: Data
) -> list[str]:
    """Try the first module alone, then two as one, each on two rows, and say whose fault it is if that fails.

    Returns:
        the parameters that the loss does not depend on: torch.optim leaves them as they are.
    """
    two = torch.zeros(2, dtype=torch.long, device=weights.flat.device)
    batch = data.select(two).take(
        torch.arange(2, device=weights.flat.device).clamp(max=data.rows - 1).repeat(2, 1), None
    )
    inputs, target, of_row = batch.first()
    kind = type(module).__name__
    small = weights.select(two)
    alone = {name: values[0].clone() for name, values in {**layout.views(small.flat), **small.buffers}.items()}
    own = copy.deepcopy(module).to(weights.flat.device, weights.flat.dtype).train()
    with torch.random.fork_rng(devices=[]):
        try:
            output = torch.func.functional_call(own, alone, inputs)
            _check_shapes(loss, output, target)
            found = weighted_loss(loss, output, target, of_row)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{kind} or the loss can't be applied to the data, even for one trial alone",
                got=f"{type(error).__name__}: {error}",
                expected=f"inputs like {', '.join(_shown(part) for part in inputs)} and targets like {_shown(target)}",
            ) from error
    if not isinstance(found, torch.Tensor) or found.ndim > 0:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise UsageError("the loss is not one number", got=str(shape), expected="the mean over rows: reduction='mean'")
    if data.weights is not None:
        _check_mean(own, alone, loss, data, data.weights)
    try:
        leaves = layout.leaves(small.flat)
        losses = forward.training_losses(small, leaves, batch, 0, trial_run=True)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    except Exception as error:
        raise UsageError(
            f"{kind} can't be trained as one with others: torch.func does not support {_culprit(error, kind)}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            expected="no random numbers but nn.Dropout's, no .item(), no branches that depend on values",
            hint="rewrite it, for instance with torch.where for branches; or train such trials one at a time",
        ) from error
    return [name for name, gradient in zip(leaves, gradients, strict=True) if gradient is None]


def _check_shapes(loss: Loss, output: object, target: torch.Tensor) -> None:
    """Losses by element would spread a target (rows,) over an output (rows, 1), every row against every other."""
    by_element = loss in _BY_ELEMENT or isinstance(loss, _BY_ELEMENT_CLASSES)
    if not by_element or not isinstance(output, torch.Tensor) or output.shape == target.shape:
        return
    hint = None
    if output.shape == (*target.shape, 1):
        hint = "give the target an axis of one, y[:, None]; or let the module drop its last axis, with nn.Flatten(0)"
    elif target.shape == (*output.shape, 1):
        hint = "leave out the target's last axis, y[:, 0]"
    raise UsageError(
        "the module's output and the target differ in shape, and this loss compares them element by element",
        got=f"output {_shown(output)}, target {_shown(target)}",
        expected="the same shape",
        hint=hint,
    )


def _check_mean(
    own: torch.nn.Module, alone: dict[str, torch.Tensor], loss: Loss, data: Data, weights: torch.Tensor
) -> None:
    """Weights, and so padding, are of use only for losses that are the mean of what each row by itself would give."""
    counts = weights > 0
    inputs, target = tuple(part[counts] for part in data.inputs), data.target[counts]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            output = torch.func.functional_call(own.eval(), alone, inputs)
            whole = loss(output, target)
            mean = weighted_loss(loss, output, target, torch.ones_like(weights[counts]))
        except Exception:  # vmap's, of which the next check tells; or it wants as many rows as a group has
            return
    if torch.allclose(whole.double(), mean.double(), rtol=1e-3, atol=1e-6, equal_nan=True):
        return
    raise UsageError(
        "the loss is not the mean over rows, which weights and groups of unequal length need",
        got=f"{float(whole):.6g} for {len(target)} rows, {float(mean):.6g} as the mean of each row's own loss",
        expected="a loss that is the mean over rows; or no weights, and groups of equal length",
        hint="reduction='sum', class weights and ignored targets (ignore_index) make it something else: "
        "give such rows a weight of 0 instead",
    )


def _shown(values: torch.Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {('rows', *values.shape[1:])}".replace("'", "")


def _culprit(error: BaseException, default: str) -> str:
    """The innermost module whose forward pass was running."""
    found = default
    for frame, _ in traceback.walk_tb(error.__traceback__):
        own = frame.f_locals.get("self")
        if isinstance(own, torch.nn.Module):
            found = type(own).__name__
    return f"the forward pass of {found}"
