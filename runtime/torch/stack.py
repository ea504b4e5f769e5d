"""How do many modules become one: weights in one matrix, a forward function for all trials at once?

``torch.func``'s way of ensembles: ``functional_call`` under ``vmap``. The matrix holds a row a trial, of which each
parameter is a view, so that optimizers see one tensor. It must not know optimizers, steps or early stopping.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from umbel.runtime.torch.data import Batch
from umbel.runtime.torch.dropout import TrialDropout, Units, dropout_keys, trial_keys
from umbel.runtime.torch.embedding import keep_padding_still
from umbel.runtime.torch.structure import Facts, check_supported, difference, facts_of, refuse_differing
from umbel.scheduler.errors import UsageError

__all__ = ["Forward", "Layout", "Loss", "Weights", "build", "freeze"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MakeModule = Callable[[dict[str, Any]], torch.nn.Module]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter is in a row of the matrix."""

    #: Name, first column and shape of each parameter that is trained.
    parameters: tuple[tuple[str, int, tuple[int, ...]], ...]
    columns: int

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters in a matrix (trials × columns), by name (trials × shape)."""
        trials = flat.shape[0]
        return {
            name: flat[:, start : start + _size(shape)].view(trials, *shape) for name, start, shape in self.parameters
        }

    def leaves(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same, as what gradients are taken to; they follow later changes of the matrix."""
        return {name: values.detach().requires_grad_() for name, values in self.views(flat).items()}


@dataclass(slots=True)
class Weights:
    """All that training changes, and all that differs between trials; a row a trial everywhere."""

    flat: torch.Tensor
    #: Buffers, and parameters that are not trained.
    buffers: dict[str, torch.Tensor]
    #: A rate for each nn.Dropout; None: no unit is ever dropped.
    rates: torch.Tensor | None
    keys: torch.Tensor

    def select(self, kept: torch.Tensor) -> Weights:
        """Copies of these trials' rows."""
        buffers = {name: values[kept] for name, values in self.buffers.items()}
        return Weights(self.flat[kept], buffers, None if self.rates is None else self.rates[kept], self.keys[kept])

    def put(self, at: torch.Tensor, other: Weights, rows: torch.Tensor) -> None:
        """Keep other's weights and buffers of ``rows`` in the rows ``at``."""
        self.flat[at] = other.flat[rows]
        for name, values in self.buffers.items():
            values[at] = other.buffers[name][rows]


def build(
    make_module: MakeModule,
    rows: list[dict[str, Any]],
    seeds: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    weighted: bool,
    mixed: bool,
) -> tuple[torch.nn.Module, Layout, Weights]:
    """Make every trial's module, as it would be made alone after ``torch.manual_seed(seed)``, and stack them.

    Modules are made on the CPU whatever the device, so that they are the same ones everywhere, and one at a time, so
    that no more than two live at once.

    Returns:
        the first module, where the parameters are, and the weights of all, on the device.

    Raises:
        UsageError: they differ in more than weights and dropout rates, or something in them is not supported.
    """
    first: torch.nn.Module | None = None
    facts: Facts = {}
    with torch.random.fork_rng(devices=[]):
        for trial, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            torch.default_generator.manual_seed(seed)  # what torch.manual_seed does, here where no device is used
            try:
                module = make_module(dict(row))
            except Exception as error:
                error.add_note(f"in make_module of trial {trial}: {row}")
                raise
            if first is None:
                check_supported(module, weighted=weighted, mixed=mixed)
                first, facts = module, facts_of(module)
                layout = _layout(module)
                flat = torch.empty(len(rows), layout.columns, dtype=dtype)
                fixed = {name: _fixed(values, dtype) for name, values in _untrained(module).items()}
                buffers = {name: values.new_empty(len(rows), *values.shape) for name, values in fixed.items()}
                rates = torch.zeros(len(rows), len(_dropouts(module)))
            elif (found := difference(facts, facts_of(module))) is not None:
                raise refuse_differing(make_module, rows, trial, facts, found)
            with torch.no_grad():
                parameters = dict(module.named_parameters())
                torch.cat([parameters[name].reshape(-1).to(dtype) for name, _, _ in layout.parameters], out=flat[trial])
                for name, values in _untrained(module).items() if buffers else ():
                    buffers[name][trial] = values
                for place, dropout in enumerate(_dropouts(module) if rates.numel() else ()):
                    rates[trial, place] = dropout.p
    if first is None:
        raise UsageError("there are no configs", got="0", expected="at least one trial")
    moved = {name: values.to(device) for name, values in buffers.items()}
    dropped = rates.to(device) if bool(rates.any()) else None
    keys = torch.from_numpy(trial_keys(seeds)).to(device)
    return first, layout, Weights(flat.to(device), moved, dropped, keys)


def freeze(layout: Layout, weights: Weights, names: Collection[str]) -> tuple[Layout, Weights]:
    """Take parameters from those that are trained, and hold their values as they are."""
    views, found, column = layout.views(weights.flat), [], 0
    for name, _, shape in layout.parameters:
        if name not in names:
            found.append((name, column, shape))
            column += _size(shape)
    flat = torch.cat([views[name].reshape(len(weights.flat), -1) for name, _, _ in found], dim=1)
    buffers = {**weights.buffers, **{name: views[name].clone() for name in names}}
    return Layout(tuple(found), column), replace(weights, flat=flat, buffers=buffers)


def _layout(module: torch.nn.Module) -> Layout:
    found, column = [], 0
    for name, values in module.named_parameters():
        if values.requires_grad:
            if not values.is_floating_point():
                raise UsageError("a parameter is not real", got=f"{name}: {values.dtype}", expected="real numbers")
            found.append((name, column, tuple(values.shape)))
            column += values.numel()
    return Layout(tuple(found), column)


def _untrained(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    frozen = {name: values.detach() for name, values in module.named_parameters() if not values.requires_grad}
    return {**frozen, **dict(module.named_buffers())}


def _fixed(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype) if values.is_floating_point() else values


def _dropouts(module: torch.nn.Module) -> list[torch.nn.Dropout]:
    return [part for part in module.modules() if type(part) is torch.nn.Dropout]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


class Forward:
    """The forward pass of all trials at once.

    Args:
        module: one of the modules; a copy of it serves all trials.
        loss: of one trial's output and target, the mean over rows.
        layout: where the parameters are.
        compute: the type of the forward pass, where it isn't that of the weights.
        compiled: whether the training pass goes through ``torch.compile``.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Loss,
        layout: Layout,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compute: torch.dtype | None,
        compiled: bool,
    ) -> None:
        self._layout, self._loss, self._compute, self._units = layout, loss, compute, Units()
        self._template = copy.deepcopy(module).to(device, dtype)
        keep_padding_still(self._template)
        self._dropouts = len(_dropouts(self._template))
        places = {part: place for place, part in enumerate(_dropouts(self._template))}
        for name, part in list(self._template.named_modules(remove_duplicate=False)):
            if part in places and name:
                parent, _, attribute = name.rpartition(".")
                setattr(self._template.get_submodule(parent), attribute, TrialDropout(places[part], self._units))
        self._training = torch.compile(self._losses, fullgraph=True) if compiled else self._losses

    def training_losses(
        self, weights: Weights, leaves: dict[str, torch.Tensor], batch: Batch, step: int, *, trial_run: bool = False
    ) -> torch.Tensor:
        """Each trial's loss while training, with a graph to ``leaves``; changes buffers as modules do.

        A trial run is not compiled.
        """
        self._template.train()
        keys = None if weights.rates is None else dropout_keys(weights.keys, step, self._dropouts)
        over = self._losses if trial_run else self._training
        own = (batch.inputs, batch.target, batch.weights, batch.stacked)
        return over(leaves, weights.buffers, weights.rates, keys, *own)

    def losses(self, weights: Weights, batch: Batch) -> torch.Tensor:
        """Each trial's loss as evaluated: without dropout, with the running statistics of normalisations."""
        self._template.eval()
        with torch.no_grad():
            own = (batch.inputs, batch.target, batch.weights, batch.stacked)
            return self._losses(self._layout.views(weights.flat), weights.buffers, None, None, *own)

    def outputs(self, weights: Weights, inputs: tuple[torch.Tensor, ...], *, stacked: bool) -> torch.Tensor:
        """Each trial's output as evaluated (trials × …)."""
        self._template.eval()
        shared = [] if stacked else list(inputs)

        def one(parameters: Any, buffers: Any, *own: torch.Tensor) -> torch.Tensor:
            return self._output(parameters, buffers, tuple(own or shared))

        with torch.no_grad():
            views = self._layout.views(weights.flat)
            return torch.func.vmap(one)(views, weights.buffers, *(inputs if stacked else ()))

    def _output(self, parameters: Any, buffers: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        compute = self._compute
        if compute is not None:
            parameters = {name: values.to(compute) for name, values in parameters.items()}
            buffers = {n: v.to(compute) if v.is_floating_point() else v for n, v in buffers.items()}
            inputs = tuple(part.to(compute) if part.is_floating_point() else part for part in inputs)
        output = torch.func.functional_call(self._template, (parameters, buffers), inputs)
        return output if compute is None else output.float()

    def _losses(
        self,
        parameters: dict[str, torch.Tensor],
        buffers: dict[str, torch.Tensor],
        rates: torch.Tensor | None,
        keys: torch.Tensor | None,
        inputs: tuple[torch.Tensor, ...],
        target: torch.Tensor,
        weights: torch.Tensor | None,
        stacked: bool,
    ) -> torch.Tensor:
        def one(
            parameters: Any, buffers: Any, rates: Any, keys: Any, inputs: Any, target: Any, weights: Any
        ) -> torch.Tensor:
            self._units.begin(rates, keys)
            found = weighted_loss(self._loss, self._output(parameters, buffers, inputs), target, weights)
            self._units.begin(None, None)  # what belongs to the inside of vmap must not be seen outside: see compile
            return found

        rows = 0 if stacked else None
        dropping = None if rates is None else 0
        weighted = None if weights is None else rows
        over = torch.func.vmap(one, in_dims=(0, 0, dropping, dropping, rows, rows, weighted))
        return over(parameters, buffers, rates, keys, inputs, target, weights)


def weighted_loss(loss: Loss, output: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The loss; with weights the weighted mean of each row's own loss, which for equal weights is the loss itself."""
    if weights is None:
        return loss(output, target)
    each = torch.func.vmap(lambda one, its: loss(one[None], its[None]))(output, target)
    return (each * weights).sum() / weights.sum()
