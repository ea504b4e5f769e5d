"""How wrong was an answer, now that the truth is known? Losses by name, and of outputs that are more than one number.

It must not know which arm an answer came from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.scheduler.errors import UsageError
from umbel.storage.values.columns import float_values, python_values

__all__ = ["LOSSES", "Loss", "find_loss"]

Array: TypeAlias = npt.NDArray[np.float64]
LossFunction: TypeAlias = Callable[[Array, Array], npt.ArrayLike]

_LEAST_PROBABILITY = 1e-15


def _squared(output: Array, outcome: Array) -> Array:
    return np.square(output - outcome)


def _absolute(output: Array, outcome: Array) -> Array:
    return np.abs(output - outcome)


def _percentage(output: Array, outcome: Array) -> Array:
    return np.abs(output - outcome) / np.abs(outcome)


def _wrong(output: Array, outcome: Array) -> Array:
    return np.where(np.isnan(output) | np.isnan(outcome), np.nan, output != outcome)


def _log(output: Array, outcome: Array) -> Array:
    inside = (output >= 0) & (output <= 1) & ((outcome == 0) | (outcome == 1))
    p = np.clip(output, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.where(inside, -np.where(outcome == 1, np.log(p), np.log1p(-p)), np.nan)


#: What each name means; "pinball:0.9" too, for forecasts of a quantile.
LOSSES: dict[str, LossFunction] = {
    "squared": _squared,
    "absolute": _absolute,
    "percentage": _percentage,
    "wrong": _wrong,
    "log": _log,
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss; smaller is better."""

    name: str
    function: LossFunction

    def of(self, rows: pa.Table) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The loss of each answer, and which answers have an outcome.

        Args:
            rows: with ``output``, ``output_value``, ``outcome``, ``outcome_json``, as `read_predictions` gives them.

        Returns:
            NaN where there is no outcome; NaN or an infinity, too, where there is one that the answer can't be
            compared with: no number, a list of another length, no answer. An outcome that no answer could be compared
            with, as a text where numbers are compared, is none.

        Raises:
            UsageError: a function of the user's gave something else than a number for each answer.
        """
        outputs, outcomes = float_values(rows["output_value"]), float_values(rows["outcome"])
        simple = _there(rows["output_value"]) & _there(rows["outcome"])
        judged = _there(rows["outcome"]) | _there(rows["outcome_json"])
        found = np.full(len(outputs), np.nan)
        found[simple] = self._apply(outputs[simple], outcomes[simple])
        rest = np.flatnonzero(judged & ~simple)
        if len(rest):
            chosen = rows.select(["output", "outcome", "outcome_json"]).take(pa.array(rest))
            columns = [python_values(column) for column in chosen.columns]
            for place, output, outcome, text in zip(rest, *columns, strict=True):
                loss = self._of_one(output, outcome if text is None else text)
                judged[place] = loss is not None
                found[place] = math.nan if loss is None else loss
        return found, judged

    def _of_one(self, output: str | None, outcome: str | float) -> float | None:
        """The mean loss of the numbers of one answer; None: the outcome is none for this loss."""
        try:
            truth = json.loads(outcome) if isinstance(outcome, str) else outcome
        except ValueError:
            return None
        truths = _numbers(truth)
        if (truths is None and self.name != "wrong") or (truths is not None and not np.isfinite(truths).all()):
            return None
        try:
            answer = None if output is None else json.loads(output)
        except ValueError:
            answer = None
        if answer is None:
            return math.nan
        answers = _numbers(answer)
        if answers is None or truths is None:  # words, objects: equal or not
            return float(answer != truth) if self.name == "wrong" else math.nan
        if len(answers) != len(truths) or not len(answers):
            return math.nan
        return float(np.mean(self._apply(answers, truths)))

    def _apply(self, outputs: Array, outcomes: Array) -> Array:
        with np.errstate(all="ignore"):
            found = np.asarray(self.function(outputs, outcomes), np.float64)
        if found.shape != outputs.shape:
            raise UsageError(
                f"the loss {self.name!r} does not give a number for each answer",
                got=f"{found.shape} for {outputs.shape}",
                expected="a function of two arrays that returns one of their length",
            )
        return found


def find_loss(loss: str | LossFunction) -> Loss:
    """A loss by name, or one of the user's own.

    Raises:
        UsageError: there is none of this name.
    """
    if callable(loss):
        return Loss(str(getattr(loss, "__name__", type(loss).__name__)), loss)
    name, _, parameter = str(loss).partition(":")
    if name in LOSSES and not parameter:
        return Loss(name, LOSSES[name])
    if name == "pinball":
        try:
            quantile = float(parameter)
        except ValueError:
            quantile = -1.0
        if 0 < quantile < 1:
            return Loss(loss, _pinball(quantile))
    raise UsageError("there is no such loss", got=repr(loss), expected="one of " + ", ".join([*LOSSES, "pinball:0.9"]))


def _pinball(quantile: float) -> LossFunction:
    def pinball(output: Array, outcome: Array) -> Array:
        short = outcome - output
        return np.maximum(quantile * short, (quantile - 1) * short)

    return pinball


def _numbers(value: Any) -> Array | None:
    """The numbers that a value of JSON is made of; None: it is made of something else."""
    try:
        return np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        return None


def _there(column: Any) -> npt.NDArray[np.bool_]:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False), np.bool_) for chunk in chunks]
    return np.concatenate([np.zeros(0, np.bool_), *parts])
