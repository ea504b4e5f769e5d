"""Can these modules be trained as one: are they equal but for their weights and their dropout rates?

Stacked trials share one forward function, so whatever else a config changes in a module must be found and named, lest
one trial's choice be silently used for all. It must not know how modules are trained.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from umbel.runtime.torch.configs import OWN_KEYS
from umbel.scheduler.errors import UsageError

__all__ = ["Facts", "check_supported", "difference", "facts_of", "refuse_differing"]

Facts = dict[str, Any]
MakeModule = Callable[[dict[str, Any]], torch.nn.Module]

_BASE = frozenset(vars(torch.nn.Module()))
#: How deep attributes of attributes are looked into.
_DEPTH = 4


def facts_of(module: torch.nn.Module) -> Facts:
    """All that must be equal between modules that are trained as one."""
    facts: Facts = {}
    for name, part in module.named_modules():
        dropout, kept = type(part) is torch.nn.Dropout, _only_kept(type(part))  # type: ignore[arg-type]
        facts[f"{name}:"] = type(part)
        for key, value in vars(part).items():
            if key in _BASE or key in kept or (dropout and key == "p"):
                continue
            facts[f"{name}.{key}" if name else key] = _freeze(value, _DEPTH, kept)
    for name, weights in module.named_parameters():
        facts[f"{name}|"] = (tuple(weights.shape), weights.dtype, weights.requires_grad)
    for name, values in module.named_buffers():
        facts[f"{name}|"] = (tuple(values.shape), values.dtype)
    return facts


@functools.cache
def _only_kept(kind: type[torch.nn.Module]) -> frozenset[str]:
    """Which of `OWN_KEYS` a module may hold without using them: what its forward pass does not speak of.

    A module that keeps its config has a learning rate, too, which may differ. The ``momentum`` of a BatchNorm1d and the
    ``eps`` of a LayerNorm have the same names, and must not: there the forward pass reads them.
    """
    named: set[str] = set()
    front = ["forward"]
    while front:
        name = front.pop()
        for function in (vars(base)[name] for base in kind.__mro__ if name in vars(base)):
            code = getattr(function, "__code__", None)
            found = OWN_KEYS if name == "forward" and code is None else _named_in(code)
            front.extend(each for each in found if each not in named)
            named |= found
    return OWN_KEYS - named


def _named_in(code: types.CodeType | None) -> frozenset[str]:
    """Attributes, variables of outer functions, and texts that a function's code has, with those of functions in it."""
    if code is None:
        return frozenset()
    texts = {const for const in code.co_consts if isinstance(const, str)}
    inner = [_named_in(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return frozenset(texts.union(code.co_names, code.co_freevars, *inner))


def _freeze(value: Any, depth: int, kept: frozenset[str]) -> Any:
    """A value as something that can be compared; what can't be, by its type only.

    Args:
        value: any.
        depth: how deep to look.
        kept: keys of dicts that may differ.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, type, torch.dtype, torch.device)):
        return value if value == value else "nan"  # noqa: PLR0124 - NaN must equal itself here
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape), value.detach().cpu().double().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.tobytes())
    if depth == 0 or isinstance(value, torch.nn.Module):  # a module's own facts are told where it is registered
        return type(value)
    if callable(value):
        return _freeze_callable(value, depth - 1)
    if isinstance(value, Mapping):
        return tuple((str(key), _freeze(entry, depth - 1, kept)) for key, entry in value.items() if key not in kept)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(entry, depth - 1, kept) for entry in value)
    return type(value)


def _freeze_callable(value: Any, depth: int) -> Any:
    """A function with what it has been given: all arguments, and what it uses of the dicts among them."""
    if isinstance(value, functools.partial):
        kept = OWN_KEYS - _named_in(getattr(value.func, "__code__", None))
        given = [*value.args, *value.keywords.values()]
        frozen = (_freeze(entry, depth, kept) for entry in given)
        return (_freeze(value.func, depth, kept), tuple(value.keywords), *frozen)
    if isinstance(value, types.FunctionType):
        kept = OWN_KEYS - _named_in(value.__code__)
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        given = [*inspect.getclosurevars(value).nonlocals.values(), *defaults]
        return (value.__code__, *(_freeze(entry, depth, kept) for entry in given))
    return (type(value), getattr(value, "__name__", ""))


def difference(first: Facts, other: Facts) -> tuple[str, bool] | None:
    """What differs first, in words, and whether it is a shape; None: nothing does."""
    if first == other:
        return None
    shapes = [key for key in first if key[-1] == "|" and key in other and first[key] != other[key]]
    for key in [*shapes, *first, *other]:
        mine, its = first.get(key, "nothing"), other.get(key, "nothing")
        if mine != its:
            what = key.rstrip(":|") or "the module itself"
            if key[-1] == "|" and key in shapes:
                return f"{what} is {mine[0]} in one and {its[0]} in the other", mine[0] != its[0]
            return f"{what} is {_shown(mine)} in one and {_shown(its)} in the other", False
    return None


def _shown(fact: Any) -> str:
    if isinstance(fact, type):
        return fact.__name__
    if isinstance(fact, tuple) and fact and isinstance(fact[0], types.CodeType):
        return f"a function ({fact[0].co_name})"
    text = str(fact)
    return text if len(text) <= 60 else text[:57] + "…"


def refuse_differing(
    make_module: MakeModule, rows: list[dict[str, Any]], trial: int, first: Facts, found: tuple[str, bool]
) -> UsageError:
    """The error that names the config keys by which a trial's module differs from the first trial's."""
    reference, row = rows[0], rows[trial]
    missing = object()
    candidates = [key for key in {**reference, **row} if reference.get(key, missing) != row.get(key, missing)]
    guilty = [key for key in candidates if _changes(make_module, reference, row, key, first)]
    keys = ", ".join(repr(key) for key in guilty)
    what = "the shapes of the module" if found[1] else "what the module does"
    return UsageError(
        f"config key {keys} changes {what}, so trials that differ in it can't be trained as one"
        if guilty
        else "make_module gives modules that can't be trained as one: they differ in more than weights",
        got=f"trials 0 and {trial}: {found[0]}",
        expected=f"trials of one batch share {keys}" if guilty else "modules of equal structure",
        hint=f"form batches by it: one fit_many for each value of {keys}; in a sweep, @umbel.fused(by=({keys},))"
        if guilty
        else "let make_module depend on its config only",
    )


def _changes(make_module: MakeModule, reference: dict[str, Any], row: dict[str, Any], key: str, first: Facts) -> bool:
    changed = {**reference, key: row[key]} if key in row else {k: v for k, v in reference.items() if k != key}
    try:
        return difference(first, facts_of(make_module(changed))) is not None
    except Exception:  # a mixture of two configs that nobody asked for may well be impossible: then it is to blame
        return True


def check_supported(module: object, *, weighted: bool, mixed: bool) -> None:
    """Refuse by name what is known not to work.

    Args:
        module: what make_module returned.
        weighted: whether rows have weights or are padded.
        mixed: whether the forward pass is in another type than the weights (bfloat16).
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError("make_module returned no module", got=type(module).__name__, expected="a torch.nn.Module")
    parameters = list(module.parameters())
    if any(torch.nn.parameter.is_lazy(part) for part in [*parameters, *module.buffers()]):
        raise UsageError("lazy modules can't be trained as one", expected="modules that know their sizes when made")
    if not any(part.requires_grad for part in parameters):
        raise UsageError("the module has no parameter to train", got=type(module).__name__)
    nn = torch.nn
    for name, part in module.named_modules():
        said = f"{name or 'the module'} is a {type(part).__name__}"
        alone = "train such trials one at a time, with torch.optim"
        if isinstance(part, nn.RNNBase):
            raise UsageError(
                f"recurrent layers can't be trained as one: torch.func does not support them ({said})",
                hint=f"a convolution or windows of the series as inputs; or {alone}",
            )
        if nn.utils.parametrize.is_parametrized(part):
            raise UsageError(
                f"parametrized layers, such as weight_norm and spectral_norm make, can't be trained as one ({said})",
                hint=f"the layer itself, with weight_decay; or {alone}",
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and type(part) is not nn.Dropout and part.p > 0:
            raise UsageError(f"of the dropout layers only nn.Dropout is supported ({said})", hint=alone)
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats and (weighted or mixed):
            why = "padding and weights would enter its statistics" if weighted else "its statistics need float32"
            raise UsageError(
                f"{why} ({said})", hint="nn.LayerNorm or nn.GroupNorm; or groups of equal length and float32"
            )
