"""Which registered model is meant, and what became of what it answered? What `umbel.ab` and `umbel.drift` share.

It must not know what either does with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import UsageError
from umbel.storage.store import Store, open_store

if TYPE_CHECKING:
    from umbel.storage.registry.registered_model import RegisteredModel

__all__ = ["record_outcomes", "registered_model"]


def registered_model(model: str, store: Store | str | None) -> RegisteredModel:
    """A registered model of a store; None: of the store that is used when none is named.

    Raises:
        NotFoundError: there is none of this name.
    """
    return _opened(store).registry.model(model)


def _opened(store: Store | str | None) -> Store:
    from umbel.runtime.driver.run import default_store

    return store if isinstance(store, Store) else open_store(store or default_store())


def record_outcomes(model: str, outcomes: object, *, store: Store | str | None = None) -> int:
    """Record what turned out to be true of requests that a model has answered, or will have.

    Args:
        model: the name of a registered model.
        outcomes: a table (Arrow, pandas, Polars, a dict of columns, a list of dicts) with the columns ``request_id``
            and ``outcome`` (a number, a label, or a list of numbers for an answer of several), and ``time`` (when it
            became known) if wanted. Of several outcomes of one request the first in time counts.
        store: where the model is registered; None: ``$UMBEL_STORE``, else ``./umbel-store``.

    Returns:
        How many were recorded.

    Raises:
        NotFoundError: there is no such model.
        UsageError: a column is missing, or a value can't be an outcome; nothing is recorded then.
        StoreError: the store can't be written.
    """
    from umbel.storage.predictions.log import write_outcomes
    from umbel.storage.registry.input_fields import as_table
    from umbel.storage.values.columns import python_values

    objects = registered_model(model, store).objects
    table = as_table(outcomes)
    missing = {"request_id", "outcome"} - set(table.column_names)
    if missing:
        raise UsageError(
            "outcomes need the columns request_id and outcome",
            got=", ".join(table.column_names) or "no columns",
            hint="missing: " + ", ".join(sorted(missing)),
        )
    ids, values = python_values(table["request_id"]), python_values(table["outcome"])
    times = python_values(table["time"]) if "time" in table.column_names else [None] * len(ids)
    return write_outcomes(objects, model, ids, values, [None if time is None else _seconds(time) for time in times])


def _seconds(time: Any) -> float:
    """A time as seconds since the epoch; one without a zone is UTC."""
    from datetime import UTC, datetime

    if isinstance(time, datetime):
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, (int, float)):
        return float(time)
    raise UsageError("this can't be the time of an outcome", got=repr(time), expected="a datetime, or seconds")
