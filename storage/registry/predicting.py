"""How is a model asked, whatever it is? And what do inputs and outputs look like as plain data?

A model is anything with ``predict(inputs)`` or, if it has none, a callable; if it has ``predict_batch`` too, that takes
a list of inputs and gives a list of outputs. It must not know where the model comes from, and imports nothing that the
model does not use.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.scheduler.errors import UsageError

__all__ = ["as_taken", "is_model", "not_a_model", "plain", "predict", "predict_many", "taken_as", "takes_batches"]


def is_model(model: object) -> bool:
    """Whether it can be asked."""
    return callable(getattr(model, "predict", None)) or callable(model)


def not_a_model(value: object) -> UsageError:
    """The error that says so."""
    return UsageError(
        "this is no model that can be asked",
        got=type(value).__name__,
        expected="an object with predict(inputs), or a callable",
    )


def takes_batches(model: object) -> bool:
    """Whether it takes many inputs at once."""
    return callable(getattr(model, "predict_batch", None))


def predict(model: Any, inputs: object) -> object:
    """What a model answers.

    Torch modules get tensors (of numbers and nested lists) and no gradients are kept; all others get the inputs as
    they are.

    Raises:
        UsageError: it can't be asked.
        Exception: whatever the model raises.
    """
    asked = getattr(model, "predict", None)
    if callable(asked):
        return asked(inputs)
    if not callable(model):
        raise not_a_model(model)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        with torch.no_grad():
            return model(_tensors(torch, model, inputs))
    return model(inputs)


def predict_many(model: Any, many: Sequence[object]) -> list[object]:
    """What a model answers to each of some inputs; at once if it takes batches.

    Raises:
        UsageError: its ``predict_batch`` answers another number of outputs.
    """
    if not takes_batches(model):
        return [predict(model, inputs) for inputs in many]
    answers = list(model.predict_batch(list(many)))
    if len(answers) != len(many):
        raise UsageError(
            "predict_batch gave another number of outputs",
            got=f"{len(answers)} outputs for {len(many)} inputs",
            expected="one output for each of the inputs, in their order",
        )
    return answers


def plain(value: Any) -> Any:
    """Inputs or outputs as JSON has them: arrays and tensors as nested lists, tables as lists by column.

    NaN and infinities become None.

    Raises:
        UsageError: it has no such form.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return plain(value.to_pydict())
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return plain(value.to_pylist())
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        array = value if isinstance(value, np.ndarray) else value.detach().cpu()
        return plain(array.tolist())
    if type(value).__module__.partition(".")[0] in ("pandas", "polars"):
        return plain(value.to_dict("list") if _is_frame(value) else value.to_list())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise UsageError(
        "this can't be said as JSON",
        got=type(value).__name__,
        expected="numbers, texts, lists and dicts of them, arrays or tables",
        hint="let predict return such",
    )


def taken_as(example: object) -> str:
    """What a model is given that takes such inputs: "ndarray", "table", "frame" or "json"."""
    if isinstance(example, np.ndarray):
        return "ndarray"
    if isinstance(example, (pa.Table, pa.RecordBatch)):
        return "table"
    return "frame" if type(example).__module__.partition(".")[0] == "pandas" and _is_frame(example) else "json"


def as_taken(inputs: Any, takes: str) -> Any:
    """Plain inputs in the form that the model takes; see `taken_as`.

    Raises:
        ValueError, TypeError: they have no such form.
    """
    if takes == "ndarray":
        return np.asarray(inputs)
    if takes == "table":
        return inputs if isinstance(inputs, (pa.Table, pa.RecordBatch)) else pa.table(inputs)
    if takes == "frame":
        import pandas as pd

        return pd.DataFrame(inputs)
    return inputs


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame"


def _tensors(torch: Any, model: Any, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _tensors(torch, model, each) for name, each in inputs.items()}
    try:
        tensor = torch.as_tensor(inputs)
    except (TypeError, ValueError, RuntimeError):
        return inputs
    first = next(model.parameters(), None)
    if first is None:
        return tensor
    # numbers that come from JSON have no precision of their own
    return tensor.to(first.device, first.dtype if tensor.is_floating_point() else None)
