"""What is this trainable of Ray Tune's: a function or a class, with which data, holding which resources?

`tune.with_parameters` and `tune.with_resources` wrap what they are given; here it is taken out again. Parameters become
data of the sweep, which a worker loads once, and resources those of the sweep's task. It must not know how trials run.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from umbel.runtime.graph.task import Resources
from umbel.scheduler.errors import UsageError

__all__ = ["Trainable", "read_trainable"]

_HOME = "ray.tune.trainable.util"
_EXPECTED = "a function fn(config), or a subclass of tune.Trainable"


@dataclass(frozen=True, slots=True)
class Trainable:
    """A trainable, unwrapped."""

    #: A function, or a subclass of `ray.tune.Trainable`.
    body: Any
    is_class: bool
    #: What `tune.with_parameters` was given; None: nothing.
    data: dict[str, Any] | None
    resources: Resources
    #: A name that a sweep can have.
    name: str


def read_trainable(trainable: Any) -> Trainable:
    """Look at a trainable.

    Raises:
        UsageError: it is none, or of a kind that is not supported.
    """
    bases = {cls.__name__ for cls in trainable.__mro__} if inspect.isclass(trainable) else set()
    if isinstance(trainable, str) or (not callable(trainable) and not hasattr(trainable, "as_trainable")):
        hint = "give the function or class itself" if isinstance(trainable, str) else None
        raise UsageError("this is not a trainable", got=repr(trainable), expected=_EXPECTED, hint=hint)
    if hasattr(trainable, "as_trainable") or "FunctionTrainable" in bases or (bases and "Trainable" not in bases):
        raise UsageError(
            f"a trainable of this kind is not supported: {type(trainable).__name__}",
            got=repr(trainable),
            expected=_EXPECTED,
        )
    body, held, data = trainable, _held(trainable, is_class=bool(bases)), dict[str, Any]()
    while (found := _unwrap(body)) is not None:
        body, given = found
        data = {**given, **data}
    if not bases and not _takes_config(body, data):
        raise UsageError(
            "the function can't be called with a config",
            got=f"{_name(body)}{_signature(body)}",
            expected=f"{_name(body)}({', '.join(['config', *data])})",
            hint="what else it needs: tune.with_parameters(fn, data=…)",
        )
    return Trainable(body, bool(bases), data or None, _resources(held), _name(body))


def _name(body: Any) -> str:
    while isinstance(body, functools.partial):
        body = body.func
    name = getattr(body, "__name__", None) or type(body).__name__
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "lambda" if name == "<lambda>" else name).strip(".-")[:60] or "trainable"


def _signature(body: Any) -> str:
    try:
        return str(inspect.signature(body))
    except (TypeError, ValueError):
        return "(…)"


def _takes_config(body: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(body).bind({}, **names)
    except TypeError:
        return False
    except ValueError:
        return True  # some built-ins don't tell
    return True


def _unwrap(body: Any) -> tuple[Any, dict[str, Any]] | None:
    """What is inside of one wrapper of Tune's, and the parameters that it adds; None: it is not wrapped."""
    if getattr(body, "__module__", None) != _HOME:
        return None
    inner: Any
    if inspect.isclass(body):
        inner = body.__bases__[0]
        cells = _cells(vars(body).get("setup"))
    else:
        cells = _cells(body)
        inner = cells.get("trainable")
        if inner is None:
            return None
    registry, prefix = cells.get("parameter_registry"), cells.get("prefix")
    if registry is None:
        return inner, {}
    return inner, {key: registry.get(f"{prefix}{key}") for key in sorted(cells["keys"])}


def _cells(function: Any) -> dict[str, Any]:
    code, closure = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or closure is None:
        return {}
    return dict(zip(code.co_freevars, (cell.cell_contents for cell in closure), strict=True))


def _held(trainable: Any, *, is_class: bool) -> Any:
    """The resources that a trainable asks for: a placement group factory, or None."""
    if not is_class:
        while isinstance(trainable, functools.partial) and not hasattr(trainable, "_resources"):
            trainable = trainable.func
        return getattr(trainable, "_resources", None)
    try:
        return trainable.default_resource_request({})
    except Exception as error:
        raise _varying(f"default_resource_request: {type(error).__name__}: {error}") from error


def _varying(got: str) -> UsageError:
    return UsageError(
        "resources that depend on the config are not supported by umbel.Tuner",
        got=got,
        expected='the same for all trials, such as tune.with_resources(fn, {"cpu": 2})',
    )


def _resources(held: Any) -> Resources:
    if held is None:
        return Resources()
    if not hasattr(held, "bundles"):
        raise _varying(repr(held))
    bundles = [{name: amount for name, amount in bundle.items() if amount} for bundle in held.bundles]
    bundles = [bundle for bundle in bundles if bundle]
    if len(bundles) > 1:
        raise UsageError(
            "resources of several bundles are not supported by umbel.Tuner",
            got=bundles,
            expected="one bundle: a trial runs in one process",
        )
    bundle = dict(bundles[0]) if bundles else {}
    cpus, gpus, memory = bundle.pop("CPU", 0.0), bundle.pop("GPU", 0.0), bundle.pop("memory", 0)
    return Resources(float(cpus), float(gpus), int(memory) or None, bundle)
