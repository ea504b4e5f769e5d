"""`umbel.torch.fit_many`: how are many small models trained as one?

One loop of steps for all trials: one forward pass, one gradient of the sum of their losses (whose parts don't depend on
each other), one update. Trials that stop early are set aside and, when enough have, taken out. The idea is HFTA's (Wang
et al., "Horizontally Fused Training Array", MLSys 2021), the means are torch.func's. It must not know Ray, sweeps or
stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch

from umbel.runtime.fused.configs import Configs
from umbel.runtime.fused.context import reporter
from umbel.runtime.torch.configs import hyperparameters, optimizer_name, read_configs, read_seeds
from umbel.runtime.torch.data import Minibatches, read_data
from umbel.runtime.torch.fitted import Fitted
from umbel.runtime.torch.loop import Checks, Stop, Training
from umbel.runtime.torch.optim import make_optimizer
from umbel.runtime.torch.probe import check_fit
from umbel.runtime.torch.stack import Forward, Loss, MakeModule, build, freeze
from umbel.scheduler.errors import UsageError

__all__ = ["LOSSES", "Stop", "fit_many"]

#: Losses that can be named.
LOSSES: dict[str, Loss] = {
    "mse": torch.nn.functional.mse_loss,
    "mae": torch.nn.functional.l1_loss,
    "huber": torch.nn.functional.huber_loss,
    "cross_entropy": torch.nn.functional.cross_entropy,
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
}
#: Types of numbers: of the weights, and of the forward pass where that is another one.
DTYPES = {
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
    "bfloat16": (torch.float32, torch.bfloat16),
}


def fit_many(
    make_module: MakeModule,
    data: Any,
    configs: Sequence[Mapping[str, Any]] | Mapping[str, Any] | Configs,
    loss: str | Loss,
    optimizer: Any = "adam",
    steps: int = 200,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    weights: Any = None,
    validation: Any = None,
    batch_size: int | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    check_every: int = 1,
    stop: Stop | None = None,
    report: str | None = None,
    device: Any = None,
    dtype: Any = "float32",
    compile: bool = False,
) -> Fitted:
    """Train one small model for each config, all at once.

    ``fitted = umbel.torch.fit_many(make_net, (X, y), {"lr": lrs, "seed": seeds}, "mse")``

    Each trial's result is what training it alone with torch.optim gives, from ``torch.manual_seed(seed)`` just before
    ``make_module(config)``, up to the order of roundings: in float64 weights agree within 1e-6 of their size after some
    tens of steps; in float32 losses typically within 1e-4, as long as training is not chaotic. Dropout agrees in
    distribution only: units are dropped by a hash of (seed, step, module, place). A trial's result does not depend on
    which others are beside it, but for roundings. The caller's random state is left as it was.

    Args:
        make_module: gives the module of a config, an ordinary ``nn.Module``. What the config changes in it must be
            weights, buffers and rates of ``nn.Dropout`` only.
        data: ``(X, y)``, or ``(X1, X2, …, y)`` for a module of several inputs, with as many rows each: the same data
            for all trials. With ``groups`` they have a leading axis of groups. Or a list of such tuples, one a group,
            of any lengths (one a trial, unless ``groups`` says otherwise). NumPy arrays or tensors; whole numbers
            stay whole.
        configs: a list of dicts, a dict of columns (lists and arrays; other values hold for all), or the configs that a
            fused function (`umbel.fused`) is given, whose seeds count then. Beside what
            ``make_module`` reads: ``lr``, ``weight_decay``, ``betas``, ``eps``, ``momentum``, by default torch.optim's;
            ``seed``, by default 0.
        loss: of ``(output, target)``, the mean over rows, such as ``torch.nn.functional.mse_loss``; or "mse", "mae",
            "huber", "cross_entropy" or "bce" (with logits).
        optimizer: "sgd" (with momentum), "adam" or "adamw", or their classes in torch.optim.
        steps: updates of each trial.
        groups: the group of each trial, a whole number.
        weights: one a row (or group and row): the loss becomes the weighted mean of the rows' losses; rows of weight 0
            are as if absent.
        validation: data like ``data``, with the same groups, on which ``patience`` and ``stop`` look.
        batch_size: rows of a minibatch; None: all. Each trial has its own order,
            ``torch.randperm(rows, generator=torch.Generator().manual_seed(seed))`` an epoch.
        patience: a trial stops when its loss (validation loss, or else that of the step) has not fallen by more than
            ``min_delta`` below its best for so many checks in a row. It keeps the weights that it then has.
        min_delta: see ``patience``.
        check_every: steps from check to check. A check with ``validation`` costs a forward pass over it.
        stop: called after each check with (steps taken, indices of the trials that still train, their losses);
            returns which of them stop, a boolean each, or None.
        report: in a fused function, report the same losses under this name to the sweep (`umbel.report`) after each
            check; trials that its ``prune=`` stops are taken out. Needs all trials of the batch, in their order.
        device: "cpu", "cuda", "cuda:1", …; None: CUDA if this process may use it, else the CPU.
        dtype: "float32", "float64", or "bfloat16": then the forward pass is in bfloat16, and weights, the optimizer's
            state and losses are in float32.
        compile: pass the training step through ``torch.compile``, which takes about half a minute before the first
            step: for long trainings.

    Returns:
        losses, histories, weights and predictions of all trials.

    Raises:
        UsageError: an argument or config is wrong, CUDA is asked for and absent, the modules differ in more than
            weights, or a module can't be trained as one (LSTM, control flow that depends on values, random numbers
            other than ``nn.Dropout``).
        torch.OutOfMemoryError: of CUDA; fit fewer configs at once.

    Cost: memory is trials × (weights × 4 for Adam + activations and, with minibatches or groups, rows).
    """
    settings = _settings(loss, steps, batch_size, patience, min_delta, check_every, device, dtype)
    name = optimizer_name(optimizer)
    _check_factory(make_module)
    rows = read_configs(configs)
    if report is not None:
        stop = _reporting(report, len(rows), stop)
    numbers = configs.trials.tolist() if isinstance(configs, Configs) else range(len(rows))
    columns, seeds = hyperparameters(name, rows, numbers), read_seeds(rows, numbers)
    typed: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device}
    train = read_data(data, groups, weights, len(rows), **typed)
    held = None
    if validation is not None:
        same = (
            groups if groups is not None or isinstance(validation, list) or train.groups is None else train.groups.cpu()
        )
        held = read_data(validation, same, None, len(rows), name="validation", **typed)
    module, layout, stacked = build(
        make_module,
        rows,
        seeds,
        weighted=train.weights is not None,
        mixed=settings.compute is not None,
        **typed,
    )
    forward = Forward(module, settings.loss, layout, compute=settings.compute, compiled=compile, **typed)
    if unused := check_fit(module, settings.loss, forward, layout, stacked, train):
        layout, stacked = freeze(layout, stacked, unused)
        forward = Forward(module, settings.loss, layout, compute=settings.compute, compiled=compile, **typed)
    update = make_optimizer(name, columns, stacked.flat, compiled=compile)
    batches = None
    if batch_size is not None and batch_size < train.rows:
        batches = Minibatches(train, batch_size, seeds)
    checks = Checks(check_every, patience, float(min_delta), stop, held)
    final, history, validated, taken = Training(forward, layout, stacked, train, batches, update, checks).run(steps)
    found = forward.losses(final, train.all())
    return Fitted(
        loss=found.cpu().numpy(),
        history=history,
        steps=taken,
        validation_loss=None if held is None else forward.losses(final, held.all()).cpu().numpy(),
        validation=validated,
        _module=module,
        _layout=layout,
        _weights=final,
        _forward=forward,
        _make_module=make_module,
        _rows=rows,
        _seeds=seeds,
        _groups=train.groups,
    )


def _reporting(metric: Any, count: int, stop: Stop | None) -> Stop | None:
    """Report the losses, then ask ``stop`` about all; whoever says so stops a trial."""
    if not isinstance(metric, str) or not metric:
        raise UsageError("report is no name of a metric", got=repr(metric), expected="for example report='loss'")
    reported = reporter(metric, count)
    if reported is None or stop is None:
        return reported or stop
    first, second = reported, stop

    def both(taken: int, trials: np.ndarray, losses: np.ndarray) -> np.ndarray:
        said = second(taken, trials, losses)
        stopping: np.ndarray = first(taken, trials, losses)
        return stopping if said is None else stopping | np.asarray(said)

    return both


def _check_factory(make_module: Any) -> None:
    if isinstance(make_module, torch.nn.Module) or not callable(make_module):
        raise UsageError(
            "make_module is no function that makes a module",
            got=f"a {type(make_module).__name__}",
            expected="a function from a config to a new module",
            hint="lambda config: nn.Sequential(…): each trial begins with weights of its own",
        )
    try:
        signature(make_module).bind({})
    except TypeError as error:
        raise UsageError(
            f"make_module can't be called with a config: {error}",
            got=str(signature(make_module)),
            expected="a function of one config, a dict",
            hint="lambda config: …",
        ) from None
    except ValueError:
        pass  # some built-ins don't tell


@dataclass(frozen=True, slots=True)
class _Settings:
    loss: Loss
    device: torch.device
    dtype: torch.dtype
    compute: torch.dtype | None


def _settings(
    loss: Any, steps: Any, batch_size: Any, patience: Any, min_delta: Any, check_every: Any, device: Any, dtype: Any
) -> _Settings:
    least = {"steps": 0, "batch_size": 1, "patience": 1, "check_every": 1}
    given = {"steps": steps, "batch_size": batch_size, "patience": patience, "check_every": check_every}
    for key, value in given.items():
        if value is None and key in {"batch_size", "patience"}:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least[key]:
            raise UsageError(f"{key} is no such number", got=repr(value), expected=f"a whole number from {least[key]}")
    if not isinstance(min_delta, (int, float)) or not min_delta >= 0:
        raise UsageError("min_delta is no such number", got=repr(min_delta), expected="a number not below 0")
    found = LOSSES.get(loss) if isinstance(loss, str) else loss
    if isinstance(found, type):
        name = found.__name__
        raise UsageError("the loss is a class", got=name, expected="a function of output and target", hint=f"{name}()")
    if not callable(found):
        raise UsageError("no such loss", got=repr(loss), expected=", ".join(map(repr, LOSSES)) + " or a function")
    kind = str(dtype).removeprefix("torch.")
    if kind not in DTYPES:
        raise UsageError("no such type of numbers", got=repr(dtype), expected=", ".join(map(repr, DTYPES)))
    return _Settings(found, _device(device), *DTYPES[kind])


def _device(device: Any) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in {"cpu", "cuda"}:
        raise UsageError("no such device", got=repr(device), expected="'cpu' or 'cuda' or 'cuda:1' …")
    if found.type == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda is not None
        raise UsageError(
            "CUDA is asked for, and there is none",
            got=f"device={str(device)!r}, torch {torch.__version__}"
            + ("" if built else ", which is built without CUDA"),
            expected="a CUDA device that this process may use",
            hint="in a sweep, gpus= gives each worker one; or leave device out: the CPU is used where there is no CUDA"
            if built
            else "install a torch that is built with CUDA; or leave device out",
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            "no such CUDA device", got=repr(str(device)), expected=f"an index below {torch.cuda.device_count()}"
        )
    return found
