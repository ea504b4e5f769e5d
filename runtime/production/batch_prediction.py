"""`umbel.predict`: what does a registered model answer to a whole table? A run: a fan-out over the groups.

It must not know how models are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from umbel.runtime.driver.run import run as run_graph
from umbel.runtime.graph.task import Task
from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import as_taken, plain, predict_many
from umbel.storage.registry.predicting import predict as ask
from umbel.storage.runs.graph_record import near_names
from umbel.storage.runs.run import Run
from umbel.storage.store import open_store

__all__ = ["OUTPUTS", "predict"]

#: The column that is added to the table.
OUTPUTS = "outputs"


def predict(
    version: ModelVersion,
    table: Any,
    group: str | Sequence[str] | None = None,
    *,
    inputs: str | None = None,
    trust: bool = False,
    store: str | None = None,
    **options: Any,
) -> Run:
    """Ask the models of all groups of a table, in parallel; the answers are kept as a run.

    Args:
        version: of a registered model.
        table: an Arrow table, or what Arrow makes one of: a pandas frame, a dict of columns.
        group: the column with the groups' names, or one for each group key; None: named as the keys are.
        inputs: a column that holds one request in each row. None: a row's other columns are its inputs. A model that
            takes tables, frames or arrays gets all rows of its group at once and answers one output a row; another one
            gets a dict a row.
        trust: load models that carry code.
        store: where the run is kept, and where workers find the model by what they have in their environment; None:
            the model's store.
        options: of `umbel.run`: ``name``, ``executor``, ``address``, ….

    Returns:
        The run. ``run.value("predict")`` is a list of tables, one a group in the order in which they first come: the
        rows of the group with the column ``outputs``. A group whose model fails is in ``run.failures()``.

    Raises:
        UsageError: there are no such columns or rows; something `umbel.run` refuses.
        NotFoundError: the version lacks groups; they are named.
    """
    rows = _as_table(table)
    columns = [group] if isinstance(group, str) else list(group if group is not None else version.by)
    _check_columns(version, rows, columns, inputs)
    slices = _by_group(version, rows, columns)
    task = Task(_predict_group, name="predict")
    node = task.map(
        list(slices),
        list(slices.values()),
        store=version.url,
        model=version.model,
        number=version.number,
        columns=[columns] * len(slices),
        inputs=inputs,
        trust=trust,
    )
    return run_graph(node, store=store or version.url, **options)


def _predict_group(
    group: str, rows: pa.Table, store: str, model: str, number: int, columns: list[str], inputs: str | None, trust: bool
) -> pa.Table:
    """Ask one group's model for some rows."""
    version = open_store(store).registry.model(model).version(number)
    loaded = version.load(group, trust)
    if inputs is not None:
        answers = predict_many(loaded, [as_taken(each, version.takes) for each in rows[inputs].to_pylist()])
    else:
        features = rows.drop_columns(columns)
        if version.takes == "json":
            answers = predict_many(loaded, features.to_pylist())
        else:
            answers = plain(ask(loaded, _whole(features, version.takes)))
    outputs = plain(answers)
    if not isinstance(outputs, list) or len(outputs) != rows.num_rows:
        got = f"{len(outputs)} outputs" if isinstance(outputs, list) else type(outputs).__name__
        raise UsageError("the model gave another number of outputs", got=got, expected=f"{rows.num_rows}, one a row")
    return rows.append_column(OUTPUTS, pa.array(outputs))


def _whole(features: pa.Table, takes: str) -> Any:
    if takes == "table":
        return features
    return features.to_pandas() if takes == "frame" else features.to_pandas().to_numpy()


def _as_table(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    try:
        if type(table).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(table, preserve_index=False)
        return pa.table(table)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise UsageError("this is no table", got=f"{type(table).__name__}: {error}"[:300]) from error


def _check_columns(version: ModelVersion, rows: pa.Table, columns: list[str], inputs: str | None) -> None:
    for name in [*columns, *([] if inputs is None else [inputs])]:
        if name not in rows.column_names:
            raise UsageError(
                "the table has no such column",
                got=name,
                expected="one of " + ", ".join(rows.column_names),
                hint=near_names(name, rows.column_names),
            )
    if len(columns) not in (1, len(version.by)) or OUTPUTS in rows.column_names:
        raise UsageError(
            "these columns can't be used",
            got=", ".join(rows.column_names),
            expected=f"the group's name, or its keys {', '.join(version.by)}; none that is called {OUTPUTS!r}",
        )
    if not rows.num_rows:
        raise UsageError("the table has no rows", got=0)


def _by_group(version: ModelVersion, rows: pa.Table, columns: list[str]) -> dict[str, pa.Table]:
    """The rows of each group, by its canonical text."""
    names, places = version.groups, {name: at for at, name in enumerate(version.groups)}
    texts: dict[tuple[Any, ...], str] = {}
    missing: list[str] = []
    keys = list(zip(*(rows[name].to_pylist() for name in columns), strict=True))
    for values in dict.fromkeys(keys):
        try:
            named = values[0] if len(values) == 1 else values
            texts[values] = names[find_group(named, version.by, places, repr(version))]
        except NotFoundError:
            missing.append(",".join(map(str, values)))
    if missing:
        raise NotFoundError(
            f"{version!r} lacks groups of the table",
            got=", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else ""),
            hint=near_names(missing[0], names) or "leave their rows out",
        )
    found = pa.array([texts[values] for values in keys], pa.string())
    return {text: rows.filter(pc.equal(found, text)) for text in dict.fromkeys(found.to_pylist())}
