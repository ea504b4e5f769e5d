"""What can go wrong with a prediction, by who should do something about it. All pickle, as calls cross processes."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.cluster.serving.schema import Mistake
from umbel.scheduler.errors import UmbelError, UsageError

__all__ = ["AskFailedError", "InputsError", "NotReadyError", "RefusedError"]


class InputsError(UsageError):
    """Inputs are not what the model takes. ``mistakes`` says where; after pickling only the text does."""

    mistakes: Sequence[Mistake] = ()


class NotReadyError(UmbelError):
    """A prediction can't be made now; trying again may help."""


class AskFailedError(UmbelError):
    """The model raised, or answered what can't be said as JSON."""


class RefusedError(UmbelError):
    """A version can't be served: a model is damaged, missing, or does not answer."""
