"""How does MLflow load a model that was exported from a run? `mlflow.pyfunc` calls `_load_pyfunc` by its name.

Unpickling runs code: it is MLflow's user who decides to load a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umbel.storage.values.codecs import decode

__all__ = ["FILE", "ExportedModel"]

#: The model's bytes, beside MLflow's description.
FILE = "model.umbel"


class ExportedModel:
    """A model as MLflow wants it: with ``predict(model_input, params=None)``."""

    def __init__(self, model: Any) -> None:
        #: The model itself.
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """What the model says: by its own ``predict``, or by calling it."""
        predict = getattr(self.model, "predict", self.model)
        return predict(model_input)


def _load_pyfunc(path: str) -> ExportedModel:
    """Read by MLflow, given the path of the file, or of the folder that it lies in."""
    place = Path(path)
    return ExportedModel(decode((place / FILE if place.is_dir() else place).read_bytes()))
