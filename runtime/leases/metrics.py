"""What counts as metrics: a number, or a mapping of names to numbers; everything else is refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from umbel.scheduler.errors import UsageError

__all__ = ["DEFAULT", "check_has", "named_metrics", "to_metrics"]

#: Stands for the sweep's own metric where a function returns a bare number.
DEFAULT = ""


def to_metrics(result: object) -> dict[str, float]:
    """Metrics as floats by name; a bare number stands under `DEFAULT`.

    Raises:
        UsageError: not a number or a mapping of names to numbers; says what it was.
    """
    if type(result) is float:
        return {DEFAULT: result}
    if isinstance(result, Mapping):
        metrics: dict[str, float] = {}
        for name, value in result.items():
            if not isinstance(name, str) or not name:
                raise UsageError("a metric has no name", got=repr(name), expected="names such as 'mase'")
            metrics[name] = value if type(value) is float else _number(value, f"metric {name!r}")
        return metrics
    return {DEFAULT: _number(result, "the result")}


def named_metrics(result: object, metrics: Sequence[str]) -> dict[str, float]:
    """Like `to_metrics`, with a bare number under the sweep's own metric.

    Raises:
        UsageError: it is no metrics, or a bare number where the sweep is judged by several.
    """
    found = to_metrics(result)
    if DEFAULT not in found:
        return found
    if len(metrics) > 1:
        raise UsageError(
            "the result is one number, and the sweep is judged by several metrics",
            got=repr(found[DEFAULT]),
            expected="a dict with " + ", ".join(map(repr, metrics)),
        )
    return {metrics[0]: found[DEFAULT]}


def _number(value: Any, what: str) -> float:
    if isinstance(value, Real) or (getattr(value, "shape", None) == () and hasattr(value, "item")):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    shown = repr(value)
    raise UsageError(
        f"{what} is not a number",
        got=f"{type(value).__name__}: {shown if len(shown) <= 100 else shown[:100] + '…'}",
        expected="a number, or a dict of numbers by metric name, or umbel.Result(metrics, model=…)",
    )


def check_has(metrics: Mapping[str, float], judged_by: Sequence[str]) -> None:
    """Raise UsageError if a metric that the sweep is judged by is missing."""
    for metric in judged_by:
        if metric not in metrics:
            raise UsageError(
                f"the result lacks the sweep's metric {metric!r}",
                got=", ".join(sorted(metrics)) or "no metrics",
                expected=f"{metric!r} among them",
            )
