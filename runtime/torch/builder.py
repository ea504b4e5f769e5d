"""How does a PyTorch module say what built it, so that it can be stored without a pickle?

`builder` marks a function or class of a project: what it makes notes the builder's import path and its arguments, by
which `umbel.storage.registry.model_formats` stores it as safetensors and builds it again. Only what is marked is ever
called on behalf of a store. It must not know how models are stored, and does not import PyTorch.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from umbel.scheduler.errors import UsageError
from umbel.storage.registry.model_formats import BUILDER, BUILT_BY

__all__ = ["builder"]

Made = TypeVar("Made", bound=Callable[..., Any])


def builder(made: Made) -> Made:
    """Mark a function that makes a module, or a class of modules, as one that registered models may be built by.

    A module that it makes from arguments that JSON can hold is registered as safetensors with the builder's import path
    (``"project.models:Net"``) and these arguments; it is loaded without asking for trust where the project is
    installed. Of a builder in a script itself (``__main__``), or inside a function, models are pickled.

    Args:
        made: ``def net(width: int) -> nn.Module``, or ``class Net(nn.Module)``. It must not do what a stranger who
            chooses its arguments should not do.

    Raises:
        UsageError: it is neither a function nor a class.
    """
    if not callable(made) or not hasattr(made, "__qualname__"):
        raise UsageError(
            "only a function or a class can build models",
            got=repr(made),
            expected="@umbel.torch.builder above def or class",
        )
    reference = f"{made.__module__}:{made.__qualname__}"
    if inspect.isclass(made):
        _mark_class(made, reference)
        return made
    signature = inspect.signature(made)

    @functools.wraps(made)
    def build(*args: Any, **kwargs: Any) -> Any:
        config = _config(signature, args, kwargs)
        module = made(*args, **kwargs)
        if config is not None and hasattr(module, "state_dict"):
            object.__setattr__(module, BUILT_BY, (reference, config))
        return module

    setattr(build, BUILDER, reference)
    return build  # type: ignore[return-value]


def _mark_class(made: type[Any], reference: str) -> None:
    original = made.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        config = _config(signature, (self, *args), kwargs)
        original(self, *args, **kwargs)
        if config is not None and type(self) is made:  # a subclass may need more
            object.__setattr__(self, BUILT_BY, (reference, config))

    made.__init__ = initialise
    setattr(made, BUILDER, reference)


def _config(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments by name, as they are before the call; None: not all of them have names."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None  # the call itself says what is wrong
    config: dict[str, Any] = {}
    for position, (name, value) in enumerate(bound.arguments.items()):
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        if kind is inspect.Parameter.VAR_KEYWORD:
            config.update(value)
        elif name != "self" or position:
            if kind is inspect.Parameter.POSITIONAL_ONLY:
                return None
            config[name] = value
    try:
        return copy.deepcopy(config)
    except Exception:  # what can't be copied, JSON can't hold
        return None
