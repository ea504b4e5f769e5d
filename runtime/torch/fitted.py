"""What came of trials that were trained as one?

It must not know how they were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from umbel.runtime.torch.data import read_groups, to_tensor
from umbel.runtime.torch.stack import Forward, Layout, MakeModule, Weights
from umbel.scheduler.errors import NotFoundError, UsageError

__all__ = ["Fitted"]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Trained trials, in the order of their configs.

    Arrays are NumPy's, float32 or, after ``dtype="float64"``, float64. A trial that diverged has NaN in its own places
    only.
    """

    #: The training loss of each trial at its final weights, over all its rows, evaluated (without dropout).
    loss: np.ndarray
    #: The loss that each step began with, on its minibatch, while training (steps × trials); NaN after a trial stopped.
    history: np.ndarray
    #: Steps that each trial took.
    steps: np.ndarray
    #: The validation loss at the final weights; None without ``validation``.
    validation_loss: np.ndarray | None
    #: The validation loss at each check (checks × trials), NaN after a trial stopped; None without ``validation``.
    validation: np.ndarray | None
    _module: torch.nn.Module = field(repr=False)
    _layout: Layout = field(repr=False)
    _weights: Weights = field(repr=False)
    _forward: Forward = field(repr=False)
    _make_module: MakeModule = field(repr=False)
    _rows: Sequence[dict[str, Any]] = field(repr=False)
    _seeds: Sequence[int] = field(repr=False)
    _groups: torch.Tensor | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.loss)

    def state_dict(self, trial: int) -> dict[str, torch.Tensor]:
        """A trial's weights, as its module alone would give them, on the CPU.

        Raises:
            NotFoundError: there is no such trial.
        """
        self._check(trial)
        parameters = self._layout.views(self._weights.flat[trial : trial + 1])
        values = {name: stacked[0] for name, stacked in parameters.items()}
        values |= {name: stacked[trial] for name, stacked in self._weights.buffers.items()}
        # a tensor may have several names: each gets its values
        owners = {id(own): name for name, own in [*self._module.named_parameters(), *self._module.named_buffers()]}
        return {
            name: values[owners[id(own)]].detach().cpu().clone()
            for name, own in self._module.state_dict(keep_vars=True).items()
        }

    def module(self, trial: int) -> torch.nn.Module:
        """A trial's module with its weights, on the CPU, set to be evaluated.

        Raises:
            NotFoundError: there is no such trial.
        """
        self._check(trial)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seeds[trial])
            module = self._make_module(dict(self._rows[trial]))
        module.to(self._weights.flat.dtype).load_state_dict(self.state_dict(trial))
        return module.eval()

    def predict(self, *inputs: Any, groups: Sequence[int] | np.ndarray | bool = False) -> np.ndarray:
        """Each trial's output (trials × …), evaluated.

        Args:
            inputs: the module's inputs, arrays or tensors; the same for all trials, or with a leading axis of groups.
            groups: the group of each trial, where inputs have that axis; True: the groups that were fitted.

        Raises:
            UsageError: groups don't fit, or the module can't be applied to these inputs.
        """
        device, dtype = self._weights.flat.device, self._weights.flat.dtype
        parts = tuple(to_tensor(part, dtype, "the input").to(device) for part in inputs)
        if not parts:
            raise UsageError("predict needs inputs", got="none", expected="what the module's forward takes")
        if groups is False:
            return self._outputs(parts, stacked=False)
        if groups is not True:
            of_trial = read_groups(groups, len(self), len(parts[0])).to(device)
        elif self._groups is None:
            raise UsageError("all trials were fitted to the same data", got="groups=True", expected="groups=False")
        else:
            of_trial = read_groups(self._groups.cpu().numpy(), len(self), len(parts[0])).to(device)
        return self._outputs(tuple(part[of_trial] for part in parts), stacked=True)

    def _outputs(self, inputs: tuple[torch.Tensor, ...], *, stacked: bool) -> np.ndarray:
        try:
            return _array(self._forward.outputs(self._weights, inputs, stacked=stacked))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise UsageError(
                "the module can't be applied to these inputs",
                got=f"{', '.join(f'{part.dtype} {tuple(part.shape)}'.removeprefix('torch.') for part in inputs)}: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
                expected="inputs like those that were fitted, and as many; the number of rows may differ",
            ) from error

    def _check(self, trial: int) -> None:
        if not 0 <= trial < len(self):
            raise NotFoundError("no such trial", got=repr(trial), expected=f"0 to {len(self) - 1}")


def _array(values: torch.Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().cpu().numpy()
    return found
